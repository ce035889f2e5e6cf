"""Finish a bag whose writer died: copy its whole messages into a file with index and metadata.

The copy is made beside the torn file through the mcap library's own reader and writer, and takes
its place when it is whole; until then nothing is changed. It needs as much room as the bag.
By hand: python3 -m spear_bringup.trials.bag_repair BAG...
"""

import argparse
import errno
import mmap
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from struct import Struct
from struct import error as StructError

import lz4.frame
import yaml
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, McapRecord, Message, Schema
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from spear_policy.shared.files import atomic_write, write_atomically

_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_RECORD_HEAD = Struct("<BQ")  # opcode, length of the body


class RepairError(Exception):
    """The folder holds nothing that can be finished; the text says why."""


@dataclass(frozen=True)
class RepairReport:
    """What a bag holds now: messages by topic, first to last [s], size of the torn file [bytes]."""

    counts: Mapping[str, int]
    duration_s: float
    torn_bytes: int = 0
    was_whole: bool = False

    @property
    def messages(self) -> int:
        """Messages in the bag."""
        return sum(self.counts.values())


def repair(folder: Path, custom_data: Mapping[str, str] | None = None) -> RepairReport:
    """Make a bag readable again; one that has its metadata.yaml is left as it is.

    Args:
        folder: the bag, `<folder>/<name>.mcap` inside.
        custom_data: words for metadata.yaml.

    Raises:
        RepairError: there is no MCAP file, its beginning is broken, or it has no whole message.
        OSError: the copy cannot be written; the torn file is as it was.
    """
    folder = Path(folder).resolve()
    path = folder / f"{folder.name}.mcap"
    if (folder / "metadata.yaml").exists():
        return _report_on_whole(folder)
    if not path.exists():
        raise RepairError(f"{path} does not exist; nothing was recorded")
    torn_bytes = path.stat().st_size
    try:
        copied = _replace_by_copy(path, custom_data, torn_chunk=True)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        # A copy without the torn chunk is smaller.
        copied = _replace_by_copy(path, custom_data, torn_chunk=False)
    information = copied.information(path.name, custom_data)
    text = yaml.safe_dump({"rosbag2_bagfile_information": information})
    write_atomically(folder / "metadata.yaml", text)
    return RepairReport(copied.counts_by_topic(), copied.duration_ns * 1e-9, torn_bytes)


def _report_on_whole(folder: Path) -> RepairReport:
    known = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    topics = known["topics_with_message_count"]
    counts = {topic["topic_metadata"]["name"]: topic["message_count"] for topic in topics}
    return RepairReport(counts, known["duration"]["nanoseconds"] * 1e-9, was_whole=True)


# Reading -------------------------------------------------------------------------------------


