"""What a written group of episodes holds, and which numbers its rows get."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spear_policy.inference.image_geometry import Fit
from spear_policy.model.config_reading import read_dataclass
from spear_training.data.reader import DataFileError
from spear_training.data.store.columns import NUMBERS
from spear_training.data.store.places import group_record_path
from spear_training.data.whole_file import write_whole


@dataclass(frozen=True)
class EpisodeRecord:
    """One stored episode: the reader's number of it, rows, sentences, and where it is from."""

    source_index: int
    length: int
    sentences: tuple[str, ...]
    black_wrist: bool
    source: dict
    notes: str


@dataclass(frozen=True)
class Reject:
    """An episode that was not stored.

    Attributes:
        source_index: the reader's number of it.
        selected: False where it is sound, but not of the part of the data set that was asked for.
        reason: why, in a sentence.
    """

    source_index: int
    selected: bool
    reason: str


@dataclass(frozen=True)
class CameraFit:
    """One way in which pictures of a camera were fitted."""

    camera: str
    fit: Fit


@dataclass(frozen=True)
class GroupRecord:
    """What a written group holds.

    Attributes:
        source_indices: the reader's numbers of the episodes that were looked at.
        episodes, rejects: what became of them.
        fits: how pictures were fitted, each way once.
        file_bytes: size of the data file; 0 where no episode was usable and there is none.
    """

    source_indices: tuple[int, ...]
    episodes: tuple[EpisodeRecord, ...]
    rejects: tuple[Reject, ...]
    fits: tuple[CameraFit, ...]
    file_bytes: int

    @property
    def frames(self) -> int:
        """Rows of the data file."""
        return sum(episode.length for episode in self.episodes)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Each sentence of its episodes once, in order of appearance."""
        return tuple(dict.fromkeys(s for episode in self.episodes for s in episode.sentences))


def read_group(root: Path, group: int) -> GroupRecord:
    """The record of a written group.

    Raises:
        DataFileError: the group is missing or its record damaged.
    """
    path = group_record_path(Path(root), group)
    try:
        return read_dataclass(GroupRecord, json.loads(path.read_text()), "group")
    except (OSError, ValueError) as error:
        raise DataFileError(f"{path}: {error}; run the import again") from None


def write_record(record: GroupRecord, root: Path, group: int) -> None:
    """Write it, whole or not at all: from then on the group is there. Raises OSError."""
    content = json.dumps(dataclasses.asdict(record), ensure_ascii=False)
    write_whole(group_record_path(root, group), content.encode())


def local_numbers(record: GroupRecord) -> dict[str, NDArray[np.int64]]:
    """The NUMBERS of a group's rows as if there were no other group."""
    return global_numbers(record, 0, 0, {s: i for i, s in enumerate(record.sentences)})


def global_numbers(
    record: GroupRecord, first_episode: int, first_frame: int, tasks: dict[str, int]
) -> dict[str, NDArray[np.int64]]:
    """The NUMBERS of a group's rows: tasks is the number of each sentence."""
    lengths = [episode.length for episode in record.episodes]
    of_episode = [tasks[episode.sentences[0]] for episode in record.episodes]
    columns = (
        np.repeat(first_episode + np.arange(len(lengths)), lengths),
        first_frame + np.arange(record.frames),
        np.repeat(np.array(of_episode, np.int64), lengths),
    )
    return {name: c.astype(np.int64) for name, c in zip(NUMBERS, columns, strict=True)}
