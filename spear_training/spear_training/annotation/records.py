"""Items, the pictures to annotate, and records, their stored annotations.

Both are lines of JSON, one a picture. First the items and where they come from, then the records,
last their masks.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco

PICTURE_WIDTH_PX, PICTURE_HEIGHT_PX = 840, 630
STATUSES = ("ok", "empty", "failed")
PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .avif .heic .heif .bmp .tif .tiff .gif".split()
)
_DECIMALS_M = 5  # a hundredth of a millimetre

Triple = tuple[float, float, float]


class RecordError(ValueError):
    """An item, a record, a mask or a video cannot be read; says which, and what about it."""


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
        mask: COCO's, in any of its forms; see `decode_mask`.
        crowd: whether it is several objects, so that none of its kind is the only one.
    """

    label: str
    box_xyxy_px: tuple[float, float, float, float] | None = None
    mask: dict | list | None = None
    crowd: bool = False


@dataclass(frozen=True)
class GivenDepth:
    """A depth picture, 16 bit grey, 0 where nothing was measured.

    Attributes:
        path: of the PNG.
        units_per_m: 1000 for millimetres, 5000 for the TUM dataset.
    """

    path: str
    units_per_m: float


@dataclass(frozen=True)
class Item:
    """One picture to annotate, a line of a list.

    Only `id` and `image` must be there:

        {"id": "take_3/000120", "image": "frames/000120.jpg", "native_aspect": 1.333,
         "objects": [{"label": "bowl", "box_xyxy_px": [12, 40, 90, 130],
                      "mask": {"size": [480, 640], "counts": "..."}}],
         "depth": {"path": "depth/000120.png", "units_per_m": 5000},
         "intrinsics": {"fx": 535.4, "fy": 539.2, "cx": 320.1, "cy": 247.6}}

    Paths are relative to the file's folder. All pixels are those of the picture as stored, before
    its EXIF turns it, or all are those of the upright one: "upright": true, or --upright for the
    whole list. Boxes run from edge to edge (a whole picture is 0, 0, width, height), intrinsics
    count pixel centres (the top left one is 0, 0), a mask is COCO's run-length encoding or a list
    of polygons. In place of box_xyxy_px, mask and crowd, an object may have COCO's bbox (left,
    top, width, height), segmentation and iscrowd.

    Attributes:
        id: unique in its list; names the picture in every record and report.
        image: path of the picture.
        objects: what is in it, for the stages named `given`; None: nobody has looked.
        depth: for the stage `depth`.
        intrinsics: of the camera, for the stage `depth`.
        native_aspect: width over height before the picture was squashed; None: square pixels.
        upright: whether what is given belongs to the picture as its EXIF turns it.
        size_px: width and height of the picture that the objects were marked in, to be checked.
    """

    id: str
    image: str
    objects: tuple[GivenObject, ...] | None = None
    depth: GivenDepth | None = None
    intrinsics: Intrinsics | None = None
    native_aspect: float | None = None
    upright: bool = False
    size_px: tuple[int, int] | None = None

    def to_json(self) -> str:
        """One line of a list, without what is not known."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        if not self.upright:
            del values["upright"]
        if self.objects is not None:
            values["objects"] = [
                {key: value for key, value in found.items() if value not in (None, False)}
                for found in values["objects"]
            ]
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> "Item":
        """Read what `to_json` wrote.

        Raises:
            RecordError: it is no JSON, or something is missing, unknown or of the wrong type.
        """
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise TypeError("a line must be one JSON object")
            objects = values.pop("objects", None)
            depth, camera = values.pop("depth", None), values.pop("intrinsics", None)
            if (size := values.pop("size_px", None)) is not None:
                width, height = size
                values["size_px"] = (int(width), int(height))
            item = cls(
                objects=None
                if objects is None
                else tuple(given_object(found) for found in objects),
                depth=depth and GivenDepth(str(depth["path"]), float(depth["units_per_m"])),
                intrinsics=None if camera is None else _given_intrinsics(camera),
                **values,
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            said = f"{error} is missing" if isinstance(error, KeyError) else error
            raise RecordError(f"no item: {said}; annotation/records.py shows one") from None
        for name in ("id", "image"):
            if not isinstance(getattr(item, name), str) or not getattr(item, name):
                raise RecordError(f"{name} must be words that are not empty")
        if not isinstance(item.upright, bool):
            raise RecordError(f"upright is {item.upright!r}; it must be true or false")
        return item


def read_items(path: Path) -> list[Item]:
    """Read a list of items; blank lines do not count.

    Raises:
        RecordError: a line is no item, two items have one id, or there is none.
        OSError: the file cannot be read.
    """
    items: dict[str, Item] = {}
    with path.open("rb") as file:  # bytes: a name may hold what text mode takes for a line's end
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                item = Item.from_json(line.decode("utf-8"))
            except (RecordError, UnicodeDecodeError) as error:
                raise RecordError(f"{path}, line {number}: {error}") from None
            if item.id in items:
                raise RecordError(f"{path}, line {number}: the id {item.id!r} is there twice")
            items[item.id] = item
    if not items:
        raise RecordError(f"{path} has no items: write one line a picture")
    return list(items.values())


def _given_intrinsics(values: Any) -> Intrinsics:
    names = [each.name for each in fields(Intrinsics)]
    if not isinstance(values, dict) or set(values) != set(names):
        raise TypeError(
            f"intrinsics are {str(values)[:80]}; they must be {', '.join(names)} by name, in "
            "pixels, of a picture without distortion"
        )
    return Intrinsics(**{name: float(value) for name, value in values.items()})


def _four_numbers(label: str, name: str, box: Any) -> tuple[float, ...]:
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        raise TypeError(
            f"{name} of {label!r} is {str(box)[:80]}; it must be a list of four numbers"
        )
    return tuple(float(side) for side in box)


_COCO_NAMES = {"bbox": "box_xyxy_px", "segmentation": "mask", "iscrowd": "crowd"}


def given_object(values: dict) -> GivenObject:
    """Read an object of an item; COCO's names are understood, too.

    Raises:
        TypeError, ValueError, KeyError: something is missing, unknown or of the wrong type, or the
            box ends before it begins.
    """
    values = dict(values)
    label = str(values.pop("label"))
    if (box := values.pop("bbox", None)) is not None:
        left, top, width, height = _four_numbers(label, "bbox", box)
        values = {**values, "bbox": (left, top, left + width, top + height)}
    for theirs, ours in _COCO_NAMES.items():
        if theirs in values:
            if ours in values:
                raise TypeError(f"an object has {theirs} or {ours}, not both")
            values[ours] = values.pop(theirs)
    if unknown := set(values) - set(_COCO_NAMES.values()):
        raise TypeError(f"an object has no {', '.join(sorted(unknown))}")
    if (box := values.get("box_xyxy_px")) is not None:
        corners = values["box_xyxy_px"] = _four_numbers(label, "box_xyxy_px", box)
        left, top, right, bottom = corners
        if right < left or bottom < top:
            raise ValueError(
                f"the box of {label!r} ends before it begins ({left:g}, {top:g}, {right:g}, "
                f"{bottom:g}): box_xyxy_px is left, top, right, bottom, and bbox left, top, "
                "width, height"
            )
    mask = values["mask"] = None if values.get("mask") == [] else values.get("mask")
    if mask is not None and not isinstance(mask, list) and not {"size", "counts"} <= set(mask):
        raise TypeError("a mask needs size and counts")
    values["crowd"] = bool(values.get("crowd"))
    return GivenObject(label, **values)


class LeftOut(Counter):
    """How many files of a folder are no pictures to annotate, by suffix; in words as `str`."""

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.items()))
        return f"left out: {kinds}"


def photograph_items(
    folder: Path, but_not: Path | None = None, left_out: LeftOut | None = None
) -> list[Item]:
    """List the pictures of a folder and its folders.

    The id of a picture is its path below the folder, with "/". Hidden files and folders (their
    name begins with a point) do not count; links count as what they lead to. The order is that
    of the ids' characters, the same on every machine.

    Args:
        but_not: a folder that is left out: where the results go.
        left_out: counts what else is there.

    Raises:
        RecordError: there is no such folder, no picture in it, or a name that is no text.
    """
    if not folder.is_dir():
        raise RecordError(f"{folder} is no folder; name one with pictures")
    left_out = LeftOut() if left_out is None else left_out
    found = _pictures(folder, but_not and but_not.resolve(), frozenset(), left_out)
    names = sorted(path.relative_to(folder).as_posix() for path in found)
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise RecordError(f"{folder}: the name {name!r} is not in UTF-8; rename it") from None
    if not names:
        known = f"{folder} has no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})"
        raise RecordError(f"{known}; {left_out}" if left_out else known)
    return [Item(name, name) for name in names]


def _pictures(
    folder: Path, but_not: Path | None, above: frozenset[Path], left_out: LeftOut
) -> Iterator[Path]:
    here = folder.resolve()
    if here == but_not or here in above:  # a link to a folder above would never end
        return
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise RecordError(f"{folder} cannot be read ({error.strerror})") from None
    for entry in entries:
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith("."):
            left_out["hidden"] += 1
        elif entry.is_dir():
            yield from _pictures(Path(entry.path), but_not, above | {here}, left_out)
        elif suffix in PICTURE_SUFFIXES:
            yield Path(entry.path)
        else:
            left_out[suffix or "without suffix"] += 1


# Records ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnnotatedObject:
    """One object of a picture, the only one of its kind in it.

    Attributes:
        label: in words, small letters.
        box_xyxy_px: left, top, right, bottom, edge to edge.
        mask: COCO RLE of the picture's size.
        score: of the detector, 0..1; None where it gives none.
        cloud_size: points that the box was fitted to.
        closest_m, furthest_m: points of the cloud nearest to the camera and furthest from it.
        vertices_m: 8 corners of the oriented box in the order of `boxes.ordered_vertices`.
        sample_m: points of the cloud, drawn evenly, for fitting the bins and for questions.
    """

    label: str
    box_xyxy_px: tuple[float, float, float, float]
    mask: dict
    score: float | None
    cloud_size: int
    closest_m: Triple
    furthest_m: Triple
    vertices_m: tuple[Triple, ...]
    sample_m: tuple[Triple, ...]

    @property
    def vertices(self) -> NDArray[np.float64]:
        """Corners (8, 3) of the oriented box."""
        return np.array(self.vertices_m)

    @property
    def centre_m(self) -> NDArray[np.float64]:
        """Centre (3,) of the oriented box."""
        return self.vertices.mean(axis=0)


@dataclass(frozen=True)
class Dropped:
    """An object that was found and not used, and why."""

    label: str
    reason: str


@dataclass(frozen=True)
class Annotation:
    """What is known about one picture.

    Everything is in the picture of 840x630 that the stages worked on, and in that camera's frame
    (x right, y down, z forward). `spear_policy.inference.image_geometry` makes the same picture,
    and the model's of 280x210, from the file that `image` names; so the model sees what was
    annotated.

    Attributes:
        id, image: the item's.
        native_aspect: the item's, of the upright picture.
        status: ok; empty: no object is left, see `dropped` and `reason`; failed: see `reason`.
        reason: in words, unless ok.
        metric: whether lengths are metres, or the depth model's own unit.
        intrinsics: of the picture; None where they are not known.
        objects: each the only one of its kind.
        pixel_points: (u, v, x, y, z) of random pixels: centres (px), then the point seen there.
        dropped: what was found and not used.
        seconds: that each stage took, by its name.
    """

    id: str
    image: str
    status: Literal["ok", "empty", "failed"]
    native_aspect: float | None = None
    reason: str | None = None
    metric: bool = True
    intrinsics: Intrinsics | None = None
    objects: tuple[AnnotatedObject, ...] = ()
    pixel_points: tuple[tuple[float, ...], ...] = ()
    dropped: tuple[Dropped, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line; lengths in hundredths of a millimetre.

        Raises:
            ValueError: a number is not finite.
        """
        return json.dumps(_rounded(asdict(self)), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "Annotation":
        """Read what `to_json` wrote.

        Raises:
            RecordError: it is no annotation.
        """
        try:
            values = json.loads(line)
            camera = values.pop("intrinsics")
            values.pop("gaps_m", None)  # between boxes, in records of older versions
            annotation = cls(
                intrinsics=camera and Intrinsics(**camera),
                objects=tuple(_annotated_object(found) for found in values.pop("objects")),
                pixel_points=tuple(tuple(point) for point in values.pop("pixel_points")),
                dropped=tuple(Dropped(**drop) for drop in values.pop("dropped")),
                **values,
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RecordError(f"no annotation ({type(error).__name__}: {error})") from None
        if annotation.status not in STATUSES:
            raise RecordError(f"no annotation: its status is {annotation.status!r}")
        return annotation


def _annotated_object(values: dict) -> AnnotatedObject:
    values = dict(values)
    for name in ("box_xyxy_px", "closest_m", "furthest_m"):
        values[name] = tuple(values[name])
    for name in ("vertices_m", "sample_m"):
        values[name] = tuple(tuple(point) for point in values[name])
    if len(values["vertices_m"]) != 8:
        raise ValueError(f"{values['label']!r} has {len(values['vertices_m'])} vertices, not 8")
    return AnnotatedObject(**values)


def _rounded(value):
    if isinstance(value, float):
        return round(value, _DECIMALS_M)
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return value


# Masks as COCO stores them: compressed run lengths, columns first ---------------------------------


def encode_mask(mask: NDArray[np.bool_]) -> dict:
    """Plain values for JSON: `size` [height, width] and `counts`, of a mask (H, W)."""
    stored = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in stored["size"]], "counts": stored["counts"].decode()}


