"""What the files of a bag hold, and the metadata.yaml that says so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

NAME = "metadata.yaml"
ZSTD = b"\x28\xb5\x2f\xfd"  # how a message begins that is compressed; CDR begins with 0


class RepairError(Exception):
    """The folder holds nothing that can be finished; the text says why."""


@dataclass(frozen=True)
class FileContents:
    """What one file of a bag holds.

    Attributes:
        name: of the file.
        topics: by topic, what metadata.yaml says of it: name, type, encoding, QoS, type hash.
        counts: messages by topic; no topic without one.
        start_ns, end_ns: reception of the first and the last message.
        packed: whether each message is compressed by itself, which only metadata.yaml says.
        left_out: messages that were not taken, for their topic is not known or their chunk's
            checksum is wrong.
    """

    name: str
    topics: Mapping[str, dict]
    counts: Mapping[str, int]
    start_ns: int
    end_ns: int
    packed: bool = False
    left_out: int = 0

    @property
    def messages(self) -> int:
        """Messages in the file."""
        return sum(self.counts.values())


def information(files: Sequence[FileContents], storage: str, earlier: Mapping[str, object]) -> dict:
    """The contents of metadata.yaml, as the rosbag2 writer has them.

    Args:
        files: in order, none without messages.
        storage: mcap or sqlite3.
        earlier: what an earlier metadata.yaml said; the words of its writer are kept.
    """
    counts: dict[str, int] = {}
    topics: dict[str, dict] = {}
    for file in files:
        for name, count in file.counts.items():
            counts[name] = counts.get(name, 0) + count
            topics[name] = file.topics[name]
    packed = any(file.packed for file in files)
    first_ns, last_ns = min(f.start_ns for f in files), max(f.end_ns for f in files)
    return {
        "version": 9,
        "storage_identifier": storage,
        "relative_file_paths": [file.name for file in files],
        **_extent(first_ns, last_ns, sum(counts.values())),
        "topics_with_message_count": [
            {"topic_metadata": topics[name], "message_count": count}
            for name, count in counts.items()
        ],
        "compression_format": "zstd" if packed else "",
        "compression_mode": "MESSAGE" if packed else "",
        "files": [
            {"path": file.name, **_extent(file.start_ns, file.end_ns, file.messages)}
            for file in files
        ],
        "custom_data": earlier.get("custom_data") or None,
        "ros_distro": earlier.get("ros_distro") or "rosbags",
    }


def _extent(start_ns: int, end_ns: int, messages: int) -> dict:
    return {
        "duration": {"nanoseconds": end_ns - start_ns},
        "starting_time": {"nanoseconds_since_epoch": start_ns},
        "message_count": messages,
    }


def read_information(folder: Path) -> dict:
    """What metadata.yaml says; nothing if there is none, or none that can be read."""
    try:
        found = yaml.safe_load((folder / NAME).read_text(encoding="utf-8"))
        found = found["rosbag2_bagfile_information"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
