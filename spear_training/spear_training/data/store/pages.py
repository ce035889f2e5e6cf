"""Where values lie in the bytes of a store's Parquet file.

A column chunk of such a file is one data page of plain, uncompressed values without nulls. By the
Parquet format the values end where the chunk ends: n integers are its last 8 n bytes, and n
byte strings its last bytes, each after its length in 4 bytes. So a JPEG can be read with one
`pread`, and a row's numbers can be set in place, both without the rest of its row group.
"""

import mmap
import os
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spear_training.data.reader import DataFileError
from spear_training.data.store.columns import NUMBERS, picture_column
from spear_training.data.whole_file import naming_errors

ROW_GROUP_ROWS = 32
# A page is closed when it passes this: never, so that a chunk is one page.
PAGE_BYTES = 1 << 30
_LENGTH = struct.Struct("<I")
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


def open_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A Parquet writer whose chunks are as this module says. Write 32 rows a row group."""
    kept = [
        name
        for name in schema.names
        if name not in NUMBERS and pa.types.is_primitive(schema.field(name).type)
    ]
    return pq.ParquetWriter(
        path,
        schema,
        compression="none",
        use_dictionary=False,
        # The numbers are set later, when statistics of them would be wrong.
        write_statistics=kept,
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


def set_numbers(
    path: Path, before: dict[str, NDArray[np.int64]], after: dict[str, NDArray[np.int64]]
) -> None:
    """Put `after` in the place of `before` in the columns NUMBERS of every row.

    What is `after` already stays: an interrupted call may be made again.

    Raises:
        DataFileError: the file is damaged or holds other numbers; it is left as it was.
        OSError: it cannot be written.
    """
    metadata = pq.read_metadata(path)
    descriptor = os.open(path, os.O_RDWR)
    try:
        row, writes = 0, []
        for group in range(metadata.num_row_groups):
            part = metadata.row_group(group)
            rows = slice(row, row + part.num_rows)
            for name in NUMBERS:
                chunk = _plain_chunk(path, part, name)
                end = chunk.data_page_offset + chunk.total_compressed_size
                place = end - 8 * part.num_rows
                held = np.frombuffer(os.pread(descriptor, 8 * part.num_rows, place), "<i8")
                old, new = before[name][rows], after[name][rows]
                if not np.all((held == old) | (held == new)):
                    raise DataFileError(
                        f"{path}: column {name} of row group {group} does not hold the numbers "
                        "that were written there; delete the store and import the data again"
                    )
                if np.any(held != new):
                    writes.append((place, new.astype("<i8").tobytes()))
            row = rows.stop
        with naming_errors(path):
            for place, content in writes:
                os.pwrite(descriptor, content, place)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