def decode_mask(stored: dict | list, size_px: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """Read a mask (H, W) that `encode_mask`, or COCO's own code, wrote.

    Args:
        stored: a run-length encoding with `size` [height, width] and `counts`, compressed (words)
            or not (numbers), or a list of polygons [x, y, x, y, ...] in pixels, edge to edge.
        size_px: width and height of the picture, which polygons need.

    Raises:
        RecordError: the runs do not fill the size, a polygon is none, or there is none.
    """
    try:
        if isinstance(stored, list):
            return _polygons(stored, size_px)
        height, width = (int(side) for side in stored["size"])
        if isinstance(stored["counts"], list):
            return _runs(stored["counts"], height, width)
        counts = stored["counts"].encode("ascii")
        found = coco.decode({"size": [height, width], "counts": counts})
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RecordError(f"the mask is damaged ({type(error).__name__}: {error})") from None
    # pycocotools leaves what a cut mask does not reach as it found the memory.
    if found.max(initial=0) > 1 or coco.encode(found)["counts"] != counts:
        raise RecordError(f"the mask is damaged: its runs do not fill {width}x{height} pixels")
    return found.astype(bool)


def _runs(counts: list, height: int, width: int) -> NDArray[np.bool_]:
    lengths = np.array(counts)
    if lengths.dtype.kind not in "iu" or (lengths < 0).any() or lengths.sum() != height * width:
        raise RecordError(f"the mask is damaged: its runs do not fill {width}x{height} pixels")
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape(width, height).T


def _polygons(polygons: list, size_px: tuple[int, int] | None) -> NDArray[np.bool_]:
    if size_px is None:
        raise RecordError("a mask of polygons needs the picture's size")
    width, height = size_px
    for polygon in polygons:
        corners = np.array(polygon, float)
        if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2:
            raise RecordError("the mask has a polygon that is not x, y of 3 corners or more")
        far = np.abs(corners.reshape(-1, 2)).max(axis=0)
        if not (far <= (2 * width, 2 * height)).all():
            raise RecordError(
                f"the mask has a polygon that reaches {far[0]:g}, {far[1]:g} in a picture of "
                f"{width}x{height}"
            )
    runs = coco.frPyObjects([list(map(float, one)) for one in polygons], height, width)
    return coco.decode(coco.merge(runs)).astype(bool)
