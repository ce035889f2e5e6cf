"""A data file's columns as arrays, and where its JPEGs lie."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spear_training.data.reader import DataFileError
from spear_training.data.store.columns import ACTION, STAMP, STATE, WIDTH
from spear_training.data.store.pages import picture_spans


@dataclass(frozen=True, eq=False)
class FileRows:
    """All rows of a data file but the pictures themselves.

    Attributes:
        states, actions: (F, 8) float32, see StoreFacts.
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
        raise DataFileError(
            f"{path}: cannot be read ({error}); copy it again or import the data again"
        ) from None
    return rows


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    flat = pa.concat_arrays([chunk.flatten() for chunk in column.chunks] or [pa.array([])])
    return flat.to_numpy().astype(np.float32, copy=False).reshape(-1, WIDTH)
