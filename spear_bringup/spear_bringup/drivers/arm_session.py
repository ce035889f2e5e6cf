"""One arm under one command core: the threads of a driver, without ROS.

Three threads run beside the callers. The reader takes in states. The age thread notices that they
have stopped coming, and makes no call that may block. The polling thread finds failed motions
and what time alone decides. Nothing reaches the arm but through the `CommandSender`.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spear_bringup.control.command_core import CommandCore, Decision
from spear_bringup.control.gate import GateDecision, Reason, Verdict
from spear_bringup.control.path import Reference
from spear_bringup.drivers.clocks import ClockMap, StateWatchdog
from spear_bringup.drivers.gripper_worker import GripperWorker
from spear_bringup.drivers.protocol import Arm, FaultKind, RobotError, RobotState
from spear_policy.geometry.poses import Chunk, PoseHistory
from spear_policy.shared.clocks import ClockMonitor

INACTIVE = "not active"
_TURN_TIMEOUT_S = 3.0
_REASONS = {
    FaultKind.NETWORK: Reason.ROBOT_LOST,
    FaultKind.REFLEX: Reason.ROBOT_REFLEX,
    FaultKind.PLANNER: Reason.ROBOT_PLANNER,
    FaultKind.MODE: Reason.ROBOT_MODE,
}


class CommandSender:
    """The only user of an arm's send and stop, and of a core.

    A call into the arm may block for a second when the robot is gone. So there are two locks:
    `lock` guards what is known and decided and is never held during such a call; the arm's own,
    taken before it, keeps the calls in the order of the decisions. A latch may be set with `lock`
    alone at any time: its stop then follows whatever call is under way.

    Args:
        arm, core: what to drive, and what decides.
        now_s: the node clock.
        on_decision: called with each Decision that was carried out and whether it answers a chunk;
            `lock` is held.

    Attributes:
        lock: guards the core; re-entrant.
        gate: the newest decision of the gate.
    """

    def __init__(
        self,
        arm: Arm,
        core: CommandCore,
        now_s: Callable[[], float],
        on_decision: Callable[[Decision, bool], None],
    ):
        self.arm, self.core = arm, core
        self.lock = threading.RLock()
        self.gate = GateDecision(Verdict.HELD, Reason.NOT_ACTIVE, f"the driver is {INACTIVE}")
        self._now_s, self._on_decision = now_s, on_decision
        self._arm_lock = threading.RLock()
        self._stop_due = False

    def decide(self, judge: Callable[[], Decision | None], about_chunk: bool = False) -> None:
        """Decide, do it, report it; a robot that refuses turns the decision into a latch."""
        with self._arm_turn() as our_turn:
            if not our_turn:
                return
            with self.lock:
                decision = judge()
            if decision is None:
                return
            try:
                if decision.path is not None:
                    self.arm.send(decision.path)
                elif decision.stop:
                    self.arm.stop()
            except RobotError as fault:
                with self.lock:
                    decision = self.core.latch(_REASONS[fault.kind], str(fault), self._now_s())
            self._report(decision, about_chunk)

    def hold(self, reason: Reason, text: str) -> None:
        """Hold for a reason of the driver's own; a latch in force stays."""

        def judge() -> Decision | None:
            latched = self.core.latched is not None
            return None if latched else self.core.hold(reason, text, self._now_s())

        self.decide(judge)

    def latch(self, reason: Reason, text: str) -> None:
        """Stop for good; waits for the arm."""
        self.decide(lambda: self.core.latch(reason, text, self._now_s()))

    def latch_at_once(self, reason: Reason, text: str) -> None:
        """Latch and report it without a call into the arm; `poll` stops it as soon as it can."""
        with self.lock:
            decision = self.core.latch(reason, text, self._now_s())
            self._stop_due = True
            self._report(decision, about_chunk=False)

    def poll(self) -> None:
        """Carry out a stop that is due, and latch when a motion has failed; waits for the arm."""
        with self._arm_turn() as our_turn:
            if not our_turn:
                return
            try:
                if self._stop_due:
                    self._stop_due = False
                    self.arm.stop()
                if self.core.latched is None:
                    self.arm.check()
            except RobotError as fault:
                if self.core.latched is None:
                    self.latch(_REASONS[fault.kind], str(fault))

    def send_joints(self, durations_s: NDArray, joint_positions_rad: NDArray, busy: str) -> bool:
        """Run a joint path that was judged; False when something has ended `busy` meanwhile."""
        with self._arm_turn() as our_turn:
            if not our_turn:
                return False
            with self.lock:
                if self.core.latched is not None or self.core.busy != busy:
                    return False
            self.arm.send_joints(durations_s, joint_positions_rad)
        return True

    @contextmanager
    def _arm_turn(self) -> Iterator[bool]:
        """Our turn to call the arm; False, with a latch, when the call before does not return."""
        our_turn = self._arm_lock.acquire(timeout=_TURN_TIMEOUT_S)
        if not our_turn and self.core.latched is None:
            text = f"a call into the arm has not returned for {_TURN_TIMEOUT_S:g} s"
            self.latch_at_once(Reason.ROBOT_LOST, text)
        try:
            yield our_turn
        finally:
            if our_turn:
                self._arm_lock.release()

    def _report(self, decision: Decision, about_chunk: bool) -> None:
        with self.lock:
            self.gate = decision.gate
            self._on_decision(decision, about_chunk)


