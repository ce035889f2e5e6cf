"""What an MCAP file really holds, found by walking it: for files without a summary."""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from struct import error as StructError
from struct import unpack_from

from mcap.data_stream import ReadDataStream
from mcap.exceptions import EndOfFile
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, ChunkIndex, MessageIndex, Schema
from mcap.stream_reader import get_chunk_data_stream

MAGIC = b"\x89MCAP0\r\n"
_RECORD_HEAD = 9  # opcode, length of the body


class NotMcap(Exception):
    """A file does not even begin like an MCAP file; the text names it."""


@dataclass(frozen=True)
class ScannedChunk:
    """A whole chunk: its index entry, where its record ends, its messages by channel."""

    index: ChunkIndex
    end: int
    counts: dict[int, int]


@dataclass
class McapScan:
    """The whole records of a file; `begin` is where its header ends."""

    begin: int = 0
    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    chunks: list[ScannedChunk] = field(default_factory=list)

    @property
    def end(self) -> int:
        """Where the last whole chunk ends; what follows can be written anew."""
        return self.chunks[-1].end if self.chunks else self.begin

    def counts(self) -> dict[int, int]:
        """Messages by channel."""
        counts = dict.fromkeys(self.channels, 0)
        for chunk in self.chunks:
            for channel_id, count in chunk.counts.items():
                counts[channel_id] += count
        return counts

    def time_range_ns(self) -> tuple[int, int]:
        """First and last log time [ns]; zeros without a message."""
        indexes = [chunk.index for chunk in self.chunks if chunk.counts]
        if not indexes:
            return 0, 0
        return min(i.message_start_time for i in indexes), max(i.message_end_time for i in indexes)


def scan(path: Path) -> McapScan:
    """Walk a file up to its first torn record, or to where its writer began to close it.

    Raises:
        NotMcap: it has no whole header.
    """
    found = McapScan()
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise NotMcap(f"{path} does not begin like an MCAP file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            for opcode, offset, body, end in _walk(whole, len(MAGIC)):
                if opcode == Opcode.HEADER:
                    found.begin = end
                elif opcode == Opcode.CHUNK:
                    try:
                        found.chunks.append(_scan_chunk(found, body, offset, end))
                    except (StructError, EndOfFile, ValueError):
                        break
                elif opcode == Opcode.MESSAGE_INDEX and found.chunks:
                    index = found.chunks[-1].index
                    index.message_index_offsets[unpack_from("<H", body)[0]] = offset
                    index.message_index_length = end - found.chunks[-1].end
                else:
                    break
    if not found.begin:
        raise NotMcap(f"{path} has no header; nothing was recorded")
    return found


def message_indexes(path: Path, chunk: ScannedChunk) -> list[MessageIndex]:
    """The message indexes of one chunk, made from its contents."""
    with path.open("rb") as file:
        file.seek(chunk.index.chunk_start_offset + _RECORD_HEAD)
        contents = _contents(_parse(Chunk, file.read(chunk.index.chunk_length - _RECORD_HEAD)))
    indexes: dict[int, MessageIndex] = {}
    for opcode, offset, record, _ in _walk(contents):
        if opcode == Opcode.MESSAGE:
            channel_id, _, log_time = unpack_from("<HIQ", record)
            index = indexes.setdefault(channel_id, MessageIndex(channel_id, []))
            index.records.append((log_time, offset))
    return list(indexes.values())


def _walk(data, offset: int = 0) -> Iterator[tuple[int, int, bytes, int]]:
    """(opcode, offset, body, end) of each whole record in `data` from `offset` on."""
    while offset + _RECORD_HEAD <= len(data):
        opcode, length = unpack_from("<BQ", data, offset)
        end = offset + _RECORD_HEAD + length
        if end > len(data):
            return
        yield opcode, offset, data[offset + _RECORD_HEAD : end], end
        offset = end


def _parse(record, body):
    return record.read(ReadDataStream(BytesIO(body)))


def _contents(chunk: Chunk) -> memoryview:
    stream, length = get_chunk_data_stream(chunk)
    return memoryview(stream.read(length))


def _scan_chunk(found: McapScan, body: bytes, offset: int, end: int) -> ScannedChunk:
    chunk = _parse(Chunk, body)
    counts: dict[int, int] = {}
    for opcode, _, record, _ in _walk(_contents(chunk)):
        if opcode == Opcode.SCHEMA:
            schema = _parse(Schema, record)
            found.schemas[schema.id] = schema
        elif opcode == Opcode.CHANNEL:
            channel = _parse(Channel, record)
            found.channels[channel.id] = channel
        elif opcode == Opcode.MESSAGE:
            channel_id = unpack_from("<H", record)[0]
            counts[channel_id] = counts.get(channel_id, 0) + 1
    index = ChunkIndex(
        chunk_length=end - offset,
        chunk_start_offset=offset,
        compression=chunk.compression,
        compressed_size=len(chunk.data),
        message_end_time=chunk.message_end_time,
        message_index_length=0,
        message_index_offsets={},
        message_start_time=chunk.message_start_time,
        uncompressed_size=chunk.uncompressed_size,
    )
    return ScannedChunk(index, end, counts)
