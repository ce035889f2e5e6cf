"""A whole import to a store: many processes read and encode, one writer takes episodes in order.

The store is the same, to the last byte, for any number of processes and whatever stopped the import
in between: a group of episodes is written whole, and the next run goes on after the last one.
"""

import dataclasses
import fcntl
import json
import logging
import math
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from spear_policy.inference.episode import Episode, EpisodeError
from spear_policy.shared.config import read_dataclass
from spear_policy.shared.files import disk_space_warning, write_atomically
from spear_policy.shared.progress import ProgressDisplay
from spear_policy.shared.workers import process_pool
from spear_training.data.reader import (
    DataFileError,
    EpisodeReader,
    NotSelectedError,
    outline,
    spread,
    unreadable,
)
from spear_training.data.sources import EpisodeSource, parse_selection, selection_words
from spear_training.data.store.format import (
    BUILDING,
    METADATA_PATH,
    V3_DATA_FILE_MB,
    Reject,
    StoreMetadata,
    as_written,
    read_rejects,
    read_store_metadata,
)
from spear_training.data.store.reader import FrameStore
from spear_training.data.store.writer import (
    EncodedEpisode,
    StoreWriter,
    begin_store,
    encode_episode,
    is_finished,
    store_pictures,
)

log = logging.getLogger(__name__)


class WorkerError(RuntimeError):
    """A process that read episodes was killed; says which episodes."""


def import_to_store(
    source: EpisodeSource,
    root: Path,
    episodes: str,
    workers: int,
    progress: "ImportProgress",
    retry_rejected: bool = False,
) -> StoreMetadata:
    """Make a store of the chosen episodes, or go on where an earlier call was stopped.

    Args:
        source: of the episodes.
        root: the store's folder.
        episodes: which, in the words of `sources.parse_selection`.
        workers: processes that read and encode; the store is the same for any number.
        progress: shows how far it is.
        retry_rejected: read the rejected episodes of a finished store again; where one of them can
            be used now, the store is made anew and takes the place of the old one at the end.

    Returns:
        What the store says about itself.

    Raises:
        ValueError: a selection of episodes that are not there.
        DataFileError: the source or the folder cannot be used, or no episode is usable.
        OSError: a file cannot be read or written (disk full). Call again to go on.
        WorkerError: a process was killed. Call again to go on.
    """
    reader = source.open()
    chosen = parse_selection(episodes, len(reader))
    if not chosen:
        raise DataFileError(f"{source.folder}: holds no episode")
    metadata = source.metadata(reader)
    checked = CheckedReader(reader, metadata.robot)
    anew = _beside(root, "anew")
    if not root.exists() and is_finished(anew):  # a retry that was killed at its very end
        anew.rename(root)
    if is_finished(root) and _is_same_import(root, metadata, chosen):
        held = read_store_metadata(root / METADATA_PATH)
        if not retry_rejected:
            again = f"; --retry-rejected reads the {held.rejected} rejected episodes again"
            progress.print(f"{root} is finished already{again if held.rejected else ''}")
        elif _some_usable_now(root, checked, metadata, progress):
            held = import_to_store(source, anew, episodes, workers, progress)
            _replace_store(root, anew)
        return held
    for remark in source.remarks(reader):
        progress.print(remark)
    seen = None if is_finished(root) else forecast(checked, metadata, chosen)
    if seen and seen.fault:
        raise DataFileError(seen.fault)
    begin_store(root, metadata)
    with only_process(root):
        if seen.reason:
            progress.print(f"of those looked at first, {seen.reason}")
        size = seen.group_episodes(len(chosen))
        groups = agree_on_plan(root, source.identity(reader), chosen, size).groups()
        writer = StoreWriter(root)
        done = _check_written(root, writer, groups)
        progress.begin(len(chosen), done)
        for record in writer.records:
            progress.rejected(record.rejects)
        if done < len(chosen) and (warning := seen.room_warning(root, len(chosen) - done)):
            progress.print(warning)
        _write_groups(writer, groups, source.settled(reader), workers, progress)
        progress.end()
        progress.print(f"finishing {root}")
        return writer.finish(len(groups))


def _some_usable_now(
    root: Path, reader: "CheckedReader", metadata: StoreMetadata, progress: "ImportProgress"
) -> bool:
    """Whether an episode that a finished store lacks can be used now; says so."""
    reasons = []
    for reject in read_rejects(root):
        if not reject.selected:
            continue
        (first, *_) = encode_episode(reader, reject.source_index, metadata)
        if not isinstance(first, Reject):
            progress.print(f"episode {reject.source_index} can be used now: the store is made anew")
            return True
        reasons.append(first)
    still = f"; of the {len(reasons)} rejected episodes none can be used yet" if reasons else ""
    progress.print(f"{root} is finished already{still}")
    progress.rejected(reasons)
    return False


def _beside(root: Path, word: str) -> Path:
    return root.with_name(f"{root.name}.{word}")


