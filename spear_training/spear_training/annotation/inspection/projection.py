"""Points and oriented boxes of the camera frame, brought into the picture.

Boxes have their corners in the order of `boxes.vertex_order`: corner 4*sx + 2*sy + sz, where s is
0 on the negative and 1 on the positive side of that axis.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_training.annotation.boxes.vertex_order import edges_of
from spear_training.annotation.items import Intrinsics

# Corners are neighbours where their numbers differ in one bit; x is the highest bit.
_BIT_OF_AXIS = (4, 2, 1)
EDGES = tuple(
    (corner, corner | bit, axis)
    for axis, bit in enumerate(_BIT_OF_AXIS)
    for corner in range(8)
    if not corner & bit
)
# Nearer than this share of the larger distance of an edge's ends, nothing has a place in a picture.
_IN_FRONT = 1e-6


class Edge(NamedTuple):
    """An edge of a box.

    Attributes:
        start, end: numbers of its corners.
        axis: 0, 1 or 2: it runs along the box's x, y or z axis.
        hidden: whether the box itself is between it and the camera.
    """

    start: int
    end: int
    axis: int
    hidden: bool


@dataclass(frozen=True)
class Line:
    """The part of an edge that the picture shows; pixels, (u, v), (0, 0) a pixel's centre."""

    edge: Edge
    start_px: tuple[float, float]
    end_px: tuple[float, float]


def project(points_m: ArrayLike, intrinsics: Intrinsics) -> NDArray[np.float64]:
    """Where points appear: (..., 3) in the camera frame to (..., 2) pixels u, v.

    (0, 0) is the centre of the top left pixel; NaN for what is not in front of the camera.
    """
    points = np.asarray(points_m, np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(points[..., 2:] > 0, intrinsics.project(points), np.nan)


def is_shown(pixels: NDArray, width_px: int, height_px: int) -> NDArray[np.bool_]:
    """Which of (..., 2) pixels lie in a picture; those that are NaN do not."""
    u, v = np.moveaxis(np.asarray(pixels), -1, 0)
    return (u >= -0.5) & (u <= width_px - 0.5) & (v >= -0.5) & (v <= height_px - 0.5)


def edges(vertices_m: NDArray) -> list[Edge]:
    """The 12 edges of a box (8, 3), as a camera at the origin sees them."""
    faces = visible_faces(vertices_m)
    found = []
    for start, end, axis in EDGES:
        beside = [(other, bool(start & _BIT_OF_AXIS[other])) for other in range(3) if other != axis]
        found.append(Edge(start, end, axis, not any(face in faces for face in beside)))
    return found


def visible_faces(vertices_m: NDArray) -> set[tuple[int, bool]]:
    """Faces of a box that look towards the origin: (axis, whether on its positive side).

    None, if the origin is inside.
    """
    centre, faces = vertices_m.mean(axis=0), set()
    for axis, edge in enumerate(edges_of(vertices_m)):
        for positive in (False, True):
            outwards = edge if positive else -edge
            if outwards @ (centre + outwards / 2) < 0:
                faces.add((axis, positive))
    return faces


def box_lines(
    vertices_m: NDArray, intrinsics: Intrinsics, width_px: int, height_px: int
) -> list[Line]:
    """The edges of a box, each cut to what the picture shows of it.

    Args:
        vertices_m: (8, 3); corners may be behind the camera or outside the picture.
        intrinsics: of the picture.
        width_px: of the picture.
        height_px: of the picture.

    Returns:
        Hidden ones first, so that others are drawn over them; edges outside are left out.
    """
    lines = []
    for edge in sorted(edges(vertices_m), key=lambda edge: not edge.hidden):
        part = _in_view(vertices_m[[edge.start, edge.end]], intrinsics, width_px, height_px)
        if part is not None:
            start, end = project(part, intrinsics).tolist()
            lines.append(Line(edge, tuple(start), tuple(end)))
    return lines


def _in_view(ends_m, intrinsics, width_px, height_px):
    """The part (2, 3) of a line between two points that lies in the view; None: nothing of it."""
    left, right = -0.5 - intrinsics.cx, width_px - 0.5 - intrinsics.cx
    top, bottom = -0.5 - intrinsics.cy, height_px - 0.5 - intrinsics.cy
    # A point is in view where all of these are positive. They bound the view in space, where
    # nothing is divided by a distance that may be zero.
    planes = np.array(
        [
            [intrinsics.fx, 0.0, -left],
            [-intrinsics.fx, 0.0, right],
            [0.0, intrinsics.fy, -top],
            [0.0, -intrinsics.fy, bottom],
            [0.0, 0.0, 1.0],
        ]
    )
    least = np.zeros((5, 1))
    least[4] = _IN_FRONT * np.abs(ends_m).max()
    at_start, at_end = (planes @ ends_m.T - least).T
    if not np.isfinite([at_start, at_end]).all() or (np.maximum(at_start, at_end) <= 0).any():
        return None
    change = at_end - at_start
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = -at_start / change
    first = crossing[at_start < 0].max(initial=0.0)
    last = crossing[at_end < 0].min(initial=1.0)
    if first >= last:
        return None
    start, end = ends_m
    return np.array([start + first * (end - start), start + last * (end - start)])
