"""Reading back what a run has written so far."""

from collections.abc import Iterator
from pathlib import Path

from spear_training.annotation.frame import JobError
from spear_training.annotation.job.run_card import read_run
from spear_training.annotation.job.shards import Shard
from spear_training.annotation.records import Annotation, RecordError


def shards_of(out: Path) -> tuple[list[Shard], list[Shard]]:
    """Return the finished shards of a run, and those that are missing, both in order.

    Raises:
        JobError: the folder is no run's.
    """
    count = read_run(out)["num_shards"]
    shards = [Shard(index, count) for index in range(count)]
    finished = [shard for shard in shards if shard.file(out).is_file()]
    return finished, [shard for shard in shards if shard not in finished]


def read_annotations(out: Path) -> Iterator[Annotation]:
    """Read the records of all finished shards, in the order of the list.

    `shards_of` tells which are missing.

    Raises:
        JobError: the folder is no run's, or a line is damaged.
        OSError: a file cannot be read.
    """
    for shard in shards_of(out)[0]:
        yield from read_shard(shard.file(out))


def read_shard(path: Path) -> Iterator[Annotation]:
    """Read the records of one file.

    Raises:
        JobError: a line is damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield Annotation.from_json(line.decode("utf-8", "replace"))
            except RecordError as error:
                raise JobError(
                    f"{path}, line {number}: {error}; remove the file and run its shard again"
                ) from None
