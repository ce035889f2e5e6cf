"""The shortest way from one oriented box to another."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from spear_training.annotation.boxes.vertex_order import edges_of

_TOUCHING = 1e-9  # of the boxes' distance and size: what is left of zero


def box_gap_m(
    vertices_a_m: NDArray[np.float64], vertices_b_m: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Vector (3,) from the closest point of box a to that of box b; zeros where they intersect.

    Between parallel faces many pairs of points are equally close; the vector is one and the same.
    A point of a box is its centre and -1..1 times each half edge, so the six numbers of the two
    points are found by bounded least squares, exactly but for rounding.

    Args:
        vertices_a_m, vertices_b_m: (8, 3) each, in the order of `vertex_order`.
    """
    a, b = np.asarray(vertices_a_m, float), np.asarray(vertices_b_m, float)
    between = b.mean(axis=0) - a.mean(axis=0)
    reach = np.hstack([edges_of(b).T, -edges_of(a).T]) / 2
    size = np.abs(between).max() + np.abs(reach).max()
    if size == 0:
        return np.zeros(3)
    # In units of the size, so that one tolerance fits cups and rooms.
    found = lsq_linear(
        reach / size, -between / size, bounds=(-1, 1), method="bvls", tol=1e-15, max_iter=1000
    )
    gap = between + reach @ found.x
    return gap if np.linalg.norm(gap) > _TOUCHING * size else np.zeros(3)
