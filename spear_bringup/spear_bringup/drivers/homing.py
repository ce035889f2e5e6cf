"""A way home in joint space that the gate can judge: sampled, and seen through the forward kinematics."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spear_bringup.control.limits import Limits
from spear_bringup.control.path import path_through
from spear_bringup.control.path_gate import judge_path
from spear_bringup.control.segments import Start
from spear_bringup.control.verdicts import Judgement
from spear_policy.geometry.poses import Pose

SAMPLE_PERIOD_S = 0.05
_PEAK = 1.875  # largest speed of a minimum-jerk move over its mean speed


@dataclass(frozen=True, eq=False)
class JointPath:
    """Joint knots (N, n) [rad], the last at rest, with the time (N,) [s] from the one before."""

    durations_s: NDArray
    positions_rad: NDArray

    @property
    def total_s(self) -> float:
        """How long it takes [s]."""
        return float(np.sum(self.durations_s))


def joint_path(start_rad: NDArray, goal_rad: NDArray, max_speed_rad_s: float) -> JointPath:
    """A straight minimum-jerk move in joint space in which no joint is faster than the limit."""
    travel = np.asarray(goal_rad, float) - np.asarray(start_rad, float)
    least_s = _PEAK * float(np.max(np.abs(travel))) / max_speed_rad_s
    count = max(4, math.ceil(least_s / SAMPLE_PERIOD_S))
    u = np.arange(1, count + 1)[:, None] / count
    blend = 10 * u**3 - 15 * u**4 + 6 * u**5
    return JointPath(np.full(count, SAMPLE_PERIOD_S), np.asarray(start_rad, float) + blend * travel)


def judge_joint_path(
    path: JointPath,
    start: Pose,
    forward_kinematics: Callable[[NDArray], Pose],
    limits: Limits,
) -> tuple[Judgement, JointPath]:
    """What the gate says of the end effector's way along `path`, and the path to run.

    `start` is the end-effector pose where the path begins. A path that is too fast comes back slower
    (CLAMPED); one that leaves the workspace is REJECTED.
    """
    poses = [forward_kinematics(joints) for joints in path.positions_rad]
    seen = path_through(
        path.durations_s,
        np.array([pose.position_m for pose in poses]),
        np.array([pose.orientation_xyzw for pose in poses]),
        start,
    )
    judgement, allowed = judge_path(seen, Start.at_rest(start), limits)
    return judgement, JointPath(allowed.durations_s, path.positions_rad)
