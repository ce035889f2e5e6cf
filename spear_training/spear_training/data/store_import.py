"""A whole import to a store: begun or gone on with, written, finished."""

import dataclasses
import fcntl
import json
import logging
import math
import multiprocessing
import os
import shutil
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Protocol

import numpy as np
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

from spear_policy.inference.episode import Episode, EpisodeError
from spear_policy.shared.config import read_dataclass
from spear_policy.shared.files import write_atomically
from spear_training.data.oxe.reader import NotSelected
from spear_training.data.reader import DataFileError, EpisodeReader
from spear_training.data.sources import EpisodeSource, parse_selection, selection_words, spread
from spear_training.data.store.format import (
    BUILDING,
    METADATA_PATH,
    V3_DATA_FILE_MB,
    StoreMetadata,
    as_written,
    group_record_path,
    read_group,
    read_rejects,
    read_store_metadata,
)
from spear_training.data.store.reader import FrameStore
from spear_training.data.store.writer import (
    Numbering,
    begin_store,
    finish_store,
    is_finished,
    store_pictures,
    write_group,
)

# How far an import is --------------------------------------------------------------------------


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


# A reader that tells how far it is -------------------------------------------------------------


log = logging.getLogger(__name__)


class WatchedReader:
    """Another reader, watched; see EpisodeReader."""

    def __init__(self, reader: EpisodeReader, robot: str, told: Callable[[int], None]):
        """Watch a reader.

        Args:
            reader: to be watched.
            robot: that moves in every episode of the store.
            told: gets the frames of each episode that was looked at; 0 of one that is of no use.
        """
        self._reader, self._robot, self._told = reader, robot, told
        self._logged: set[type] = set()

    @property
    def name(self) -> str:
        """The reader's name."""
        return self._reader.name

    def __len__(self) -> int:
        return len(self._reader)

    def read(self, index: int) -> Episode:
        """Episode `index`.

        Raises:
            DataFileError, EpisodeError, IndexError: see EpisodeReader. An error that the reader
                does not know of becomes a DataFileError, so that it costs one episode only.
            OSError: the file cannot be read now; perhaps it can later.
        """
        frames = 0
        try:
            episode = self._reader.read(index)
            frames = len(episode)
        except (DataFileError, EpisodeError, OSError, MemoryError):
            raise
        except Exception as error:
            if type(error) not in self._logged:
                self._logged.add(type(error))
                log.error("episode %d: an error that no reader expects", index, exc_info=error)
            raise DataFileError(
                f"an error that no reader expects, please report it ({type(error).__name__}: "
                f"{error})"
            ) from error
        finally:
            self._told(frames)
        if episode.robot and episode.robot != self._robot:
            raise EpisodeError(
                f"{episode.name}: its robot is {episode.robot!r}, the store's {self._robot!r}: "
                "import them apart"
            )
        return episode


# Groups of a store, written by several processes -----------------------------------------------


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
    root: Path,
    source: EpisodeSource,
    robot: str,
    work: Sequence[Work],
    workers: int,
    listener: Listener,
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
def _processes(
    root: Path, source: EpisodeSource, robot: str, count: int
) -> Iterator[list[_Worker]]:
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


def _serve(line: connection.Connection, root: Path, source: EpisodeSource, robot: str) -> None:
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


# What a store will need, from a look at some episodes ------------------------------------------


LOOKED_AT, PICTURES = 8, 4
# A frame without its pictures: its row, its lookup, and its place in what is kept meanwhile.
ROW_BYTES = 350
# Smaller files where there are few episodes: several processes shall have something to do.
LEAST_GROUPS, MOST_EPISODES = 16, 1000


