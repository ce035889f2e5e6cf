"""From a journal to the finished file of a shard: whole and in the order of the list, or not yet.

A reader never sees half a file: it is written beside and then renamed.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from spear_training.annotation.frame import JobError
from spear_training.annotation.job.journal import Journal
from spear_training.annotation.job.result import Result
from spear_training.annotation.records import RecordError


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
