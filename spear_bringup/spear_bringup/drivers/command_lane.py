"""From decisions to the arm, one after the other, and told to whoever listens.

A call into the arm may block for a second when the robot is gone. So there are two locks: `lock`
guards what is known and decided and is never held during such a call; the other, taken before it,
keeps the calls in the order of the decisions. A latch may be set with `lock` alone, at any moment:
its stop then follows whatever call is under way.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from numpy.typing import NDArray

from spear_bringup.control.command_core import CommandCore, Decision
from spear_bringup.control.verdicts import Judgement, Reason, Verdict
from spear_bringup.drivers.protocol import Arm, FaultKind, RobotFault

INACTIVE = "not active"
_TURN_TIMEOUT_S = 3.0
_REASONS = {
    FaultKind.NETWORK: Reason.ROBOT_LOST,
    FaultKind.REFLEX: Reason.ROBOT_REFLEX,
    FaultKind.PLANNER: Reason.ROBOT_PLANNER,
    FaultKind.MODE: Reason.ROBOT_MODE,
}


class CommandLane:
    """The only user of an arm's send and stop, and of a core.

    Args:
        arm, core: what to drive, and what decides.
        now_s: the node clock.
        tell: called with each Decision that was carried out and whether it answers a chunk; `lock`
            is held.

    Attributes:
        lock: guards the core; re-entrant.
        judgement: the newest one.
    """

    def __init__(
        self,
        arm: Arm,
        core: CommandCore,
        now_s: Callable[[], float],
        tell: Callable[[Decision, bool], None],
    ):
        self.arm, self.core = arm, core
        self.lock = threading.RLock()
        self.judgement = Judgement(Verdict.HELD, Reason.NOT_ACTIVE, f"the driver is {INACTIVE}")
        self._now_s, self._tell = now_s, tell
        self._order = threading.RLock()
        self._stop_wanted = False

    def decide(self, judge: Callable[[], Decision | None], about_chunk: bool = False) -> None:
        """Decide, do it, tell; a robot that refuses turns the decision into a latch."""
        with self._in_order() as our_turn:
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
            except RobotFault as fault:
                with self.lock:
                    decision = self.core.latch(_REASONS[fault.kind], str(fault), self._now_s())
            self._told(decision, about_chunk)

    def hold(self, reason: Reason, text: str) -> None:
        """Hold for a reason of the driver's own; a latch in force stays what is said."""

        def judge() -> Decision | None:
            latched = self.core.latched is not None
            return None if latched else self.core.hold(reason, text, self._now_s())

        self.decide(judge)

    def latch(self, reason: Reason, text: str) -> None:
        """Stop for good; waits for the arm."""
        self.decide(lambda: self.core.latch(reason, text, self._now_s()))

    def latch_at_once(self, reason: Reason, text: str) -> None:
        """Latch and tell without a call into the arm; `look` stops it as soon as it can."""
        with self.lock:
            decision = self.core.latch(reason, text, self._now_s())
            self._stop_wanted = True
            self._told(decision, about_chunk=False)

    def look(self) -> None:
        """Carry out a stop that is due, and latch when a motion has failed; waits for the arm."""
        with self._in_order() as our_turn:
            if not our_turn:
                return
            try:
                if self._stop_wanted:
                    self._stop_wanted = False
                    self.arm.stop()
                if self.core.latched is None:
                    self.arm.check()
            except RobotFault as fault:
                if self.core.latched is None:
                    self.latch(_REASONS[fault.kind], str(fault))

    def send_joints(self, durations_s: NDArray, joint_positions_rad: NDArray, busy: str) -> bool:
        """Run a joint path that was judged; False when something has ended `busy` meanwhile."""
        with self._in_order() as our_turn:
            if not our_turn:
                return False
            with self.lock:
                if self.core.latched is not None or self.core.busy != busy:
                    return False
            self.arm.send_joints(durations_s, joint_positions_rad)
        return True

    @contextmanager
    def _in_order(self) -> Iterator[bool]:
        """Our turn to call the arm; False, with a latch, when the call before does not return."""
        our_turn = self._order.acquire(timeout=_TURN_TIMEOUT_S)
        if not our_turn and self.core.latched is None:
            text = f"a call into the arm has not returned for {_TURN_TIMEOUT_S:g} s"
            self.latch_at_once(Reason.ROBOT_LOST, text)
        try:
            yield our_turn
        finally:
            if our_turn:
                self._order.release()

    def _told(self, decision: Decision, about_chunk: bool) -> None:
        with self.lock:
            self.judgement = decision.judgement
            self._tell(decision, about_chunk)
