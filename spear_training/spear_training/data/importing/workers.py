"""Groups of a store, written by several processes.

Each is a fresh Python that makes a reader of its own. They end when this process ends, however it
ends, and a Ctrl-C of the terminal is for this process only.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Protocol

from spear_training.data.importing.sources import Source
from spear_training.data.importing.watched_reader import WatchedReader
from spear_training.data.reader import DataFileError
from spear_training.data.store.group import write_group

STOP_S = 10.0  # for a process to end


class WorkerError(RuntimeError):
    """A process that wrote groups ended, or met an error that nobody expects; says which."""


class Listener(Protocol):
    """Who wants to know how far the writing is."""

    def looked_at(self, frames: int) -> None:
        """One more episode was read; it has so many frames, 0 if it is of no use."""

    def written(self, group: int) -> None:
        """A group is there."""


Work = tuple[int, list[int]]  # number of a group, and the reader's numbers of its episodes


def write_groups(
    root: Path, source: Source, robot: str, work: Sequence[Work], workers: int, listener: Listener
) -> None:
    """Write groups that are not there.

    Args:
        root: a folder for which `begin_store` was called.
        source: of the episodes.
        robot: of the store.
        work: what to write.
        workers: processes; 1 does it in this one.
        listener: is told as it happens, in this process.

    Raises:
        DataFileError: the source cannot be used.
        OSError: a file cannot be read or written.
        WorkerError: a process was killed, or has an error. In each case what is written stays,
            and no process is left.
    """
    if workers < 2 or len(work) < 2:
        reader = WatchedReader(source.open(), robot, listener.looked_at)
        for group, episodes in work:
            write_group(root, group, reader, episodes)
            listener.written(group)
        return
    waiting = deque(work)
    with _processes(root, source, robot, min(workers, len(work))) as crew:
        for worker in crew:
            worker.begin(waiting.popleft())
        while busy := [worker for worker in crew if worker.group is not None]:
            for worker in _with_news(busy):
                told = worker.hear()
                if isinstance(told, Exception):
                    raise told
                if told is not None:
                    listener.looked_at(told)
                    continue
                listener.written(worker.group)
                worker.begin(waiting.popleft() if waiting else None)


class _Worker:
    """A process, seen from this one; `group` is what it writes."""

    def __init__(self, context, *arguments):
        self._line, its_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(its_end, *arguments), daemon=True)
        self.process.start()
        its_end.close()
        self.group: int | None = None
        self._episodes: list[int] = []

    @property
    def line(self) -> connection.Connection:
        """What it speaks through."""
        return self._line

    def begin(self, work: Work | None) -> None:
        """Give it something to write, or nothing more."""
        self.group, self._episodes = work or (None, [])
        if work:
            try:
                self._line.send(work)
            except OSError:
                pass  # it has ended; `hear` says how

    def hear(self) -> int | Exception | None:
        """What it says: frames of an episode, what went wrong, or None: the group is there."""
        try:
            return self._line.recv()
        except (EOFError, OSError):
            self.process.join(STOP_S)
            code = self.process.exitcode
            how = f"signal {-code}" if code and code < 0 else f"exit code {code}"
            return WorkerError(
                f"a process ended by {how} while it wrote group {self.group} (episodes "
                f"{self._episodes[0]} to {self._episodes[-1]}); if memory ran out, use fewer "
                "--workers; the same command goes on"
            )

    def stop(self) -> None:
        """Ask it to end; it may be in the midst of a group."""
        if self.process.is_alive():
            self.process.terminate()


def _with_news(workers: list[_Worker]) -> list[_Worker]:
    ready = connection.wait([worker.line for worker in workers])
    return [worker for worker in workers if worker.line in ready]


@contextmanager
def _processes(root: Path, source: Source, robot: str, count: int) -> Iterator[list[_Worker]]:
    context = multiprocessing.get_context("spawn")
    crew: list[_Worker] = []
    try:
        with _no_interrupt_for_children():
            for _ in range(count):
                crew.append(_Worker(context, root, source, robot))
        yield crew
    finally:
        for worker in crew:
            worker.stop()
        for worker in crew:
            worker.process.join(STOP_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.line.close()
        for left in root.rglob(".*.part"):  # what was half written
            left.unlink(missing_ok=True)


@contextmanager
def _no_interrupt_for_children() -> Iterator[None]:
    """Start processes that a terminal's Ctrl-C does not reach: they inherit what is blocked."""
    # It starts a process of its own with the first one, and would take the block away by that.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(line: connection.Connection, root: Path, source: Source, robot: str) -> None:
    """Write groups until nobody asks for more."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _use_one_thread()
    try:
        reader = WatchedReader(source.open(), robot, line.send)
        while True:
            group, episodes = line.recv()
            write_group(root, group, reader, episodes)
            line.send(None)
    except EOFError:
        return
    except (DataFileError, OSError) as error:
        line.send(error)
    except Exception as error:
        line.send(WorkerError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}"))


def _end_with_parent() -> None:
    # One that was killed could not tell; an orphan would write into the next import's files.
    multiprocessing.parent_process().join()
    os._exit(1)


def _use_one_thread() -> None:
    """There is a process for every core already."""
    import cv2
    import pyarrow
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    pyarrow.set_cpu_count(1)
