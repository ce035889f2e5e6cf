"""The whole messages of a torn MCAP file, copied into a new one with index and metadata.

The file is read record by record: what is cut short ends it or, in a chunk, ends that chunk. A
chunk whose writer never came to fill in its length, or that cannot be unpacked to its end, gives
what comes before. After a damaged place, reading goes on at the next chunk.
"""

import mmap
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from struct import Struct
from struct import error as StructError
from typing import NamedTuple

import lz4.frame
import yaml
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap.records import Channel, McapRecord, Message, Schema
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from spear_bringup.trials.bag_metadata import ZSTD, FileContents, RepairError, information

_RECORD_HEAD = Struct("<BQ")  # opcode, length of the body
_CHUNK_HEAD = Struct("<QQQII")  # times of its messages, size, checksum, length of the compression
_LENGTH = Struct("<Q")
_COMPRESSIONS = {
    b"": CompressionType.NONE,
    b"lz4": CompressionType.LZ4,
    b"zstd": CompressionType.ZSTD,
}
_PIECE_BYTES = 1 << 16
_SMALLEST_BYTES = 64  # a header and a footer between the signatures
_TYPES = {Opcode.SCHEMA: Schema, Opcode.CHANNEL: Channel}
_DAMAGE = (McapError, StructError, ValueError, EOFError, RuntimeError, zstandard.ZstdError)


def contents_of_whole(path: Path) -> FileContents | None:
    """What a file holds, read to its end; None: it was never closed, or is damaged somewhere."""
    if path.stat().st_size < _SMALLEST_BYTES:
        return None
    try:
        with path.open("rb") as file:
            reader = make_reader(file, validate_crcs=True)
            summary = reader.get_summary()
            if summary is None or summary.statistics is None:
                return None
            messages = (message.data for _, _, message in reader.iter_messages())
            first, found = next(messages, b""), 1
            found += sum(1 for _ in messages)
            if found < summary.statistics.message_count:
                return None
    except _DAMAGE:
        return None
    counts: dict[str, int] = {}
    topics = {}
    for key, count in summary.statistics.channel_message_counts.items():
        channel = summary.channels.get(key)
        if channel is None:
            return None
        if count:
            counts[channel.topic] = counts.get(channel.topic, 0) + count
            topics[channel.topic] = _topic(channel, summary.schemas.get(channel.schema_id))
    times = summary.statistics.message_start_time, summary.statistics.message_end_time
    return FileContents(path.name, topics, counts, *times, first.startswith(ZSTD))


def salvage(
    path: Path, target: Path, name: str, earlier: Mapping[str, object], torn_chunk: bool = True
) -> FileContents:
    """Copy the whole messages of a file.

    Args:
        path: the torn file.
        target: of the copy.
        name: that the copy will have.
        earlier: see `bag_metadata.information`.
        torn_chunk: whether what is whole inside a chunk that is cut short is taken.

    Raises:
        RepairError: the file does not begin like an MCAP file, or has no whole message.
        OSError: the copy cannot be written.
    """
    with path.open("rb") as source:
        if source.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
            raise RepairError(f"{path} does not begin like an MCAP file")
        with (
            mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data,
            target.open("wb") as file,
        ):
            copy = _Copy(Writer(file, compression=_compression(data)))
            for record in _whole_records(data, torn_chunk):
                copy.add(record)
            if not copy.counts:
                raise RepairError(f"{path} has no whole message; it is left as it is")
            return copy.finish(name, earlier)


# Reading -----------------------------------------------------------------------------------------


