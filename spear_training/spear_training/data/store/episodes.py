"""meta/episodes: one row an episode, as LeRobot has it, with a few columns more."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spear_training.data.lerobot.layout import (
    V3_CHUNK_FILES,
    V3_EPISODES,
    V3_EPISODES_FOLDER,
    v3_place,
)
from spear_training.data.reader import DataFileError
from spear_training.data.store.records import GroupRecord
from spear_training.data.whole_file import whole_file

EPISODES_PER_FILE = 20_000
_READ = (
    "tasks",
    "length",
    "data/chunk_index",
    "data/file_index",
    "dataset_from_index",
    "source_index",
    "black_wrist",
)


@dataclass(frozen=True, eq=False)
class EpisodeTable:
    """The episodes of a store, E of them.

    Attributes:
        first_frame: (E,) int64 number of each one's first frame in the store.
        length: (E,) int64 frames of each.
        file_number: (E,) int64 which data file each lies in.
        source_index: (E,) int64 the reader's number of each.
        black_wrist: (E,) bool whether its wrist pictures are black because it has none.
    """

    first_frame: NDArray[np.int64]
    length: NDArray[np.int64]
    file_number: NDArray[np.int64]
    source_index: NDArray[np.int64]
    black_wrist: NDArray[np.bool_]
    _sentences: pa.ChunkedArray

    def __len__(self) -> int:
        return len(self.length)

    def sentences(self, episode: int) -> tuple[str, ...]:
        """Every sentence that names the motion of an episode; the first is its instruction."""
        return tuple(self._sentences[int(episode)].as_py())


def group_table(
    record: GroupRecord,
    group: int,
    first_episode: int,
    first_frame: int,
    statistics: dict[str, NDArray],
) -> pa.Table:
    """Rows of meta/episodes for a group.

    Args:
        record: of the group, with at least one episode.
        group: its number, which is that of its data file.
        first_episode, first_frame: number of its first ones in the store.
        statistics: "stats/<feature>/<name>" -> (E, ...).
    """
    lengths = np.array([episode.length for episode in record.episodes])
    ends = first_frame + np.cumsum(lengths)
    count = len(lengths)
    place = v3_place(group)
    columns = {
        "episode_index": pa.array(first_episode + np.arange(count)),
        "tasks": pa.array([list(e.sentences) for e in record.episodes], pa.list_(pa.string())),
        "length": pa.array(lengths),
        "data/chunk_index": pa.array(np.full(count, place["chunk_index"])),
        "data/file_index": pa.array(np.full(count, place["file_index"])),
        "dataset_from_index": pa.array(ends - lengths),
        "dataset_to_index": pa.array(ends),
        "source_index": pa.array([episode.source_index for episode in record.episodes]),
        "black_wrist": pa.array([episode.black_wrist for episode in record.episodes]),
        "source": pa.array(
            [json.dumps(e.source, ensure_ascii=False, sort_keys=True) for e in record.episodes]
        ),
        "notes": pa.array([episode.notes for episode in record.episodes]),
    }
    return pa.table(columns | {name: _nested(values) for name, values in statistics.items()})


def write_episodes(root: Path, tables: Iterable[pa.Table]) -> None:
    """Write meta/episodes from the tables of the groups, in order. Raises OSError."""
    waiting: list[pa.Table] = []
    number = 0
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= EPISODES_PER_FILE:
            _write_file(root, number, waiting)
            waiting, number = [], number + 1
    if waiting:
        _write_file(root, number, waiting)


def read_episodes(root: Path) -> EpisodeTable:
    """Read what `write_episodes` wrote.

    Raises:
        DataFileError: a file is missing, damaged or of another writer.
    """
    folder = root / V3_EPISODES_FOLDER
    paths = sorted(folder.glob("*/*.parquet"))
    if not paths:
        raise DataFileError(f"{folder}: has no episode list; copy the store again")
    tables = []
    for path in paths:
        try:
            tables.append(pq.read_table(path, columns=list(_READ)))
            if tables[-1].num_columns != len(_READ):
                missing = sorted(set(_READ) - set(tables[-1].column_names))
                raise DataFileError(
                    f"{path}: lacks {', '.join(missing)}; no store of SPEAR: import the data first"
                )
        except (OSError, pa.ArrowException) as error:
            raise DataFileError(f"{path}: cannot be read ({error}); copy it again") from None
    table = pa.concat_tables(tables)
    column = {name: table[name].to_numpy() for name in _READ if name != "tasks"}
    return EpisodeTable(
        column["dataset_from_index"],
        column["length"],
        column["data/chunk_index"] * V3_CHUNK_FILES + column["data/file_index"],
        column["source_index"],
        column["black_wrist"],
        table["tasks"],
    )


def _write_file(root: Path, number: int, tables: list[pa.Table]) -> None:
    place = v3_place(number)
    path = root / V3_EPISODES.format(**place)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.concat_tables(tables)
    for name in ("file_index", "chunk_index"):
        here = pa.array(np.full(len(table), place[name]))
        table = table.append_column(f"meta/episodes/{name}", here)
    with whole_file(path) as beside:
        pq.write_table(table, beside, compression="snappy")


def _nested(values: NDArray) -> pa.Array:
    """An array (E, ...) as lists in lists."""
    array = pa.array(np.ascontiguousarray(values).ravel())
    for size in values.shape[:0:-1]:
        offsets = np.arange(0, len(array) + 1, size, dtype=np.int32)
        array = pa.ListArray.from_arrays(pa.array(offsets), array)
    return array
