"""Boxes and points of a picture from above and from the side, to scale, as lines for an SVG.

From above: x to the right, z (away from the camera) upwards. From the side, seen from the right:
z to the right, y (down) downwards. The two together tell whether the 3D is right, which the
picture itself cannot.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull, QhullError

from spear_training.annotation.inspection.projection import EDGES
from spear_training.annotation.items import Intrinsics
from spear_training.annotation.records import (
    PICTURE_HEIGHT_PX,
    PICTURE_WIDTH_PX,
    AnnotatedObject,
)

WIDTH_PX, HEIGHT_PX = 420.0, 300.0
_MARGIN_PX = 34.0
_TEXT_PX = 12.0  # nearer to the rim the words would be cut
_MOST_TICKS = 10
_STEPS = (1.0, 2.0, 5.0, 10.0)
# The camera is part of the view if that makes it no wider than this.
_CAMERA_WIDENS = 1.7

Px = tuple[float, float]


@dataclass(frozen=True)
class Shape:
    """One object; pixels of the view.

    Attributes:
        number: of the object in the picture.
        outline: corners of what its box covers.
        lines: the 12 edges, (x1, y1, x2, y2).
        points: the points of its cloud that the record holds.
        label_at: where its number stands.
    """

    number: int
    outline: tuple[Px, ...]
    lines: tuple[tuple[float, float, float, float], ...]
    points: tuple[Px, ...]
    label_at: Px


@dataclass(frozen=True)
class Tick:
    """A line of the grid: where it is along its axis (px), and the length that it stands for."""

    at_px: float
    text: str


@dataclass(frozen=True)
class PlanView:
    """What to draw; pixels from the upper left corner of a view of WIDTH_PX x HEIGHT_PX.

    Attributes:
        title: for people.
        across_name, up_name: of the axes.
        across_ticks, up_ticks: of the grid.
        shapes: one an object.
        camera: where it is; None: outside the view.
        sight: lines from the camera along the edges of the picture.
        px_per_unit: scale.
    """

    title: str
    across_name: str
    up_name: str
    across_ticks: tuple[Tick, ...]
    up_ticks: tuple[Tick, ...]
    shapes: tuple[Shape, ...]
    camera: Px | None
    sight: tuple[tuple[float, float, float, float], ...]
    px_per_unit: float


def view_from_above(
    objects: Sequence[AnnotatedObject], intrinsics: Intrinsics | None
) -> PlanView | None:
    """The view along y; None where there is nothing to see."""
    sight = None
    if intrinsics:
        sides = np.array([-0.5, PICTURE_WIDTH_PX - 0.5]) - intrinsics.cx
        sight = [(side / intrinsics.fx, 1.0) for side in sides]
    return _view(objects, "From above", ("x", "z"), [[1, 0, 0], [0, 0, 1]], sight)


def view_from_the_side(
    objects: Sequence[AnnotatedObject], intrinsics: Intrinsics | None
) -> PlanView | None:
    """The view along -x; None where there is nothing to see."""
    sight = None
    if intrinsics:
        sides = np.array([-0.5, PICTURE_HEIGHT_PX - 0.5]) - intrinsics.cy
        sight = [(1.0, -side / intrinsics.fy) for side in sides]
    return _view(objects, "From the side", ("z", "y"), [[0, 0, 1], [0, -1, 0]], sight)


def nice_step(span: float, most_ticks: int = _MOST_TICKS) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... (or 0.1, ...) that divides a span into so few parts."""
    power = 10.0 ** math.floor(math.log10(span / most_ticks))
    return next(step * power for step in _STEPS if span <= most_ticks * step * power * (1 + 1e-9))


class _Sheet:
    """The plane of a view: from its own coordinates (across, up) to pixels."""

    def __init__(self, places: NDArray):
        low, high = places.min(axis=0), places.max(axis=0)
        with_camera = np.minimum(low, 0), np.maximum(high, 0)
        room = np.array([WIDTH_PX, HEIGHT_PX]) - 2 * _MARGIN_PX
        span = max(((high - low) / room).max(), 1e-9)
        if ((with_camera[1] - with_camera[0]) / room).max() <= _CAMERA_WIDENS * span:
            low, high = with_camera
            span = max(((high - low) / room).max(), 1e-9)
        self.px_per_unit = 1 / span
        self._middle = (low + high) / 2

    def px(self, places: ArrayLike) -> NDArray:
        """Pixels (..., 2) of places (..., 2)."""
        moved = (np.asarray(places) - self._middle) * self.px_per_unit
        return np.array([WIDTH_PX, HEIGHT_PX]) / 2 + moved * np.array([1.0, -1.0])

    def ticks(self, axis: int, sign: int, step: float) -> tuple[Tick, ...]:
        """Lines of the grid along an axis; `sign` is that of the camera's own axis."""
        half = np.array([WIDTH_PX, HEIGHT_PX])[axis] / 2 / self.px_per_unit
        first, last = (math.ceil((self._middle[axis] - half) / step),
                       math.floor((self._middle[axis] + half) / step))  # fmt: skip
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        found = []
        for count in range(first, last + 1):
            place = np.zeros(2)
            place[axis] = count * step
            at_px = _short(self.px(place)[axis])
            if _TEXT_PX <= at_px <= (WIDTH_PX, HEIGHT_PX)[axis] - _TEXT_PX:
                text = f"{sign * count * step + 0.0:.{digits}f}"
                found.append(Tick(at_px, text))
        return tuple(found)


def _view(objects, title, names, axes, sight) -> PlanView | None:
    if not objects:
        return None
    axes = np.array(axes, float).T
    corners = [found.vertices @ axes for found in objects]
    samples = [np.array(found.sample_m, float).reshape(-1, 3) @ axes for found in objects]
    sheet = _Sheet(np.concatenate([*corners, *samples]))
    step = nice_step(max(WIDTH_PX, HEIGHT_PX) / sheet.px_per_unit)
    camera = sheet.px((0.0, 0.0))
    seen = (camera >= 0).all() and (camera <= (WIDTH_PX, HEIGHT_PX)).all()
    far = 2 * (WIDTH_PX + HEIGHT_PX) / sheet.px_per_unit
    reach = far + float(np.abs(np.concatenate(corners)).max())
    return PlanView(
        title,
        *names,
        sheet.ticks(0, 1, step),
        sheet.ticks(1, -1 if names[1] == "y" else 1, step),
        tuple(
            _shape(number, sheet.px(box), sheet.px(cloud))
            for number, (box, cloud) in enumerate(zip(corners, samples, strict=True))
        ),
        _pair(camera) if seen else None,
        tuple((*_pair(camera), *_pair(sheet.px(np.array(way) * reach))) for way in sight or ()),
        sheet.px_per_unit,
    )


def _shape(number: int, corners: NDArray, points: NDArray) -> Shape:
    return Shape(
        number,
        tuple(_pair(corner) for corner in _hull(corners)),
        tuple((*_pair(corners[start]), *_pair(corners[end])) for start, end, _ in EDGES),
        tuple(_pair(point) for point in points),
        _pair(corners.mean(axis=0)),
    )


def _hull(corners: NDArray) -> NDArray:
    try:
        return corners[ConvexHull(corners).vertices]
    except (QhullError, ValueError):  # a box seen along its plane
        return corners[[0, 7]]


def _pair(place: NDArray) -> Px:
    return _short(place[0]), _short(place[1])


def _short(number: float) -> float:
    return round(float(number), 1)
