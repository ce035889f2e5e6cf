"""Which order or axes a data set writes its rotations in, told by the arm's joint angles.

The hand is fixed to the arm, so the rotation from the pose that forward kinematics gives to the
stored pose is the same in every step: under the true order it is constant, under a wrong one it
wanders as soon as the hand turns. How the hand is mounted plays no part.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from spear_policy.geometry import quaternions as quat
from spear_policy.inference.episode import EpisodeError
from spear_training.data.oxe.franka_kinematics import end_effector_poses
from spear_training.data.oxe.pose_rules import DETECT, EulerPose, PoseRule, QuaternionPose
from spear_training.data.oxe.poses import Steps, numbers, pose_keys, read_poses
from spear_training.data.reader import DataFileError

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