def _replace_store(root: Path, anew: Path) -> None:
    """Put a finished store in the place of another; at every moment one of them is whole."""
    old = _beside(root, "old")
    root.rename(old)
    anew.rename(root)
    shutil.rmtree(old)


def _check_written(root: Path, writer: StoreWriter, groups: list[list[int]]) -> int:
    """How many episodes are in the groups that are there, which must be those of the plan."""
    for group, record in enumerate(writer.records):
        if group >= len(groups) or record.source_indices != tuple(groups[group]):
            raise DataFileError(
                f"{root}: group {group} holds other episodes than this import would put there; go "
                "on with the settings it was begun with, or delete the folder"
            )
    return sum(len(record.source_indices) for record in writer.records)


def _write_groups(
    writer: StoreWriter,
    groups: list[list[int]],
    source: EpisodeSource,
    workers: int,
    progress: "ImportProgress",
) -> None:
    """Write the groups that are not there yet."""
    missing = groups[len(writer.records) :]
    wanted = [index for group in missing for index in group]
    with _encoded(writer.metadata, source, wanted, workers) as encoded:
        for group in missing:
            record = writer.add_group(group, progress.counted(next(encoded) for _ in group))
            progress.rejected(record.rejects)


# Processes that read and encode ----------------------------------------------------------------

# Episodes that are read ahead of the writer, for each process: what is held in memory is bounded.
_AHEAD = 2


@contextmanager
def _encoded(
    metadata: StoreMetadata, source: EpisodeSource, wanted: Sequence[int], workers: int
) -> Iterator[Iterator[list[EncodedEpisode | Reject]]]:
    """Give what becomes of the `wanted` episodes, in their order."""
    if workers < 2 or len(wanted) < 2:
        reader = CheckedReader(source.open(), metadata.robot) if wanted else None
        yield (encode_episode(reader, index, metadata) for index in wanted)
        return
    count = min(workers, len(wanted))
    with process_pool(count, _open_reader, (source, metadata)) as pool:
        yield _in_order(pool, wanted, count * _AHEAD)


def _in_order(
    pool: ProcessPoolExecutor, wanted: Sequence[int], ahead: int
) -> Iterator[list[EncodedEpisode | Reject]]:
    processes = list(pool._processes.values())
    waiting: deque[tuple[int, Future]] = deque()
    coming = iter(wanted)
    try:
        while True:
            while len(waiting) < ahead and (index := next(coming, None)) is not None:
                waiting.append((index, pool.submit(_encode, index)))
            if not waiting:
                return
            result = waiting[0][1].result()
            waiting.popleft()
            yield result
    except BrokenProcessPool:
        for process in processes:
            process.join(10.0)
        # The pool itself ends the others with SIGTERM.
        codes = [
            process.exitcode for process in processes if process.exitcode not in (0, -15, None)
        ]
        how = f"signal {-codes[0]}" if codes and codes[0] < 0 else f"exit code {codes[:1]}"
        last = waiting[-1][0] if waiting else wanted[-1]
        raise WorkerError(
            f"a process ended by {how} while episodes {waiting[0][0]} to {last} were read; if "
            "memory ran out, use fewer --workers; the same command goes on"
        ) from None


def _open_reader(source: EpisodeSource, metadata: StoreMetadata) -> None:
    """Give this process a reader of its own."""
    global _reader, _metadata
    _reader, _metadata = CheckedReader(source.open(), metadata.robot), metadata


def _encode(index: int) -> list[EncodedEpisode | Reject]:
    return encode_episode(_reader, index, _metadata)


class CheckedReader:
    """A reader that no odd episode can bring down; see EpisodeReader."""

    def __init__(self, reader: EpisodeReader, robot: str):
        """Take another reader, and the robot that moves in every episode of the store."""
        self._reader, self._robot = reader, robot
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
        try:
            episode = self._reader.read(index)
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
        if episode.robot and episode.robot != self._robot:
            raise EpisodeError(
                f"{episode.name}: its robot is {episode.robot!r}, the store's {self._robot!r}: "
                "import them apart"
            )
        return episode


# Progress --------------------------------------------------------------------------------------

MOST_REJECTS = 20  # that are named one by one


class ImportProgress(ProgressDisplay):
    """Shows an import on a console: episodes and frames a second, and the first rejects."""

    def __init__(self, console: Console, **options):
        """Take the console; see ProgressDisplay."""
        super().__init__(console, "import", "episodes", **options)
        self._frames = self._rejects = 0

    def counted(
        self, encoded: Iterable[list[EncodedEpisode | Reject]]
    ) -> Iterator[EncodedEpisode | Reject]:
        """Count episodes as they pass, and give their pieces."""
        for pieces in encoded:
            stored = [each for each in pieces if not isinstance(each, Reject)]
            self._frames += sum(each.record.length for each in stored)
            self.advance(detail=f"{self._frames} frames")
            yield from pieces

    def rejected(self, rejects: Sequence[Reject]) -> None:
        """Name episodes that are of no use, as long as there are few."""
        for reject in rejects:
            if not reject.selected:
                continue
            self._rejects += 1
            if self._rejects <= MOST_REJECTS:
                self.print(f"episode {reject.source_index}: REJECTED, {reject.reason}")
            elif self._rejects == MOST_REJECTS + 1:
                self.print("further rejects are not shown here; the report names them all")


