"""The rows of one episode, out of a Parquet file that may hold many."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spear_training.data.reader import DataFileError


class EpisodeRows:
    """Reads episodes out of data files, one process, one after the other.

    The last file stays open: neighbouring episodes mostly share it.
    """

    def __init__(self):
        self._path: Path | None = None

    def read(self, path: Path, episode: int, columns: list[str]) -> pa.Table:
        """Columns of the rows whose episode_index is `episode`, in the order of the file.

        Raises:
            DataFileError: the file is missing or damaged, or lacks a column or the episode.
        """
        try:
            if path != self._path:
                self._open(path)
            missing = [name for name in columns if name not in self._file.schema_arrow.names]
            if missing:
                held = ", ".join(self._file.schema_arrow.names)
                raise DataFileError(f"{path}: has no column {missing[0]}; it has {held}")
            rows = np.flatnonzero(self._episode_of == episode)
            if not len(rows):
                raise DataFileError(f"{path}: has no row of episode {episode}; copy it again")
            first, last = int(rows[0]), int(rows[-1])
            if last - first + 1 != len(rows):
                raise DataFileError(f"{path}: the rows of episode {episode} are not together")
            groups = np.searchsorted(self._group_ends, [first, last], side="right")
            begin = int(self._group_ends[groups[0] - 1]) if groups[0] else 0
            table = self._file.read_row_groups(range(groups[0], groups[1] + 1), columns=columns)
            return table.slice(first - begin, len(rows))
        except (OSError, pa.ArrowException) as error:
            self._path = None
            raise DataFileError(f"{path}: cannot be read ({error}); copy it again") from None

    def _open(self, path: Path) -> None:
        self._path = None
        self._file = pq.ParquetFile(path)
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._group_ends = np.cumsum(sizes)
        if "episode_index" not in self._file.schema_arrow.names:
            raise DataFileError(f"{path}: has no column episode_index; it is no LeRobot data file")
        self._episode_of = self._file.read(columns=["episode_index"]).column(0).to_numpy()
        self._path = path


def column_values(table: pa.Table, name: str, where: str) -> NDArray:
    """A column as (T,) or (T, N) numbers, or (T,) texts.

    Raises:
        DataFileError: rows of different lengths, or values that are neither; `where` names them.
    """
    column = table[name].combine_chunks()
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        flat = column.flatten()
        if pa.types.is_list(flat.type) or len(flat) % max(len(column), 1):
            raise DataFileError(f"{where}: column {name} has rows of different lengths")
        if not pa.types.is_fixed_size_list(kind) and len(set(column.value_lengths())) > 1:
            raise DataFileError(f"{where}: column {name} has rows of different lengths")
        return _plain(flat, name, where).reshape(len(column), -1)
    return _plain(column, name, where)


def picture_bytes(table: pa.Table, name: str, where: str) -> list[bytes]:
    """The encoded pictures of an image column.

    Raises:
        DataFileError: it is no column of encoded pictures, or one is missing.
    """
    column = table[name].combine_chunks()
    if not pa.types.is_struct(column.type) or column.type.get_field_index("bytes") < 0:
        raise DataFileError(f"{where}: column {name} is {column.type}, no encoded pictures")
    encoded = column.field("bytes").to_pylist()
    if None in encoded:
        raise DataFileError(
            f"{where}: picture {encoded.index(None)} of {name} is not in the file; embed the "
            "pictures (LeRobot's embed_images) before copying the folder"
        )
    return encoded


def _plain(values: pa.Array, name: str, where: str) -> NDArray:
    kind = values.type
    if values.null_count:
        raise DataFileError(f"{where}: column {name} has empty places")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(values.to_pylist(), dtype=str)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return values.to_numpy(zero_copy_only=False)
    raise DataFileError(f"{where}: column {name} is {kind}, neither numbers nor text")
