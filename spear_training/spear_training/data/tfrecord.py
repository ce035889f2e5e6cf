"""TFRecord files: their records by number, each checked, without TensorFlow.

A record is: length (u64, little endian), masked CRC-32C of those 8 bytes (u32), the payload,
masked CRC-32C of the payload (u32). The format is described in TensorFlow's guide to TFRecord.
"""

import os
import struct
from pathlib import Path

from spear_training.data.crc32c import masked_crc32c
from spear_training.data.reader import DataFileError

_LENGTH_BYTES, _HEADER_BYTES, _FOOTER_BYTES = 8, 12, 4


class TfRecordFile:
    """One file. The constructor finds where every record lies; payloads are read when asked for.

    Attributes:
        path: the file.
        offsets: byte offset of each whole record.
        damage: a sentence when the file breaks off or its framing is damaged after the last of
            `offsets`; None when it ends where it should.

    Raises:
        DataFileError: the file does not exist or cannot be opened.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.offsets: list[int] = []
        self.damage: str | None = None
        self._lengths: list[int] = []
        try:
            with open(self.path, "rb") as file:
                self._index(file, os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise DataFileError(f"{self.path}: cannot be read ({error.strerror})") from None

    def __len__(self) -> int:
        return len(self.offsets)

    def read(self, index: int) -> bytes:
        """The payload of record `index`, 0-based.

        Raises:
            DataFileError: its checksum is wrong, or the file broke off before it.
            IndexError: the file has no such record.
        """
        if not 0 <= index < len(self):
            if self.damage and index >= len(self):
                raise DataFileError(self.damage)
            raise IndexError(f"{self.path}: no record {index}, there are {len(self)}")
        offset, length = self.offsets[index], self._lengths[index]
        with open(self.path, "rb") as file:
            file.seek(offset + _HEADER_BYTES)
            payload, footer = file.read(length), file.read(_FOOTER_BYTES)
        if len(footer) < _FOOTER_BYTES:
            raise DataFileError(f"{self.path}: became shorter while it was read; copy it again")
        if masked_crc32c(payload) != struct.unpack("<I", footer)[0]:
            raise DataFileError(
                f"{self.path}: record {index} at byte {offset} is damaged (its checksum is wrong); "
                "copy the file again from its source"
            )
        return payload

    def _index(self, file, size: int) -> None:
        offset = 0
        while offset < size:
            file.seek(offset)
            header = file.read(_HEADER_BYTES)
            place = f"{self.path}: record {len(self)} at byte {offset}"
            if len(header) < _HEADER_BYTES:
                self.damage = f"{place} is cut short (the file ends at byte {size}); copy it again"
                return
            length, crc = struct.unpack("<QI", header)
            if masked_crc32c(header[:_LENGTH_BYTES]) != crc:
                self.damage = (
                    f"{place} has a damaged length, so nothing after it can be found; copy the "
                    "file again, or it is no TFRecord file"
                )
                return
            end = offset + _HEADER_BYTES + length + _FOOTER_BYTES
            if end > size:
                self.damage = (
                    f"{place} is cut short (it needs bytes up to {end}, the file ends at {size}); "
                    "copy it again"
                )
                return
            self.offsets.append(offset)
            self._lengths.append(length)
            offset = end


def frame_record(payload: bytes) -> bytes:
    """`payload` as one TFRecord record, ready to be appended to a file."""
    length = struct.pack("<Q", len(payload))
    return b"".join(
        [
            length,
            struct.pack("<I", masked_crc32c(length)),
            payload,
            struct.pack("<I", masked_crc32c(payload)),
        ]
    )