def _whole_records(data: mmap.mmap, torn_chunk: bool) -> Iterator[McapRecord | None]:
    """Schemas, channels and messages of a file, in order; None for a message that is damaged."""
    offset = len(MCAP0_MAGIC)
    while offset is not None and offset + _RECORD_HEAD.size <= len(data):
        opcode, length = _RECORD_HEAD.unpack_from(data, offset)
        begin, end = offset + _RECORD_HEAD.size, offset + _RECORD_HEAD.size + length
        if opcode == Opcode.DATA_END:
            return
        whole = opcode != 0 and end <= len(data)
        if opcode == Opcode.CHUNK and length < _CHUNK_HEAD.size + _LENGTH.size:
            whole, end = False, len(data)  # its writer never came to fill in the length
        if opcode == Opcode.CHUNK and (whole or torn_chunk):
            yield from _records_of_chunk(data[begin:end])
        elif whole:
            yield from _parsed(opcode, data[begin:end])
        offset = end if whole else _next_chunk(data, begin)


def _next_chunk(data: mmap.mmap, offset: int) -> int | None:
    """Where the next whole chunk begins: its lengths agree, and its compression is a known one."""
    while (offset := data.find(bytes([Opcode.CHUNK]), offset)) >= 0:
        begin = offset + _RECORD_HEAD.size
        if begin + _CHUNK_HEAD.size > len(data):
            return None
        length = _RECORD_HEAD.unpack_from(data, offset)[1]
        if begin + length <= len(data):
            head = _ChunkHead.of(data[begin : begin + _CHUNK_HEAD.size + 16])
            if head and head.begin + head.packed == length:
                return offset
        offset += 1
    return None


class _ChunkHead(NamedTuple):
    """What stands before the records of a chunk; the sizes are those of the records [bytes]."""

    compression: bytes
    begin: int
    packed: int
    unpacked: int
    checksum: int  # 0: there is none

    @classmethod
    def of(cls, body: bytes) -> "_ChunkHead | None":
        if len(body) < _CHUNK_HEAD.size:
            return None
        _, _, unpacked, checksum, letters = _CHUNK_HEAD.unpack_from(body)
        begin = _CHUNK_HEAD.size + letters + _LENGTH.size
        compression = body[_CHUNK_HEAD.size : _CHUNK_HEAD.size + letters]
        if compression not in _COMPRESSIONS or len(body) < begin:
            return None
        packed = _LENGTH.unpack_from(body, begin - _LENGTH.size)[0]
        return cls(compression, begin, packed, unpacked, checksum)


def _compression(data: mmap.mmap) -> CompressionType:
    """That of the first chunk."""
    offset = len(MCAP0_MAGIC)
    while offset + _RECORD_HEAD.size <= len(data):
        opcode, length = _RECORD_HEAD.unpack_from(data, offset)
        offset += _RECORD_HEAD.size
        if opcode == Opcode.CHUNK:
            head = _ChunkHead.of(data[offset : offset + _CHUNK_HEAD.size + 16])
            return _COMPRESSIONS[head.compression] if head else CompressionType.NONE
        offset += length
    return CompressionType.NONE


def _records_of_chunk(body: bytes) -> Iterator[McapRecord | None]:
    """The whole records of a chunk up to the first that is none; None for one that is damaged.

    A chunk that is there to its end with a wrong checksum does not say which of its messages are
    right.
    """
    head = _ChunkHead.of(body)
    if head is None:
        return
    end = head.begin + (head.packed or len(body))
    data = _unpacked(head.compression, body[head.begin : end])
    wrong = head.checksum and len(data) == head.unpacked and zlib.crc32(data) != head.checksum
    offset = 0
    while offset + _RECORD_HEAD.size <= len(data):
        opcode, length = _RECORD_HEAD.unpack_from(data, offset)
        offset += _RECORD_HEAD.size
        if opcode not in (*_TYPES, Opcode.MESSAGE) or offset + length > len(data):
            return
        if wrong and opcode == Opcode.MESSAGE:
            yield None
        else:
            yield from _parsed(opcode, data[offset : offset + length])
        offset += length


def _unpacked(compression: bytes, data: bytes) -> bytes:
    """As much of the data as can be unpacked."""
    if not compression:
        return data
    if compression == b"zstd":
        unpacker = zstandard.ZstdDecompressor().decompressobj()
    else:
        unpacker = lz4.frame.LZ4FrameDecompressor()
    found = []
    try:
        for piece in range(0, len(data), _PIECE_BYTES):
            found.append(unpacker.decompress(data[piece : piece + _PIECE_BYTES]))
    except _DAMAGE:
        pass
    return b"".join(found)


