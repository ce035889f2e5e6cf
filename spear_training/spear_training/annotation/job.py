"""One shard from beginning to end: what is left to do, doing it, and the finished file.

It may be killed at any moment and started again; see `journal` and `finish` for why nothing is
lost or doubled by that.
"""

import errno
import fcntl
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from spear_training.annotation.executors import Executor, Result
from spear_training.annotation.frame import JobError
from spear_training.annotation.records import Item, RecordError

# How far a job is: a bar on a terminal, a plain line now and then elsewhere.


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


# Whether the records that are still to be made will fit on the disk.


# Before there are records to measure: 3 kB for the picture and 2 kB for each of ten objects, as in
# the records that test_annotate_command.py makes (6.8 kB with two objects).
GUESSED_RECORD_BYTES = 25_000
ENOUGH_RECORDS = 20


def room_warning(out: Path, left: int, sizes: Collection[int]) -> str | None:
    """Say so if the disk of a folder may be too small.

    Args:
        left: pictures that are still to be annotated.
        sizes: of records that are there (bytes).
    """
    mean = sum(sizes) / len(sizes) if len(sizes) >= ENOUGH_RECORDS else GUESSED_RECORD_BYTES
    needed, free = left * mean, shutil.disk_usage(out).free
    if needed <= free:
        return None
    return (
        f"{out} may become too small: {left} pictures need about {_size(needed)}, "
        f"{_size(free)} are free"
    )


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


# The records of a shard while it is in work: one line more for every picture that is done.


SYNC_EVERY_S = 5.0
_BEGIN = b'{"id": "'  # of every record
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Place:
    """Where a record is in a journal (bytes), and whether it is a failed one."""

    begin: int
    size: int
    status: str


class Journal:
    """The open journal of one shard; locked, so that one process alone writes it."""

    def __init__(self, path: Path, ids: Sequence[str]):
        """Open, or begin, a journal.

        Args:
            ids: of the pictures that may be in it, in the order of the list.

        Raises:
            JobError: another process has it, the file system cannot lock, or something is in it
                that no run on these pictures has written.
            OSError: the folder cannot be written.
        """
        self.path = path
        self._order = {name: number for number, name in enumerate(ids)}
        self._file = _open_locked(path)
        self.places: dict[str, Place] = {}
        try:
            self._end = self._read()
            self._synced, self._sync_time = self._end, time.monotonic()
        except BaseException:
            os.close(self._file)
            raise

    @property
    def in_order(self) -> bool:
        """Whether the file is, byte for byte, all its pictures in the order of the list."""
        places = [self.places[name] for name in self._order if name in self.places]
        begins = [place.begin for place in places]
        return begins == sorted(begins) and sum(p.size + 1 for p in places) == self._end

    def append(self, result: Result) -> None:
        """Add a record, to survive the end of this process.

        Raises:
            JobError: the disk took it not or not all; the journal ends with the record before.
        """
        begin, data = self._end, result.line + b"\n"
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            self._cut(begin)
            raise _disk_error(self.path, error) from None
        except BaseException:  # Ctrl-C in the midst of it
            self._cut(begin)
            raise
        self._end = begin + len(data)
        self.places[result.id] = Place(begin, len(result.line), result.status)
        if time.monotonic() - self._sync_time > SYNC_EVERY_S:
            self.sync()

    def sync(self) -> None:
        """Write through to the disk.

        Raises:
            JobError: the disk refused; records since the last time are cut off again.
        """
        try:
            os.fsync(self._file)
        except OSError as error:
            self._cut(self._synced)
            raise _disk_error(self.path, error) from None
        self._synced, self._sync_time = self._end, time.monotonic()

    def line(self, name: str) -> bytes:
        """Return the record of a picture, as it was appended last."""
        place = self.places[name]
        return os.pread(self._file, place.size, place.begin)

    def restart(self) -> None:
        """Begin again with nothing."""
        self._cut(0)

    def close(self) -> None:
        """Write through and give the lock back."""
        if self._file >= 0:
            try:
                self.sync()
            finally:
                os.close(self._file)
                self._file = -1

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _cut(self, end: int) -> None:
        with suppress(OSError):  # then the next run cuts it
            os.ftruncate(self._file, end)
            os.lseek(self._file, end, os.SEEK_SET)
        self._end = end
        self._synced = min(self._synced, end)
        self.places = {k: v for k, v in self.places.items() if v.begin < end}

    def _read(self) -> int:
        """Note what is there, cut what is torn, and return where to go on."""
        end = 0
        with open(self._file, "rb", closefd=False) as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    self._check_torn(line)
                    break
                self._note(line[:-1], end, number)
                end += len(line)
        os.ftruncate(self._file, end)
        os.lseek(self._file, end, os.SEEK_SET)
        return end

    def _check_torn(self, tail: bytes) -> None:
        # A file system that went down with the machine may leave zeros.
        tail = tail.rstrip(b"\0")[: len(_BEGIN)]
        if not _BEGIN.startswith(tail):
            raise JobError(f"{self.path} ends with what no annotation is: move it elsewhere")

    def _note(self, line: bytes, begin: int, number: int) -> None:
        where = f"{self.path}, line {number}"
        try:
            result = Result.from_line(line)
        except RecordError as error:
            raise JobError(f"{where}: {error}; move the file elsewhere") from None
        if result.id not in self._order:
            raise JobError(
                f"{where} is about {result.id!r}, which is not in this shard of the list; "
                "move the file elsewhere"
            )
        before = self.places.get(result.id)
        if before and before.status != "failed":
            raise JobError(f"{where}: {result.id!r} is there twice; move the file elsewhere")
        self.places[result.id] = Place(begin, len(line), result.status)


