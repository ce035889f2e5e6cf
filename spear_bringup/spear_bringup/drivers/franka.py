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
import time
from contextlib import contextmanager

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
from spear_bringup.drivers.link import Link
from spear_bringup.drivers.protocol import FaultKind, RobotFault, RobotState
from spear_policy.geometry.poses import Pose

_SWITCH_TIMEOUT_S = 0.5  # robot time for the tail of a motion of the other control type
_JOIN_TIMEOUT_S = 0.5
_SLOWEST_STEADY_S = 10.0  # for it on our clock: a simulation may be slow
_START_CHECK_S = 0.002  # a plan that cannot be made fails within this time
_CLEAR_TIMEOUT_S = 2.0
_DROP_TIMEOUT_S = 3.0
_CALL_TIMEOUT_S = 12.0


class FrankaArm:
    """See `protocol.Arm`. A dead connection is dropped at once; only `recover` makes a new one."""

    joint_names = tuple(f"fr3_joint{i}" for i in range(1, 8))

    def __init__(self, settings: FrankaSettings):
        self.settings = settings
        self._lock = threading.RLock()  # commands; reading states does not take it
        self._link: Link | None = None
        self._model_lock = threading.Lock()
        self._tool: tuple[franky.Affine, franky.Affine] | None = None
        self._mode, self._errors = "", ()  # of the newest state
        self._unconnected_why = f"there is no connection to the robot at {settings.address}"
        self._again = None  # makes the last motion afresh, for one retry
        self._ending = False  # the newest order was a stop
        self._preempting = False  # franky will report, later, a motion that we ended by force

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
            what = f"connecting to {s.address}"
            link = Link(call_within(s.connect_timeout_s, open_robot, what))
            limit_planner(link.end, s)
        except Exception as error:
            raise connect_fault(error, "robot", s.address) from None
        with self._commanding():
            self._link = link
            self._mode, self._errors = "", ()
            self._again, self._ending, self._preempting = None, False, False

    def disconnect(self) -> None:
        link, self._link, self._again = self._link, None, None
        if link is not None:
            link.drop(_DROP_TIMEOUT_S)

    def read_state(self) -> RobotState:
        link = self._connected()
        try:
            return self._converted(link, link.end.state)
        except Exception as error:
            raise self._fault(link, error) from None

    def send(self, path: Path) -> None:
        _refuse_unless_finite(
            path.durations_s,
            path.positions_m,
            path.orientations_xyzw,
            path.linear_m_s,
            path.angular_rad_s,
        )
        self._start(lambda robot: cartesian_motion(path, robot, self.settings))

    def send_joints(self, durations_s: NDArray, joint_positions_rad: NDArray) -> None:
        durations = np.asarray(durations_s, float)
        joints = np.asarray(joint_positions_rad, float)
        _refuse_unless_finite(durations, joints)
        self._start(lambda robot: joint_motion(durations, joints, robot, self.settings))

    def stop(self) -> None:
        with self._commanding():
            link = self._connected()
            self._again, self._ending = None, True
            try:
                if not link.end.is_in_control:
                    return
                joint = (
                    link.end.current_control_signal_type == franky.ControlSignalType.JointPositions
                )
                make_stop = joint_stop if joint else cartesian_stop
                link.end.move(make_stop(self.settings), asynchronous=True)
            except Exception as error:
                if link.end is not None and link.end.is_in_control:
                    self._stop_hard(link)
                elif not isinstance(error, franky.InvalidMotionTypeException):
                    self._after_failure(link, error)

    def check(self) -> None:
        with self._commanding():
            link = self._connected()
            try:
                link.end.poll_motion()
            except Exception as error:
                self._after_failure(link, error)
        if fault := fault_of_state(self._mode, self._errors):
            raise fault

    def recover(self) -> None:
        try:
            self._clear_errors()
        except RobotFault as fault:
            if fault.kind is not FaultKind.NETWORK:
                raise
            self.connect()
            self._clear_errors()

    def forward_kinematics(self, joint_positions_rad: NDArray) -> Pose:
        if self._tool is None:
            self.read_state()
        return self._forward(self._connected(), joint_positions_rad)

    # Inner parts ---------------------------------------------------------------------------

    @contextmanager
    def _commanding(self):
        """One command at a time; a call into franky that never returns is a lost robot."""
        if not self._lock.acquire(timeout=_CALL_TIMEOUT_S):
            text = f"a call into franky has not returned for {_CALL_TIMEOUT_S:g} s"
            raise RobotFault(FaultKind.NETWORK, f"{text}; restart the driver")
        try:
            yield
        finally:
            self._lock.release()

    def _connected(self) -> Link:
        link = self._link
        if link is None:
            raise self._unconnected()
        return link

    def _unconnected(self) -> RobotFault:
        return RobotFault(FaultKind.NETWORK, self._unconnected_why)

    def _start(self, make_motion) -> None:
        """Send a fresh motion now, and once more at once when the planner fails."""
        with self._commanding():
            link = self._connected()
            if fault := fault_of_state(self._mode, self._errors):
                raise fault
            self._again, self._ending = make_motion, False
            try:
                self._launch(link, make_motion)
            except franky.InvalidMotionTypeException as error:
                # The tail of the other control type (homing, or its stop) is still running.
                self._end_of_motion(link, error)
                self._relaunch(link, make_motion)
            except Exception as error:
                self._after_failure(link, error)

    def _launch(self, link: Link, make_motion) -> None:
        link.end.move(make_motion(link.end), asynchronous=True)
        link.end.join_motion(timeout=_START_CHECK_S)

    def _relaunch(self, link: Link, make_motion) -> None:
        try:
            self._launch(link, make_motion)
        except Exception as error:
            raise self._fault(link, error) from None

    def _end_of_motion(self, link: Link, error: Exception) -> None:
        steady_end_s = time.monotonic() + _SLOWEST_STEADY_S
        try:
            robot_end_s = link.end.state.time.to_sec() + _SWITCH_TIMEOUT_S
            while not link.end.join_motion(timeout=0.02):
                over = link.end.state.time.to_sec() > robot_end_s
                if over or time.monotonic() > steady_end_s:
                    raise error
        except Exception as failure:
            raise self._fault(link, failure) from None

    def _after_failure(self, link: Link, error: Exception) -> None:
        """Send the last motion once more after a planner failure; raise every other fault."""
        again, self._again = self._again, None
        ours = is_preemption(error) and self._preempting
        self._preempting = self._preempting and not ours
        if self._ending and (ours or is_planner_failure(error)):
            return  # the motion is over, which is what stop() wants
        if again is None or not (ours or is_planner_failure(error)):
            raise self._fault(link, error) from None
        self._relaunch(link, again)

    def _stop_hard(self, link: Link) -> None:
        """End the control loop itself, when the clean stop cannot be sent."""
        self._ending = self._preempting = True
        try:
            link.end.stop()
        except Exception as error:
            raise self._fault(link, error) from None

    def _clear_errors(self) -> None:
        with self._commanding():
            link = self._connected()
            if link.end.is_in_control:
                self._stop_hard(link)
            try:
                link.end.join_motion(timeout=_JOIN_TIMEOUT_S)
            except Exception as error:  # the old failure: a person has just dealt with it
                if isinstance(error, franky.NetworkException):
                    raise self._fault(link, error) from None
            try:
                if link.end.has_errors:
                    link.end.recover_from_errors()
                deadline_s = time.monotonic() + _CLEAR_TIMEOUT_S
                while True:  # the state that shows it comes a little after the robot's answer
                    self._converted(link, link.end.state)
                    fault = fault_of_state(self._mode, self._errors)
                    if fault is None or time.monotonic() > deadline_s:
                        break
                    time.sleep(0.005)
            except Exception as error:
                raise self._fault(link, error) from None
        if fault is not None:
            raise fault

    def _converted(self, link: Link, state: franky.RobotState) -> RobotState:
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
            measured=self._forward(link, state.q),
            commanded=self._forward(link, state.q_d),
            mode=self._mode,
            errors=self._errors,
        )

    def _forward(self, link: Link, joints_rad: NDArray) -> Pose:
        joints = np.asarray(joints_rad, float)
        with self._model_lock:
            affine = link.end.model.pose(franky.Frame.EndEffector, joints, *self._tool)
        return Pose(np.ravel(affine.translation), np.ravel(affine.quaternion))

    def _look_again(self, link: Link) -> None:
        try:
            self._converted(link, link.end.state)
        except Exception:  # the error at hand says more than a second one
            pass

    def _fault(self, link: Link, error: Exception) -> RobotFault:
        if link.end is None:  # dropped by another thread in the middle of a call
            return self._unconnected()
        if isinstance(error, franky.ControlException | franky.CommandException):
            self._look_again(link)  # the robot may have changed its mode since the last state
        fault = fault_of(error, self.settings.address, self._mode)
        if fault.kind is FaultKind.NETWORK:
            link.drop()  # dead for good, even when the network comes back
            self._unconnected_why = str(fault)
            if self._link is link:
                self._link = None
        return fault


def _refuse_unless_finite(*parts: NDArray) -> None:
    if not all(len(part) and np.all(np.isfinite(part)) for part in parts):
        text = "the path is empty or holds numbers that are not finite; nothing was sent"
        raise RobotFault(FaultKind.PLANNER, text)


def _error_names(errors) -> tuple[str, ...]:
    text = str(errors)  # '[]', or '["a", "b"]': one call instead of 41 attributes
    return tuple(name.strip('" ') for name in text.strip("[]").split(",") if name.strip('" '))
