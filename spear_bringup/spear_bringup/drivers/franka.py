"""A Franka (FR3, Panda) behind `protocol.Arm`, over franky 2.0.

Motions are Cartesian waypoint motions with a velocity at every knot and rest at the last one,
each sent preemptively over the one before: smooth while chunks come, and at rest by itself at the
end of the last one when they stop.

The robot's firmware decides which franky wheel fits. The one on PyPI (franky-control 2.0.0)
bundles libfranka 0.21.2, which speaks robot server version 10 (the simulated robot speaks it too).
Wheels for older firmware are published by franky's authors at their code hosting, one for each
libfranka version; a wrong one fails `connect` with a sentence that says so.

Never `from franky import *`: see franka_faults.
"""

import threading
from dataclasses import dataclass

import franky
import numpy as np
from numpy.typing import NDArray

from spear_bringup.control.path import Path
from spear_bringup.drivers.bounded_call import call_within
from spear_bringup.drivers.franka_faults import (
    connect_fault,
    fault_of,
    fault_of_state,
    is_planner_failure,
    is_preemption,
)
from spear_bringup.drivers.protocol import FaultKind, RobotFault, RobotState
from spear_policy.geometry.poses import Pose

KNOT_SPEED_MARGIN = 0.9  # of limit x factor: the planner refuses a knot that is exactly at it
_SWITCH_TIMEOUT_S = 0.5  # for the tail of a motion of the other control type
_START_CHECK_S = 0.002  # a plan that cannot be made fails within this time


@dataclass(frozen=True)
class FrankaSettings:
    """How to reach and drive one Franka.

    Attributes:
        address: host name or IP address of the robot's control box.
        realtime: "enforce" (refuse a kernel without real time) or "ignore" (simulated robot).
        velocity_factor, acceleration_factor, jerk_factor: share (0..1] of the robot's own limits
            that its planner may use, whatever a path asks for.
        collision_torque_nm, collision_force_n: contact thresholds of the robot's reflex.
        connect_timeout_s: how long `connect` may take.
    """

    address: str
    realtime: str = "enforce"
    velocity_factor: float = 0.3
    acceleration_factor: float = 0.3
    jerk_factor: float = 0.3
    collision_torque_nm: float = 20.0
    collision_force_n: float = 30.0
    connect_timeout_s: float = 3.0


