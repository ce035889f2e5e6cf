"""What is to be annotated: one item a picture, and what is already known about it.

A list of items is a file of JSON lines. Only `id` and `image` must be there:

    {"id": "take_3/000120", "image": "frames/000120.jpg", "native_aspect": 1.333,
     "objects": [{"label": "bowl", "box_xyxy_px": [12, 40, 90, 130],
                  "mask": {"size": [480, 640], "counts": "..."}}],
     "depth": {"path": "depth/000120.png", "units_per_m": 5000},
     "intrinsics": {"fx": 535.4, "fy": 539.2, "cx": 320.1, "cy": 247.6}}

Paths are relative to the file's folder. All pixels are those of the picture as stored: boxes run
from edge to edge (a whole picture is 0, 0, width, height), intrinsics count pixel centres (the
top left one is 0, 0), a mask is COCO's compressed run-length encoding.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray


class ItemError(ValueError):
    """A list of items cannot be read; says the file, the line and the mend."""


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera in pixels; (0, 0) is the centre of the top left pixel."""

    fx: float
    fy: float
    cx: float
    cy: float

    def project(self, points_m: ArrayLike) -> NDArray[np.float64]:
        """Pixels (..., 2) of points (..., 3) in the camera's frame, all of them in front of it."""
        x, y, z = np.moveaxis(np.asarray(points_m, float), -1, 0)
        return np.stack([self.fx * x / z + self.cx, self.fy * y / z + self.cy], axis=-1)


@dataclass(frozen=True)
class GivenObject:
    """An object that somebody else has found; the job's checks still apply to it.

    Attributes:
        label: what it is, in words.
        box_xyxy_px: left, top, right, bottom; None: the mask's.
        mask: COCO RLE with `size` [height, width] and `counts`.
    """

    label: str
    box_xyxy_px: tuple[float, float, float, float] | None = None
    mask: dict | None = None


@dataclass(frozen=True)
class GivenDepth:
    """A depth picture, 16 bit grey, 0 where nothing was measured.

    Attributes:
        path: of the PNG.
        units_per_m: 1000 for millimetres, 5000 for the TUM data set.
    """

    path: str
    units_per_m: float


@dataclass(frozen=True)
class Item:
    """One picture to annotate.

    Attributes:
        id: unique in its list; names the picture in every record and report.
        image: path of the picture.
        objects: what is in it, for the stages named `given`; None: nobody has looked.
        depth: for the stage `depth`.
        intrinsics: of the camera, for the stage `depth`.
        native_aspect: width over height before the picture was squashed; None: square pixels.
    """

    id: str
    image: str
    objects: tuple[GivenObject, ...] | None = None
    depth: GivenDepth | None = None
    intrinsics: Intrinsics | None = None
    native_aspect: float | None = None

    def to_json(self) -> str:
        """One line of a list, without what is not known."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        if self.objects is not None:
            values["objects"] = [
                {key: value for key, value in found.items() if value is not None}
                for found in values["objects"]
            ]
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> "Item":
        """Read what `to_json` wrote.

        Raises:
            ItemError: it is no JSON, or something is missing, unknown or of the wrong type.
        """
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise TypeError("a line must be one JSON object")
            objects = values.pop("objects", None)
            depth, camera = values.pop("depth", None), values.pop("intrinsics", None)
            item = cls(
                objects=None if objects is None else tuple(_object(found) for found in objects),
                depth=depth and GivenDepth(str(depth["path"]), float(depth["units_per_m"])),
                intrinsics=camera and Intrinsics(**{k: float(v) for k, v in camera.items()}),
                **values,
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            said = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ItemError(f"no item: {said}; annotation/items.py shows one") from None
        for name in ("id", "image"):
            if not isinstance(getattr(item, name), str) or not getattr(item, name):
                raise ItemError(f"{name} must be words that are not empty")
        return item


def read_items(path: Path) -> list[Item]:
    """Read a list of items; blank lines do not count.

    Raises:
        ItemError: a line is no item, two items have one id, or there is none.
        OSError: the file cannot be read.
    """
    items: dict[str, Item] = {}
    with path.open("rb") as file:  # bytes: a name may hold what text mode takes for a line's end
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                item = Item.from_json(line.decode("utf-8"))
            except (ItemError, UnicodeDecodeError) as error:
                raise ItemError(f"{path}, line {number}: {error}") from None
            if item.id in items:
                raise ItemError(f"{path}, line {number}: the id {item.id!r} is there twice")
            items[item.id] = item
    if not items:
        raise ItemError(f"{path} has no items: write one line a picture")
    return list(items.values())


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Write a list beside, then rename, so that it is whole or not there."""
    beside = path.with_name(path.name + ".partial")
    with beside.open("w", encoding="utf-8") as file:
        file.writelines(item.to_json() + "\n" for item in items)
    beside.replace(path)


def _object(values: dict) -> GivenObject:
    box = values.get("box_xyxy_px")
    if box is not None:
        left, top, right, bottom = (float(side) for side in box)
        box = (left, top, right, bottom)
    mask = values.get("mask")
    if mask is not None and not {"size", "counts"} <= set(mask):
        raise TypeError("a mask needs size and counts")
    if unknown := set(values) - {"label", "box_xyxy_px", "mask"}:
        raise TypeError(f"an object has no {', '.join(sorted(unknown))}")
    return GivenObject(str(values["label"]), box, mask)
