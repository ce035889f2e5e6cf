"""The box and the reach sphere, and the way back into them."""

import numpy as np
from numpy.typing import NDArray

from spear_bringup.control.limits import Limits
from spear_bringup.control.verdicts import Reason

_ROUNDING_M = 1e-9


def box_violation_m(positions_m: NDArray, limits: Limits) -> NDArray:
    """How far each position (N, 3) lies outside the workspace box [m], 0 inside."""
    low, high = np.asarray(limits.workspace_min_m), np.asarray(limits.workspace_max_m)
    outside = np.maximum(np.maximum(low - positions_m, positions_m - high), 0.0)
    return np.linalg.norm(outside, axis=-1)


def reach_violation_m(positions_m: NDArray, limits: Limits) -> NDArray:
    """How far each position (N, 3) lies outside the reach sphere [m], 0 inside."""
    radius = np.linalg.norm(positions_m - np.asarray(limits.reach_center_m), axis=-1)
    return np.maximum(radius - limits.reach_radius_m, 0.0)


def leaves(positions_m: NDArray, from_m: NDArray, limits: Limits) -> tuple[Reason, float] | None:
    """The reason and the worst violation [m] when the way from `from_m` through positions leaves.

    Box and ball are convex, so straight segments between points inside stay inside. A way that
    starts outside may go on as long as no point is further out than the one before it: else an
    arm that was left outside could never come back.
    """
    way = np.vstack([from_m, positions_m])
    for reason, violation in (
        (Reason.OUTSIDE_WORKSPACE, box_violation_m(way, limits)),
        (Reason.OUTSIDE_REACH, reach_violation_m(way, limits)),
    ):
        outside = violation[1:] > _ROUNDING_M
        growing = violation[1:] >= violation[:-1] - _ROUNDING_M
        if np.any(outside & growing):
            return reason, float(np.max(violation[1:]))
    return None