def _open_locked(path: Path) -> int:
    """Open a file that this process alone may write, and that still has this name."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        except FileNotFoundError:
            pass  # whoever had it has just finished it
        except BlockingIOError:
            os.close(file)
            raise JobError(
                f"another process is at work on {path.name}: wait for it, or give this one "
                "another --shard"
            ) from None
        except OSError as error:
            os.close(file)
            raise JobError(
                f"{path} cannot be locked ({error.strerror}): two processes on one shard could "
                "not be told apart; choose --out on a file system with flock"
            ) from None
        os.close(file)


def _disk_error(path: Path, error: OSError) -> JobError:
    mend = "make room" if error.errno in _FULL else "look after the disk"
    return JobError(
        f"{path} cannot be written ({error.strerror}): {mend} and run the same command again; "
        "everything that is in it is whole and stays"
    )


# From a journal to the finished file of a shard: whole and in the order of the list, or n.


def finish_shard(journal: Journal, ids: Sequence[str], final: Path) -> None:
    """Turn a journal that has all pictures of its shard into the finished file.

    Raises:
        JobError: the disk took it not; the journal stays.
    """
    journal.sync()
    if journal.in_order:
        os.replace(journal.path, final)
    else:
        write_lines(final, (journal.line(name) for name in ids))
        journal.path.unlink(missing_ok=True)
    sync_folder(final.parent)


def finish_retry(journal: Journal, final: Path) -> None:
    """Put the journal's records in place of those of the same pictures in a finished file.

    Raises:
        JobError: the disk took it not; both files stay as they are.
    """
    journal.sync()
    write_lines(final, _merged(journal, final))
    journal.path.unlink(missing_ok=True)
    sync_folder(final.parent)


def read_finished(final: Path, ids: Sequence[str]) -> Iterator[Result]:
    """Read a finished file of a shard, one record at a time.

    Raises:
        JobError: it is damaged, or not of these pictures.
    """
    number = 0
    with final.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                result = Result.from_line(line.rstrip(b"\n"))
            except RecordError as error:
                raise JobError(
                    f"{final}, line {number}: {error}; remove the file to make it again"
                ) from None
            if number > len(ids) or result.id != ids[number - 1]:
                raise JobError(
                    f"{final}, line {number} is about {result.id!r}: it was made from another "
                    "list; choose another --out"
                )
            yield result
    if number != len(ids):
        raise JobError(f"{final} ends after {number} of {len(ids)} pictures; remove it")


def write_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Write a file beside, bring it to the disk, and rename it.

    Raises:
        JobError: the disk took it not; what had this name before still has it.
    """
    beside = path.with_name(path.name + ".writing")
    try:
        with beside.open("wb") as file:
            for line in lines:
                file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink()
        if not isinstance(error, OSError):
            raise
        raise JobError(
            f"{path} cannot be written ({error.strerror}): make room and run the same command "
            "again; nothing is lost"
        ) from None


