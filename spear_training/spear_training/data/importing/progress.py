"""How far an import is: a bar on a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Callable
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 10.0
MOST_REJECTS = 20  # that are said one by one


class ImportProgress:
    """Shows an import on a console.

    Use it as a context, so that the bar is taken away whatever happens.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        """Take the console."""
        self._console, self._clock = console, clock
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._total = self._done = self._begun_with = self._frames = self._rejects = 0
        self._begun_at = self._line_at = clock()

    def begin(self, total: int, done: int) -> None:
        """Start, with the episodes that an earlier run has looked at already."""
        self._total, self._done, self._begun_with = total, done, done
        self._begun_at = self._line_at = self._clock()
        if done:
            self.say(f"{done} of {total} episodes were looked at already")
        if self._console.is_terminal and total > done:
            self._bar = Progress(
                TextColumn("episodes"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=total, completed=done, rate="")

    def add(self, frames: int) -> None:
        """Count an episode."""
        if self._done == self._begun_with:
            # What starting took says nothing about the rest.
            self._begun_at = self._line_at = self._clock()
        else:
            self._frames += frames
        self._done += 1
        if self._bar:
            self._bar.update(self._task, completed=self._done, rate=self._rate())
        elif self._clock() - self._line_at >= LINE_EVERY_S:
            self._line_at = self._clock()
            left_s = self._seconds() * (self._total - self._done)
            left_s /= max(1, self._done - self._begun_with - 1)
            left = timedelta(seconds=round(left_s))
            self.say(f"{self._done} of {self._total} episodes, {self._rate()}, {left} left")

    def rejected(self, episode: int, reason: str) -> None:
        """Name an episode that is of no use, as long as there are few."""
        self._rejects += 1
        if self._rejects <= MOST_REJECTS:
            self.say(f"episode {episode}: REJECTED, {reason}")
        elif self._rejects == MOST_REJECTS + 1:
            self.say("further rejects are not shown here; the report names them all")

    def say(self, words: str) -> None:
        """Print a line, above the bar if there is one."""
        self._console.print(words, markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> "ImportProgress":
        return self

    def __exit__(self, *_) -> None:
        self.end()

    def _seconds(self) -> float:
        return max(self._clock() - self._begun_at, 1e-9)

    def _rate(self) -> str:
        return f"{self._frames / self._seconds():.0f} frames/s"
