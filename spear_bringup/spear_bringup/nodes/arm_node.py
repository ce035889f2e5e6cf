"""The robot-independent part of a driver node: chunks in, motion, states and verdicts out.

First the services that take seconds, then the messages that a driver publishes, then the node.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from functools import partial

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import Empty
from std_srvs.srv import Trigger

from spear_bringup.control.command_core import CommandCore, Decision, GripperLogic
from spear_bringup.control.gate import GateDecision, Reason
from spear_bringup.control.limits import Limits, Timing
from spear_bringup.control.path import Reference
from spear_bringup.drivers.arm_session import ArmSample, ArmSession
from spear_bringup.drivers.clocks import Heartbeat
from spear_bringup.drivers.gripper_worker import GripperReport, GripperWorker
from spear_bringup.drivers.homing import HomingError, go_home
from spear_bringup.drivers.protocol import Arm, Gripper, RobotError
from spear_msgs.msg import ActionChunk, EndEffectorCommand, EndEffectorState, GateStatus
from spear_policy.nodes import messages as qos
from spear_policy.nodes.lifecycle import ERROR, OK, WARN, RefusedError, SpearNode
from spear_policy.nodes.messages import (
    chunk_from_msg,
    clock_s,
    pose_from_array,
    pose_to_msg,
    s_to_duration,
    s_to_stamp,
    text_to_msg,
    twist_to_msg,
)
from spear_policy.nodes.parameters import Parameters

# Services beside the data plane: states and chunks go on, and nothing is before a stop ------------


class ServiceThread:
    """Trigger services `<node>/<name>` on a thread of their own, one at a time.

    Args:
        node: the node that they belong to.
        suffix: of the ROS node that carries them.
        handlers: for each name a function that returns the answer's sentence, or raises RobotError
            or HomingError with the sentence of a failure.
    """

    def __init__(self, node: SpearNode, suffix: str, handlers: dict[str, Callable[[], str]]):
        self._node = Node(
            f"{node.get_name()}_{suffix}",
            namespace=node.get_namespace(),
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, name=suffix, daemon=True)
        for name, handler in handlers.items():
            service = f"{node.get_fully_qualified_name()}/{name}"
            self._node.create_service(Trigger, service, self._callback(handler))

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        self._node.destroy_node()

    def _callback(self, handler):
        def callback(request, response: Trigger.Response) -> Trigger.Response:
            try:
                response.message, response.success = handler(), True
            except (RobotError, HomingError) as failure:
                response.message = text_to_msg(str(failure))
            return response

        return callback

    def _spin(self) -> None:
        executor = SingleThreadedExecutor(context=self._node.context)
        executor.add_node(self._node)
        while not self._closing.is_set() and self._node.context.ok():
            executor.spin_once(timeout_sec=0.1)
        executor.remove_node(self._node)
        executor.shutdown(timeout_sec=1.0)


# What an arm driver publishes, made from what its session knows ---------------------------------


def gate_status_msg(gate: GateDecision, core: CommandCore, now_s: float) -> GateStatus:
    """A verdict with the counts so far."""
    message = GateStatus(
        verdict=int(gate.verdict),
        reason=int(gate.reason),
        text=text_to_msg(gate.text),
        source_id=gate.source_id,
        chunk_id=int(gate.chunk_id),
        asked=float(gate.asked),
        allowed=float(gate.allowed),
        time_scale=float(gate.time_scale),
        chunk_age=float(gate.chunk_age_s),
        counts=np.array(core.counts, np.uint64),
    )
    message.header.stamp = s_to_stamp(max(now_s, 0.0))
    return message


def command_msg(
    decision: Decision,
    sample: ArmSample,
    core: CommandCore,
    gripper_opening: float,
    now_s: float,
    base_frame: str,
) -> EndEffectorCommand:
    """What was sent for one chunk; no knots when nothing was."""
    message = EndEffectorCommand(
        gate=gate_status_msg(decision.gate, core, now_s),
        measured=pose_to_msg(sample.state.measured),
        commanded=pose_to_msg(sample.state.commanded),
        seam_translation=float(decision.seam_m),
        seam_rotation=float(decision.seam_rad),
        observation_age=s_to_duration(decision.observation_age_s),
        time_slip=s_to_duration(decision.time_slip_s),
        gripper_opening=float(gripper_opening),
    )
    message.header.stamp, message.header.frame_id = s_to_stamp(max(now_s, 0.0)), base_frame
    path = decision.path
    if path is not None:
        for i in range(len(path)):
            knot = np.concatenate([path.positions_m[i], path.orientations_xyzw[i]])
            message.knots.append(pose_from_array(knot))
            message.knot_twists.append(twist_to_msg(path.linear_m_s[i], path.angular_rad_s[i]))
            message.knot_durations.append(s_to_duration(path.durations_s[i]))
    return message


def ee_state_msg(
    sample: ArmSample, reference: Reference, gripper: GripperReport, base_frame: str, ee_frame: str
) -> EndEffectorState:
    """Where the end effector is and is commanded to be, the path under way, and the gripper."""
    message = EndEffectorState(
        ee_frame_id=ee_frame,
        measured=pose_to_msg(sample.state.measured),
        commanded=pose_to_msg(sample.state.commanded),
        commanded_twist=twist_to_msg(reference.linear_m_s, reference.angular_rad_s),
        gripper_width=float(gripper.width_m),
        gripper_opening=float(gripper.opening),
        gripper_holding=bool(gripper.holding),
    )
    message.header.stamp = s_to_stamp(max(sample.stamp_s, 0.0))
    message.header.frame_id = base_frame
    return message


def joint_state_msg(sample: ArmSample, names: tuple[str, ...], base_frame: str) -> JointState:
    """Joint positions [rad], velocities [rad/s] and torques [Nm]."""
    state = sample.state
    message = JointState(
        name=list(names),
        position=state.joint_positions_rad.tolist(),
        velocity=state.joint_velocities_rad_s.tolist(),
        effort=state.joint_torques_nm.tolist(),
    )
    message.header.stamp = s_to_stamp(max(sample.stamp_s, 0.0))
    message.header.frame_id = base_frame
    return message


def chunk_problem(message: ActionChunk, base_frame: str, ee_frame: str) -> str | None:
    """What is wrong with the frames or the kind of a chunk, in a sentence; None when nothing is."""
    if message.kind != ActionChunk.KIND_STEPS:
        return f"kind {message.kind} is unknown; use a KIND_ constant of ActionChunk"
    if message.header.frame_id != base_frame:
        return f"header.frame_id is {message.header.frame_id!r}; it must be {base_frame!r}"
    for step in message.steps:
        if step.rotation_frame_id != ee_frame:
            return (
                f"rotation_frame_id of step {step.step} is {step.rotation_frame_id!r}; "
                f"it must be {ee_frame!r}"
            )
    return None


# The node ---------------------------------------------------------------------------------------

_CLOCK_WAIT_S = 10.0
_MAX_CHUNK_BYTES = 64_000  # more than 64 steps with the longest texts that the message allows


class ArmNode(SpearNode, ABC):
    """A driver node. Subclasses say which arm and which gripper.

    Args:
        name: node name; its parameters are `config/<name>.yaml`.
    """

    def __init__(self, name: str, arguments: list[str] | None = None):
        super().__init__(name, arguments)
        self.params = Parameters(self, "spear_bringup", name)
        self._now_s = partial(clock_s, self.io.get_clock())
        self.session: ArmSession | None = None
        self._manager: Heartbeat | None = None
        self.gripper: GripperWorker | None = None
        self._published: tuple | None = None
        self._judged_s = self._next_state_s = 0.0
        create = self.io.create_publisher
        self._states = create(EndEffectorState, "ee_state", qos.SENSOR)
        self._joints = create(JointState, "joint_states", qos.SENSOR)
        self._commands = create(EndEffectorCommand, "command", qos.EVENT)
        self._gate = create(GateStatus, "gate_status", qos.LATCHED)
        self.io.create_subscription(
            ActionChunk, "action_chunk", self._on_chunk, qos.COMMAND, raw=True
        )
        # Silence must mean unknown, so this timer does not follow /clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.io.create_timer(1.0, self._repeat_gate_status, clock=steady)
        self.io.create_subscription(
            Empty, "lifecycle_manager/heartbeat", self._on_heartbeat, qos.NEWEST
        )
        self._service_threads = (
            ServiceThread(self, "services", {"home": self._home, "recover": self._recover}),
            ServiceThread(self, "stop", {"stop": self._stop}),
        )

    @abstractmethod
    def make_arm(self) -> Arm:
        """The arm that the parameters describe; not connected yet."""

    @abstractmethod
    def make_gripper(self) -> Gripper | None:
        """The gripper that the parameters describe, or None."""

    # Lifecycle ---------------------------------------------------------------------------

    def start_threads(self) -> None:
        super().start_threads()
        for services in self._service_threads:
            services.start()

    def close(self) -> None:
        super().close()
        for services in self._service_threads:
            services.close()

    def configure(self) -> None:
        self.params.check()
        p = self.params
        self._frames = p["base_frame"], p["ee_frame"]
        self._publish_period_s = 1.0 / p["publish_rate_hz"]
        self._published, self._next_state_s = None, 0.0
        self._manager = Heartbeat(p["manager_timeout_s"])
        try:
            limits = Limits(**{field.name: p[field.name] for field in fields(Limits)})
            timing = Timing(**{field.name: p[field.name] for field in fields(Timing)})
            logic = GripperLogic(
                p["gripper_close_below"], p["gripper_open_above"], p["gripper_min_dwell_s"]
            )
        except ValueError as error:
            raise RefusedError(str(error)) from None
        if self.simulated_time and not self.wait_until(lambda: self.now_s() > 0.0, _CLOCK_WAIT_S):
            text = f"use_sim_time is set and no /clock came within {_CLOCK_WAIT_S:g} s"
            raise RefusedError(f"{text}; start the simulation, or unset use_sim_time")
        try:
            if (gripper := self.make_gripper()) is not None:
                gripper.connect()
                self.gripper = GripperWorker(
                    gripper, p["gripper_min_dwell_s"], p["gripper_holding_width_m"]
                )
                self.gripper.start()
            self.session = ArmSession(
                self.make_arm(),
                CommandCore(limits, timing, logic),
                now_s=self._now_s,
                simulated_time=self.simulated_time,
                gripper=self.gripper,
                manager=self._manager,
                robot_timeout_s=p["robot_timeout_s"],
                clock_stall_timeout_s=p["clock_stall_timeout_s"],
                state_period_s=1.0 / p["state_rate_hz"],
                on_sample=self._publish_state,
                on_decision=self._publish_decision,
            )
            self.session.open()
        except RobotError as fault:
            raise RefusedError(str(fault)) from None
        self._repeat_gate_status()

    def activate(self) -> None:
        try:
            self.session.activate()
        except RobotError as fault:
            raise RefusedError(str(fault)) from None

    def deactivate(self) -> None:
        if self.session is not None:
            self.session.deactivate()

    def cleanup(self) -> None:
        if self.session is not None:
            self.session.close()
        if self.gripper is not None:
            self.gripper.close()
        self.session = self.gripper = None
        self.params.release()

    # In ----------------------------------------------------------------------------------

    def _on_heartbeat(self, _: Empty) -> None:
        if self._manager is not None:
            self._manager.beat()

    def _on_chunk(self, raw: bytes) -> None:
        received_s, session = time.monotonic(), self.session
        if session is None or session.sample is None:
            return
        if len(raw) > _MAX_CHUNK_BYTES:
            # DDS does not hold a sender to the bounds of a message, and to make Python objects of
            # 50,000 steps would stop every thread for seconds.
            text = (
                f"a chunk of {len(raw) / 1e3:.0f} kB; {_MAX_CHUNK_BYTES / 1e3:.0f} kB is the most"
            )
            session.refuse("", 0, f"{text}, for 64 steps with all their texts")
            return
        message = deserialize_message(raw, ActionChunk)
        hold = message.kind == ActionChunk.KIND_HOLD
        try:
            problem = None if hold else chunk_problem(message, *self._frames)
            chunk = chunk_from_msg(message)
        except ValueError as error:
            problem = str(error)
        if problem is not None:
            session.refuse(message.source_id, message.chunk_id, problem)
            return
        session.on_chunk(chunk, hold, received_s)

    def _stop(self) -> str:
        session = self._configured_session()
        session.stop("a person called ~/stop")
        return text_to_msg(session.gate.text)

    def _recover(self) -> str:
        self._configured_session().recover()
        return "recovered; the arm moves with the next good chunk"

    def _home(self) -> str:
        session, p = self._configured_session(), self.params
        home_rad = np.array(p["home_joints_rad"])
        go_home(session, home_rad, p["home_joint_speed_rad_s"], p["open_gripper_at_home"])
        return "the arm is at home"

    def _configured_session(self) -> ArmSession:
        if self.session is None:
            raise HomingError("the driver is not configured; configure it first")
        return self.session

    # Out ---------------------------------------------------------------------------------

    def _publish_state(self, sample: ArmSample) -> None:
        time_s, period_s = sample.state.robot_time_s, self._publish_period_s
        late_s = time_s - self._next_state_s
        if -period_s <= late_s < 0.0:
            return
        # Due times stand on a grid, so that the jitter of the readings does not lower the rate.
        self._next_state_s = time_s + period_s - (late_s if 0.0 <= late_s < period_s else 0.0)
        reference, report = self.session.reference(sample), self._gripper_report()
        self._states.publish(ee_state_msg(sample, reference, report, *self._frames))
        names, base_frame = self.session.arm.joint_names, self._frames[0]
        self._joints.publish(joint_state_msg(sample, names, base_frame))

    def _gripper_report(self) -> GripperReport:
        return self.gripper.report if self.gripper is not None else GripperReport()

    def _publish_decision(self, decision: Decision, about_chunk: bool, sample: ArmSample) -> None:
        gate, core = decision.gate, self.session.core
        self._judged_s = now_s = self._now_s()
        if about_chunk:
            opening = core.gripper.target
            if opening is None:  # nothing was asked of the gripper yet
                opening = self._gripper_report().opening
            base_frame = self._frames[0]
            command = command_msg(decision, sample, core, opening, now_s, base_frame)
            self._commands.publish(command)
        if (gate.verdict, gate.reason) == self._published:
            return
        self._published = (gate.verdict, gate.reason)
        self._gate.publish(gate_status_msg(gate, core, now_s))
        if gate.reason is Reason.NONE and gate.text:
            self.get_logger().info(gate.text)
        elif not gate.moves or gate.reason is Reason.OSCILLATION:
            text = f"{gate.verdict.name} {gate.reason.name}: {gate.text}"
            self.get_logger().warning(text)

    def _repeat_gate_status(self) -> None:
        session = self.session
        if session is not None:
            self._gate.publish(gate_status_msg(session.gate, session.core, self._judged_s))

    def diagnose(self) -> list:
        session = self.session
        if session is None or session.sample is None:
            return [*super().diagnose(), ("robot", WARN, "not connected", {})]
        state, gate = session.sample.state, session.gate
        silent = f"{session.watchdog.silent_s:.3f}"
        fine = not session.watchdog.lost and not state.errors
        robot = {"mode": state.mode, "errors": ", ".join(state.errors), "silent_s": silent}
        counts = {verdict.name: session.core.counts[verdict] for verdict in type(gate.verdict)}
        text = gate.text or gate.verdict.name
        latched = session.core.latched is not None
        rows = [
            *super().diagnose(),
            ("robot", OK if fine else ERROR, state.mode if fine else "lost or in error", robot),
            ("gate", ERROR if latched else OK, text, counts),
        ]
        if self.gripper is not None:
            report = self.gripper.report
            values = {"width_m": f"{report.width_m:.4f}", "busy_s": f"{report.busy_s:.1f}"}
            rows.append(("gripper", WARN if report.fault else OK, report.fault or "fine", values))
        return rows