TICK_S = 0.01  # of the age and the polling thread
STILL_RAD_S = 0.01  # joint speed below which the arm counts as at rest
_FIRST_STATE_TIMEOUT_S = 3.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ArmSample:
    """A state, and when the robot was in it: `stamp_s`, node clock."""

    stamp_s: float
    state: RobotState


class ArmSession:
    """Owns an arm from `open` to `close`. Safe to call from any thread.

    Args:
        arm, gripper: what to drive; no gripper when None.
        core: the command core, used by this session alone.
        now_s: the node clock. simulated_time: whether it follows /clock.
        robot_timeout_s: silence after which the robot counts as lost, steady clock.
        clock_stall_timeout_s: standstill of /clock that counts as a fault, steady clock.
        state_period_s: between two readings of the state.
        on_sample: called with each new ArmSample, from the reader thread.
        on_decision: called with each Decision that was carried out, whether it answers a chunk,
            and the ArmSample at that time; the lock is held.
    """

    def __init__(
        self,
        arm: Arm,
        core: CommandCore,
        *,
        now_s: Callable[[], float],
        simulated_time: bool,
        gripper: GripperWorker | None = None,
        robot_timeout_s: float = 0.1,
        clock_stall_timeout_s: float = 1.0,
        state_period_s: float = 0.01,
        on_sample: Callable[[ArmSample], None] = lambda sample: None,
        on_decision: Callable[[Decision, bool, ArmSample], None] = lambda *_: None,
    ):
        self.arm, self.core, self.gripper = arm, core, gripper
        self.watchdog = StateWatchdog(robot_timeout_s)
        self.active = False
        self._sender = CommandSender(arm, core, now_s, self._publish)
        self.lock = self._sender.lock
        self._new_sample = threading.Condition(self.lock)
        self._sample: ArmSample | None = None
        self._now_s, self._state_period_s = now_s, state_period_s
        self._on_sample, self._on_decision = on_sample, on_decision
        self._clock_monitor = ClockMonitor(simulated_time, clock_stall_timeout_s)
        self._clock_bad = False
        self._clock_map = ClockMap(simulated_time)
        self._history = PoseHistory()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        core.busy = INACTIVE

    def open(self) -> None:
        """Connect and start the threads. Raises RobotError."""
        self.arm.connect()
        self._closing.clear()
        loops = (self._keep_reading, self._keep_aging, self._keep_polling)
        self._threads = [
            threading.Thread(target=self._run, args=(loop,), name=loop.__name__, daemon=True)
            for loop in loops
        ]
        for thread in self._threads:
            thread.start()
        if not self.wait_for(lambda: self._sample is not None, _FIRST_STATE_TIMEOUT_S):
            raise RobotError(FaultKind.NETWORK, "the robot was reached but sends no state")

    def close(self) -> None:
        """Stop, end the threads, let go of the arm; never raises."""
        self.deactivate()
        self._closing.set()
        for thread in self._threads:
            thread.join(timeout=3.0)
        self._threads = []
        self.arm.disconnect()

    def activate(self) -> None:
        """Let chunks through. Raises RobotError when the robot is not fine."""
        if latched := self.core.latched:
            raise RobotError(FaultKind.MODE, latched.text)
        self.arm.check()
        with self.lock:
            self.active, self.core.busy = True, None
            self.core.counts[:] = [0] * len(self.core.counts)
        self._sender.hold(Reason.NONE, "the driver is active and waits for a chunk")

    def deactivate(self) -> None:
        """Stop and hold; chunks are held from now on."""
        with self.lock:
            self.active, self.core.busy = False, INACTIVE
        if self._sample is not None:
            self._sender.hold(Reason.NOT_ACTIVE, f"the driver is {INACTIVE}")

    def on_chunk(self, chunk: Chunk, hold: bool, received_age_s: float) -> None:
        """Judge a chunk and carry out what follows."""
        state = self._sample.state

        def judge() -> Decision:
            return self.core.on_chunk(
                chunk,
                hold=hold,
                now_s=self._now_s(),
                received_age_s=received_age_s,
                measured=state.measured,
                commanded=state.commanded,
                history=self._history,
            )

        self._sender.decide(judge, about_chunk=True)

    def refuse(self, source_id: str, chunk_id: int, text: str) -> None:
        """Reject a chunk whose message is malformed, before its numbers are judged."""
        self._sender.decide(lambda: self.core.refuse(source_id, chunk_id, text), about_chunk=True)

    def stop(self, text: str) -> None:
        """Stop now and latch: a person asked for it."""
        self._sender.latch(Reason.STOP_REQUESTED, text)

    def recover(self) -> None:
        """Clear errors, reconnect if need be, release the latch. Raises RobotError."""
        self.arm.recover()
        if self.gripper is not None and self.gripper.report.fault:
            self.gripper.recover()
        with self.lock:
            self._clock_map.reset()
            before = self._sample
        if not self.wait_for(lambda: self._sample is not before, _FIRST_STATE_TIMEOUT_S):
            raise RobotError(FaultKind.NETWORK, "the robot sends no state; check it and try again")
        self.arm.check()
        with self.lock:
            self.core.release()
        self._sender.hold(Reason.NONE, "recovered; the arm rests until a good chunk comes")

    def reference(self, sample: ArmSample) -> Reference:
        """Pose and velocity that the running path has at the time of `sample`."""
        with self.lock:
            return self.core.reference(sample.stamp_s, sample.state.commanded)

    @property
    def gate(self) -> GateDecision:
        """What was decided last."""
        return self._sender.gate

    # For homing -----------------------------------------------------------------------------

    @property
    def sample(self) -> ArmSample | None:
        """The newest sample."""
        return self._sample

    @property
    def still(self) -> bool:
        """Whether no joint moves."""
        return not _moving(self._sample.state)

    def rest(self, busy: str | None) -> None:
        """Stop the running path; with `busy`, chunks are held with that word until rest(None)."""
        with self.lock:
            self.core.busy = busy or (None if self.active else INACTIVE)
        if busy is not None:
            self._sender.hold(Reason.NOT_ACTIVE, f"the driver is {busy}")

    def send_joints(self, durations_s: NDArray, joint_positions_rad: NDArray, busy: str) -> bool:
        """Run a joint path that was judged; False when something has ended `busy` meanwhile."""
        return self._sender.send_joints(durations_s, joint_positions_rad, busy)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Whether `condition()`, asked with each state, came true in `timeout_s` (steady)."""
        deadline_s = time.monotonic() + timeout_s
        with self.lock:
            while not condition():
                if time.monotonic() > deadline_s or self._closing.is_set():
                    return False
                self._new_sample.wait(0.05)
        return True

    # Threads -------------------------------------------------------------------------------

    def _run(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except Exception as error:  # a thread that died in silence would leave the arm unwatched
            _log.exception("the driver failed in %s", loop.__name__)
            text = f"the driver itself failed ({type(error).__name__}: {error}); restart it"
            self._sender.latch_at_once(Reason.ROBOT_LOST, text)
            self._sender.poll()

    def _keep_reading(self) -> None:
        while not self._closing.is_set():
            try:
                state = self.arm.read_state()
            except RobotError:  # the other threads report it; only recover() brings the robot back
                self._closing.wait(0.05)
                continue
            self._on_state(state)
            self._closing.wait(self._state_period_s)

    def _on_state(self, state: RobotState) -> None:
        now_s = self._now_s()
        with self.lock:
            old = self._sample
            if old is not None and state.robot_time_s == old.state.robot_time_s:
                return  # nothing new: the robot is silent, or we were too fast
            self.watchdog.on_state(state.robot_time_s)
            stamp_s = self._clock_map.stamp_s(state.robot_time_s, now_s)
            self._history.add(stamp_s, state.measured, state.commanded)
            self._sample = sample = ArmSample(stamp_s, state)
            self._new_sample.notify_all()
        self._on_sample(sample)

    def _keep_aging(self) -> None:
        while not self._closing.wait(TICK_S):
            silent_s = self.watchdog.tick(time.monotonic())
            if self._sample is not None and self.watchdog.lost and self.core.latched is None:
                text = f"no state from the robot for {silent_s:.2f} s"
                self._sender.latch_at_once(Reason.ROBOT_LOST, text)

    def _keep_polling(self) -> None:
        while not self._closing.wait(TICK_S):
            if self._sample is not None:
                self._sender.poll()
                self._poll_time()

    def _poll_time(self) -> None:
        if self.active and self.core.latched is None:
            self._check_clock()
        now_s, state = self._now_s(), self._sample.state
        self._sender.decide(
            lambda: self.core.tick(
                now_s,
                measured=state.measured,
                commanded=state.commanded,
                moving=_moving(state),
                robot_time_s=state.robot_time_s,
            )
        )
        if self.gripper is not None and self.core.busy is None and self.core.latched is None:
            with self.lock:
                opening = self.core.gripper_opening(now_s)
            if opening is not None:
                self.gripper.request(opening)

    def _check_clock(self) -> None:
        before_s, now_s, steady_s = time.monotonic(), self._now_s(), time.monotonic()
        if steady_s - before_s > 0.01:
            return  # we were put to sleep between the two readings: they cannot be compared
        problem = self._clock_monitor.check(now_s, steady_s)
        if problem is not None and not self._clock_bad:
            with self.lock:
                self._clock_map.reset()
            self._sender.hold(Reason.CLOCK_FAULT, problem)
        self._clock_bad = problem is not None

    def _publish(self, decision: Decision, about_chunk: bool) -> None:
        if self._sample is not None:
            self._on_decision(decision, about_chunk, self._sample)


def _moving(state: RobotState) -> bool:
    return bool(np.max(np.abs(state.joint_velocities_rad_s)) > STILL_RAD_S)
