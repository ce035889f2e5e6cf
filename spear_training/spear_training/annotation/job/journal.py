"""The records of a shard while it is in work: one line more for every picture that is done.

A line is written at once and whole, so a process that is killed loses at most the picture it is
at. A line that the kill cut in two is cut off when the next run opens the journal. What is in a
journal is never rewritten; a record that replaces a failed one comes after it.
"""

import errno
import fcntl
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from spear_training.annotation.frame import JobError
from spear_training.annotation.job.result import Result
from spear_training.annotation.records import RecordError

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
