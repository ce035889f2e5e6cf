"""How much two oriented boxes have in common: intersection over union, exactly."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from spear_training.annotation.boxes.vertex_order import CORNER_SIDES, edges_of

# Pairs of corners, of boxes in canonical order, that have an edge between them.
_EDGES = np.array([(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit])

_ROUNDING = 1e-9


def box_iou(vertices_a_m: NDArray[np.float64], vertices_b_m: NDArray[np.float64]) -> float:
    """Volume of the intersection over that of the union, 0..1.

    The corners of the intersection are the ends of either box's edges, as far as these lie in the
    other box; its volume is that of their convex hull.

    Args:
        vertices_a_m, vertices_b_m: (8, 3) each, in the order of `boxes.vertex_order`.

    Raises:
        ValueError: a box has no volume.
    """
    a, b = np.asarray(vertices_a_m, float), np.asarray(vertices_b_m, float)
    volume_a, volume_b = box_volume_m3(a), box_volume_m3(b)
    if not (volume_a > 0 and volume_b > 0):
        raise ValueError("a box without volume has no IoU")
    # In the frame of b, where b is the cube from -1 to 1, sizes and distances are near 1.
    middle, half_edges = b.mean(axis=0), edges_of(b) / 2
    a_seen = np.linalg.solve(half_edges.T, (a - middle).T).T
    corners = np.vstack([_edges_in_cube(a_seen), _cube_edges_in(a_seen)])
    if len(corners) < 4:
        return 0.0
    try:
        common = ConvexHull(corners).volume * volume_b / 8
    except QhullError:  # the boxes touch and have no volume in common
        return 0.0
    common = min(common, volume_a, volume_b)
    return float(common / (volume_a + volume_b - common))


def box_volume_m3(vertices_m: NDArray[np.float64]) -> float:
    """Volume of a box (8, 3) in canonical order."""
    return float(abs(np.linalg.det(edges_of(np.asarray(vertices_m, float)))))


def _edges_in_cube(vertices):
    """Ends of the parts of a box's edges that lie in the cube from -1 to 1, (N, 3)."""
    start, along = vertices[_EDGES[:, 0]], np.diff(vertices[_EDGES], axis=1)[:, 0]
    # An edge in a side of the cube counts as inside, whatever rounding makes of it.
    sides = np.array([[[-1.0]], [[1.0]]]) * (1 + _ROUNDING)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.sort((sides - start) / along, axis=0)
    near, far = reach[0].max(axis=1), reach[1].min(axis=1)
    near, far = np.maximum(near, 0), np.minimum(far, 1)
    found = near <= far
    start, along, near, far = (part[found] for part in (start, along, near, far))
    return np.vstack([start + near[:, None] * along, start + far[:, None] * along])


def _cube_edges_in(vertices):
    """Ends of the parts of the cube's edges that lie in a box, (N, 3), in the cube's frame."""
    middle, half_edges = vertices.mean(axis=0), edges_of(vertices) / 2
    seen = np.linalg.solve(half_edges.T, (CORNER_SIDES - middle).T).T
    return middle + _edges_in_cube(seen) @ half_edges
