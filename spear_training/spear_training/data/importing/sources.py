"""Where episodes come from: small descriptions that every process makes its own reader of."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from spear_training.data.bags import facts as bag_facts
from spear_training.data.bags.bag_folder import find_bags
from spear_training.data.bags.bag_reader import BagReader, BagRules
from spear_training.data.lerobot import facts as lerobot_facts
from spear_training.data.lerobot.keys import LeRobotKeys
from spear_training.data.lerobot.reader import LeRobotReader
from spear_training.data.oxe import facts as oxe_facts
from spear_training.data.oxe.reader import OxeReader
from spear_training.data.oxe.row import Row
from spear_training.data.reader import EpisodeReader
from spear_training.data.store.facts import StoreFacts


class Source(Protocol):
    """A folder of recordings and how to read it. It can be pickled."""

    folder: Path

    def open(self) -> EpisodeReader:
        """Make a reader.

        Raises:
            DataFileError: the folder cannot be used.
        """

    def facts(self, reader: EpisodeReader) -> StoreFacts:
        """What the store of these recordings says about itself. Raises DataFileError."""

    def settled(self, reader: EpisodeReader) -> "Source":
        """The same with what a reader has found out, so that others need not look again."""

    def identity(self, reader: EpisodeReader) -> str:
        """Words that change when an episode's number may mean another episode."""


@dataclass(frozen=True)
class OxeSource:
    """A TFDS folder, read by a row of the mixture table; see OxeReader."""

    folder: Path
    row: Row
    split: str = "train"
    subset: str | None = None
    any_name: bool = False

    def open(self) -> OxeReader:
        """See Source."""
        return OxeReader(
            self.row, self.folder, self.split, subset=self.subset, any_name=self.any_name
        )

    def facts(self, reader: OxeReader) -> StoreFacts:
        """See Source."""
        return oxe_facts.store_facts(reader)

    def settled(self, reader: OxeReader) -> "OxeSource":
        """With the orders of rotations that were found in the data."""
        return replace(self, row=reader.row)

    def identity(self, reader: OxeReader) -> str:
        """See Source."""
        return _counted(reader)


@dataclass(frozen=True)
class BagSource:
    """Bags of our own trials; see BagReader."""

    folder: Path
    rules: BagRules = field(default_factory=BagRules)

    def open(self) -> BagReader:
        """See Source."""
        return BagReader(self.folder, self.rules)

    def facts(self, reader: BagReader) -> StoreFacts:
        """See Source."""
        return bag_facts.store_facts(self.folder, self.rules)

    def settled(self, reader: BagReader) -> "BagSource":
        """See Source."""
        return self

    def identity(self, reader: BagReader) -> str:
        """The bags are numbered by their names, so a new one shifts those after it."""
        names = [str(bag.relative_to(self.folder)) for bag in find_bags(self.folder)]
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
        return f"{_counted(reader)}, names {digest}"


@dataclass(frozen=True)
class LeRobotSource:
    """A LeRobotDataset folder; see LeRobotReader."""

    folder: Path
    keys: LeRobotKeys | None = None

    def open(self) -> LeRobotReader:
        """See Source."""
        return LeRobotReader(self.folder, self.keys)

    def facts(self, reader: LeRobotReader) -> StoreFacts:
        """See Source."""
        return lerobot_facts.store_facts(reader)

    def settled(self, reader: LeRobotReader) -> "LeRobotSource":
        """See Source."""
        return self

    def identity(self, reader: LeRobotReader) -> str:
        """See Source."""
        return _counted(reader)


def _counted(reader: EpisodeReader) -> str:
    return f"{len(reader)} episodes of {reader.name}"
