"""End-effector poses from however a dataset writes them: `read_poses`, by a rule of the table.

Before it stands where a Franka's hand is when its joint angles are known; after it, how those
angles show in which order a dataset writes its rotations (`decide`). What comes out is (T, 7):
position [m] and orientation xyzw in the robot's base frame. Numbers that mean no pose raise an
EpisodeError that names the feature and the step.

Panda and FR3 have the same lengths: the Denavit-Hartenberg parameters (Craig's convention) that
Franka publishes under "Robot and interface specifications". The hand is turned by -45 degrees on
the flange, and its tool centre point lies 0.1034 m in front of it, between the fingertips.
test_oxe_poses.py compares all of it with the URDF that franky-sim ships.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from spear_policy.geometry import quaternions as quat
from spear_policy.inference.episode import EpisodeError
from spear_training.data.oxe.table import (
    DETECT,
    AxisAnglePose,
    Columns,
    EulerPose,
    JointPose,
    MatrixPose,
    PlanarPose,
    PoseRule,
    QuaternionPose,
    Rotation6DPose,
    SummedDeltas,
)
from spear_training.data.reader import DataFileError

# A Franka's end effector from its joint angles ------------------------------------------------

# One row a joint: a [m] and alpha [rad] of the link before it, then d [m] along its own axis.
_A_ALPHA_D = (
    (0.0, 0.0, 0.333),
    (0.0, -np.pi / 2, 0.0),
    (0.0, np.pi / 2, 0.316),
    (0.0825, np.pi / 2, 0.0),
    (-0.0825, -np.pi / 2, 0.384),
    (0.0, np.pi / 2, 0.0),
    (0.088, np.pi / 2, 0.0),
)
FLANGE_M = 0.107
HAND_TURN_RAD, HAND_TCP_M = -np.pi / 4, 0.1034

# What either arm can reach, with room for rounding: numbers outside are no angles in radians.
LOWEST_RAD = np.array([-2.90, -1.84, -2.91, -3.08, -2.90, -0.02, -3.03]) - 0.1
HIGHEST_RAD = np.array([2.90, 1.84, 2.91, -0.06, 2.90, 4.53, 3.03]) + 0.1

END_EFFECTORS = ("flange", "hand")


def end_effector_poses(joints_rad: ArrayLike, end_effector: str = "hand") -> NDArray:
    """(T, 7) poses in the base frame, position [m] and xyzw, from (T, 7) joint angles [rad].

    Args:
        joints_rad: joint 1 to 7, from the base to the hand.
        end_effector: "flange", or "hand": the tool centre point of Franka's own hand, libfranka's
            default end effector. Another gripper's fingertips lie elsewhere on the same axis.

    Raises:
        EpisodeError: an angle is not finite or not one that a Franka can have.
        ValueError: wrong shape or unknown end effector.
    """
    joints = np.asarray(joints_rad, float)
    if joints.ndim != 2 or joints.shape[1] != 7:
        raise ValueError(f"joints_rad must have shape (T, 7), got {joints.shape}")
    if end_effector not in END_EFFECTORS:
        raise ValueError(f"end effector {end_effector!r}: it is one of {END_EFFECTORS}")
    _check_joints(joints)
    position = np.zeros((len(joints), 3))
    turn = Rotation.identity(len(joints))
    for joint, (a, alpha, d) in enumerate(_A_ALPHA_D):
        position = position + turn.apply([a, 0.0, 0.0])
        turn = turn * Rotation.from_euler("x", alpha)
        position = position + turn.apply([0.0, 0.0, d])
        turn = turn * Rotation.from_euler("z", joints[:, [joint]])
    reach_m = FLANGE_M
    if end_effector == "hand":
        turn = turn * Rotation.from_euler("z", HAND_TURN_RAD)
        reach_m += HAND_TCP_M
    position = position + turn.apply([0.0, 0.0, reach_m])
    return np.hstack([position, turn.as_quat()])


def _check_joints(joints: NDArray) -> None:
    # The comparison is false for NaN too.
    bad = ~((joints >= LOWEST_RAD) & (joints <= HIGHEST_RAD))
    if bad.any():
        step, joint = np.argwhere(bad)[0]
        raise EpisodeError(
            f"joint {joint + 1} of step {step} is {joints[step, joint]:.3f}; a Franka's goes from "
            f"{LOWEST_RAD[joint]:.2f} to {HIGHEST_RAD[joint]:.2f} rad"
        )


# Poses by a rule of the table -----------------------------------------------------------------

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
        case AxisAnglePose():
            values = numbers(rule, steps, 6)
            turns = Rotation.from_rotvec(values[:, 3:]).as_quat()
            return np.hstack([_metres(rule, values), turns])
        case Rotation6DPose():
            values = numbers(rule, steps, 9)
            return np.hstack([_metres(rule, values), _from_two_vectors(rule, values[:, 3:])])
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
            f"not {count}; the dataset is not the one that the table describes"
        )
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise EpisodeError(f"{columns.key}[{int(np.argmax(bad))}] has a number that is not finite")
    return values


def from_euler(rule: EulerPose, position_and_angles: ArrayLike) -> NDArray:
    """(T, 7) poses from (T, 6) positions and angles, in the units of the rule."""
    values = np.asarray(position_and_angles, float)
    positions = _metres(rule, values)
    turns = Rotation.from_euler(rule.axes, values[:, 3:], degrees=rule.angle_unit == "deg")
    if rule.default_rotation is not None:
        turns = turns * Rotation.from_matrix(np.reshape(rule.default_rotation, (3, 3)))
    return np.hstack([positions, turns.as_quat()])


def _metres(rule: EulerPose | AxisAnglePose | Rotation6DPose, values: NDArray) -> NDArray:
    return values[:, :3] * (1e-3 if rule.position_unit == "mm" else 1.0)


def _from_two_vectors(rule: Rotation6DPose, values: NDArray) -> NDArray:
    """(T, 4) xyzw from two vectors (T, 6) of each matrix."""
    first, second = values[:, :3], values[:, 3:]
    products = [(first * first).sum(1) - 1, (second * second).sum(1) - 1, (first * second).sum(1)]
    bad = (np.abs(products) > 2 * MATRIX_TOLERANCE).any(axis=0)
    if bad.any():
        raise EpisodeError(
            f"{rule.key}[{int(np.argmax(bad))}] has two vectors that are not of length 1 and at a "
            "right angle"
        )
    axis = -1 if rule.vectors == "columns" else -2
    matrices = np.stack([first, second, np.cross(first, second)], axis=axis)
    return Rotation.from_matrix(matrices).as_quat()


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


# The order of rotations, found by joint angles ------------------------------------------------

QUATERNION_ORDERS = ("xyzw", "wxyz")
EULER_AXES = ("xyz", "XYZ", "zyx", "ZYX")
# Joints and pose may be read some milliseconds apart; a wrong order is off by as much as the hand
# turned. What lies between the two says nothing.
FITS_DEG, REFUTED_DEG = 8.0, 20.0
EPISODES = 20


def needs_detection(rule: PoseRule | str | None) -> bool:
    """Whether the rule leaves the order to the joint angles."""
    return isinstance(rule, QuaternionPose | EulerPose) and getattr(rule, _field(rule)) == DETECT


def detection_keys(rule: PoseRule) -> tuple[str, ...]:
    """The features of a step that `decide` needs."""
    return (*pose_keys(rule), rule.joints.key)


def decide(rule: PoseRule, episodes: Iterable[Steps], what: str) -> PoseRule:
    """The rule with its order found on some episodes.

    The hand is fixed to the arm, so the rotation from the flange (forward kinematics) to the stored
    pose is the same in every step: under the true order it is constant, under a wrong one it
    wanders as soon as the hand turns. How the hand is mounted does not matter.

    Raises:
        DataFileError: no order fits, or the hand turned too little to tell; `what` names the
            entry of the table.
    """
    worst = dict.fromkeys(candidates(rule), 0.0)
    for steps in episodes:
        try:
            found = wander_deg(rule, steps)
        except EpisodeError:
            continue  # it will be rejected by its own number; others tell the order
        worst = {order: max(worst[order], degrees) for order, degrees in found.items()}
        fitting = [order for order, degrees in worst.items() if degrees < FITS_DEG]
        if len(fitting) == 1 and all(
            degrees > REFUTED_DEG for order, degrees in worst.items() if order not in fitting
        ):
            return dataclasses.replace(rule, **{_field(rule): fitting[0]})
    numbers_said = ", ".join(f"{order} {degrees:.1f}" for order, degrees in worst.items())
    if min(worst.values()) > FITS_DEG:
        reason = "none of the orders fits the joint angles"
    else:
        reason = "the joint angles do not tell which order is true, for the hand turned too little"
    raise DataFileError(
        f"{what}.{_field(rule)}: {reason} (wandering in degrees: {numbers_said}); state it in a "
        "table of your own and give that with --table"
    )


def candidates(rule: PoseRule) -> tuple[str, ...]:
    """Every order that may be the true one."""
    return QUATERNION_ORDERS if isinstance(rule, QuaternionPose) else EULER_AXES


def wander_deg(rule: PoseRule, steps: Steps) -> dict[str, float]:
    """By order: how far the hand would turn on the flange during an episode [degrees].

    Raises:
        EpisodeError: see read_poses.
    """
    flange = end_effector_poses(numbers(rule.joints, steps, 7), "flange")[:, 3:]
    found = {}
    for order in candidates(rule):
        tried = dataclasses.replace(rule, **{_field(rule): order})
        found[order] = _wander_deg(flange, read_poses(tried, steps)[:, 3:])
    return found


def _wander_deg(flange_xyzw: NDArray, stored_xyzw: NDArray) -> float:
    mounts = quat.multiply(quat.inverse(flange_xyzw), stored_xyzw)
    middle = Rotation.from_quat(mounts).mean().as_quat()
    return float(np.degrees(np.percentile(quat.angle(mounts, middle), 95)))


def _field(rule: PoseRule) -> str:
    return "axes" if isinstance(rule, EulerPose) else "order"
