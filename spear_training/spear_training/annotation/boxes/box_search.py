"""The orientation of the smallest box around a cloud that shows only its near side.

As for all such searches, a box is tried that lies flush with each face of the convex hull and with
an edge of that face. Two things are peculiar to clouds from pictures:

- A ball's cloud of 10,000 points has a hull of 20,000 faces, so the faces tried are those of the
  hull of a few hundred points, the outermost ones in directions all around. The size of the box
  still comes from all points.
- A camera that sees two faces of a carton sees half of it, and the box flush with the cut from
  edge to edge is exactly as large as the carton: noise alone would choose. So among the boxes
  that are hardly larger than the smallest, the one is taken on whose faces the points lie.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

OUTERMOST = 256
# Larger than the smallest by this share counts as equal; and so many of these are compared.
EQUAL_VOLUME = 0.1
MOST_COMPARED = 400
POINTS_COMPARED = 400


def best_axes(points_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axes (3, 3), columns, right-handed, of a smallest box around points (P, 3).

    Args:
        points_m: around the origin, along their principal axes; neither on a line nor in a plane.

    Raises:
        scipy.spatial.QhullError: they are too nearly in a plane for a convex hull.
    """
    hull = outermost_points(points_m)
    frames = _flush_frames(hull)
    volumes = np.prod([np.ptp(hull @ frames[:, i].T, axis=0) for i in range(3)], axis=0)
    order = np.argsort(volumes, kind="stable")
    equal = order[volumes[order] <= (1 + EQUAL_VOLUME) * volumes[order[0]]][:MOST_COMPARED]
    some = np.linspace(0, len(points_m) - 1, min(POINTS_COMPARED, len(points_m))).astype(int)
    off_faces = _mean_distance_from_faces(points_m[some], hull, frames[equal])
    return frames[equal[np.argmin(off_faces)]].T


def outermost_points(points_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners of a convex hull of the outermost points in `OUTERMOST` directions.

    The directions are evenly spread for a cloud that is stretched to equal length along its axes,
    so that a thin one has points at its rim and on both sides.
    """
    round_m = points_m / np.ptp(points_m, axis=0)
    chosen = np.unique(np.argmax(_DIRECTIONS @ round_m.T, axis=1))
    found = points_m[chosen] if len(chosen) > 3 else points_m
    return found[ConvexHull(found).vertices]


def _directions(count):
    """Unit vectors (count, 3) on a spiral around the sphere, the golden angle apart."""
    step = np.arange(count) + 0.5
    height = 1 - 2 * step / count
    turn = np.pi * (1 + 5**0.5) * step
    radius = np.sqrt(1 - height**2)
    return np.column_stack([radius * np.cos(turn), radius * np.sin(turn), height])


_DIRECTIONS = _directions(OUTERMOST)


def _flush_frames(hull):
    """Frames (N, 3, 3) whose rows are an edge of a face, the face's normal, and their normal."""
    faces = ConvexHull(hull)
    corners = hull[faces.simplices]
    edges = (corners[:, [1, 2, 0]] - corners).reshape(-1, 3)
    normals = np.repeat(faces.equations[:, :3], 3, axis=0)
    first = edges / np.linalg.norm(edges, axis=1, keepdims=True)
    second = np.cross(normals, first)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=1)


def _mean_distance_from_faces(points, hull, frames):
    """Mean distance (N,) of points from the nearest face of the box around a hull in each frame."""
    turns = frames.reshape(-1, 3).T
    sides, seen = hull @ turns, points @ turns
    nearest = np.minimum(seen - sides.min(axis=0), sides.max(axis=0) - seen)
    return nearest.reshape(len(points), len(frames), 3).min(axis=2).mean(axis=0)
