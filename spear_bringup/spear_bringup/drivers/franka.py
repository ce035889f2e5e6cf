"""A Franka (FR3, Panda) and its hand as `protocol.Arm` and `protocol.Gripper`, over franky 2.0.

Motions are Cartesian waypoint motions with a velocity at every knot and rest at the last one,
each sent preemptively over the one before: smooth while chunks come, and at rest by itself at the
end of the last one when they stop.

The robot's firmware decides which franky wheel fits. The one on PyPI (franky-control 2.0.0)
bundles libfranka 0.21.2, which speaks robot server version 10 (the simulated robot speaks it too).
Wheels for older firmware are published by franky's authors at their code hosting, one for each
libfranka version; a wrong one fails `connect` with a sentence that says so.
"""

import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import franky
import numpy as np
from numpy.typing import NDArray

from spear_bringup.control.path import Path
from spear_bringup.drivers.franka_faults import (
    MOVING_MODES,
    connect_fault,
    fault_of,
    fault_of_state,
    gripper_fault_of,
    is_planner_failure,
    is_preemption,
)
from spear_bringup.drivers.franka_limits import (
    FrankaSettings,
    generation_of,
    limit_planner,
    refuse_beyond,
)
from spear_bringup.drivers.protocol import FaultKind, RobotError, RobotState
from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import Pose, distance

# Connections that close when their last reference goes -------------------------------------------


class Connection:
    """Holds franky's client object; `drop` closes it.

    A robot takes no second client while the first one lives, and an exception keeps the local
    variables of every frame it went through alive, for as long as anyone keeps the exception. So
    functions pass the connection on and write `connection.client.call()`; none keeps the client in
    a variable of its own.
    """

    __slots__ = ("client",)

    def __init__(self, client):
        self.client = client

    def drop(self, wait_s: float = 0.0) -> None:
        """Let go of the connection, waiting `wait_s` at most for it to close.

        franky's destructor waits for its control loop, which may wait for the robot for ever.
        """
        thread = threading.Thread(target=self._close, name="closing_connection", daemon=True)
        thread.start()
        thread.join(wait_s)

    def _close(self) -> None:
        self.client = None


# Calls with a bound on their time: franky may block for minutes ----------------------------------


def call_within(timeout_s: float, function: Callable[[], Any], name: str) -> Any:
    """What `function()` returns or raises, if it does so within `timeout_s` of steady time.

    A call that comes back later is dropped with its result, so that a connection which opens too
    late is closed again by its own destructor.

    Raises:
        TimeoutError: no answer in time; the call goes on in a daemon thread.
    """
    outcome: list[tuple[Any, BaseException | None]] = []
    waiting = threading.Lock()
    done = threading.Event()
    abandoned = threading.Event()

    def work():
        try:
            result, error = function(), None
        except BaseException as raised:  # handed to the caller
            result, error = None, raised
        with waiting:
            if not abandoned.is_set():
                outcome.append((result, error))
        done.set()

    threading.Thread(target=work, name=name, daemon=True).start()
    done.wait(timeout_s)
    with waiting:
        abandoned.set()
    if not outcome:
        raise TimeoutError(f"{name}: no answer within {timeout_s:g} s")
    result, error = outcome.pop()
    if error is not None:
        raise error
    return result


# Motions made from paths: units, whole milliseconds, bounds of each waypoint ----------------------

# libfranka's own low-pass (100 Hz by default) is off: the planner's motion is smooth already, and a
# motion that takes over would begin with the filter's late speed and acceleration.
NO_FILTER_HZ = 1000.0
_KNOT_SHARE = 0.95  # of an axis's bound, which the planner refuses a knot to stand at exactly