@dataclass(frozen=True)
class Forecast:
    """What was seen.

    Attributes:
        episode_bytes: mean of an episode that is looked at, usable or not; None where not one
            was usable.
        reason: why the first one that is of no use is that, unless it is only not selected.
    """

    episode_bytes: float | None
    reason: str = ""

    def group_episodes(self, episodes: int) -> int:
        """How many of `episodes` to look at for one data file: below 100 MB, as LeRobot has it."""
        most = max(1, math.ceil(episodes / LEAST_GROUPS))
        if self.episode_bytes:
            most = min(most, int(V3_DATA_FILE_MB * 1e6 / self.episode_bytes))
        return min(max(1, most), MOST_EPISODES)

    def room_warning(self, root: Path, episodes: int) -> str | None:
        """Say so if `episodes` more are likely not to fit on the disk of `root`."""
        free = shutil.disk_usage(root).free
        needed = episodes * (self.episode_bytes or 0)
        if needed <= free:
            return None
        return (
            f"{root} will become too small: {episodes} episodes need about {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free; the import stops when the disk is full, and goes on "
            "when it is run again"
        )


def look(reader: EpisodeReader, metadata: StoreMetadata, chosen: Sequence[int]) -> Forecast:
    """Read some of the `chosen` episodes, and encode some pictures of each.

    Raises:
        OSError: a file cannot be read.
    """
    sizes, reason = [], ""
    for index in spread(chosen, LOOKED_AT):
        try:
            sizes.append(_episode_bytes(reader.read(index), metadata))
        except (DataFileError, EpisodeError) as error:
            sizes.append(0.0)
            if not isinstance(error, NotSelected):
                reason = reason or f"episode {index}: {error}"
    return Forecast(float(np.mean(sizes)) if any(sizes) else None, reason)


def _episode_bytes(episode: Episode, metadata: StoreMetadata) -> float:
    frame = float(ROW_BYTES)
    for camera in metadata.cameras:
        if (video := episode.images.get(camera.name)) is None:
            continue
        some = np.stack([video[step] for step in spread(range(len(episode)), PICTURES)])
        frame += float(np.mean([len(jpeg) for jpeg in store_pictures(some, camera).jpegs]))
    return frame * len(episode)


# Which episodes lie in which group of a store --------------------------------------------------


PLAN_PATH = BUILDING + "/import.json"
LOCK_PATH = BUILDING + "/lock"


@dataclass(frozen=True)
class ImportPlan:
    """building/import.json.

    Attributes:
        source: what the episodes' numbers mean; see EpisodeSource.identity.
        episodes: their numbers in words, see selection.
        group_episodes: how many are looked at for each group.
    """

    source: str
    episodes: str
    group_episodes: int

    def groups(self) -> list[list[int]]:
        """The reader's numbers of each group."""
        last = max(int(word.rpartition("-")[2]) for word in self.episodes.split(","))
        chosen = parse_selection(self.episodes, last + 1)
        size = self.group_episodes
        return [chosen[begin : begin + size] for begin in range(0, len(chosen), size)]


def agree_on_plan(
    root: Path, source: str, chosen: Sequence[int], group_episodes: int
) -> ImportPlan:
    """The plan of the import that was begun in `root`, or a new one, which is kept there.

    Args:
        root: a folder for which `begin_store` was called.
        source, chosen: what is to be imported now.
        group_episodes: size of the groups, if none is decided yet.

    Raises:
        DataFileError: what was begun is another import, or its plan is damaged.
        OSError: it cannot be written.
    """
    path, words = root / PLAN_PATH, selection_words(chosen)
    if not path.exists():
        plan = ImportPlan(source, words, group_episodes)
        write_atomically(path, (json.dumps(dataclasses.asdict(plan), indent=1) + "\n").encode())
        return plan
    try:
        held = read_dataclass(ImportPlan, json.loads(path.read_text()), "plan")
    except (OSError, ValueError) as error:
        raise DataFileError(f"{path}: {error}; delete {root} and import again") from None
    for name, new in (("source", source), ("episodes", words)):
        old = getattr(held, name)
        if old != new:
            raise DataFileError(
                f"{root}: holds a begun import of other {name} ({_short(old)}, not {_short(new)}); "
                "go on with the same, or delete the folder"
            )
    return held


