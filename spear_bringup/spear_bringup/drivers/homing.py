"""Homing: a path in joint space, judged by the gate through the motion of the end effector."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spear_bringup.control.gate import GateDecision, judge_path
from spear_bringup.control.limits import Limits
from spear_bringup.control.path import Reference, path_through
from spear_bringup.drivers.arm_session import ArmSession
from spear_bringup.drivers.protocol import FaultKind, RobotError
from spear_policy.geometry.poses import Pose

SAMPLE_PERIOD_S = 0.05
ARRIVED_RAD = 0.01
HOMING = "homing"
_INTERRUPTED = "homing was interrupted"
_NO_WAY_RAD = 1e-3
_ATTEMPTS = 3
_REST_TIMEOUT_S = 3.0
_OPENING_TIMEOUT_S = 2.0
_STEADY_FACTOR = 20.0  # how much slower than the wall clock a simulation may be
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
) -> tuple[GateDecision, JointPath]:
    """What the gate says of the end effector's way along `path`, and the path to run.

    `start` is the end-effector pose where the path begins. A path that is too fast comes back
    slower (CLAMPED); one that leaves the workspace is REJECTED.
    """
    poses = [forward_kinematics(joints) for joints in path.positions_rad]
    seen = path_through(
        path.durations_s,
        np.array([pose.position_m for pose in poses]),
        np.array([pose.orientation_xyzw for pose in poses]),
        start,
    )
    gate, allowed = judge_path(seen, Reference.at_rest(start), limits)
    return gate, JointPath(allowed.durations_s, path.positions_rad)


class HomingError(Exception):
    """The arm did not go home; the text says why and what to do."""


def go_home(
    session: ArmSession,
    home_rad: NDArray,
    max_speed_rad_s: float,
    open_gripper: bool,
) -> None:
    """Take the arm of `session` home and wait until it is there; chunks are held meanwhile.

    Raises:
        HomingError: the driver is not active, the way is not allowed, or the arm did not arrive.
        RobotError: the robot refused.
    """
    _raise_if_latched(session)
    if not session.active:
        raise HomingError("the driver is not active, so it does not move; activate it first")
    session.check()
    try:
        session.rest(HOMING)
        if open_gripper and session.gripper is not None:
            session.core.gripper.target = 1.0
            session.gripper.request(1.0)
            # A gripper that does not open keeps nobody from going home.
            session.wait_for(lambda: session.gripper.report.opening > 0.9, _OPENING_TIMEOUT_S)
        _wait(session, lambda: session.still, _REST_TIMEOUT_S, "the arm did not come to rest")
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                _travel(session, home_rad, max_speed_rad_s / attempt)
                return
            except RobotError as fault:
                # Now and then a planner fails on one joint path and not on a slower one.
                if fault.kind is not FaultKind.PLANNER or attempt == _ATTEMPTS:
                    raise
    finally:
        if session.core.busy == HOMING:
            session.rest(None)


def _travel(session: ArmSession, home_rad: NDArray, max_speed_rad_s: float) -> None:
    start = session.sample.state
    if np.max(np.abs(start.joint_positions_rad - home_rad)) < _NO_WAY_RAD:
        return
    path = joint_path(start.joint_positions_rad, home_rad, max_speed_rad_s)
    gate, path = judge_joint_path(
        path, start.measured, session.arm.forward_kinematics, session.core.limits
    )
    if not gate.moves:
        text = f"the way home is refused: {gate.text}"
        raise HomingError(f"{text}; move the arm by hand, nearer to home")
    if not session.send_joints(path.durations_s, path.positions_rad, HOMING):
        raise HomingError(_INTERRUPTED)
    end_s = start.robot_time_s + path.total_s

    def there() -> bool:
        state = session.sample.state
        off = np.max(np.abs(state.joint_positions_rad - home_rad))
        return session.still and state.robot_time_s > end_s and bool(off < ARRIVED_RAD)

    budget_s = 2.0 * path.total_s + _REST_TIMEOUT_S
    _wait(session, there, budget_s, "the arm did not arrive at its home position")


def _wait(session: ArmSession, condition, budget_s: float, problem: str) -> None:
    """Wait for `condition()` for `budget_s` of the robot's time: a slow simulation may be slow."""
    began_s = session.sample.state.robot_time_s

    def over() -> bool:
        spent_s = session.sample.state.robot_time_s - began_s
        return condition() or _interrupted(session) or not 0 <= spent_s <= budget_s

    session.wait_for(over, _STEADY_FACTOR * budget_s)
    _raise_if_latched(session)
    if _interrupted(session):
        raise HomingError(_INTERRUPTED)
    if not condition():
        raise HomingError(f"{problem} within {budget_s:.0f} s; look at it and try again")


def _interrupted(session: ArmSession) -> bool:
    return session.core.latched is not None or session.core.busy != HOMING


def _raise_if_latched(session: ArmSession) -> None:
    if session.core.latched is not None:
        raise HomingError(session.core.latched.text)
