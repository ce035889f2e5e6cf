"""The robot's clock in terms of the node clock, free of the jitter with which states arrive."""

from collections import deque


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
