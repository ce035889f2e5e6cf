"""End-effector poses from however a data set writes them.

What comes out is (T, 7): position [m] and orientation xyzw in the robot's base frame. Numbers that
mean no pose raise an EpisodeError that names the feature and the step.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from spear_policy.geometry import quaternions as quat
from spear_policy.inference.episode import EpisodeError
from spear_training.data.oxe.franka_kinematics import end_effector_poses
from spear_training.data.oxe.pose_rules import (
    EulerPose,
    JointPose,
    MatrixPose,
    PlanarPose,
    PoseRule,
    QuaternionPose,
    SummedDeltas,
)
from spear_training.data.oxe.rules import Columns

Steps = Mapping[str, NDArray]

# A stored matrix that is further from a rotation than this is none.
MATRIX_TOLERANCE = 1e-2
HOMOGENEOUS_TOLERANCE = 1e-4
_LAST_ROW = np.array([0.0, 0.0, 0.0, 1.0])


def pose_keys(rule: PoseRule) -> tuple[str, ...]:
    """The features of a step that `read_poses` needs."""
    if isinstance(rule, SummedDeltas):
        return rule.translation_key, rule.rotation_key
    return (rule.key,)


def read_poses(rule: PoseRule, steps: Steps) -> NDArray:
    """(T, 7) poses of an episode by `rule`, whose order must be decided.

    Raises:
        EpisodeError: a number that is not finite, a quaternion that is not of unit length, a
            matrix that is no rotation, or joint angles that the arm cannot have.
    """
    match rule:
        case QuaternionPose():
            values = numbers(rule, steps, 7)
            return np.hstack([values[:, :3], _unit(rule, values[:, 3:])])
        case MatrixPose():
            return _from_matrices(rule, numbers(rule, steps, 16))
        case EulerPose():
            return from_euler(rule, numbers(rule, steps, 6))
        case JointPose():
            values = numbers(rule, steps, 7)
            try:
                return end_effector_poses(values, rule.end_effector)
            except EpisodeError as error:
                raise EpisodeError(f"{rule.key}: {error}") from None
        case PlanarPose():
            values = numbers(rule, steps, 2)
            fixed = np.array([rule.z_m, *rule.orientation_xyzw], float)
            return np.hstack([values, np.tile(fixed, (len(values), 1))])
        case SummedDeltas():
            return _summed(rule, steps)


def numbers(columns: Columns, steps: Steps, count: int) -> NDArray:
    """(T, count) finite numbers. Raises EpisodeError."""
    values = np.asarray(steps[columns.key], float)
    values = values.reshape(len(values), -1)[:, columns.first_column :][:, :count]
    if values.shape[1] < count:
        raise EpisodeError(
            f"{columns.key} has {values.shape[1]} numbers from column {columns.first_column} on, "
            f"not {count}; the data set is not the one that the table describes"
        )
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise EpisodeError(f"{columns.key}[{int(np.argmax(bad))}] has a number that is not finite")
    return values


def from_euler(rule: EulerPose, position_and_angles: ArrayLike) -> NDArray:
    """(T, 7) poses from (T, 6) positions and angles, in the units of the rule."""
    values = np.asarray(position_and_angles, float)
    positions = values[:, :3] * (1e-3 if rule.position_unit == "mm" else 1.0)
    turns = Rotation.from_euler(rule.axes, values[:, 3:], degrees=rule.angle_unit == "deg")
    if rule.default_rotation is not None:
        turns = turns * Rotation.from_matrix(np.reshape(rule.default_rotation, (3, 3)))
    return np.hstack([positions, turns.as_quat()])


def _unit(rule: QuaternionPose, values: NDArray) -> NDArray:
    bad = ~quat.is_unit(values)
    if bad.any():
        step = int(np.argmax(bad))
        raise EpisodeError(
            f"{rule.key}[{step}] has a quaternion of length {np.linalg.norm(values[step]):.4f}, "
            "not 1; a zero or scaled quaternion has no direction to trust"
        )
    return quat.unit(values if rule.order == "xyzw" else quat.xyzw_from_wxyz(values))


def _from_matrices(rule: MatrixPose, values: NDArray) -> NDArray:
    matrices = values.reshape(-1, 4, 4)
    fits = {
        "row_major": bool(np.all(np.abs(matrices[:, 3] - _LAST_ROW) < HOMOGENEOUS_TOLERANCE)),
        "column_major": bool(np.all(np.abs(matrices[:, :, 3] - _LAST_ROW) < HOMOGENEOUS_TOLERANCE)),
    }
    order = rule.order
    if order == "detect":
        fitting = [name for name, fit in fits.items() if fit]
        if len(fitting) == 2:
            raise EpisodeError(
                f"{rule.key}: the hand stands at the origin in every step, so the matrix may be "
                "written row by row or column by column; state its order in the table"
            )
        order = fitting[0] if fitting else ""
    if not fits.get(order, False):
        raise EpisodeError(
            f"{rule.key}: neither the last row nor the last column of the 4x4 matrix is 0 0 0 1 "
            "in every step"
            if not order
            else f"{rule.key}: the 4x4 matrix is not written {order.replace('_', ' ')}"
        )
    if order == "column_major":
        matrices = matrices.transpose(0, 2, 1)
    turns = matrices[:, :3, :3]
    off = np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    bad = (off > MATRIX_TOLERANCE) | (np.linalg.det(turns) < 0)
    if bad.any():
        raise EpisodeError(f"{rule.key}[{int(np.argmax(bad))}] has a matrix that is no rotation")
    return np.hstack([matrices[:, :3, 3], Rotation.from_matrix(turns).as_quat()])


def _summed(rule: SummedDeltas, steps: Steps) -> NDArray:
    translations = numbers(Columns(key=rule.translation_key), steps, 3)
    angles = numbers(Columns(key=rule.rotation_key), steps, 3)
    if rule.rotation == "vector":
        turns = Rotation.from_rotvec(angles).as_quat()
    else:
        turns = Rotation.from_euler(rule.rotation, angles).as_quat()
    poses = np.zeros((len(translations), 7))
    poses[:, 6] = 1.0
    for step in range(1, len(poses)):
        position, orientation = poses[step - 1, :3], poses[step - 1, 3:]
        translation, turn = translations[step - 1], turns[step - 1]
        if rule.frame == "base":
            orientation_next = quat.multiply(turn, orientation)
        else:
            translation = quat.rotate(orientation, translation)
            orientation_next = quat.multiply(orientation, turn)
        poses[step, :3] = position + translation
        # Removes the rounding that a long product gathers.
        poses[step, 3:] = orientation_next / np.linalg.norm(orientation_next)
    return poses
