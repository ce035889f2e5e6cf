"""One arm under one command core: the threads of a driver, without ROS.

Three threads run beside the callers. The arm thread owns every call that commands the arm, and the
core's decisions: it takes a stop first, then what callers ask of it, then chunks in their order,
and looks every `TICK_S` at what time alone decides. Such a call may block for a second when the
robot is gone, so two others never make one: the reader takes in states, and the age thread notices
that they have stopped coming, or that the arm thread hangs. It can only latch; a latch is in force
at once, and its stop follows whatever call is under way.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from spear_bringup.control.command_core import CommandCore, Decision
from spear_bringup.control.gate import GateDecision, Reason, Verdict
from spear_bringup.control.path import Reference
from spear_bringup.drivers.clocks import ClockMap, Heartbeat, StateWatchdog
from spear_bringup.drivers.gripper_worker import GripperWorker
from spear_bringup.drivers.protocol import Arm, FaultKind, RobotError, RobotState
from spear_policy.geometry.poses import Chunk, PoseHistory
from spear_policy.shared.clocks import ClockMonitor

INACTIVE = "not active"
TICK_S = 0.01  # of the age thread, and of the arm thread when nothing comes
_CALL_TIMEOUT_S = 3.0  # a call into the arm that takes longer is a lost robot
_RECOVER_TIMEOUT_S = 30.0  # it connects anew and waits for the robot
_FIRST_STATE_TIMEOUT_S = 3.0
_WAITING_CHUNKS = 8  # older ones would be stale when their turn came
_CHUNK_PAUSE_S = 0.005  # between two chunks of a flood the reader gets the lock
_REASONS = {
    FaultKind.NETWORK: Reason.ROBOT_LOST,
    FaultKind.REFLEX: Reason.ROBOT_REFLEX,
    FaultKind.MODE: Reason.ROBOT_MODE,
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ArmSample:
    """A state, and when the robot was in it: `stamp_s`, node clock."""

    stamp_s: float
    state: RobotState


class ArmSession:
    """Owns an arm from `open` to `close`. Safe to call from any thread but its own.

    Args:
        arm, gripper: what to drive; no gripper when None.
        core: the command core, used by this session alone.
        now_s: the node clock. simulated_time: whether it follows /clock.
        manager: the heartbeat of the lifecycle manager; without it nobody needs to watch.
        robot_timeout_s: silence after which the robot counts as lost, steady clock.
        clock_stall_timeout_s: standstill of /clock that counts as a fault, steady clock.
        state_period_s: between two readings of the state.
        on_sample: called with each new ArmSample, from the reader thread.
        on_decision: called with each Decision that was carried out, whether it answers a chunk,
            and the ArmSample at that time; the lock is held.

    Attributes:
        lock: guards the core, the newest sample and the history; never held during a call into
            the arm.
    """

    def __init__(
        self,
        arm: Arm,
        core: CommandCore,
        *,
        now_s: Callable[[], float],
        simulated_time: bool,
        gripper: GripperWorker | None = None,
        manager: Heartbeat | None = None,
        robot_timeout_s: float = 0.1,
        clock_stall_timeout_s: float = 1.0,
        state_period_s: float = 0.01,
        on_sample: Callable[[ArmSample], None] = lambda sample: None,
        on_decision: Callable[[Decision, bool, ArmSample], None] = lambda *_: None,
    ):
        self.arm, self.core, self.gripper, self.manager = arm, core, gripper, manager
        self.watchdog = StateWatchdog(robot_timeout_s)
        self.active = False
        self.lock = threading.RLock()
        self._new_sample = threading.Condition(self.lock)
        self._sample: ArmSample | None = None
        self._gate = GateDecision(Verdict.HELD, Reason.NOT_ACTIVE, f"the driver is {INACTIVE}")
        self._now_s, self._state_period_s = now_s, state_period_s
        self._on_sample, self._on_decision = on_sample, on_decision
        self._clock_monitor = ClockMonitor(simulated_time, clock_stall_timeout_s)
        self._clock_bad = False
        self._clock_map = ClockMap(simulated_time)
        self._history = PoseHistory()
        self._work = threading.Condition()  # guards the four that follow
        self._stop_due = False
        self._latches_due = 0  # while one is, the arm thread decides nothing
        self._asked: deque[tuple[Callable[[], None], Future]] = deque()
        self._chunks: deque[Callable[[], Decision]] = deque(maxlen=_WAITING_CHUNKS)
        self._call_began_s: float | None = None  # steady; of the call into the arm under way
        self._stop_requests = 0
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        core.busy = INACTIVE

    def open(self) -> None:
        """Connect and start the threads. Raises RobotError."""
        self.arm.connect()
        self._closing.clear()
        loops = (self._keep_reading, self._keep_aging, self._keep_commanding)
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

    # What callers ask for ---------------------------------------------------------------------

    def activate(self) -> None:
        """Let chunks through. Raises RobotError when the robot is not fine."""
        if latched := self.core.latched:
            raise RobotError(FaultKind.MODE, latched.text)
        if self.manager is not None:
            self.manager.forget_when_lost()

        def begin() -> None:
            self.arm.check()
            with self.lock:
                self.active, self.core.busy = True, None
                self.core.counts[:] = [0] * len(self.core.counts)
            self._hold(Reason.NONE, "the driver is active and waits for a chunk")

        self._ask(begin)

    def deactivate(self) -> None:
        """Stop and hold; chunks are held from now on. Never raises."""
        with self.lock:
            self.active, self.core.busy = False, INACTIVE
        if self._sample is None or self._closing.is_set():
            return
        try:
            self._ask(lambda: self._hold(Reason.NOT_ACTIVE, f"the driver is {INACTIVE}"))
        except RobotError:  # the arm thread hangs, and the age thread has latched for it
            pass

    def on_chunk(self, chunk: Chunk, hold: bool, received_s: float) -> None:
        """Have a chunk judged and carried out; returns at once.

        Args:
            chunk: what came. hold: it is of kind HOLD.
            received_s: when it was received, steady clock (time.monotonic).
        """

        def judge() -> Decision:
            state = self._sample.state
            return self.core.on_chunk(
                chunk,
                hold=hold,
                now_s=self._now_s(),
                received_age_s=time.monotonic() - received_s,
                measured=state.measured,
                commanded=state.commanded,
                history=self._history,
            )

        self._enqueue(judge)

    def refuse(self, source_id: str, chunk_id: int, text: str) -> None:
        """Reject a chunk whose message is malformed, before its numbers are judged."""
        self._enqueue(lambda: self.core.refuse(source_id, chunk_id, text))

    def stop(self, text: str) -> None:
        """Latch now: a person asked for it. The arm is stopped as soon as it can be called."""
        self._stop_requests += 1
        self._latch(Reason.STOP_REQUESTED, text)

    def recover(self) -> None:
        """Clear errors, reconnect if need be, release the latch. Raises RobotError."""
        stop_requests = self._stop_requests

        def clear() -> None:
            self._call_began_s = None  # it has time limits of its own
            self.arm.recover()
            with self.lock:
                self._clock_map.reset()
                before = self._sample
            if not self.wait_for(lambda: self._sample is not before, _FIRST_STATE_TIMEOUT_S):
                text = "the robot sends no state; check it and try again"
                raise RobotError(FaultKind.NETWORK, text)
            self.arm.check()
            with self.lock:
                if self._stop_requests != stop_requests:
                    raise RobotError(FaultKind.MODE, "~/stop was called during the recovery")
                self.core.release()
            self._hold(Reason.NONE, "recovered; the arm rests until a good chunk comes")

        if self.gripper is not None and self.gripper.report.fault:
            self.gripper.recover()
        self._ask(clear, _RECOVER_TIMEOUT_S)

    def reference(self, sample: ArmSample) -> Reference:
        """Pose and velocity that the running path has at the time of `sample`."""
        with self.lock:
            return self.core.reference(sample.stamp_s, sample.state.commanded)

    @property
    def gate(self) -> GateDecision:
        """The latch in force, or what was decided last."""
        return self.core.latched or self._gate

    # For homing -----------------------------------------------------------------------------

    @property
    def sample(self) -> ArmSample | None:
        """The newest sample."""
        return self._sample

    @property
    def still(self) -> bool:
        """Whether no joint moves."""
        return not self._moving(self._sample.state)

    def check(self) -> None:
        """Raise the RobotError of a robot that does not move."""
        self._ask(self.arm.check)

    def rest(self, busy: str | None) -> None:
        """Stop the running path; with `busy`, chunks are held with that word until rest(None)."""
        with self.lock:
            self.core.busy = busy or (None if self.active else INACTIVE)
        if busy is not None:
            self._ask(lambda: self._hold(Reason.NOT_ACTIVE, f"the driver is {busy}"))

    def send_joints(self, durations_s: NDArray, joint_positions_rad: NDArray, busy: str) -> bool:
        """Run a joint path that was judged; False when something has ended `busy` meanwhile."""

        def send() -> bool:
            if self.core.latched is not None or self.core.busy != busy:
                return False
            self.arm.send_joints(durations_s, joint_positions_rad)
            return True

        return self._ask(send)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Whether `condition()`, asked with each state, came true in `timeout_s` (steady)."""
        deadline_s = time.monotonic() + timeout_s
        with self.lock:
            while not condition():
                if time.monotonic() > deadline_s or self._closing.is_set():
                    return False
                self._new_sample.wait(0.05)
        return True

    # The arm thread -------------------------------------------------------------------------

    def _ask(self, work: Callable, timeout_s: float = _CALL_TIMEOUT_S):
        """What `work()` returns or raises on the arm thread; RobotError when it hangs."""
        answer: Future = Future()
        with self._work:
            self._asked.append((work, answer))
            self._work.notify()
        try:
            return answer.result(timeout_s)
        except TimeoutError:
            if not answer.cancel() and answer.done():
                return answer.result()
            text = f"the arm has not answered for {timeout_s:g} s; restart the driver"
            raise RobotError(FaultKind.NETWORK, text) from None

    def _enqueue(self, judge: Callable[[], Decision]) -> None:
        with self._work:
            self._chunks.append(judge)
            self._work.notify()

    def _keep_commanding(self) -> None:
        next_tick_s = 0.0
        while not self._closing.is_set():
            asked = judge = None
            with self._work:
                if not self._stop_due and (self._latches_due or not (self._asked or self._chunks)):
                    self._work.wait(TICK_S)
                stop, self._stop_due = self._stop_due, False
                idle = stop or self._latches_due > 0
                if not idle and self._asked:
                    asked = self._asked.popleft()
                elif not idle and self._chunks:
                    judge = self._chunks.popleft()
            try:
                if stop:
                    self._stop_arm()
                elif asked is not None:
                    self._answer(*asked)
                elif judge is not None and self._sample is not None:
                    self._decide(judge, about_chunk=True)
                    self._closing.wait(_CHUNK_PAUSE_S)
                if not idle and time.monotonic() >= next_tick_s and self._sample is not None:
                    next_tick_s = time.monotonic() + TICK_S
                    self._tick()
            except Exception as error:  # a dead arm thread could not even stop the arm
                self._latch_failure(error, "the arm thread")

    def _answer(self, work: Callable, answer: Future) -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            self._call_began_s = time.monotonic()
            answer.set_result(work())
        except Exception as error:  # whoever asked gets it
            answer.set_exception(error)
        finally:
            self._call_began_s = None

    def _call(self, arm_function: Callable, *arguments) -> None:
        """A call into the arm, whose time the age thread watches."""
        self._call_began_s = time.monotonic()
        try:
            arm_function(*arguments)
        finally:
            self._call_began_s = None

    def _decide(self, judge: Callable[[], Decision | None], about_chunk: bool = False) -> None:
        """Decide, do it, report it; a robot that refuses changes the decision."""
        with self.lock:
            decision = judge()
        if decision is None:
            return
        try:
            if decision.path is not None:
                self._call(self.arm.send, decision.path)
                with self.lock:
                    self.core.on_sent(decision, self._now_s())
            elif decision.stop:
                self._call(self.arm.stop)
        except RobotError as fault:
            with self.lock:
                if fault.kind is FaultKind.PATH:
                    decision = self.core.on_path_refused(decision, str(fault))
                else:
                    decision = self._on_fault(fault)
        self._report(decision, about_chunk)

    def _on_fault(self, fault: RobotError) -> Decision:
        """What a robot's refusal means; the lock is held."""
        now_s = self._now_s()
        if fault.kind is FaultKind.PLANNER:
            return self.core.on_planner_failure(str(fault), now_s)
        return self.core.latch(_REASONS[fault.kind], str(fault), now_s)

    def _hold(self, reason: Reason, text: str) -> None:
        """Hold for a reason of the driver's own; a latch in force stays."""

        def judge() -> Decision | None:
            latched = self.core.latched is not None
            return None if latched else self.core.hold(reason, text, self._now_s())

        self._decide(judge)

    def _stop_arm(self) -> None:
        try:
            self._call(self.arm.stop)
        except RobotError as fault:  # it is latched, so all that is left is to say so
            _log.warning("the arm could not be stopped: %s", fault)

    def _tick(self) -> None:
        """What a failed motion, the clocks, the manager and time alone decide."""
        if self.core.latched is not None:
            return
        try:
            self._call(self.arm.check)
        except RobotError as fault:
            self._decide(partial(self._on_fault, fault))
            return
        if self.active:
            self._check_clock()
            self._check_manager()
        now_s, state = self._now_s(), self._sample.state
        with self.lock:
            opening = self.core.gripper_opening(now_s) if self.core.busy is None else None
        if self.gripper is not None and opening is not None and self.core.latched is None:
            self.gripper.request(opening)
        self._decide(
            lambda: self.core.tick(
                now_s,
                measured=state.measured,
                commanded=state.commanded,
                moving=self._moving(state),
                robot_time_s=state.robot_time_s,
            )
        )

    def _check_clock(self) -> None:
        before_s, now_s, steady_s = time.monotonic(), self._now_s(), time.monotonic()
        if steady_s - before_s > 0.01:
            return  # we were put to sleep between the two readings: they cannot be compared
        problem = self._clock_monitor.check(now_s, steady_s)
        if problem is not None and not self._clock_bad:
            with self.lock:
                self._clock_map.reset()
            self._hold(Reason.CLOCK_FAULT, problem)
        self._clock_bad = problem is not None

    def _check_manager(self) -> None:
        before = self.core.manager_lost
        lost = self.manager.problem(time.monotonic()) if self.manager is not None else None
        self.core.manager_lost = lost
        if lost is not None and before is None:
            self._hold(Reason.MANAGER_LOST, lost)

    def _moving(self, state: RobotState) -> bool:
        return bool(np.max(np.abs(state.joint_velocities_rad_s)) > self.arm.still_speed_rad_s)

    # The latch, and what is told of it; from any thread -----------------------------------------

    def _latch(self, reason: Reason, text: str) -> None:
        """Latch and report it without a call into the arm; the arm thread stops it next."""
        # Before the lock, which an arm thread that judges chunk after chunk takes again and again.
        with self._work:
            self._stop_due = True
            self._latches_due += 1
            self._work.notify()
        try:
            with self.lock:
                self._report(self.core.latch(reason, text, self._now_s()), about_chunk=False)
        finally:
            with self._work:
                self._latches_due -= 1
                self._work.notify()

    def _latch_failure(self, error: Exception, where: str) -> None:
        _log.exception("the driver failed in %s", where)
        text = f"the driver itself failed ({type(error).__name__}: {error}); restart it"
        self._latch(Reason.ROBOT_LOST, text)

    def _report(self, decision: Decision, about_chunk: bool) -> None:
        with self.lock:
            latched = self.core.latched
            if latched is not None and decision.gate.verdict is not Verdict.STOPPED:
                # The latch was set while the arm was being called; its stop comes next.
                ids = {"source_id": decision.gate.source_id, "chunk_id": decision.gate.chunk_id}
                decision = replace(decision, gate=replace(latched, **ids))
            self._gate = decision.gate
            if self._sample is not None:
                self._on_decision(decision, about_chunk, self._sample)

    # The reader and the age thread ----------------------------------------------------------

    def _run(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except Exception as error:  # a thread that died in silence would leave the arm unwatched
            self._latch_failure(error, loop.__name__)

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
            steady_s = time.monotonic()
            silent_s = self.watchdog.tick(steady_s)
            if self._sample is None or self.core.latched is not None:
                continue
            began_s = self._call_began_s
            if self.watchdog.lost:
                self._latch(Reason.ROBOT_LOST, f"no state from the robot for {silent_s:.2f} s")
            elif began_s is not None and steady_s - began_s > _CALL_TIMEOUT_S:
                text = f"a call into the arm has not returned for {_CALL_TIMEOUT_S:g} s"
                self._latch(Reason.ROBOT_LOST, text)