@contextmanager
def only_process(root: Path) -> Iterator[None]:
    """Keep other imports out of `root` meanwhile; a killed one keeps nobody out.

    Raises:
        DataFileError: another import is at work there.
        OSError: it cannot be written.
    """
    descriptor = os.open(root / LOCK_PATH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataFileError(
                f"{root}: another import is at work there; wait for it, or stop it"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _short(words: str, most: int = 60) -> str:
    return words if len(words) <= most else words[: most - 3] + "..."


# A whole import to a store ---------------------------------------------------------------------


def import_to_store(
    source: EpisodeSource, root: Path, episodes: str, workers: int, progress: ImportProgress
) -> StoreMetadata:
    """Make a store of the chosen episodes, or go on where an earlier call was stopped.

    Args:
        source: of the episodes.
        root: the store's folder.
        episodes: which, in the words of selection.py.
        workers: processes that write; the store is the same for any number.
        progress: is told.

    Returns:
        What the store says about itself.

    Raises:
        ValueError: a selection of episodes that are not there.
        DataFileError: the source or the folder cannot be used, or no episode is usable.
        OSError: a file cannot be read or written (disk full). Call again to go on.
        WorkerError: a process ended. Call again to go on.
    """
    reader = source.open()
    chosen = parse_selection(episodes, len(reader))
    if not chosen:
        raise DataFileError(f"{source.folder}: holds no episode")
    metadata = source.metadata(reader)
    if is_finished(root) and _is_same_import(root, metadata, chosen):
        progress.say(f"{root} is finished already")
        return read_store_metadata(root / METADATA_PATH)
    begin_store(root, metadata)
    with only_process(root):
        job = _Job(root, progress)
        careful = WatchedReader(reader, metadata.robot, lambda _: None)
        forecast = look(careful, metadata, chosen)
        if forecast.reason:
            progress.say(f"of those looked at first, {forecast.reason}")
        size = forecast.group_episodes(len(chosen))
        groups = agree_on_plan(root, source.identity(reader), chosen, size).groups()
        there = [g for g in range(len(groups)) if group_record_path(root, g).exists()]
        done = sum(len(groups[group]) for group in there)
        progress.begin(len(chosen), done)
        for group in there:
            write_group(root, group, reader, groups[group])  # checks that it holds these episodes
            job.written(group)
        missing = [(g, groups[g]) for g in sorted({*range(len(groups))} - {*there})]
        if missing and (warning := forecast.room_warning(root, len(chosen) - done)):
            progress.say(warning)
        write_groups(root, source.settled(reader), metadata.robot, missing, workers, job)
        progress.end()
        progress.say(f"finishing {root}")
        return finish_store(root, len(groups), job.numbering)


class _Job:
    """What happens to a group once it is there."""

    def __init__(self, root: Path, progress: ImportProgress):
        self._root, self._progress = root, progress
        self.numbering = Numbering(root)

    def looked_at(self, frames: int) -> None:
        self._progress.add(frames)

    def written(self, group: int) -> None:
        for reject in read_group(self._root, group).rejects:
            if reject.selected:
                self._progress.rejected(reject.source_index, reject.reason)
        self.numbering.advance()


def _is_same_import(root: Path, metadata: StoreMetadata, chosen: Sequence[int]) -> bool:
    """Whether a finished store is what this import would make."""
    try:
        store = FrameStore(root)
        held = store.metadata
        looked_at = {*store.episodes.source_index.tolist()}
        looked_at |= {reject.source_index for reject in read_rejects(root)}
    except DataFileError:
        return False
    same = ("name", "robot", "control_hz", "action_from", "gripper_from", "state_known", "row_hash")
    return (
        all(getattr(held, name) == getattr(metadata, name) for name in same)
        and held.camera_names == metadata.camera_names
        and held.source == as_written(metadata).source
        and looked_at == set(chosen)
    )