def _whole_records(path: Path, torn_chunk: bool) -> Iterator[McapRecord]:
    """Schemas, channels and messages of a file up to its first torn record.

    The library's reader takes a record that is cut short for a whole one, so its length is judged
    here first. Of the last chunk, if `torn_chunk`, what is whole inside comes as well.

    Raises:
        RepairError: the file does not begin like an MCAP file.
    """
    with path.open("rb") as file:
        if file.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
            raise RepairError(f"{path} does not begin like an MCAP file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for opcode, length, body in _walk(data, len(MCAP0_MAGIC)):
                if opcode == Opcode.DATA_END:
                    return
                if opcode == Opcode.CHUNK and (torn_chunk or len(body) == length):
                    for inner, inner_length, inner_body in _walk(_chunk_data(body)):
                        if len(inner_body) == inner_length:
                            yield from _parsed(inner, inner_body)
                elif len(body) == length:
                    yield from _parsed(opcode, body)


def _walk(data, offset: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """(opcode, length, body) of each record in `data`; the body of the last may be cut short."""
    while offset + _RECORD_HEAD.size <= len(data):
        opcode, length = _RECORD_HEAD.unpack_from(data, offset)
        offset += _RECORD_HEAD.size
        yield opcode, length, data[offset : offset + length]
        offset += length


def _parsed(opcode: int, body: bytes) -> Iterator[McapRecord]:
    stream = ReadDataStream(BytesIO(body))
    if opcode == Opcode.MESSAGE:
        yield Message.read(stream, len(body))
    elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
        yield (Schema if opcode == Opcode.SCHEMA else Channel).read(stream)


def _chunk_data(body: bytes) -> bytes:
    """As much of the records of a chunk as its body, perhaps cut short, holds."""
    try:
        chunk = Chunk.read(ReadDataStream(BytesIO(body)))
        if chunk.compression == "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(chunk.data)
        if chunk.compression == "lz4":
            return lz4.frame.LZ4FrameDecompressor().decompress(chunk.data)
    except (McapError, StructError, ValueError, RuntimeError, zstandard.ZstdError):
        return b""
    return chunk.data


# Writing -------------------------------------------------------------------------------------


def _replace_by_copy(path: Path, custom_data, torn_chunk: bool) -> "_Copy":
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        copied = _Copy(Writer(file, compression=CompressionType.NONE))
        for record in _whole_records(path, torn_chunk):
            copied.add(record)
        if not copied.counts:
            raise RepairError(f"{path} has no whole message; it is left as it is")
        copied.finish(path.name, custom_data)
    return copied


@dataclass
class _Copy:
    """A file that is being written, and what is in it so far."""

    writer: Writer
    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)  # by channel
    start_ns: int = 0
    end_ns: int = 0
    _new_ids: dict[int, int] = field(default_factory=dict)

    def __post_init__(self):
        self.writer.start(profile="ros2", library="spear_bringup.trials.bag_repair")

    def add(self, record: McapRecord) -> None:
        """Take a record of the torn file; what belongs to its end is made anew."""
        if isinstance(record, Schema):
            self.schemas[record.id] = record
        elif isinstance(record, Channel):
            self.channels[record.id] = record
        elif isinstance(record, Message):
            self._add_message(record)

    def _add_message(self, message: Message) -> None:
        old = message.channel_id
        if old not in self._new_ids:
            channel = self.channels[old]
            schema = self.schemas[channel.schema_id]
            schema_id = self.writer.register_schema(schema.name, schema.encoding, schema.data)
            self._new_ids[old] = self.writer.register_channel(
                channel.topic, channel.message_encoding, schema_id, channel.metadata
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
        self.start_ns = min(self.start_ns, message.log_time)
        self.end_ns = max(self.end_ns, message.log_time)
        self.counts[old] = self.counts.get(old, 0) + 1

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns

    def counts_by_topic(self) -> dict[str, int]:
        return {self.channels[key].topic: count for key, count in self.counts.items()}

    def finish(self, file_name: str, custom_data: Mapping[str, str] | None) -> None:
        """Write the index, and the metadata that rosbag2 wants inside as well."""
        text = yaml.safe_dump(self.information(file_name, custom_data))
        self.writer.add_metadata("rosbag2", {"serialized_metadata": text})
        self.writer.finish()

    def information(self, file_name: str, custom_data: Mapping[str, str] | None) -> dict:
        """The contents of metadata.yaml, as the rosbag2 writer has them."""
        extent = {
            "duration": {"nanoseconds": self.duration_ns},
            "starting_time": {"nanoseconds_since_epoch": self.start_ns},
            "message_count": sum(self.counts.values()),
        }
        return {
            "version": 9,
            "storage_identifier": "mcap",
            "relative_file_paths": [file_name],
            **extent,
            "topics_with_message_count": [
                {"topic_metadata": self._topic(self.channels[key]), "message_count": count}
                for key, count in self.counts.items()
            ],
            "compression_format": "",
            "compression_mode": "",
            "files": [{"path": file_name, **extent}],
            "custom_data": dict(custom_data or {}) or None,
            "ros_distro": "rosbags",
        }

    def _topic(self, channel: Channel) -> dict:
        schema = self.schemas[channel.schema_id]
        store = get_typestore(Stores.EMPTY)
        store.register(get_types_from_msg(schema.data.decode(), schema.name))
        return {
            "name": channel.topic,
            "type": schema.name,
            "serialization_format": channel.message_encoding,
            "offered_qos_profiles": yaml.safe_load(channel.metadata["offered_qos_profiles"]) or [],
            "type_description_hash": store.hash_rihs01(schema.name),
        }


def main() -> int:
    """Repair the bags named on the command line."""
    parser = argparse.ArgumentParser(
        description="Finish bags whose recorder died. Example: "
        "python3 -m spear_bringup.trials.bag_repair out/trials/bags/2026-01-31T09-30-00"
    )
    parser.add_argument("bag", nargs="+", type=Path, help="folder of a bag")
    status = 0
    for folder in parser.parse_args().bag:
        try:
            report = repair(folder)
        except (RepairError, OSError) as error:
            print(f"{folder}: {error}", file=sys.stderr)
            status = 1
            continue
        state = "was whole" if report.was_whole else f"repaired, of {report.torn_bytes} bytes"
        print(f"{folder}: {report.messages} messages, {state}")
    return status


if __name__ == "__main__":
    sys.exit(main())