class FrankaArm:
    """See `protocol.Arm`. A dead connection is dropped at once; only `recover` makes a new one."""

    joint_names = tuple(f"fr3_joint{i}" for i in range(1, 8))

    def __init__(self, settings: FrankaSettings):
        self.settings = settings
        self._lock = threading.RLock()  # commands; reading states does not take it
        self._robot: franky.Robot | None = None
        self._tool: tuple[franky.Affine, franky.Affine] | None = None
        self._mode, self._errors = "", ()
        self._again = None  # makes the last motion afresh, for one retry
        self._stopped_by_us = False

    def connect(self) -> None:
        s = self.settings
        realtime = {
            "enforce": franky.RealtimeConfig.Enforce,
            "ignore": franky.RealtimeConfig.Ignore,
        }[s.realtime]

        def open_robot() -> franky.Robot:
            return franky.Robot(
                s.address,
                default_torque_threshold=s.collision_torque_nm,
                default_force_threshold=s.collision_force_n,
                realtime_config=realtime,
            )

        self.disconnect()
        try:
            robot = call_within(s.connect_timeout_s, open_robot, f"connecting to {s.address}")
        except Exception as error:
            raise connect_fault(error, "robot", s.address) from None
        with self._lock:
            self._robot = robot
            self._mode, self._errors = "", ()
            self._again, self._stopped_by_us = None, False

    def disconnect(self) -> None:
        with self._lock:
            # The last reference closes the link; while one is left, the robot takes no new client.
            self._robot = None
            self._again = None

    def read_state(self) -> RobotState:
        robot = self._connected()
        try:
            state = robot.state
            return self._converted(robot, state)
        except Exception as error:
            raise self._fault(error) from None

    def send(self, path: Path) -> None:
        numbers = (path.positions_m, path.orientations_xyzw, path.linear_m_s, path.angular_rad_s)
        if not all(np.all(np.isfinite(n)) for n in (path.durations_s, *numbers)) or not len(path):
            raise RobotFault(FaultKind.PLANNER, "the path is empty or not finite; nothing was sent")
        self._start(lambda robot: _cartesian_motion(path, robot, self.settings))

    def send_joints(self, durations_s: NDArray, joint_positions_rad: NDArray) -> None:
        durations = np.asarray(durations_s, float)
        joints = np.asarray(joint_positions_rad, float)
        if not np.all(np.isfinite(durations)) or not np.all(np.isfinite(joints)) or not len(joints):
            raise RobotFault(FaultKind.PLANNER, "the joint path is empty or not finite")
        self._start(lambda robot: _joint_motion(durations, joints, robot, self.settings))

    def stop(self) -> None:
        with self._lock:
            robot = self._connected()
            self._again = None
            try:
                if not robot.is_in_control:
                    return
                joint = robot.current_control_signal_type == franky.ControlSignalType.JointPositions
                factors = _factors(self.settings)
                if joint:
                    robot.move(franky.JointStopMotion(factors), asynchronous=True)
                else:
                    robot.move(franky.CartesianStopMotion(factors), asynchronous=True)
            except Exception as error:
                if robot.is_in_control:
                    self._stop_hard(robot)
                else:
                    self._raise_unless_over(error)

    def check(self) -> None:
        with self._lock:
            robot = self._connected()
            try:
                robot.poll_motion()
            except Exception as error:
                self._after_failure(robot, error)
        if fault := fault_of_state(self._mode or "Idle", self._errors):
            raise fault

    def recover(self) -> None:
        with self._lock:
            robot = self._robot
            if robot is not None:
                try:
                    self._clear_errors(robot)
                    return
                except franky.NetworkException:
                    self._robot = None
                except Exception as error:
                    raise self._fault(error) from None
                finally:
                    del robot
        self.connect()
        with self._lock:
            try:
                self._clear_errors(self._connected())
            except Exception as error:
                raise self._fault(error) from None

    def forward_kinematics(self, joint_positions_rad: NDArray) -> Pose:
        if self._tool is None:
            self.read_state()
        return _forward(self._connected(), self._tool, np.asarray(joint_positions_rad, float))

    # Inner parts ---------------------------------------------------------------------------

    def _connected(self) -> franky.Robot:
        robot = self._robot
        if robot is None:
            text = f"there is no connection to the robot at {self.settings.address}; call ~/recover"
            raise RobotFault(FaultKind.NETWORK, text)
        return robot

    def _start(self, make_motion) -> None:
        """Send a fresh motion now, and once more at once when the planner fails."""
        with self._lock:
            robot = self._connected()
            self._again, self._stopped_by_us = make_motion, False
            try:
                robot.move(make_motion(robot), asynchronous=True)
                robot.join_motion(timeout=_START_CHECK_S)
            except franky.InvalidMotionTypeException as error:
                self._switch(robot, make_motion, error)
            except Exception as error:
                self._after_failure(robot, error)

    def _switch(self, robot, make_motion, error) -> None:
        # The tail of a motion of the other control type (homing, or its stop) is still running.
        try:
            if not robot.join_motion(timeout=_SWITCH_TIMEOUT_S):
                raise error
            robot.move(make_motion(robot), asynchronous=True)
        except Exception as error:
            self._after_failure(robot, error)

    def _after_failure(self, robot, error: Exception) -> None:
        """Retry the last motion once after a planner failure; raise every other fault."""
        if self._stopped_by_us and is_preemption(error):
            self._stopped_by_us = False
            return
        again, self._again = self._again, None
        if again is None or not is_planner_failure(error):
            raise self._fault(error) from None
        try:
            robot.move(again(robot), asynchronous=True)
            robot.join_motion(timeout=_START_CHECK_S)
        except Exception as second:
            raise self._fault(second) from None

    def _stop_hard(self, robot) -> None:
        """End the control loop itself, when the clean stop cannot be sent."""
        self._stopped_by_us = True
        try:
            robot.stop()
        except Exception as error:
            raise self._fault(error) from None

    def _raise_unless_over(self, error: Exception) -> None:
        # A motion that ended while we were stopping it is what stop() wants.
        if not isinstance(error, franky.InvalidMotionTypeException) and not is_preemption(error):
            raise self._fault(error) from None

    def _clear_errors(self, robot) -> None:
        if robot.is_in_control:
            self._stop_hard(robot)
        try:
            robot.join_motion(timeout=_SWITCH_TIMEOUT_S)
        except Exception as error:  # the old failure: a person has just said that it is dealt with
            if isinstance(error, franky.NetworkException):
                raise
        if robot.has_errors and not robot.recover_from_errors():
            text = "the robot did not clear its errors; see Desk, mend the cause, call ~/recover"
            raise RobotFault(FaultKind.REFLEX, text)
        self._converted(robot, robot.state)
        if fault := fault_of_state(self._mode, self._errors):
            raise fault

    def _converted(self, robot, state) -> RobotState:
        # The poses follow from the joints: what the controller reports as measured pose may be
        # the commanded one (the stock simulator does that), and its commanded pose is only
        # kept up to date in Cartesian motions.
        self._tool = (state.F_T_EE, state.EE_T_K)
        self._mode, self._errors = state.robot_mode.name, _error_names(state.current_errors)
        return RobotState(
            robot_time_s=state.time.to_msec() * 1e-3,
            joint_positions_rad=state.q,
            joint_velocities_rad_s=state.dq,
            joint_torques_nm=state.tau_J,
            measured=_forward(robot, self._tool, state.q),
            commanded=_forward(robot, self._tool, state.q_d),
            mode=self._mode,
            errors=self._errors,
        )

    def _fault(self, error: Exception) -> RobotFault:
        fault = fault_of(error, self.settings.address, self._mode)
        if fault.kind is FaultKind.NETWORK:
            self._robot = None
        return fault


