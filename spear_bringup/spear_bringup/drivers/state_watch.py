"""Has the robot gone silent? Told by its own clock standing still, on ours."""

import threading


class StateWatch:
    """Counts the steady time for which the robot's clock has not moved.

    A state that is handed out again and again is no sign of life: during a motion franky returns
    the last one it has, at once, for a whole second after the robot is gone. And time in which
    this process itself did not run counts only up to `longest_tick_s` a tick, because then it is
    we who were away.

    Args:
        timeout_s: silence after which the robot counts as lost.
        longest_tick_s: the most that one tick may add.
    """

    def __init__(self, timeout_s: float, longest_tick_s: float = 0.04):
        self.timeout_s, self.longest_tick_s = timeout_s, longest_tick_s
        self._lock = threading.Lock()
        self._robot_time_s: float | None = None
        self._moved = False
        self._ticked_s: float | None = None
        self._silent_s = 0.0

    def saw(self, robot_time_s: float) -> None:
        """A state with this robot time was read (reader thread)."""
        with self._lock:
            if robot_time_s != self._robot_time_s:
                self._robot_time_s, self._moved = robot_time_s, True

    def tick(self, steady_s: float) -> float:
        """How long the robot has been silent [s] (watching thread, many times a timeout)."""
        with self._lock:
            before_s, self._ticked_s = self._ticked_s, steady_s
            if self._moved or before_s is None:
                self._moved, self._silent_s = False, 0.0
            else:
                self._silent_s += min(steady_s - before_s, self.longest_tick_s)
            return self._silent_s

    @property
    def silent_s(self) -> float:
        """The silence at the last tick [s]."""
        return self._silent_s

    @property
    def lost(self) -> bool:
        """Whether the silence is longer than it may be."""
        return self._silent_s > self.timeout_s
