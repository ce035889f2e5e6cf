"""The records of a run as they are now: of shards that are finished and of those in work."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from spear_training.annotation.frame import JobError
from spear_training.annotation.job.shards import Shard
from spear_training.annotation.records import Annotation, RecordError


@dataclass(frozen=True)
class Place:
    """Where the record of a picture is: a file, and the byte that its line begins at."""

    id: str
    path: Path
    begin: int


@dataclass
class ShardCounts:
    """What the shards of a run are at, filled by `RunRecords.read`.

    Attributes:
        finished, in_work, not_begun: how many.
        damaged: lines that hold no record: where, and why.
    """

    finished: int = 0
    in_work: int = 0
    not_begun: int = 0
    damaged: list[str] = field(default_factory=list)


class RunRecords:
    """All records of a folder that `annotate run` writes, or has written, to."""

    def __init__(self, out: Path, num_shards: int):
        """Take the folder and the number of shards in its run.json."""
        self._out = out
        self._shards = [Shard(index, num_shards) for index in range(num_shards)]
        self.counts = ShardCounts()

    def read(self) -> Iterator[tuple[Place, Annotation]]:
        """Read all, in the order of the list where shards are finished.

        Lines that are damaged are left out and counted.

        Raises:
            OSError: a file cannot be read.
        """
        self.counts = ShardCounts()
        for shard in self._shards:
            # In this order: a journal that becomes a finished file meanwhile is not missed.
            in_work, finished = shard.journal(self._out).is_file(), shard.file(self._out).is_file()
            if finished:
                self.counts.finished += 1
                yield from self._lines(shard.file(self._out))
            elif in_work:
                self.counts.in_work += 1
                yield from self._journal(shard)
            else:
                self.counts.not_begun += 1

    def at(self, place: Place) -> Annotation:
        """Read one record again.

        Raises:
            JobError: the file was written anew meanwhile.
        """
        with suppress(RecordError, FileNotFoundError), place.path.open("rb") as file:
            file.seek(place.begin)
            record = Annotation.from_json(file.readline().decode("utf-8", "replace"))
            if record.id == place.id:
                return record
        raise JobError(
            f"{place.path} was written anew while it was read: run the same command again"
        )

    def _lines(self, path: Path, end: int | None = None) -> Iterator[tuple[Place, Annotation]]:
        """Records of a file up to a byte."""
        begin = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if end is not None and begin >= end:
                    return
                try:
                    record = Annotation.from_json(line.decode("utf-8", "replace"))
                    yield Place(record.id, path, begin), record
                except RecordError as error:
                    self.counts.damaged.append(f"{path.name}, line {number}: {error}")
                begin += len(line)

    def _journal(self, shard: Shard) -> Iterator[tuple[Place, Annotation]]:
        """Records of a shard in work; of a picture that was tried again, the last one."""
        path = shard.journal(self._out)
        try:
            last, end = _last_places(path)
            for place, record in self._lines(path, end):
                if last.get(record.id) == place.begin:
                    yield place, record
        except FileNotFoundError:
            raise JobError(f"{path} was finished just now: run the same command again") from None


def _last_places(path: Path) -> tuple[dict[str, int], int]:
    """Where the last record of each picture begins, and where the last whole line ends.

    What follows that line is a record that is being written, or was when the job was killed.
    """
    last: dict[str, int] = {}
    begin = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            # A damaged line is met, and counted, by who reads the records.
            with suppress(ValueError, TypeError, KeyError):
                last[json.loads(line)["id"]] = begin
            begin += len(line)
    return last, begin