def _factors(settings: FrankaSettings) -> franky.RelativeDynamicsFactor:
    return franky.RelativeDynamicsFactor(
        settings.velocity_factor, settings.acceleration_factor, settings.jerk_factor
    )


def _cartesian_motion(path: Path, robot, settings: FrankaSettings):
    share = KNOT_SPEED_MARGIN * settings.velocity_factor
    linear = _shortened(path.linear_m_s, share * robot.translation_velocity_limit.get())
    angular = _shortened(path.angular_rad_s, share * robot.rotation_velocity_limit.get())
    waypoints = []
    for i, duration in enumerate(_milliseconds(path.durations_s)):
        pose = franky.RobotPose(franky.Affine(path.positions_m[i], path.orientations_xyzw[i]))
        target = franky.CartesianState(pose)
        if i < len(path) - 1:  # a last knot with a velocity would have to be followed by another
            velocity = franky.RobotVelocity(franky.Twist(linear[i], angular[i]))
            target = franky.CartesianState(pose, velocity)
        waypoints.append(
            franky.CartesianWaypoint(
                target, franky.ReferenceType.Absolute, minimum_time=franky.Duration(duration)
            )
        )
    return franky.CartesianWaypointMotion(waypoints, relative_dynamics_factor=_factors(settings))


def _joint_motion(durations_s: NDArray, joints: NDArray, robot, settings: FrankaSettings):
    limits = KNOT_SPEED_MARGIN * settings.velocity_factor * robot.joint_velocity_limit.get()
    velocities = np.zeros_like(joints)
    if len(joints) > 1:
        here = np.asarray(robot.state.q_d, float)
        knots = np.vstack([here, joints])
        spans = durations_s[:-1] + durations_s[1:]
        velocities[:-1] = (knots[2:] - knots[:-2]) / spans[:, None]
    velocities = np.clip(velocities, -limits, limits)
    waypoints = [
        franky.JointWaypoint(
            franky.JointState(position, velocity),
            franky.ReferenceType.Absolute,
            minimum_time=franky.Duration(duration),
        )
        for position, velocity, duration in zip(
            joints, velocities, _milliseconds(durations_s), strict=True
        )
    ]
    return franky.JointWaypointMotion(waypoints, relative_dynamics_factor=_factors(settings))


def _shortened(vectors: NDArray, limit: float) -> NDArray:
    """Each row of (N, 3) scaled to a length of at most `limit`, direction kept."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors * np.minimum(1.0, limit / np.maximum(length, 1e-12))


def _milliseconds(durations_s: NDArray) -> list[int]:
    """Durations in whole milliseconds whose sums do not drift; at least 1 ms each."""
    ends = np.round(1e3 * np.cumsum(durations_s)).astype(int)
    return [max(1, int(step)) for step in np.diff(ends, prepend=0)]


def _error_names(errors) -> tuple[str, ...]:
    text = str(errors)  # '[]', or '["a", "b"]': one call instead of 41 attributes
    return tuple(name.strip('" ') for name in text.strip("[]").split(",") if name.strip('" '))


def _forward(robot, tool, joints_rad: NDArray) -> Pose:
    affine = robot.model.pose(franky.Frame.EndEffector, np.asarray(joints_rad, float), *tool)
    return Pose(np.ravel(affine.translation), np.ravel(affine.quaternion))
