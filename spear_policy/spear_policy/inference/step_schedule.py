"""When each step of the newest chunk is due: what a controller that follows single steps gets."""

from typing import Any


class StepSchedule:
    """Steps in order of time; a newer chunk replaces what is left of the one before."""

    def __init__(self):
        self._steps: list[tuple[float, Any]] = []

    def replace(self, due_times_s, steps, now_s: float) -> None:
        """Take the steps of a new chunk; those already due at `now_s` are not made up for."""
        self._steps = [pair for pair in zip(due_times_s, steps, strict=True) if pair[0] > now_s]

    def clear(self) -> None:
        """Nothing is due any more."""
        self._steps = []

    def due(self, now_s: float) -> list:
        """The steps that became due since the last call, in order."""
        done = [step for due_s, step in self._steps if due_s <= now_s]
        self._steps = self._steps[len(done) :]
        return done