def sync_folder(folder: Path) -> None:
    """Bring new names in a folder to the disk, where the file system can."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _merged(journal: Journal, final: Path) -> Iterator[bytes]:
    with final.open("rb") as file:
        for line in file:
            line = line.rstrip(b"\n")
            name = Result.from_line(line).id
            yield journal.line(name) if name in journal.places else line


# Which pictures belong to which shard, and what its files are called.


Thing = TypeVar("Thing")
MOST_SHARDS = 99999  # what five digits can name
_NAME = re.compile(r"annotations-(\d{5})-of-(\d{5})\.jsonl")


@dataclass(frozen=True)
class Shard:
    """One of the equal parts of a list.

    Attributes:
        index: 0 to count - 1.
        count: parts in all.

    Raises:
        JobError: there is no such part.
    """

    index: int
    count: int

    def __post_init__(self):
        if not 1 <= self.count <= MOST_SHARDS:
            raise JobError(f"--num-shards is {self.count}; it must be 1 to {MOST_SHARDS}")
        if not 0 <= self.index < self.count:
            raise JobError(
                f"--shard is {self.index}; with --num-shards {self.count} it must be 0 to "
                f"{self.count - 1}"
            )

    def part_of(self, things: Sequence[Thing]) -> Sequence[Thing]:
        """The things of this shard; the sizes of two shards differ by one at most."""
        first = self.index * len(things) // self.count
        end = (self.index + 1) * len(things) // self.count
        return things[first:end]

    def file(self, out: Path) -> Path:
        """Where the finished records of this shard are."""
        return out / f"annotations-{self.index:05d}-of-{self.count:05d}.jsonl"

    def journal(self, out: Path) -> Path:
        """Where the records are while the shard is in work."""
        return self.file(out).with_suffix(".jsonl.partial")

    def retry_journal(self, out: Path) -> Path:
        """Where new records for failed ones are, while the finished file still has the old."""
        return self.file(out).with_suffix(".jsonl.retry")


def finished_shards(out: Path) -> dict[int, list[int]]:
    """Which shards of a folder are finished: number of shards -> indices in order."""
    found: dict[int, list[int]] = {}
    for path in sorted(out.glob("annotations-*.jsonl")):
        if match := _NAME.fullmatch(path.name):
            found.setdefault(int(match[2]), []).append(int(match[1]))
    return found


# One shard from beginning to end: what is left to do, doing it, and the finished file.


MOST_FAILURES_IN_A_ROW = 25


@dataclass(frozen=True)
class ShardJob:
    """What is to be done with one shard.

    Attributes:
        out: folder of the records.
        shard: the part of the list.
        retry_failed: annotate again what failed before.
        most_failures_in_a_row: then the job stops; 0: it never does.
    """

    out: Path
    shard: Shard
    retry_failed: bool = False
    most_failures_in_a_row: int = MOST_FAILURES_IN_A_ROW


def run_shard(
    job: ShardJob, items: Sequence[Item], executor: Executor, progress: JobProgress
) -> Counter[str]:
    """Bring a shard to its finished file.

    Args:
        items: the whole list.

    Returns:
        How many pictures of the shard are ok, empty and failed.

    Raises:
        JobError: it cannot go on; what is done is kept.
        KeyboardInterrupt: likewise.
        OSError: the folder cannot be written.
    """
    part = job.shard.part_of(items)
    ids = [item.id for item in part]
    final, partial = job.shard.file(job.out), job.shard.journal(job.out)
    if final.is_file():
        partial.unlink(missing_ok=True)  # of a run that was killed between two lines of `finish`
        return _run_finished(job, part, executor, progress)
    with Journal(partial, ids) as journal:
        if final.is_file():  # another process has finished it while we waited for the lock
            partial.unlink(missing_ok=True)
            return _count(final, ids)
        before = {name: place.status for name, place in journal.places.items()}
        left = [
            item
            for item in part
            if item.id not in before or (job.retry_failed and before[item.id] == "failed")
        ]
        _work(job, left, before, len(part), journal, executor, progress)
        finish_shard(journal, ids, final)
        return Counter(place.status for place in journal.places.values())


def _run_finished(
    job: ShardJob, part: Sequence[Item], executor: Executor, progress: JobProgress
) -> Counter[str]:
    ids = [item.id for item in part]
    final, retry = job.shard.file(job.out), job.shard.retry_journal(job.out)
    stored = {result.id: result.status for result in read_finished(final, ids)}
    counts = Counter(stored.values())
    if not counts["failed"]:
        retry.unlink(missing_ok=True)  # likewise
    if not job.retry_failed or not counts["failed"]:
        progress.say(f"{final.name} is finished already")
        return counts
    with Journal(retry, ids) as journal:
        if _is_merged(journal, final, ids):
            journal.restart()
        now = stored | {name: place.status for name, place in journal.places.items()}
        left = [item for item in part if now[item.id] == "failed"]
        _work(job, left, now, len(part), journal, executor, progress)
        finish_retry(journal, final)
    return _count(final, ids)


def _work(
    job: ShardJob,
    left: Sequence[Item],
    before: dict[str, str],
    total: int,
    journal: Journal,
    executor: Executor,
    progress: JobProgress,
) -> None:
    """Annotate what is left into the journal."""
    sizes = [place.size for place in journal.places.values()]
    if warning := room_warning(job.out, len(left), sizes):
        progress.say(warning)
    again = {item.id for item in left}
    progress.begin(total, Counter(status for name, status in before.items() if name not in again))
    failures = 0

    def record(result: Result) -> None:
        nonlocal failures
        journal.append(result)
        progress.add(result.id, result.status, result.reason)
        failures = failures + 1 if result.status == "failed" else 0

    with closing(executor.results(left)) as results:
        try:
            for result in results:
                record(result)
                if 0 < job.most_failures_in_a_row <= failures:
                    raise JobError(
                        f"{failures} pictures in a row failed, the last one ({result.id}): "
                        f"{result.reason}; mend it and run the same command with --retry-failed, "
                        "or go on past them with --max-failures-in-a-row 0"
                    )
        except (JobError, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) and executor.at_work:
                progress.say("stopping after the pictures in work; Ctrl-C again leaves them")
            for result in executor.stop():
                record(result)
            raise


def _is_merged(journal: Journal, final: Path, ids: Sequence[str]) -> bool:
    """Whether a retry journal is one that `finish_retry` was killed before it could remove."""
    return all(
        journal.line(result.id) == result.line
        for result in read_finished(final, ids)
        if result.id in journal.places
    )


def _count(final: Path, ids: Sequence[str]) -> Counter[str]:
    return Counter(result.status for result in read_finished(final, ids))
