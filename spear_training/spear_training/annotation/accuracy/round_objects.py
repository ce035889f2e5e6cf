"""Boxes of objects that look the same from all sides: their true box may be turned."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.spatial.transform import Rotation

from spear_training.annotation.accuracy.box_iou import box_iou
from spear_training.annotation.boxes.vertex_order import CORNER_SIDES, edges_of

_STEPS = 36  # of 5 degrees: half a turn brings every box onto itself


def turned_to_agree(
    vertices_m: NDArray[np.float64], axis: tuple[float, ...], other_m: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Turn a box about its axis of symmetry, or a ball's freely, to have most in common.

    Args:
        vertices_m: (8, 3) in canonical order.
        axis: through the box's centre; (0, 0, 0) for a ball, which any turn leaves as it is.
        other_m: (8, 3), the box that it is to agree with.

    Returns:
        (8, 3), in an order that follows from the turn.
    """
    middle = vertices_m.mean(axis=0)
    if not np.any(axis):
        edges = edges_of(other_m)
        directions = edges / np.linalg.norm(edges, axis=1, keepdims=True)
        sides = np.linalg.norm(edges_of(vertices_m), axis=1).mean()
        return middle + CORNER_SIDES * (sides / 2) @ directions

    def turned(angle_rad):
        return middle + Rotation.from_rotvec(angle_rad * np.array(axis)).apply(vertices_m - middle)

    def disagreement(angle_rad):
        return -box_iou(turned(angle_rad), other_m)

    step = np.pi / _STEPS
    coarse = step * int(np.argmin([disagreement(step * i) for i in range(_STEPS)]))
    fine = minimize_scalar(disagreement, bounds=(coarse - step, coarse + step), method="bounded")
    return turned(min(coarse, float(fine.x), key=disagreement))
