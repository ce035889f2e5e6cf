"""The robot-independent part of a driver node: chunks in, motion, states and verdicts out."""

import time
from abc import ABC, abstractmethod
from dataclasses import fields

import numpy as np
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from spear_bringup.control.command_core import CommandCore, Decision
from spear_bringup.control.gripper_logic import GripperLogic
from spear_bringup.control.limits import Limits, Timing
from spear_bringup.control.verdicts import Reason
from spear_bringup.drivers.arm_session import ArmSession, Sample
from spear_bringup.drivers.gripper_worker import GripperReport, GripperWorker
from spear_bringup.drivers.homing import HomingFailed, go_home
from spear_bringup.drivers.protocol import Arm, Gripper, RobotFault
from spear_bringup.nodes.arm_messages import (
    chunk_complaint,
    command_msg,
    ee_state_msg,
    gate_status_msg,
    joint_state_msg,
)
from spear_bringup.nodes.waiting_services import WaitingServices
from spear_msgs.msg import ActionChunk, EndEffectorCommand, EndEffectorState, GateStatus
from spear_policy.nodes import qos
from spear_policy.nodes.lifecycle import ERROR, OK, WARN, Refused, SpearNode
from spear_policy.nodes.messages import chunk_from_msg
from spear_policy.nodes.parameters import Parameters

_CLOCK_WAIT_S = 10.0