def cartesian_motion(path: Path, robot: franky.Robot) -> franky.CartesianWaypointMotion:
    """Absolute waypoints with a velocity each and a last one at rest; single-use."""
    state = robot.state
    here, twist = state.O_T_EE_c, state.O_dP_EE_c
    positions = np.vstack([np.ravel(here.translation), path.positions_m])
    orientations = np.vstack([np.ravel(here.quaternion), path.orientations_xyzw])
    turns = quat.rotation_vector(quat.multiply(orientations[1:], quat.inverse(orientations[:-1])))
    # From one waypoint to the next the planner keeps the change of the rotation vector, which is
    # the angular velocity along the turn only: what stands across it would be a jump.
    along = turns / np.maximum(np.linalg.norm(turns, axis=1, keepdims=True), 1e-9)
    angular_rad_s = along * np.sum(along * path.angular_rad_s, axis=1, keepdims=True)
    linear = _Stretches(
        np.diff(positions, axis=0),
        np.vstack([np.ravel(twist.linear), path.linear_m_s]),
        robot.translation_velocity_limit.get(),
        robot.translation_acceleration_limit.get(),
        robot.translation_jerk_limit.get(),
    )
    angular = _Stretches(
        turns,
        np.vstack([np.ravel(twist.angular), angular_rad_s]),
        robot.rotation_velocity_limit.get(),
        robot.rotation_acceleration_limit.get(),
        robot.rotation_jerk_limit.get(),
    )
    # The planner's axes are those of the end effector at the waypoint before.
    to_axes, durations_s = quat.inverse(orientations[:-1]), path.durations_s
    shares = np.minimum(
        linear.axis_shares(durations_s, to_axes), angular.axis_shares(durations_s, to_axes)
    )
    linear_m_s = linear.knot_velocities(shares, to_axes)
    angular_rad_s = angular.knot_velocities(shares, to_axes)
    waypoints = []
    for i, duration in enumerate(_milliseconds(durations_s)):
        pose = franky.RobotPose(franky.Affine(path.positions_m[i], path.orientations_xyzw[i]))
        target = franky.CartesianState(pose)
        if i < len(path) - 1:  # a last knot with a velocity would have to be followed by another
            velocity = franky.RobotVelocity(franky.Twist(linear_m_s[i], angular_rad_s[i]))
            target = franky.CartesianState(pose, velocity)
        waypoints.append(
            franky.CartesianWaypoint(
                target,
                franky.ReferenceType.Absolute,
                relative_dynamics_factor=franky.RelativeDynamicsFactor(shares[i], 1.0, 1.0),
                minimum_time=franky.Duration(duration),
            )
        )
    return franky.CartesianWaypointMotion(waypoints)


@dataclass(frozen=True, eq=False)
class _Stretches:
    """Translation or rotation between the knots of a path, base axes.

    Attributes:
        moves: (N, 3) way from the knot before.
        velocities: (N + 1, 3) at the start and at each knot.
        speed: the planner's bound on the vector; acceleration, jerk: those on one axis.
    """

    moves: NDArray
    velocities: NDArray
    speed: float
    acceleration: float
    jerk: float

    def axis_shares(self, durations_s: NDArray, to_axes: NDArray) -> NDArray:
        """Shares (N,) of `speed` that one axis may have so that the vector keeps `speed`."""
        peaks = _peak_speeds(
            quat.rotate(to_axes, self.moves),
            quat.rotate(to_axes, self.velocities[:-1]),
            quat.rotate(to_axes, self.velocities[1:]),
            durations_s[:, None],
            self.acceleration,
            self.jerk,
        )
        squares = np.sort((peaks / self.speed) ** 2, axis=1)
        # The slower axes take what they need, and the others share what is left.
        left = np.maximum(1.0 - np.cumsum(squares, axis=1) + squares, 0.0)
        return np.sqrt(np.max(left / [3.0, 2.0, 1.0], axis=1))

    def knot_velocities(self, shares: NDArray, to_axes: NDArray) -> NDArray:
        """Velocity (N, 3) at each knot, shortened to what the planner takes there."""
        velocities = self.velocities[1:]
        largest = np.max(np.abs(quat.rotate(to_axes, velocities)), axis=1)
        most = _KNOT_SHARE * self.speed * shares
        return velocities * np.minimum(1.0, most / np.maximum(largest, 1e-12))[:, None]


