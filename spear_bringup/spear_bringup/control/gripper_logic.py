"""Open or close: a policy's wavering opening becomes few, firm gripper commands."""


class GripperLogic:
    """Hysteresis with a least dwell time.

    Args:
        close_below, open_above: openings (0 closed .. 1 open) that switch; between them nothing
            changes.
        min_dwell_s: least time between two switches.

    Raises:
        ValueError: thresholds out of order or out of 0..1, or a negative dwell.
    """

    def __init__(self, close_below: float = 0.4, open_above: float = 0.6, min_dwell_s: float = 0.5):
        if not 0.0 <= close_below < open_above <= 1.0:
            raise ValueError(
                f"gripper thresholds {close_below}, {open_above}: "
                "need 0 <= close_below < open_above <= 1"
            )
        if not min_dwell_s >= 0.0:
            raise ValueError(f"gripper min_dwell_s is {min_dwell_s}; it must not be negative")
        self.close_below, self.open_above, self.min_dwell_s = close_below, open_above, min_dwell_s
        self.target: float | None = None
        self._switched_s = 0.0

    def update(self, opening: float, now_s: float) -> float | None:
        """The firm target (0.0, 1.0) after one more wanted opening; None before any is clear."""
        wanted = self.target
        if opening <= self.close_below:
            wanted = 0.0
        elif opening >= self.open_above:
            wanted = 1.0
        if wanted == self.target:
            return self.target
        if self.target is None or abs(now_s - self._switched_s) >= self.min_dwell_s:
            self.target, self._switched_s = wanted, now_s
        return self.target
