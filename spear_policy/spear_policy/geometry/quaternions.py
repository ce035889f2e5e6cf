"""Unit quaternions, xyzw, numpy, last dimension 4.

Composition and rotation vectors are scipy's; what is here is what scipy leaves open: which of
q and -q to use. Deltas live in the half space w >= 0. Absolute orientations keep continuity with
the sample before them instead, because a gripper that points down has w near 0 and a rule on the
sign of w would flip it from noise.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

UNIT_TOLERANCE = 1e-3
IDENTITY_XYZW = np.array([0.0, 0.0, 0.0, 1.0])


def xyzw_from_wxyz(q_wxyz: ArrayLike) -> NDArray:
    """Scalar-first to scalar-last, shape (..., 4)."""
    return np.roll(np.asarray(q_wxyz, float), -1, axis=-1)


def wxyz_from_xyzw(q_xyzw: ArrayLike) -> NDArray:
    """Scalar-last to scalar-first, shape (..., 4)."""
    return np.roll(np.asarray(q_xyzw, float), 1, axis=-1)


def is_unit(q_xyzw: ArrayLike, tolerance: float = UNIT_TOLERANCE) -> NDArray:
    """Whether each quaternion (..., 4) is finite and has norm 1 within `tolerance`."""
    norm = np.linalg.norm(np.asarray(q_xyzw, float), axis=-1)
    return np.abs(norm - 1.0) <= tolerance  # False for NaN and infinity too


def unit(q_xyzw: ArrayLike, tolerance: float = UNIT_TOLERANCE) -> NDArray:
    """Remove rounding from quaternions (..., 4) that are unit within `tolerance`.

    Raises:
        ValueError: a quaternion is not finite or not of unit length. Scaling it to unit length
            would hide the mistake that made it (a zero quaternion has no direction at all).
    """
    q = np.asarray(q_xyzw, float)
    if not np.all(is_unit(q, tolerance)):
        raise ValueError(f"not a unit quaternion (xyzw): {q.tolist()}; normalise it at its source")
    return q / np.linalg.norm(q, axis=-1, keepdims=True)


def half_space(q_xyzw: ArrayLike) -> NDArray:
    """The representative with w >= 0 of each delta rotation (..., 4). Never for absolute poses."""
    q = np.asarray(q_xyzw, float)
    return np.where(q[..., 3:] < 0, -q, q)


def nearest_sign(q_xyzw: ArrayLike, reference_xyzw: ArrayLike) -> NDArray:
    """Whichever of q and -q lies closer to `reference_xyzw`, both (..., 4)."""
    q, reference = np.asarray(q_xyzw, float), np.asarray(reference_xyzw, float)
    return np.where(np.sum(q * reference, axis=-1, keepdims=True) < 0, -q, q)


def continuous(q_xyzw: ArrayLike) -> NDArray:
    """A sequence (N, 4) with each sign chosen nearest to the sample before."""
    q = np.array(q_xyzw, float)
    turns_over = np.sum(q[1:] * q[:-1], axis=-1) < 0
    q[1:] *= np.cumprod(np.where(turns_over, -1.0, 1.0))[:, None]
    return q


def multiply(a_xyzw: ArrayLike, b_xyzw: ArrayLike) -> NDArray:
    """R(a) R(b), the rotation b followed by a, shape (..., 4), with the algebraic sign."""
    # Written out: np.cross costs more than all the rest on the few numbers of a control loop.
    ax, ay, az, aw = np.moveaxis(np.asarray(a_xyzw, float), -1, 0)
    bx, by, bz, bw = np.moveaxis(np.asarray(b_xyzw, float), -1, 0)
    return np.stack(
        [
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ],
        axis=-1,
    )


def inverse(q_xyzw: ArrayLike) -> NDArray:
    """The inverse of unit quaternions (..., 4)."""
    return np.asarray(q_xyzw, float) * np.array([-1.0, -1.0, -1.0, 1.0])


def rotate(q_xyzw: ArrayLike, vector: ArrayLike) -> NDArray:
    """R(q) v for one quaternion (4,) and vectors (..., 3)."""
    return Rotation.from_quat(q_xyzw).apply(vector)


def angle(a_xyzw: ArrayLike, b_xyzw: ArrayLike = IDENTITY_XYZW) -> NDArray:
    """Rotation angle between unit quaternions (..., 4) [rad], 0..pi, the same for q and -q.

    By atan2 on the relative quaternion: arccos of a dot product loses half the digits near 0.
    """
    relative = multiply(inverse(a_xyzw), b_xyzw)
    return 2.0 * np.arctan2(np.linalg.norm(relative[..., :3], axis=-1), np.abs(relative[..., 3]))


def slerp(a_xyzw: ArrayLike, b_xyzw: ArrayLike, t: ArrayLike) -> NDArray:
    """Constant-speed shortest rotation from a (t=0) to b (t=1), shape (..., 4)."""
    a = np.asarray(a_xyzw, float)
    b = nearest_sign(b_xyzw, a)
    step = np.asarray(t, float)[..., None] * rotation_vector(multiply(inverse(a), b))
    return multiply(a, Rotation.from_rotvec(step).as_quat())


def rotation_vector(q_xyzw: ArrayLike) -> NDArray:
    """Axis times angle [rad] of quaternions (..., 4), angle in 0..pi, shape (..., 3)."""
    q = half_space(q_xyzw)
    if q.size == 0:  # scipy before 1.12 refuses to make no rotation
        return np.zeros((*q.shape[:-1], 3))
    return Rotation.from_quat(q).as_rotvec()


def from_rotation_vector(rotation: ArrayLike) -> NDArray:
    """Unit quaternions xyzw (..., 4), w >= 0, from rotation vectors (..., 3) [rad]."""
    return half_space(Rotation.from_rotvec(np.asarray(rotation, float)).as_quat())


def unwrap_rotation_vectors(vectors: ArrayLike) -> NDArray:
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
