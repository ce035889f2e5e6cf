"""Poses out of a store's numbers."""

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry.tracking import TimedPoses


def stored_poses(stamps_s: NDArray, rows: NDArray) -> TimedPoses:
    """Poses over time from rows (T, 8) of states or actions.

    Raises:
        ValueError: what no recorded motion can be.
    """
    poses = np.array(rows[:, :7], float)
    # Stored in single precision: what is missing of unit length is rounding.
    poses[:, 3:] /= np.linalg.norm(poses[:, 3:], axis=1, keepdims=True)
    return TimedPoses(stamps_s, poses)