class ArmNode(SpearNode, ABC):
    """A driver node. Subclasses say which arm and which gripper.

    Args:
        name: node name; its parameters are `config/<name>.yaml`.
    """

    def __init__(self, name: str, arguments: list[str] | None = None):
        super().__init__(name, arguments)
        self.params = Parameters(self, "spear_bringup", name)
        self.session: ArmSession | None = None
        self.gripper: GripperWorker | None = None
        self._said: tuple | None = None
        self._judged_s = self._next_state_s = 0.0
        create = self.io.create_publisher
        self._states = create(EndEffectorState, "ee_state", qos.SENSOR)
        self._joints = create(JointState, "joint_states", qos.SENSOR)
        self._commands = create(EndEffectorCommand, "command", qos.EVENT)
        self._gate = create(GateStatus, "gate_status", qos.LATCHED)
        self.io.create_subscription(ActionChunk, "action_chunk", self._on_chunk, qos.COMMAND)
        # Silence must mean unknown, so this timer does not follow /clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.io.create_timer(1.0, self._repeat_gate_status, clock=steady)
        self.io.create_service(Trigger, f"{self.get_name()}/stop", self._stop)
        self._waiting = WaitingServices(self, {"home": self._home, "recover": self._recover})

    @abstractmethod
    def make_arm(self) -> Arm:
        """The arm that the parameters describe; not connected yet."""

    @abstractmethod
    def make_gripper(self) -> Gripper | None:
        """The gripper that the parameters describe, or None."""

    # Lifecycle ---------------------------------------------------------------------------

    def start_threads(self) -> None:
        super().start_threads()
        self._waiting.start()

    def close(self) -> None:
        super().close()
        self._waiting.close()

    def configure(self) -> None:
        self.params.check()
        p = self.params
        self._frames = p["base_frame"], p["ee_frame"]
        self._publish_period_s = 1.0 / p["publish_rate_hz"]
        self._said, self._next_state_s = None, 0.0
        try:
            limits = Limits(**{field.name: p[field.name] for field in fields(Limits)})
            timing = Timing(**{field.name: p[field.name] for field in fields(Timing)})
            logic = GripperLogic(
                p["gripper_close_below"], p["gripper_open_above"], p["gripper_min_dwell_s"]
            )
        except ValueError as error:
            raise Refused(str(error)) from None
        if self.simulated_time and not self.wait_until(lambda: self.now_s() > 0.0, _CLOCK_WAIT_S):
            text = f"use_sim_time is set and no /clock came within {_CLOCK_WAIT_S:g} s"
            raise Refused(f"{text}; start the simulation, or unset use_sim_time")
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
                now_s=self.now_s,
                simulated_time=self.simulated_time,
                gripper=self.gripper,
                robot_timeout_s=p["robot_timeout_s"],
                clock_stall_timeout_s=p["clock_stall_timeout_s"],
                state_period_s=1.0 / p["state_rate_hz"],
                on_sample=self._publish_state,
                on_decision=self._publish_decision,
            )
            self.session.open()
        except RobotFault as fault:
            raise Refused(str(fault)) from None
        self._repeat_gate_status()

    def activate(self) -> None:
        try:
            self.session.activate()
        except RobotFault as fault:
            raise Refused(str(fault)) from None

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

    def _on_chunk(self, message: ActionChunk, info: dict) -> None:
        session = self.session
        if session is None or session.sample is None:
            return
        hold = message.kind == ActionChunk.KIND_HOLD
        try:
            complaint = None if hold else chunk_complaint(message, *self._frames)
            chunk = chunk_from_msg(message)
        except ValueError as error:
            complaint = str(error)
        if complaint is not None:
            session.refuse(message.source_id, message.chunk_id, complaint)
            return
        lay_s = (time.time_ns() - info["received_timestamp"]) * 1e-9
        session.on_chunk(chunk, hold, received_age_s=max(lay_s, 0.0))

    def _stop(self, request, response: Trigger.Response) -> Trigger.Response:
        session = self.session
        if session is None:
            response.message = "the driver is not configured; nothing moves"
            return response
        session.stop("a person called ~/stop")
        response.success, response.message = True, session.judgement.text
        return response

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
            raise HomingFailed("the driver is not configured; configure it first")
        return self.session

    # Out ---------------------------------------------------------------------------------

    def _publish_state(self, sample: Sample) -> None:
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

    def _publish_decision(self, decision: Decision, about_chunk: bool, sample: Sample) -> None:
        judgement, core = decision.judgement, self.session.core
        self._judged_s = now_s = self.now_s()
        if about_chunk:
            base_frame, report = self._frames[0], self._gripper_report()
            command = command_msg(decision, sample, core, report, now_s, base_frame)
            self._commands.publish(command)
        if (judgement.verdict, judgement.reason) == self._said:
            return
        self._said = (judgement.verdict, judgement.reason)
        self._gate.publish(gate_status_msg(judgement, core, now_s))
        if judgement.reason is Reason.NONE and judgement.text:
            self.get_logger().info(judgement.text)
        elif not judgement.moves:
            text = f"{judgement.verdict.name} {judgement.reason.name}: {judgement.text}"
            self.get_logger().warning(text)

    def _repeat_gate_status(self) -> None:
        session = self.session
        if session is not None:
            self._gate.publish(gate_status_msg(session.judgement, session.core, self._judged_s))

    def diagnose(self) -> list:
        session = self.session
        if session is None or session.sample is None:
            return [*super().diagnose(), ("robot", WARN, "not connected", {})]
        state, judgement = session.sample.state, session.judgement
        silent = f"{session.watch.silent_s:.3f}"
        fine = not session.watch.lost and not state.errors
        robot = {"mode": state.mode, "errors": ", ".join(state.errors), "silent_s": silent}
        gate = {verdict.name: session.core.counts[verdict] for verdict in type(judgement.verdict)}
        text = judgement.text or judgement.verdict.name
        latched = session.core.latched is not None
        rows = [
            *super().diagnose(),
            ("robot", OK if fine else ERROR, state.mode if fine else "lost or in error", robot),
            ("gate", ERROR if latched else OK, text, gate),
        ]
        if self.gripper is not None:
            report = self.gripper.report
            values = {"width_m": f"{report.width_m:.4f}", "busy_s": f"{report.busy_s:.1f}"}
            rows.append(("gripper", WARN if report.fault else OK, report.fault or "fine", values))
        return rows
