"""Simulated time against the wall clock: deadlines without drift, and how well they are kept."""

import time
from collections import deque

# A machine that fell behind catches up this much and no more: after a long stall the world would
# otherwise race past nodes that are still waking up.
DEBT_LIMIT_S = 0.05


class Pacer:
    """Sleeps so that simulated time advances `factor` times as fast as the wall clock.

    A factor of 0 never sleeps.
    """

    def __init__(self, factor: float, tick_s: float):
        self._period_s = tick_s / factor if factor > 0 else 0.0
        self._deadline_s = time.monotonic()

    def wait(self) -> None:
        """Sleep until the next tick is due; not at all when it is overdue."""
        if not self._period_s:
            return
        self._deadline_s += self._period_s
        ahead = self._deadline_s - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        elif ahead < -DEBT_LIMIT_S:
            self._deadline_s = time.monotonic() - DEBT_LIMIT_S


class RealTimeFactor:
    """Simulated seconds a wall second and processor time a tick, over the last `window_s`."""

    def __init__(self, window_s: float = 2.0):
        self._window_s = window_s
        self._marks: deque[tuple[float, float, float]] = deque()

    def mark(self, simulated_s: float) -> None:
        """Note the progress; called from the stepping thread now and then."""
        now = time.monotonic()
        self._marks.append((now, simulated_s, time.thread_time()))
        while len(self._marks) > 2 and self._marks[0][0] < now - self._window_s:
            self._marks.popleft()

    def clear(self) -> None:
        """Forget the past, after a pause."""
        self._marks.clear()

    @property
    def value(self) -> float:
        """Simulated seconds a wall second; 0.0 while nothing is known."""
        wall, simulated, _ = self._spans()
        return simulated / wall if wall > 0 else 0.0

    @property
    def processor_share(self) -> float:
        """Processor seconds of the stepping thread a simulated second; 0.0 while unknown."""
        _, simulated, processor = self._spans()
        return processor / simulated if simulated > 0 else 0.0

    def _spans(self) -> tuple[float, float, float]:
        marks = list(self._marks)
        if len(marks) < 2:
            return 0.0, 0.0, 0.0
        return tuple(end - start for start, end in zip(marks[0], marks[-1], strict=True))
