"""How far a job is: a bar on a terminal, a plain line now and then elsewhere."""

import time
from collections import Counter
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 10.0


class JobProgress:
    """Shows a job on a console; failures as lines of their own.

    Use it as a context, so that the bar is taken away whatever happens.
    """

    def __init__(self, console: Console, name: str, clock: Callable[[], float] = time.monotonic):
        """Take the console, and a name for the lines, such as "shard 3 of 64"."""
        self._console, self._name, self._clock = console, name, clock
        self._bar: Progress | None = None
        self._counts: Counter[str] = Counter()
        self._total = self._done = self._begun_with = 0
        self._begun_at = self._line_at = clock()

    def begin(self, total: int, counts: Counter[str]) -> None:
        """Start, with what an earlier run has done already."""
        self._total, self._counts = total, Counter(counts)
        self._done = self._begun_with = sum(counts.values())
        self._begun_at = self._line_at = self._clock()
        if self._console.is_terminal and total > self._done:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[counts]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self._name, total=total, completed=self._done, counts=describe(self._counts)
            )
        if self._done:
            self.say(f"{self._name}: {self._done} of {total} are there already")

    def add(self, name: str, status: str, reason: str | None) -> None:
        """Count a picture."""
        self._done += 1
        self._counts[status] += 1
        if status == "failed":
            self.say(f"{name}: failed, {reason}")
        if self._bar:
            self._bar.update(self._task, completed=self._done, counts=describe(self._counts))
        elif self._clock() - self._line_at >= LINE_EVERY_S:
            self._line_at = self._clock()
            self.say(self._line())

    def say(self, words: str) -> None:
        """Print a line, above the bar if there is one."""
        self._console.print(words, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> "JobProgress":
        return self

    def __exit__(self, *_) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _line(self) -> str:
        rate = (self._done - self._begun_with) / max(self._clock() - self._begun_at, 1e-9)
        words = f"{self._name}: {self._done} of {self._total}, {describe(self._counts)}"
        if rate > 0:
            left_s = (self._total - self._done) / rate
            words += f", {rate:.2f} pictures/s, {_duration(left_s)} left"
        return words


def describe(counts: Counter[str]) -> str:
    """Counts in words: "12 ok, 1 empty, 0 failed"."""
    return ", ".join(f"{counts[status]} {status}" for status in ("ok", "empty", "failed"))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
