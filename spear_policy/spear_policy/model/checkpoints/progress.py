"""A progress bar in bytes on stderr, for what takes minutes at full size."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def byte_progress(title: str, total_bytes: int, show: bool | None) -> Iterator[Callable]:
    """Give a function that takes the number of bytes just done.

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
