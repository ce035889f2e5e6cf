"""Where a Franka's end effector is when its joint angles are known.

Panda and FR3 have the same lengths. They are the Denavit-Hartenberg parameters (Craig's
convention) that Franka publishes under "Robot and interface specifications"; the hand is turned
by -45 degrees on the flange, and its tool centre point lies 0.1034 m in front of it, between the
fingertips. test_franka_kinematics.py compares all of it with the URDF that franky-sim ships.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from spear_policy.inference.episode import EpisodeError

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
    _judge(joints)
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


def _judge(joints: NDArray) -> None:
    # The comparison is false for NaN too.
    bad = ~((joints >= LOWEST_RAD) & (joints <= HIGHEST_RAD))
    if bad.any():
        step, joint = np.argwhere(bad)[0]
        raise EpisodeError(
            f"joint {joint + 1} of step {step} is {joints[step, joint]:.3f}; a Franka's goes from "
            f"{LOWEST_RAD[joint]:.2f} to {HIGHEST_RAD[joint]:.2f} rad"
        )