def _peak_speeds(move, start, end, duration_s, acceleration, jerk) -> NDArray:
    """The largest speed (N, 3) of each axis on its way to each knot, or a little more.

    The planner goes over to a constant speed v, and from it to the end's. A change by d takes at
    most d / acceleration + acceleration / jerk, so v solves a quadratic equation. Where that has no
    solution the time is too short; the planner then takes more, without any constant speed.
    """
    ramp_s = acceleration / jerk
    duration_s = duration_s - ramp_s
    move = move - (start + end) * ramp_s / 2
    peak = np.maximum(np.abs(start), np.abs(end))
    for sign in (1.0, -1.0):
        first, last = sign * start, sign * end
        half = (first + last + acceleration * duration_s) / 2
        square = acceleration * sign * move + (first**2 + last**2) / 2
        root = half**2 - square
        speed = np.where(
            (root >= 0.0) & (half > 0.0),
            half - np.sqrt(np.maximum(root, 0.0)),
            np.sqrt(np.maximum(square, 0.0)),
        )
        peak = np.maximum(peak, np.where(speed > np.maximum(first, last), speed, 0.0))
    return peak


def cartesian_stop() -> franky.CartesianStopMotion:
    """Come to rest from a Cartesian motion."""
    return franky.CartesianStopMotion()


def joint_stop(settings: FrankaSettings) -> franky.JointStopMotion:
    """Come to rest from a joint motion."""
    return franky.JointStopMotion(_joint_factors(settings))


def joint_motion(
    durations_s: NDArray, joints: NDArray, robot: franky.Robot, settings: FrankaSettings
) -> franky.JointWaypointMotion:
    """Joint waypoints (N, 7) [rad] with central-difference velocities, at rest at the end."""
    limits = _KNOT_SHARE * settings.joint_velocity_factor * robot.joint_velocity_limit.get()
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
    return franky.JointWaypointMotion(waypoints, relative_dynamics_factor=_joint_factors(settings))


def _joint_factors(settings: FrankaSettings) -> franky.RelativeDynamicsFactor:
    s = settings
    return franky.RelativeDynamicsFactor(
        s.joint_velocity_factor, s.joint_acceleration_factor, s.joint_jerk_factor
    )


def _milliseconds(durations_s: NDArray) -> list[int]:
    """Durations in whole milliseconds whose sums do not drift; at least 1 ms each."""
    ends = np.round(1e3 * np.cumsum(durations_s)).astype(int)
    return [max(1, int(step)) for step in np.diff(ends, prepend=0)]


# The arm -----------------------------------------------------------------------------------------

_SWITCH_TIMEOUT_S = 0.5  # robot time for the tail of a motion of the other control type
_JOIN_TIMEOUT_S = 0.5
_SLOWEST_STEADY_S = 10.0  # for it on our clock: a simulation may be slow
_ARRIVED_M_RAD = 1e-3
_START_CHECK_S = 0.002  # a plan that cannot be made fails within this time
_CLEAR_TIMEOUT_S = 2.0
_DROP_TIMEOUT_S = 3.0
_CALL_TIMEOUT_S = 12.0