# The forecast ----------------------------------------------------------------------------------

FORECAST_EPISODES, FORECAST_PICTURES = 8, 4
# A frame without its pictures: its row, its lookup, and its place in what is kept meanwhile.
ROW_BYTES = 350
# Smaller files where there are few episodes: several processes shall have something to do.
LEAST_GROUPS, MOST_EPISODES = 16, 1000


@dataclass(frozen=True)
class Forecast:
    """What a store will need, from a look at some of its episodes.

    Attributes:
        episode_bytes: mean of the episodes read for it, usable or not; None where not one
            was usable.
        reason: why the first one that is of no use is that, unless it is only not selected.
        fault: a sentence where all of them fail alike: a fault of the whole source.
    """

    episode_bytes: float | None
    reason: str = ""
    fault: str = ""

    def group_episodes(self, episodes: int) -> int:
        """How many of `episodes` go into one data file: below 100 MB, as LeRobot has it."""
        most = max(1, math.ceil(episodes / LEAST_GROUPS))
        if self.episode_bytes:
            most = min(most, int(V3_DATA_FILE_MB * 1e6 / self.episode_bytes))
        return min(max(1, most), MOST_EPISODES)

    def room_warning(self, root: Path, episodes: int) -> str | None:
        """Say so if `episodes` more are likely not to fit on the disk of `root`."""
        needed = episodes * (self.episode_bytes or 0)
        warning = disk_space_warning(root, needed, f"{episodes} episodes")
        more = "; the import stops when the disk is full, and goes on when it is run again"
        return warning and warning + more


def forecast(reader: EpisodeReader, metadata: StoreMetadata, chosen: Sequence[int]) -> Forecast:
    """Read some of the `chosen` episodes, and encode some pictures of each.

    Raises:
        OSError: a file cannot be read.
    """
    sizes, reasons = [], []
    looked_at = spread(chosen, FORECAST_EPISODES)
    for index in looked_at:
        try:
            sizes.append(_episode_bytes(reader.read(index), metadata))
        except (DataFileError, EpisodeError) as error:
            sizes.append(0.0)
            if not isinstance(error, NotSelectedError):
                reasons.append(f"episode {index}: {error}")
    fault = ""
    alike = len(set(map(outline, reasons))) == 1 and 2 * len(reasons) > len(looked_at)
    if not any(sizes) and (alike or len(reasons) == len(chosen)):
        count = f"all {len(reasons)}" if len(reasons) > 1 else "the one"
        fault = f"nothing is imported, for {count} of {len(chosen)} episodes looked at first "
        fault += f"cannot be used: {reasons[0]}"
    reason = reasons[0] if reasons else ""
    return Forecast(float(np.mean(sizes)) if any(sizes) else None, reason, fault)


def _episode_bytes(episode: Episode, metadata: StoreMetadata) -> float:
    frame = float(ROW_BYTES)
    for camera in metadata.cameras:
        if (video := episode.images.get(camera.name)) is None:
            continue
        some = np.stack([video[step] for step in spread(range(len(episode)), FORECAST_PICTURES)])
        frame += float(np.mean([len(jpeg) for jpeg in store_pictures(some, camera).jpegs]))
    return frame * len(episode)


# The plan --------------------------------------------------------------------------------------

PLAN_PATH = BUILDING + "/import.json"
PLAN_VERSION = 3
LOCK_PATH = BUILDING + "/lock"


@dataclass(frozen=True)
class ImportPlan:
    """building/import.json.

    Attributes:
        source: what the episodes' numbers mean; see EpisodeSource.identity.
        episodes: their numbers in words, see selection.
        group_episodes: how many are read for each group.
        version: of what lies in building/; it changes when an older import cannot be gone on with.
    """

    source: str
    episodes: str
    group_episodes: int
    version: int = 1

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
        plan = ImportPlan(source, words, group_episodes, PLAN_VERSION)
        write_atomically(path, json.dumps(dataclasses.asdict(plan), indent=1) + "\n")
        return plan
    try:
        held = read_dataclass(ImportPlan, json.loads(path.read_text()), "plan")
    except (OSError, ValueError) as error:
        fix = "delete the store's folder and import again"
        raise DataFileError(unreadable(path, error, fix)) from None
    if held.version != PLAN_VERSION:
        raise DataFileError(
            f"{root}: holds an import that another version of SPEAR has begun; finish it with that "
            "version, or delete the folder and import again"
        )
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
