"""When the next inference is due."""


class Pace:
    """At most one in `period_s` of the node clock, without drift; after a pause, from now on.

    From `at_once` on there is a grid of due times, `period_s` apart. One that begins a little late
    leaves the grid where it is, so the next one may come sooner than `period_s` after it; but the
    n-th never begins sooner than n periods after `at_once`, counted from 0.
    """

    def __init__(self, period_s: float):
        self.period_s = period_s
        self._next_s = 0.0

    def at_once(self, now_s: float) -> None:
        """The next one is due now."""
        self._next_s = now_s

    def due(self, now_s: float) -> bool:
        """Whether it is time; also when the clock was set back."""
        return now_s >= self._next_s or self._next_s - now_s > 2 * self.period_s

    def begun(self, now_s: float) -> None:
        """One begins now, or was tried in vain."""
        on_time = 0.0 <= now_s - self._next_s < self.period_s
        self._next_s = (self._next_s if on_time else now_s) + self.period_s
