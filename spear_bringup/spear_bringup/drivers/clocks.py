"""The robot's own clock, compared with the steady clock and the node clock; and a heartbeat.

`Heartbeat`: is the manager alive? `StateWatchdog`: has the robot gone silent? `ClockMap`: when, on
the node clock, was the robot in the state that arrives now?
"""

import threading
import time
from collections import deque

# Silence of the lifecycle manager -----------------------------------------------------------------


class Heartbeat:
    """The heartbeat of the lifecycle manager that watches over a driver, on the steady clock.

    A manager that was never there is not missed: a driver may be run without one.
    """

    def __init__(self, timeout_s: float):
        self.timeout_s = timeout_s
        self._beat_s: float | None = None

    def beat(self) -> None:
        """The manager is alive now."""
        self._beat_s = time.monotonic()

    def forget_when_lost(self) -> None:
        """A person activates the driver without the manager that was there before."""
        if self.problem(time.monotonic()) is not None:
            self._beat_s = None

    def problem(self, steady_s: float) -> str | None:
        """Since when the manager is silent, in a sentence; None when it is not."""
        beat_s = self._beat_s
        if beat_s is None or steady_s - beat_s <= self.timeout_s:
            return None
        return (
            f"the lifecycle manager has been silent for {self.timeout_s:g} s; start it again, or "
            "deactivate and activate the driver to go on without one"
        )


# Silence of the robot: its own clock stands still on ours ---------------------------------------


class StateWatchdog:
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

    def on_state(self, robot_time_s: float) -> None:
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


# The robot's clock as node time, free of the jitter with which states arrive --------------------


class ClockMap:
    """Maps robot time to node time with the best offset of the last second.

    A state is seen some time after the robot made it, so on the system clock every sample of
    `node - robot` is too large, by its delay: the smallest is right. Simulated time is the other
    way round: /clock comes in steps, so the node clock lags and the largest is right.

    Stamps never go back and never run more than `slew` faster or slower than the robot's clock,
    except when a clock was reset.

    Args:
        simulated: whether the node clock follows /clock.
        window_s: how long a sample counts, robot time.
        jump_s: a best offset this far from the present one means that a clock was reset.
    """

    def __init__(
        self, simulated: bool, window_s: float = 1.0, jump_s: float = 0.5, slew: float = 0.5
    ):
        self.simulated, self.window_s, self.jump_s, self.slew = simulated, window_s, jump_s, slew
        self._best: deque[tuple[float, float]] = deque()  # monotone: the first one is the best
        self._offset_s: float | None = None
        self._robot_time_s = 0.0

    def stamp_s(self, robot_time_s: float, node_now_s: float) -> float:
        """Node time at which the robot was in the state of `robot_time_s` that is seen now."""
        sample = node_now_s - robot_time_s
        if self._offset_s is None or robot_time_s < self._robot_time_s:
            self._best.clear()
            self._offset_s, self._robot_time_s = sample, robot_time_s
        self._keep(robot_time_s, sample)
        change = self._best[0][1] - self._offset_s
        if abs(change) <= self.jump_s:
            most = self.slew * (robot_time_s - self._robot_time_s)
            change = min(max(change, -most), most)
        self._offset_s += change
        self._robot_time_s = robot_time_s
        return robot_time_s + self._offset_s

    def reset(self) -> None:
        """Forget everything: after a new connection, or when the node clock was reset."""
        self._best.clear()
        self._offset_s = None

    def _keep(self, robot_time_s: float, sample: float) -> None:
        sign = 1.0 if self.simulated else -1.0
        while self._best and sign * self._best[-1][1] <= sign * sample:
            self._best.pop()
        self._best.append((robot_time_s, sample))
        while self._best[0][0] < robot_time_s - self.window_s:
            self._best.popleft()
