"""CRC-32C (Castagnoli), the checksum of TFRecord files, vectorised with numpy.

A CRC is linear: the data are cut into rows that are processed side by side, two bytes of each at a
time, and the rows' remainders are then folded in pairs. A remainder is moved past n further
bytes by a 32x32 bit matrix, kept as its 32 columns.
"""

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # reversed bit order
_ROW_BYTES = 512
# Rows that are processed side by side: about 1 MB, what a processor's cache holds.
_BLOCK_ROWS = 2048
_ALL_ONES = np.uint32(0xFFFFFFFF)


def _byte_table() -> NDArray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


_TABLE = _byte_table()
_PLAIN_TABLE = _TABLE.tolist()


def _word_table() -> NDArray:
    """What two bytes at once (little endian) do to a remainder."""
    words = np.arange(1 << 16, dtype=np.uint32)
    first = _TABLE[words & 0xFF] ^ (words >> 8)
    return _TABLE[first & 0xFF] ^ (first >> 8)


_WORD_TABLE = _word_table()


def _apply(columns: NDArray, remainders: NDArray) -> NDArray:
    moved = np.zeros_like(remainders)
    for bit, column in enumerate(columns):
        moved ^= np.where((remainders >> np.uint32(bit)) & 1, column, np.uint32(0))
    return moved


def _past_one_row() -> NDArray:
    columns = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(_ROW_BYTES):
        columns = _TABLE[columns & 0xFF] ^ (columns >> 8)
    return columns


_PAST_ONE_ROW = _past_one_row()


def _of_rows(words: NDArray) -> NDArray:
    """Remainders (rows,) of rows of words, each starting from zero."""
    remainders = np.zeros(len(words), np.uint32)
    for column in np.ascontiguousarray(words.T):
        remainders = _WORD_TABLE.take((remainders ^ column) & 0xFFFF) ^ (remainders >> 16)
    return remainders


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """CRC-32C of `data`, 0 .. 2**32 - 1."""
    message = np.frombuffer(data, np.uint8)
    if len(message) < _ROW_BYTES:
        remainder = int(_ALL_ONES)
        for byte in message.tolist():
            remainder = _PLAIN_TABLE[(remainder ^ byte) & 0xFF] ^ (remainder >> 8)
        return remainder ^ 0xFFFFFFFF
    # Starting from all ones is the same as starting from zero with the first 4 bytes inverted,
    # and from zero on, leading zero bytes change nothing: the first row may be filled with them.
    count = -(-len(message) // _ROW_BYTES)
    rows = np.zeros(count * _ROW_BYTES, np.uint8)
    rows[-len(message) :] = message
    rows[len(rows) - len(message) :][:4] ^= 0xFF
    words = rows.view("<u2").reshape(count, _ROW_BYTES // 2)
    blocks = range(0, count, _BLOCK_ROWS)
    remainders = np.concatenate([_of_rows(words[at : at + _BLOCK_ROWS]) for at in blocks])
    past = _PAST_ONE_ROW
    while len(remainders) > 1:
        if len(remainders) % 2:
            remainders = np.concatenate([np.zeros(1, np.uint32), remainders])
        remainders = _apply(past, remainders[::2]) ^ remainders[1::2]
        past = _apply(past, past)
    return int(remainders[0] ^ _ALL_ONES)


def masked_crc32c(data: bytes | bytearray | memoryview) -> int:
    """The form that TFRecord stores: turned right by 15 bits, plus a constant.

    A checksum of data that contain their own checksum says little; this keeps them apart.
    """
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
