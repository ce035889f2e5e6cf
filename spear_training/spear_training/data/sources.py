"""Where episodes come from: small descriptions that every process makes its own reader of.

One class a format (OXE, bags of our own trials, LeRobotDataset); then the command-line options
that describe a source, and the words that select some of its episodes.
"""

import argparse
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from spear_training.data.bags import reader as bag_reader
from spear_training.data.bags.folder import find_bags
from spear_training.data.bags.motion import load_topics
from spear_training.data.bags.reader import SUCCESS, BagReader, BagRules
from spear_training.data.lerobot import reader as lerobot_reader
from spear_training.data.lerobot.reader import LeRobotKeys, LeRobotReader, load_keys
from spear_training.data.oxe import reader as oxe_reader
from spear_training.data.oxe.reader import OxeReader
from spear_training.data.oxe.table import Row, find_row, load_table
from spear_training.data.reader import EpisodeReader
from spear_training.data.store.format import StoreMetadata


class EpisodeSource(Protocol):
    """A folder of recordings and how to read it. It can be pickled."""

    folder: Path

    def open(self) -> EpisodeReader:
        """Make a reader.

        Raises:
            DataFileError: the folder cannot be used.
        """

    def metadata(self, reader: EpisodeReader) -> StoreMetadata:
        """What the store of these recordings says about itself. Raises DataFileError."""

    def settled(self, reader: EpisodeReader) -> "EpisodeSource":
        """The same with what a reader has found out, so that others need not find it again."""
        return self

    def remarks(self, reader: EpisodeReader) -> list[str]:
        """What of the folder is left out, in sentences."""
        return []

    def identity(self, reader: EpisodeReader) -> str:
        """Words that change when an episode's number may mean another episode."""
        return f"{len(reader)} episodes of {reader.name}"


@dataclass(frozen=True)
class OxeSource(EpisodeSource):
    """A TFDS folder, read by a row of the mixture table; see OxeReader."""

    folder: Path
    row: Row
    split: str = "train"
    subset: str | None = None
    any_name: bool = False
    partial: bool = False

    def open(self) -> OxeReader:
        return OxeReader(
            self.row,
            self.folder,
            self.split,
            subset=self.subset,
            any_name=self.any_name,
            partial=self.partial,
        )

    def metadata(self, reader: OxeReader) -> StoreMetadata:
        return oxe_reader.store_metadata(reader)

    def remarks(self, reader: OxeReader) -> list[str]:
        left_out = reader.dataset_version.get("files_left_out")
        return [f"{left_out} files of the split are not there and left out"] if left_out else []

    def settled(self, reader: OxeReader) -> "OxeSource":
        """With the orders of rotations that were found in the data."""
        return replace(self, row=reader.row)


@dataclass(frozen=True)
class BagSource(EpisodeSource):
    """Bags of our own trials; see BagReader."""

    folder: Path
    rules: BagRules = field(default_factory=BagRules)

    def open(self) -> BagReader:
        return BagReader(self.folder, self.rules)

    def metadata(self, reader: BagReader) -> StoreMetadata:
        return bag_reader.store_metadata(self.folder, self.rules)

    def remarks(self, reader: BagReader) -> list[str]:
        names = reader.left_out
        more = ", ..." if len(names) > 3 else ""
        return [f"{len(names)} files are not read: {', '.join(names[:3])}{more}"] if names else []

    def identity(self, reader: BagReader) -> str:
        """The bags are numbered by their names, so a new one shifts those after it."""
        names = [str(bag.relative_to(self.folder)) for bag in find_bags(self.folder)]
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
        return f"{super().identity(reader)}, names {digest}"


@dataclass(frozen=True)
class LeRobotSource(EpisodeSource):
    """A LeRobotDataset folder; see LeRobotReader."""

    folder: Path
    keys: LeRobotKeys | None = None

    def open(self) -> LeRobotReader:
        return LeRobotReader(self.folder, self.keys)

    def remarks(self, reader: LeRobotReader) -> list[str]:
        entries = reader.folder.episodes
        listed = {"episodes": len(entries), "frames": sum(entry.length for entry in entries)}
        return [
            f"info.json says {said} {name}, the list of episodes has {listed[name]}: those are read"
            for name, said in reader.folder.said.items()
            if said != listed[name]
        ]

    def metadata(self, reader: LeRobotReader) -> StoreMetadata:
        return lerobot_reader.store_metadata(reader)


# What the command line describes ---------------------------------------------------------------


ANY = "any"


def make_source(options: argparse.Namespace) -> EpisodeSource:
    """What the options describe.

    Raises:
        DataFileError: the table or the file of keys cannot be used, or there is no such row.
    """
    folder = options.input
    if options.format == "bag":
        topics = load_topics(options.topics) if options.topics else None
        # Outcomes are what SPEAR's own recorder notes.
        outcomes = _outcomes(options.outcomes or (ANY if topics else None))
        rules = BagRules(outcomes, options.namespace, topics=topics)
        return BagSource(folder, replace(rules, instruction=options.instruction or ""))
    if options.format == "lerobot":
        return LeRobotSource(folder, load_keys(options.keys) if options.keys else None)
    rows, split = load_table(options.table), options.split or "train"
    if options.format == "bridge_rlds":
        row, any_name = find_row(rows, "bridge"), True
    else:
        row, any_name = find_row(rows, options.row), False
    partial = bool(options.partial)
    return OxeSource(folder, row, split, options.subset, any_name, partial)


def _outcomes(words: str | None) -> tuple[str, ...] | None:
    if words == ANY:
        return None
    if words is None:
        return (SUCCESS,)
    return tuple(word.strip().upper() for word in words.split(",") if word.strip())


# Selections of episodes ------------------------------------------------------------------------


ALL = "all"


def parse_selection(text: str, count: int) -> list[int]:
    """Episode numbers from words like "0,3,7-9" or "all", for a reader of `count` episodes.

    Raises:
        ValueError: the text is no selection, or names an episode that does not exist.
    """
    if text == ALL:
        return list(range(count))
    chosen: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match:
            raise ValueError(f"--episodes {text!r}: {part!r} is no number or range like 3 or 7-9")
        first, last = match.groups()
        numbers = range(int(first), int(last or first) + 1)
        if not numbers or numbers[-1] >= count:
            raise ValueError(f"--episodes {text!r}: {part!r} is outside 0 to {count - 1}")
        chosen |= dict.fromkeys(numbers)
    return list(chosen)


def selection_words(chosen: Sequence[int]) -> str:
    """The shortest words for which `parse_selection` gives `chosen`."""
    words: list[str] = []
    begin = 0
    for end in range(1, len(chosen) + 1):
        if end < len(chosen) and chosen[end] == chosen[end - 1] + 1:
            continue
        first, last = chosen[begin], chosen[end - 1]
        words.append(str(first) if first == last else f"{first}-{last}")
        begin = end
    return ",".join(words)
