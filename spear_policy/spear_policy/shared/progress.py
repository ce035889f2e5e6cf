"""How far long work is: a bar on a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 10.0


class ProgressDisplay:
    """Shows work of many equal pieces on a console, and lines above the bar.

    Use it as a context, so that the bar is taken away whatever happens.
    """

    def __init__(
        self,
        console: Console,
        name: str,
        unit: str,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Prepare a display that shows nothing yet.

        Args:
            console: where to show it.
            name: of the work, such as "shard 3 of 64".
            unit: of a piece, plural: "pictures".
            clock: seconds that only grow.
        """
        self._console, self._name, self._unit, self._clock = console, name, unit, clock
        self._bar: Progress | None = None
        self._total = self._done = self._begun_with = 0
        self._detail, self._running = "", False
        self._begun_s = self._line_s = clock()

    def begin(self, total: int, done: int = 0, detail: str = "") -> None:
        """Start; `done` of `total` pieces were there already."""
        self._total, self._done, self._begun_with, self._detail = total, done, done, detail
        self._running = False
        self._begun_s = self._line_s = self._clock()
        if done:
            self.print(f"{self._name}: {done} of {total} {self._unit} are there already")
        if self._console.is_terminal and total > done:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[detail]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=total, completed=done, detail=detail)

    def advance(self, pieces: int = 1, detail: str = "") -> None:
        """Count pieces; `detail` stands behind the count from now on, such as "3 failed"."""
        if not self._running:
            # What starting took says nothing about the rest.
            self._running, self._begun_with = True, self._done + pieces
            self._begun_s = self._line_s = self._clock()
        self._done += pieces
        self._detail = detail
        if self._bar:
            self._bar.update(self._task, completed=self._done, detail=detail)
        elif self._clock() - self._line_s >= LINE_EVERY_S:
            self._line_s = self._clock()
            self.print(self._line())

    def print(self, words: str) -> None:
        """Print a line, above the bar if there is one."""
        self._console.print(words, markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> "ProgressDisplay":
        return self

    def __exit__(self, *_) -> None:
        self.end()

    def _line(self) -> str:
        rate = (self._done - self._begun_with) / max(self._clock() - self._begun_s, 1e-9)
        words = f"{self._name}: {self._done} of {self._total} {self._unit}"
        if self._detail:
            words += f", {self._detail}"
        if rate > 0:
            left_s = (self._total - self._done) / rate
            words += f", {rate:.2f} {self._unit}/s, {duration_words(left_s)} left"
        return words


def duration_words(seconds: float) -> str:
    """A duration for a person: "1:02:03" is an hour, two minutes and three seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


@contextmanager
def byte_progress(title: str, total_bytes: int, show: bool | None) -> Iterator[Callable]:
    """Give a function that takes the number of bytes just done; the bar is on stderr.

    Args:
        title: what is being done.
        total_bytes: of all that will be done.
        show: whether to draw the bar; it is drawn only on a terminal.
    """
    console = Console(stderr=True)
    if not (show and console.is_terminal):
        yield lambda done_bytes: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total_bytes)
        yield lambda done_bytes: bar.update(task, advance=done_bytes)