class FrankaArm:
    """See `protocol.Arm`. A dead connection is dropped at once; only `recover` makes a new one."""

    joint_names = tuple(f"fr3_joint{i}" for i in range(1, 8))
    still_speed_rad_s = 0.01

    def __init__(self, settings: FrankaSettings):
        self.settings = settings
        self._lock = threading.RLock()  # commands; reading states does not take it
        self._connection: Connection | None = None
        self._model_lock = threading.Lock()
        self._tool: tuple[franky.Affine, franky.Affine] | None = None
        self._mode, self._errors = "", ()  # of the newest state
        self._unconnected_why = f"there is no connection to the robot at {settings.address}"
        self._ending = False  # the newest order was a stop
        self._end: Pose | None = None  # of the newest path, if that was Cartesian
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
            connection = Connection(call_within(s.connect_timeout_s, open_robot, what))
            described = getattr(connection.client, "model_urdf", None)  # no Panda's wheel has it
            generation = generation_of(described, s.robot_generation, s.address)
            refuse_beyond(s, generation)
            limit_planner(connection.client, s, generation)
        except RobotError:
            connection.drop(_DROP_TIMEOUT_S)
            raise
        except Exception as error:
            raise connect_fault(error, "robot", s.address) from None
        with self._commanding():
            self._connection = connection
            self._mode, self._errors = "", ()
            self._ending = self._preempting = False

    def disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop(_DROP_TIMEOUT_S)

    def read_state(self) -> RobotState:
        connection = self._connected()
        try:
            return self._converted(connection, connection.client.state)
        except Exception as error:
            raise self._fault(connection, error) from None

    def send(self, path: Path) -> None:
        _refuse_unless_finite(
            path.durations_s,
            path.positions_m,
            path.orientations_xyzw,
            path.linear_m_s,
            path.angular_rad_s,
        )
        end = Pose(path.positions_m[-1], path.orientations_xyzw[-1])
        self._start(lambda robot: cartesian_motion(path, robot), end)

    def send_joints(self, durations_s: NDArray, joint_positions_rad: NDArray) -> None:
        durations = np.asarray(durations_s, float)
        joints = np.asarray(joint_positions_rad, float)
        _refuse_unless_finite(durations, joints)
        self._start(lambda robot: joint_motion(durations, joints, robot, self.settings))

    def stop(self) -> None:
        with self._commanding():
            connection = self._connected()
            self._ending = True
            try:
                if not connection.client.is_in_control:
                    return
                signal = connection.client.current_control_signal_type
                joint = signal == franky.ControlSignalType.JointPositions
                motion = joint_stop(self.settings) if joint else cartesian_stop()
                connection.client.move(motion, asynchronous=True, cutoff_frequency=NO_FILTER_HZ)
            except Exception as error:
                if connection.client is not None and connection.client.is_in_control:
                    self._stop_hard(connection)
                elif not isinstance(error, franky.InvalidMotionTypeException):
                    self._after_failure(connection, error)

    def check(self) -> None:
        with self._commanding():
            connection = self._connected()
            try:
                connection.client.poll_motion()
            except Exception as error:
                self._after_failure(connection, error)
        if fault := fault_of_state(self._mode, self._errors):
            raise fault

    def recover(self) -> None:
        try:
            self._clear_errors()
        except RobotError as fault:
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
            raise RobotError(FaultKind.NETWORK, f"{text}; restart the driver")
        try:
            yield
        finally:
            self._lock.release()

    def _connected(self) -> Connection:
        connection = self._connection
        if connection is None:
            raise self._unconnected()
        return connection

    def _unconnected(self) -> RobotError:
        return RobotError(FaultKind.NETWORK, self._unconnected_why)

    def _start(self, make_motion, end: Pose | None = None) -> None:
        """Send a fresh motion now, and once more at once when the planner fails."""
        with self._commanding():
            connection = self._connected()
            if self._mode not in MOVING_MODES or self._errors:
                raise fault_of_state(self._mode, self._errors)
            self._ending, self._end = False, end
            try:
                self._launch(connection, make_motion)
                return
            except franky.InvalidMotionTypeException as error:
                # The tail of the other control type (homing, or its stop) is still running.
                self._end_of_motion(connection, error)
            except Exception as error:
                # Ours, or of a motion before this one, or of a plan that may succeed now.
                if not self._is_preemption_of_ours(error) and not is_planner_failure(error):
                    raise self._fault(connection, error) from None
            try:
                self._launch(connection, make_motion)
            except Exception as error:
                raise self._fault(connection, error) from None

    def _launch(self, connection: Connection, make_motion) -> None:
        motion = make_motion(connection.client)
        connection.client.move(motion, asynchronous=True, cutoff_frequency=NO_FILTER_HZ)
        connection.client.join_motion(timeout=_START_CHECK_S)

    def _end_of_motion(self, connection: Connection, error: Exception) -> None:
        steady_end_s = time.monotonic() + _SLOWEST_STEADY_S
        try:
            robot_end_s = connection.client.state.time.to_sec() + _SWITCH_TIMEOUT_S
            while not connection.client.join_motion(timeout=0.02):
                over = connection.client.state.time.to_sec() > robot_end_s
                if over or time.monotonic() > steady_end_s:
                    raise error
        except Exception as failure:
            raise self._fault(connection, failure) from None

    def _after_failure(self, connection: Connection, error: Exception) -> None:
        """Raise the fault of a motion that failed after it was sent.

        It is not sent again: the arm is no longer where its path was judged.
        """
        over = self._is_preemption_of_ours(error) or (
            is_planner_failure(error) and (self._ending or self._arrived(connection))
        )
        if not over:  # else the motion has ended, which is what stop() wants
            raise self._fault(connection, error) from None

    def _arrived(self, connection: Connection) -> bool:
        """Whether the robot commands the end of its last path: franky plans on there for 10 ms."""
        try:
            commanded = self._converted(connection, connection.client.state).commanded
        except Exception:  # the error at hand says more than a second one
            return False
        return self._end is not None and max(distance(commanded, self._end)) < _ARRIVED_M_RAD

    def _is_preemption_of_ours(self, error: Exception) -> bool:
        ours = is_preemption(error) and self._preempting
        self._preempting = self._preempting and not ours
        return ours

    def _stop_hard(self, connection: Connection) -> None:
        """End the control loop itself, when the clean stop cannot be sent."""
        self._ending = self._preempting = True
        try:
            connection.client.stop()
        except Exception as error:
            raise self._fault(connection, error) from None

    def _clear_errors(self) -> None:
        with self._commanding():
            connection = self._connected()
            if connection.client.is_in_control:
                self._stop_hard(connection)
            try:
                connection.client.join_motion(timeout=_JOIN_TIMEOUT_S)
            except Exception as error:  # the old failure: a person has just dealt with it
                if isinstance(error, franky.NetworkException):
                    raise self._fault(connection, error) from None
            try:
                if connection.client.has_errors:
                    connection.client.recover_from_errors()
                deadline_s = time.monotonic() + _CLEAR_TIMEOUT_S
                while True:  # the state that shows it comes a little after the robot's answer
                    self._converted(connection, connection.client.state)
                    fault = fault_of_state(self._mode, self._errors)
                    if fault is None or time.monotonic() > deadline_s:
                        break
                    time.sleep(0.005)
            except Exception as error:
                raise self._fault(connection, error) from None
        if fault is not None:
            raise fault

    def _converted(self, connection: Connection, state: franky.RobotState) -> RobotState:
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
            measured=self._forward(connection, state.q),
            commanded=self._forward(connection, state.q_d),
            mode=self._mode,
            errors=self._errors,
        )

    def _forward(self, connection: Connection, joints_rad: NDArray) -> Pose:
        joints = np.asarray(joints_rad, float)
        with self._model_lock:
            affine = connection.client.model.pose(franky.Frame.EndEffector, joints, *self._tool)
        return Pose(np.ravel(affine.translation), np.ravel(affine.quaternion))

    def _refresh_mode(self, connection: Connection) -> None:
        """The robot may have changed its mode since the last state."""
        try:
            self._converted(connection, connection.client.state)
        except Exception:  # the error at hand says more than a second one
            pass

    def _fault(self, connection: Connection, error: Exception) -> RobotError:
        if connection.client is None:  # dropped by another thread in the middle of a call
            return self._unconnected()
        if isinstance(error, franky.ControlException | franky.CommandException):
            self._refresh_mode(connection)
        fault = fault_of(error, self.settings.address, self._mode)
        if fault.kind is FaultKind.NETWORK:
            connection.drop()  # dead for good, even when the network comes back
            self._unconnected_why = str(fault)
            if self._connection is connection:
                self._connection = None
        return fault