def _parsed(opcode: int, body: bytes) -> Iterator[McapRecord]:
    stream = ReadDataStream(BytesIO(body))
    try:
        if opcode == Opcode.MESSAGE:
            yield Message.read(stream, len(body))
        elif opcode in _TYPES:
            yield _TYPES[opcode].read(stream)
    except _DAMAGE:
        return


# Writing -----------------------------------------------------------------------------------------


@dataclass
class _Copy:
    """A file that is being written, and what is in it so far."""

    writer: Writer
    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)  # by channel
    packed: bool = False
    left_out: int = 0
    start_ns: int = 0
    end_ns: int = 0
    _new_ids: dict[int, int] = field(default_factory=dict)

    def __post_init__(self):
        self.writer.start(profile="ros2", library="spear_bringup.trials.mcap_salvage")

    def add(self, record: McapRecord | None) -> None:
        """Take a record of the torn file; what belongs to its end is made anew."""
        if record is None:
            self.left_out += 1
        elif isinstance(record, Schema):
            self.schemas[record.id] = record
        elif isinstance(record, Channel):
            self.channels[record.id] = record
        elif isinstance(record, Message):
            self._add_message(record)

    def _add_message(self, message: Message) -> None:
        old = message.channel_id
        if old not in self._new_ids:
            channel = self.channels.get(old)
            schema = channel and self.schemas.get(channel.schema_id)
            if channel is None or (schema is None and channel.schema_id != 0):
                self.left_out += 1
                return
            self._new_ids[old] = self.writer.register_channel(
                channel.topic,
                channel.message_encoding,
                0
                if schema is None
                else self.writer.register_schema(schema.name, schema.encoding, schema.data),
                channel.metadata,
            )
        self.writer.add_message(
            self._new_ids[old],
            message.log_time,
            message.data,
            message.publish_time,
            message.sequence,
        )
        if not self.counts:
            self.start_ns = self.end_ns = message.log_time
            self.packed = message.data.startswith(ZSTD)
        self.start_ns = min(self.start_ns, message.log_time)
        self.end_ns = max(self.end_ns, message.log_time)
        self.counts[old] = self.counts.get(old, 0) + 1

    def finish(self, name: str, earlier: Mapping[str, object]) -> FileContents:
        """Write the index, and the metadata that rosbag2 wants inside as well."""
        counts: dict[str, int] = {}
        topics = {}
        for key, count in self.counts.items():
            channel = self.channels[key]
            counts[channel.topic] = counts.get(channel.topic, 0) + count
            topics[channel.topic] = _topic(channel, self.schemas.get(channel.schema_id))
        times = self.start_ns, self.end_ns
        made = FileContents(name, topics, counts, *times, self.packed, self.left_out)
        text = yaml.safe_dump(information([made], "mcap", earlier))
        self.writer.add_metadata("rosbag2", {"serialized_metadata": text})
        self.writer.finish()
        return made


def _topic(channel: Channel, schema: Schema | None) -> dict:
    return {
        "name": channel.topic,
        "type": schema.name if schema else "",
        "serialization_format": channel.message_encoding,
        "offered_qos_profiles": _profiles(channel.metadata.get("offered_qos_profiles", "")),
        "type_description_hash": _type_hash(schema),
    }


def _profiles(text: str) -> list:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return []
    return found if isinstance(found, list) else []


def _type_hash(schema: Schema | None) -> str:
    """The RIHS hash of a message's definition; none for definitions of other kinds."""
    store = get_typestore(Stores.EMPTY)
    try:
        store.register(get_types_from_msg(schema.data.decode(), schema.name))
        return store.hash_rihs01(schema.name)
    except Exception:  # the library raises whatever its parser does
        return ""
