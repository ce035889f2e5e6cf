"""Orientations as three angles that a person can follow in a drawing."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_policy.geometry import quaternions as quat


def turned(poses: ArrayLike, start: ArrayLike) -> NDArray:
    """Rotation from pose `start` (7,) to each of (T, 7) about the axes of `start` (T, 3) [rad].

    It goes on where an angle passes half a turn.
    """
    relative = quat.multiply(quat.inverse(np.asarray(start)[3:]), np.asarray(poses)[:, 3:])
    return unwrapped(quat.rotation_vector(relative))


def unwrapped(vectors: ArrayLike) -> NDArray:
    """Rotation vectors (T, 3) [rad] of the same rotations, each near the one before."""
    result = np.array(vectors, float)
    for step in range(1, len(result)):
        before, angle = result[step - 1], np.linalg.norm(result[step])
        # No rotation has every axis: take the one that it had.
        along = result[step] if angle > 0 else before
        if not along.any():
            continue
        axis = along / np.linalg.norm(along)
        turns = np.round((before @ axis - angle) / (2 * np.pi))
        result[step] = axis * (angle + 2 * np.pi * turns)
    return result