def _refuse_unless_finite(*parts: NDArray) -> None:
    if not all(len(part) and np.all(np.isfinite(part)) for part in parts):
        text = "the path is empty or holds numbers that are not finite; nothing was sent"
        raise RobotError(FaultKind.PATH, text)


def _error_names(errors) -> tuple[str, ...]:
    text = str(errors)  # '[]', or '["a", "b"]': one call instead of 41 attributes
    return tuple(name.strip('" ') for name in text.strip("[]").split(",") if name.strip('" '))


# The hand ----------------------------------------------------------------------------------------

_ANY_WIDTH_M = 0.08  # grasp's outer tolerance: the hand's whole stroke
_STOP_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class FrankaGripperSettings:
    """How to reach and drive the hand.

    Attributes:
        address: of the robot's control box (the hand has a port of its own there).
        speed_m_s: of the opening width; force_n: with which to close.
        connect_timeout_s: how long `connect` may take.
    """

    address: str
    speed_m_s: float = 0.1
    force_n: float = 40.0
    connect_timeout_s: float = 3.0


class FrankaGripper:
    """See `protocol.Gripper`. The width may be read from a second thread during a command.

    Synchronous calls only: a `*_async` call made while another is pending was seen to hang for
    good. `close` grasps with width 0, for a grasp at the object's own width holds it without force.
    It "succeeds" on nothing too: only the width shows whether something is held.
    """

    max_width_m = 0.08
    reads_while_moving = True

    def __init__(self, settings: FrankaGripperSettings):
        self.settings = settings
        self._connection: Connection | None = None

    def connect(self) -> None:
        s = self.settings
        self.disconnect()
        try:
            what = f"connecting to {s.address}"
            connection = Connection(
                call_within(s.connect_timeout_s, lambda: franky.Gripper(s.address), what)
            )
            width_m = connection.client.max_width
        except Exception as error:
            raise connect_fault(error, "gripper", s.address) from None
        self._connection = connection
        if width_m > 0.0:  # 0 before the hand was homed in Desk
            self.max_width_m = float(width_m)

    def disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop(_DROP_TIMEOUT_S)

    def open(self) -> None:
        speed_m_s = self.settings.speed_m_s
        self._call(lambda connection: connection.client.open(speed_m_s), "open")

    def close(self) -> None:
        grasp = 0.0, self.settings.speed_m_s, self.settings.force_n, 0.01, _ANY_WIDTH_M
        self._call(lambda connection: connection.client.grasp(*grasp), "close")

    def stop(self) -> None:
        def stop(connection: Connection) -> None:
            call_within(_STOP_TIMEOUT_S, connection.client.stop, "stopping the gripper")

        self._call(stop, "stop")

    def width_m(self) -> float:
        return float(self._call(lambda connection: connection.client.width, "read its width"))

    def _call(self, call, what: str):
        connection = self._connection
        if connection is None:
            text = f"there is no connection to the gripper at {self.settings.address}"
            raise RobotError(FaultKind.NETWORK, f"{text}; call ~/recover")
        try:
            return call(connection)
        except Exception as error:
            fault = gripper_fault_of(error, self.settings.address, what)
            if fault.kind is FaultKind.NETWORK:
                connection.drop()
                if self._connection is connection:
                    self._connection = None
            raise fault from None
