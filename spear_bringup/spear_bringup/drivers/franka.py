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
from spear_bringup.drivers.franka_motions import (
    FrankaSettings,
    cartesian_motion,
    cartesian_stop,
    joint_motion,
    joint_stop,
    limit_planner,
)
from spear_bringup.drivers.protocol import FaultKind, RobotFault, RobotState
from spear_policy.geometry.poses import Pose

_SWITCH_TIMEOUT_S = 0.5  # for the tail of a motion of the other control type
_START_CHECK_S = 0.002  # a plan that cannot be made fails within this time


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
        self._start(lambda robot: cartesian_motion(path, robot, self.settings))

    def send_joints(self, durations_s: NDArray, joint_positions_rad: NDArray) -> None:
        durations = np.asarray(durations_s, float)
        joints = np.asarray(joint_positions_rad, float)
        if not np.all(np.isfinite(durations)) or not np.all(np.isfinite(joints)) or not len(joints):
            raise RobotFault(FaultKind.PLANNER, "the joint path is empty or not finite")
        self._start(lambda robot: joint_motion(durations, joints, robot, self.settings))

    def stop(self) -> None:
        with self._lock:
            robot = self._connected()
            self._again = None
            try:
                if not robot.is_in_control:
                    return
                joint = robot.current_control_signal_type == franky.ControlSignalType.JointPositions
                make_stop = joint_stop if joint else cartesian_stop
                robot.move(make_stop(self.settings), asynchronous=True)
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


def _error_names(errors) -> tuple[str, ...]:
    text = str(errors)  # '[]', or '["a", "b"]': one call instead of 41 attributes
    return tuple(name.strip('" ') for name in text.strip("[]").split(",") if name.strip('" '))


def _forward(robot, tool, joints_rad: NDArray) -> Pose:
    affine = robot.model.pose(franky.Frame.EndEffector, np.asarray(joints_rad, float), *tool)
    return Pose(np.ravel(affine.translation), np.ravel(affine.quaternion))
