"""Finish a bag whose writer died or ran out of disk: cut the torn end, write index and metadata.

It works in place, because a full disk has no room for a copy. When even the index does not fit,
the last chunk (half a second) is given up for it. What is whole stays untouched.
By hand: python3 -m spear_bringup.trials.bag_repair BAG...
"""

import argparse
import errno
import mmap
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from struct import error as StructError
from struct import unpack_from

import yaml
from mcap.data_stream import ReadDataStream, RecordBuilder
from mcap.exceptions import EndOfFile
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    Chunk,
    ChunkIndex,
    DataEnd,
    Footer,
    MessageIndex,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
    SummaryOffset,
)
from mcap.stream_reader import get_chunk_data_stream
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

# What an MCAP file really holds, found by walking it: for files without a summary.


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


# Finish a bag whose writer died or ran out of disk: cut the torn end, write index and met.


_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class CannotRepair(Exception):
    """The folder holds nothing that can be finished; the text says why."""


@dataclass(frozen=True)
class RepairReport:
    """What a bag holds now: messages by topic, first to last [s], bytes cut off."""

    counts: Mapping[str, int]
    duration_s: float
    cut_bytes: int
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
        CannotRepair: there is no MCAP file, or its beginning is already broken.
        OSError: the file cannot be written.
    """
    folder = Path(folder).resolve()
    path = folder / f"{folder.name}.mcap"
    if (folder / "metadata.yaml").exists():
        return _report_on_whole(folder)
    try:
        found = scan(path)
    except FileNotFoundError:
        raise CannotRepair(f"{path} does not exist; nothing was recorded") from None
    except NotMcap as error:
        raise CannotRepair(str(error)) from None
    size = path.stat().st_size
    while True:
        try:
            information = _information(path.name, found, dict(custom_data or {}))
            _finish(path, found, yaml.safe_dump(information))
            _write_metadata(folder, information)
        except OSError as error:
            if error.errno not in _NO_ROOM or not found.chunks:
                raise
            found.chunks.pop()
            continue
        start_ns, end_ns = found.time_range_ns()
        cut_bytes = max(0, size - found.end)
        return RepairReport(_counts_by_topic(found), (end_ns - start_ns) * 1e-9, cut_bytes)


def _report_on_whole(folder: Path) -> RepairReport:
    known = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    topics = known["topics_with_message_count"]
    counts = {topic["topic_metadata"]["name"]: topic["message_count"] for topic in topics}
    return RepairReport(counts, known["duration"]["nanoseconds"] * 1e-9, 0, was_whole=True)


def _counts_by_topic(found: McapScan) -> dict[str, int]:
    return {found.channels[key].topic: count for key, count in found.counts().items()}


def _finish(path: Path, found: McapScan, information_text: str) -> None:
    """Cut the file after its last whole chunk and write everything that belongs behind it."""
    last = found.chunks[-1] if found.chunks else None
    indexes = message_indexes(path, last) if last else []
    with path.open("r+b") as file:
        file.truncate(found.end)
        file.seek(found.end)
        if last:
            last.index.message_index_offsets.clear()
            for index in indexes:
                last.index.message_index_offsets[index.channel_id] = file.tell()
                _write(file, [index])
            last.index.message_index_length = file.tell() - last.end
        _write_summary(file, found, information_text)
        file.flush()
        os.fsync(file.fileno())


def _write_summary(file, found: McapScan, information_text: str) -> None:
    offset = file.tell()
    _write(file, [Metadata("rosbag2", {"serialized_metadata": information_text})])
    metadata = MetadataIndex(offset, file.tell() - offset, "rosbag2")
    _write(file, [DataEnd(0)])
    summary_start = file.tell()
    groups = [
        (Opcode.SCHEMA, list(found.schemas.values())),
        (Opcode.CHANNEL, list(found.channels.values())),
        (Opcode.CHUNK_INDEX, [chunk.index for chunk in found.chunks]),
        (Opcode.METADATA_INDEX, [metadata]),
        (Opcode.STATISTICS, [_statistics(found)]),
    ]
    offsets = []
    for opcode, records in groups:
        start = file.tell()
        _write(file, records)
        if records:
            offsets.append(SummaryOffset(opcode, start, file.tell() - start))
    offsets_start = file.tell()
    _write(file, [*offsets, Footer(summary_start, offsets_start, 0)])
    file.write(MAGIC)


def _write(file, records) -> None:
    builder = RecordBuilder()
    for record in records:
        record.write(builder)
    file.write(builder.end())


def _statistics(found: McapScan) -> Statistics:
    counts = found.counts()
    start_ns, end_ns = found.time_range_ns()
    return Statistics(
        attachment_count=0,
        channel_count=len(found.channels),
        channel_message_counts=counts,
        chunk_count=len(found.chunks),
        message_count=sum(counts.values()),
        message_end_time=end_ns,
        message_start_time=start_ns,
        metadata_count=1,
        schema_count=len(found.schemas),
    )


def _information(file_name: str, found: McapScan, custom_data: dict) -> dict:
    """The contents of metadata.yaml, as the rosbag2 writer has them."""
    start_ns, end_ns = found.time_range_ns()
    counts = found.counts()
    extent = {
        "duration": {"nanoseconds": end_ns - start_ns},
        "starting_time": {"nanoseconds_since_epoch": start_ns},
        "message_count": sum(counts.values()),
    }
    return {
        "version": 9,
        "storage_identifier": "mcap",
        "relative_file_paths": [file_name],
        **extent,
        "topics_with_message_count": [
            {"topic_metadata": _topic(channel, found), "message_count": counts[channel.id]}
            for channel in found.channels.values()
        ],
        "compression_format": "",
        "compression_mode": "",
        "files": [{"path": file_name, **extent}],
        "custom_data": custom_data or None,
        "ros_distro": "rosbags",
    }


def _topic(channel: Channel, found: McapScan) -> dict:
    schema = found.schemas[channel.schema_id]
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(schema.data.decode(), schema.name))
    return {
        "name": channel.topic,
        "type": schema.name,
        "serialization_format": channel.message_encoding,
        "offered_qos_profiles": yaml.safe_load(channel.metadata["offered_qos_profiles"]) or [],
        "type_description_hash": store.hash_rihs01(schema.name),
    }


def _write_metadata(folder: Path, information: dict) -> None:
    beside = folder / "metadata.yaml.tmp"
    try:
        beside.write_text(yaml.safe_dump({"rosbag2_bagfile_information": information}))
        os.replace(beside, folder / "metadata.yaml")
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise


def main() -> int:
    """Mend the bags named on the command line."""
    parser = argparse.ArgumentParser(
        description="Finish bags whose recorder died. Example: "
        "python3 -m spear_bringup.trials.bag_repair out/trials/bags/2026-01-31T09-30-00"
    )
    parser.add_argument("bag", nargs="+", type=Path, help="folder of a bag")
    status = 0
    for folder in parser.parse_args().bag:
        try:
            report = repair(folder)
        except (CannotRepair, OSError) as error:
            print(f"{folder}: {error}", file=sys.stderr)
            status = 1
            continue
        state = "was whole" if report.was_whole else f"mended, {report.cut_bytes} bytes cut off"
        print(f"{folder}: {report.messages} messages, {state}")
    return status


if __name__ == "__main__":
    sys.exit(main())
