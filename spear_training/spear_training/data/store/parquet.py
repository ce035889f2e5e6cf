"""Where values lie in the bytes of a store's Parquet file.

A column chunk of such a file is one data page of plain, uncompressed values without nulls. By the
Parquet format the values end where the chunk ends: n integers are its last 8 n bytes, and n
byte strings its last bytes, each after its length in 4 bytes. So a JPEG can be read with one
`pread`, without the rest of its row group.

First how such files are written and read, then meta/episodes, then the scan of a data file.
"""

import json
import mmap
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spear_policy.shared.files import atomic_write
from spear_training.data.reader import DataFileError, unreadable
from spear_training.data.store.format import (
    ACTION,
    STAMP,
    STATE,
    V3_CHUNK_FILES,
    V3_EPISODES,
    V3_EPISODES_FOLDER,
    WIDTH,
    GroupRecord,
    picture_column,
    v3_place,
)

ROW_GROUP_ROWS = 32
# A page is closed when it passes this: never, so that a chunk is one page.
PAGE_BYTES = 1 << 30
_LENGTH = struct.Struct("<I")
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


def open_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A Parquet writer whose chunks are as this module says. Write 32 rows a row group."""
    plain = [name for name in schema.names if pa.types.is_primitive(schema.field(name).type)]
    return pq.ParquetWriter(
        path,
        schema,
        compression="none",
        use_dictionary=False,
        write_statistics=plain,
        data_page_size=PAGE_BYTES,
    )


def picture_spans(
    path: Path, file: pq.ParquetFile, camera: str
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Offset and length of every JPEG of `camera` in the file.

    Raises:
        DataFileError: the file was not written by the store, or is damaged.
    """
    column = picture_column(camera)
    offsets, lengths = [], []
    with open(path, "rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as view:
        for group in range(file.num_row_groups):
            chunk = _plain_chunk(path, file.metadata.row_group(group), f"{column}.bytes")
            values = file.read_row_group(group, columns=[f"{column}.bytes"]).column(0)
            sizes = pc.binary_length(pc.struct_field(values, 0)).to_numpy()
            if np.isnan(sizes).any():
                raise DataFileError(f"{path}: row group {group} of {column} lacks pictures")
            sizes = sizes.astype(np.int64)
            end = chunk.data_page_offset + chunk.total_compressed_size
            starts = end - np.cumsum((sizes + _LENGTH.size)[::-1])[::-1] + _LENGTH.size
            for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
                whole = (
                    view[start - _LENGTH.size : start] == _LENGTH.pack(size)
                    and view[start : start + 2] == _JPEG_START
                    and view[start + size - 2 : start + size] == _JPEG_END
                )
                if not whole:
                    raise DataFileError(
                        f"{path}: row group {group} of {column} is not laid out as a store writes "
                        "it, or is damaged; import the data again"
                    )
            offsets.append(starts)
            lengths.append(sizes)
    if not offsets:
        return np.empty(0, np.int64), np.empty(0, np.int32)
    return np.concatenate(offsets), np.concatenate(lengths).astype(np.int32)


def _plain_chunk(path: Path, part: pq.RowGroupMetaData, column: str) -> pq.ColumnChunkMetaData:
    """The chunk of `column`, which must be one page of plain values."""
    for number in range(part.num_columns):
        chunk = part.column(number)
        if chunk.path_in_schema == column:
            break
    else:
        raise DataFileError(f"{path}: has no column {column}; import the data again")
    plain = set(chunk.encodings) <= {"PLAIN", "RLE"} and not chunk.has_dictionary_page
    if chunk.compression != "UNCOMPRESSED" or not plain:
        raise DataFileError(
            f"{path}: column {column} is {chunk.compression} {', '.join(chunk.encodings)}, not "
            "plain: another program wrote it; import the data again"
        )
    return chunk


# meta/episodes: where each episode lies --------------------------------------------------------


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
        continues: (E,) bool whether the motion went on after its last frame, see Episode; none of
            a store that was written before there was this column.
    """

    first_frame: NDArray[np.int64]
    length: NDArray[np.int64]
    file_number: NDArray[np.int64]
    source_index: NDArray[np.int64]
    black_wrist: NDArray[np.bool_]
    continues: NDArray[np.bool_]
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
        "continues": pa.array([episode.continues for episode in record.episodes]),
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
            table = pq.read_table(path, columns=[*_READ, "continues"])
            if missing := sorted(set(_READ) - set(table.column_names)):
                raise DataFileError(
                    f"{path}: lacks {', '.join(missing)}; no store of SPEAR: import the data first"
                )
        except (OSError, pa.ArrowException) as error:
            raise DataFileError(unreadable(path, error)) from None
        if "continues" not in table.column_names:
            table = table.append_column("continues", pa.array(np.zeros(len(table), bool)))
        tables.append(table)
    table = pa.concat_tables(tables)
    column = {name: table[name].to_numpy() for name in _READ if name != "tasks"}
    return EpisodeTable(
        column["dataset_from_index"],
        column["length"],
        column["data/chunk_index"] * V3_CHUNK_FILES + column["data/file_index"],
        column["source_index"],
        column["black_wrist"],
        table["continues"].to_numpy(),
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
    with atomic_write(path) as beside:
        pq.write_table(table, beside, compression="snappy")


def _nested(values: NDArray) -> pa.Array:
    """An array (E, ...) as lists in lists."""
    array = pa.array(np.ascontiguousarray(values).ravel())
    for size in values.shape[:0:-1]:
        offsets = np.arange(0, len(array) + 1, size, dtype=np.int32)
        array = pa.ListArray.from_arrays(pa.array(offsets), array)
    return array


# A data file's columns as arrays, and where its JPEGs lie --------------------------------------


@dataclass(frozen=True, eq=False)
class FileRows:
    """All rows of a data file but the pictures themselves.

    Attributes:
        states, actions: (F, 8) float32, see StoreMetadata.
        stamps_s: (F,) float64 [s] from the beginning of each episode.
        offsets, lengths: camera -> (F,) where its JPEG lies in the file [bytes].
        file_bytes: size of the file.
    """

    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    stamps_s: NDArray[np.float64]
    offsets: dict[str, NDArray[np.int64]]
    lengths: dict[str, NDArray[np.int32]]
    file_bytes: int

    def __len__(self) -> int:
        return len(self.stamps_s)


def scan_file(path: Path, cameras: tuple[str, ...]) -> FileRows:
    """Read `path` once, and check that every picture is where it must be.

    Raises:
        DataFileError: the file is missing, cut short, damaged, or of another writer.
    """
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(columns=[STATE, ACTION, STAMP])
            spans = {camera: picture_spans(path, file, camera) for camera in cameras}
        rows = FileRows(
            _matrix(table[STATE]),
            _matrix(table[ACTION]),
            table[STAMP].to_numpy(),
            {camera: span[0] for camera, span in spans.items()},
            {camera: span[1] for camera, span in spans.items()},
            path.stat().st_size,
        )
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        fix = "copy it again or import the data again"
        raise DataFileError(unreadable(path, error, fix)) from None
    return rows


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    flat = pa.concat_arrays([chunk.flatten() for chunk in column.chunks] or [pa.array([])])
    return flat.to_numpy().astype(np.float32, copy=False).reshape(-1, WIDTH)
