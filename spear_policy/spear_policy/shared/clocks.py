"""Faults of the node clock, judged by the steady clock: it stands still, goes back, or jumps."""

import time
from collections.abc import Callable


def read_clocks(node_clock_s: Callable[[], float], within_s: float = 0.01) -> tuple[float, float]:
    """(node clock, steady clock) [s] at one instant.

    A thread may lose the processor between two readings, which would look like a jump.
    """
    while True:
        before_s = time.monotonic()
        now_s = node_clock_s()
        steady_s = time.monotonic()
        if steady_s - before_s < within_s:
            return now_s, steady_s


class ClockMonitor:
    """Under simulated time: a /clock that stalls or goes back; else a system clock that jumps.

    Args:
        simulated: whether the node clock follows /clock.
        stall_timeout_s: steady time without progress of /clock that counts as a stall.
        max_jump_s: change of system time against the steady clock that counts as a jump.

    Attributes:
        stalled: whether the last check found a stall, which may end by itself.
    """

    def __init__(self, simulated: bool, stall_timeout_s: float = 1.0, max_jump_s: float = 0.1):
        self.simulated = simulated
        self.stall_timeout_s, self.max_jump_s = stall_timeout_s, max_jump_s
        self.stalled = False
        self._now_s: float | None = None
        self._progress_steady_s = 0.0
        self._offset_s = 0.0

    def check(self, now_s: float, steady_s: float) -> str | None:
        """What is wrong with the clock, in a sentence, at the moment it goes wrong; else None."""
        before_s, self._now_s = self._now_s, now_s
        if before_s is None:
            self._progress_steady_s, self._offset_s = steady_s, now_s - steady_s
            return None
        if not self.simulated:
            jump_s = now_s - steady_s - self._offset_s
            self._offset_s = now_s - steady_s
            if abs(jump_s) > self.max_jump_s:
                return f"the system clock jumped by {jump_s:.3f} s; let chrony slew it, not step it"
            return None
        stalled_s = steady_s - self._progress_steady_s
        self.stalled = now_s == before_s and stalled_s > self.stall_timeout_s
        if now_s != before_s:
            self._progress_steady_s = steady_s
        if now_s < before_s:
            return f"/clock went back by {before_s - now_s:.3f} s; restart the graph"
        if self.stalled:
            return f"/clock has stood still for {stalled_s:.1f} s; is the simulation running?"
        return None
