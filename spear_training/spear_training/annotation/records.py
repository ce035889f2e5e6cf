"""The annotation of one picture, as it is stored: one JSON line, numbers ready for questions.

Everything is in the picture of 840x630 that the stages worked on, and in that camera's frame
(x right, y down, z forward). `spear_policy.inference.image_geometry` makes the same picture, and
the model's of 280x210, from the file that `image` names; so the model sees what was annotated.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.items import Intrinsics

PICTURE_WIDTH_PX, PICTURE_HEIGHT_PX = 840, 630
STATUSES = ("ok", "empty", "failed")
_DECIMALS_M = 5  # a hundredth of a millimetre

Triple = tuple[float, float, float]


class RecordError(ValueError):
    """A stored annotation cannot be read; says what about it."""


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
        vertices_m: 8 corners of the oriented box in the order of `boxes.vertex_order`.
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

    Attributes:
        id, image, native_aspect: the item's.
        status: ok; empty: no object is left, see `dropped` and `reason`; failed: see `reason`.
        reason: in words, unless ok.
        metric: whether lengths are metres, or the depth model's own unit.
        intrinsics: of the picture; None where they are not known.
        objects: each the only one of its kind.
        gaps_m: (i, j, xyz) from the closest point of box i to that of box j, i < j.
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
    gaps_m: tuple[tuple[int, int, Triple], ...] = ()
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
            annotation = cls(
                intrinsics=camera and Intrinsics(**camera),
                objects=tuple(_object(found) for found in values.pop("objects")),
                gaps_m=tuple((i, j, tuple(xyz)) for i, j, xyz in values.pop("gaps_m")),
                pixel_points=tuple(tuple(point) for point in values.pop("pixel_points")),
                dropped=tuple(Dropped(**drop) for drop in values.pop("dropped")),
                **values,
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RecordError(f"no annotation ({type(error).__name__}: {error})") from None
        if annotation.status not in STATUSES:
            raise RecordError(f"no annotation: its status is {annotation.status!r}")
        return annotation


def _object(values: dict) -> AnnotatedObject:
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
