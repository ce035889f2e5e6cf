"""One group of episodes, written whole: a data file, and beside it what the group holds.

A group depends on nothing but its episodes. So any number of processes may write groups in any
order, and a group that is there is not written again. Until all groups before it are there its
rows carry the numbers that they would have alone; `numbering` puts the true ones in their place.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spear_policy.inference.episode import Episode, EpisodeError
from spear_training.data.lerobot.layout import v3_data_path
from spear_training.data.oxe.selectors import NotSelected
from spear_training.data.reader import DataFileError, EpisodeReader
from spear_training.data.store.columns import (
    ACTION,
    STATE,
    episode_columns,
    episode_table,
    file_schema,
    picture_column,
)
from spear_training.data.store.facts import WRIST, CameraFacts, StoreFacts, read_facts
from spear_training.data.store.lerobot_statistics import picture_statistics, vector_statistics
from spear_training.data.store.pages import ROW_GROUP_ROWS, open_writer
from spear_training.data.store.pictures import StoredPictures, black_pictures, store_pictures
from spear_training.data.store.places import PLAN_PATH, group_arrays_path, group_record_path
from spear_training.data.store.records import (
    CameraFit,
    EpisodeRecord,
    GroupRecord,
    Reject,
    read_group,
    write_record,
)
from spear_training.data.store.scan import FileRows, scan_file
from spear_training.data.whole_file import whole_file, write_whole


def write_group(
    root: Path, group: int, reader: EpisodeReader, source_indices: Sequence[int]
) -> GroupRecord:
    """Read episodes and write them as group `group` of the store that `begin_store` began.

    A group that is there already is left as it is. Episodes that cannot be used are recorded
    with their reason.

    Raises:
        DataFileError: the group is there, but of other episodes.
        OSError: it cannot be written (disk full); nothing of it is left.
    """
    root, wanted = Path(root), tuple(int(index) for index in source_indices)
    if group_record_path(root, group).exists():
        return _written_before(root, group, wanted)
    facts = read_facts(root / PLAN_PATH)
    path = v3_data_path(root, group)
    path.parent.mkdir(parents=True, exist_ok=True)
    filling = _Filling(facts)
    with whole_file(path) as beside:
        writer = open_writer(beside, file_schema(facts))
        try:
            for index in wanted:
                filling.add(reader, index, writer)
        finally:
            writer.close()
        rows = scan_file(beside, facts.camera_names)
        # In memory first: a zip file that meets a full disk complains once more when it is dropped.
        archive = io.BytesIO()
        np.savez(archive, **filling.arrays(rows))
        write_whole(group_arrays_path(root, group), archive.getvalue())
    if not filling.episodes:
        path.unlink()
    record = GroupRecord(
        wanted,
        tuple(filling.episodes),
        tuple(filling.rejects),
        tuple(filling.fits),
        rows.file_bytes if filling.episodes else 0,
    )
    write_record(record, root, group)
    return record


def _written_before(root: Path, group: int, wanted: tuple[int, ...]) -> GroupRecord:
    record = read_group(root, group)
    if record.source_indices != wanted:
        raise DataFileError(
            f"{root}: group {group} holds other episodes than this import would put there; go on "
            "with the settings it was begun with, or delete the folder"
        )
    return record


class _Filling:
    """A group while its episodes come in."""

    def __init__(self, facts: StoreFacts):
        self._facts = facts
        self.episodes: list[EpisodeRecord] = []
        self.rejects: list[Reject] = []
        self.fits: dict[CameraFit, None] = {}
        self._sentences: dict[str, int] = {}
        self._frames = 0
        self._statistics: dict[str, list[NDArray]] = {}
        self._histograms = {name: np.zeros((3, 256), np.int64) for name in facts.camera_names}
        self._counted = dict.fromkeys(facts.camera_names, 0)

    def add(self, reader: EpisodeReader, index: int, writer: pq.ParquetWriter) -> None:
        """Write an episode, whole, or note why it cannot be used."""
        try:
            episode = reader.read(index)
            columns = episode_columns(episode, self._facts)
            # All pictures before the first row: a damaged one must leave no part of an episode.
            pictures = {camera.name: _pictures(episode, camera) for camera in self._facts.cameras}
        except (DataFileError, EpisodeError) as error:
            selected = not isinstance(error, NotSelected)
            self.rejects.append(Reject(index, selected, str(error)))
            return
        sentences = tuple(dict.fromkeys([episode.instruction, *episode.other_instructions]))
        for sentence in sentences:
            self._sentences.setdefault(sentence, len(self._sentences))
        steps = len(episode)
        numbers = {
            "episode_index": np.full(steps, len(self.episodes)),
            "index": self._frames + np.arange(steps),
            "task_index": np.full(steps, self._sentences[sentences[0]]),
        }
        jpegs = {name: stored.jpegs for name, stored in pictures.items()}
        table = episode_table(columns, jpegs, numbers, self._facts)
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        black = WRIST in pictures and pictures[WRIST].fit is None
        self.episodes.append(
            EpisodeRecord(index, steps, sentences, black, dict(episode.source), episode.notes)
        )
        self._frames += steps
        self._count(columns, pictures)

    def arrays(self, rows: FileRows) -> dict[str, NDArray]:
        """What group_arrays_path holds: see `numbering` and `finish`."""
        result = {"states": rows.states, "actions": rows.actions, "stamps_s": rows.stamps_s}
        for name in self._facts.camera_names:
            result[f"offsets/{name}"] = rows.offsets[name]
            result[f"lengths/{name}"] = rows.lengths[name]
            result[f"histogram/{name}"] = self._histograms[name]
            result[f"counted/{name}"] = np.array(self._counted[name])
        return result | {key: np.stack(values) for key, values in self._statistics.items()}

    def _count(self, columns: dict[str, NDArray], pictures: dict[str, StoredPictures]) -> None:
        for name, stored in pictures.items():
            if stored.fit is not None:
                self.fits[CameraFit(name, stored.fit)] = None
            self._histograms[name] += stored.histogram
            self._counted[name] += stored.counted
        found = {name: vector_statistics(columns[name]) for name in (STATE, ACTION)} | {
            picture_column(name): picture_statistics(stored.histogram, stored.counted)
            for name, stored in pictures.items()
        }
        for feature, statistics in found.items():
            for name, value in statistics.items():
                self._statistics.setdefault(f"stats/{feature}/{name}", []).append(value)


def _pictures(episode: Episode, camera: CameraFacts) -> StoredPictures:
    if camera.name not in episode.images:
        return black_pictures(len(episode), camera)
    return store_pictures(episode.images[camera.name], camera)
