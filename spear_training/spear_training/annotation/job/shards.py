"""Which pictures belong to which shard, and what its files are called.

A shard is a run of neighbours in the list, so that all shards one after another are the list.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from spear_training.annotation.frame import JobError

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
