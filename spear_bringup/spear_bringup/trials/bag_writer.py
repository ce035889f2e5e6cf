"""A trial as a rosbag2 MCAP bag: definitions of its message types, writer thread, small images.

The callers never wait for the disk: they queue raw CDR bytes, and a full queue counts what it
drops. MCAP is written in chunks, each readable by itself; one is closed at least twice a second,
so a killed process loses half a second and not the trial (`bag_repair` finishes the file).
"""

import errno
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from numpy.typing import NDArray
from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError

from spear_bringup.trials.bag_repair import RepairError, repair

# Message types ---------------------------------------------------------------------------------

SEPARATOR = "=" * 80
_PRIMITIVES = frozenset(
    "bool byte char float32 float64 int8 uint8 int16 uint16 int32 uint32 int64 uint64 "
    "string wstring".split()
)
_FIELD_TYPE = re.compile(r"^\s*([A-Za-z][\w/]*)")


class MessageTypeError(Exception):
    """A message type is not installed; the text says which one and what to do."""


@dataclass(frozen=True)
class MessageDefinition:
    """One type as a bag stores it: `pkg/msg/Type`, definition text with all it nests, RIHS hash.

    Text and hash come from the share folder of the installed package. A bag carries both, so that
    it can be read where the types are not installed.
    """

    msgtype: str
    text: str
    type_hash: str


@cache
def definition_of(msgtype: str) -> MessageDefinition:
    """The definition of `pkg/msg/Type`.

    Raises:
        MessageTypeError: the package, its .msg file or its hash is not installed.
    """
    package, _, name = msgtype.split("/")
    parts = [_source(package, name)]
    seen = {(package, name)}
    waiting = _nested(package, parts[0])
    while waiting:
        nested = waiting.pop(0)
        if nested in seen:
            continue
        seen.add(nested)
        text = _source(*nested)
        parts.append(f"{SEPARATOR}\nMSG: {nested[0]}/{nested[1]}\n{text}")
        waiting += _nested(nested[0], text)
    return MessageDefinition(msgtype, "\n".join(parts), _type_hash(package, name, msgtype))


def _share(package: str) -> Path:
    try:
        return Path(get_package_share_directory(package)) / "msg"
    except PackageNotFoundError:
        raise MessageTypeError(
            f"message package {package} is not installed here; install it to record its topics"
        ) from None


def _source(package: str, name: str) -> str:
    path = _share(package) / f"{name}.msg"
    if not path.is_file():
        raise MessageTypeError(f"{package}/msg/{name} has no definition file {path}")
    return path.read_text()


def _type_hash(package: str, name: str, msgtype: str) -> str:
    path = _share(package) / f"{name}.json"
    if not path.is_file():
        raise MessageTypeError(
            f"{msgtype} has no type hash file {path}; build its package with rosidl"
        )
    hashes = json.loads(path.read_text())["type_hashes"]
    return next(entry["hash_string"] for entry in hashes if entry["type_name"] == msgtype)


def _nested(package: str, text: str) -> list[tuple[str, str]]:
    """(package, name) of every field of `text` that is a message itself, in order."""
    found = []
    for line in text.splitlines():
        match = _FIELD_TYPE.match(line.split("#", 1)[0])
        if match is None or match[1] in _PRIMITIVES:
            continue
        owner, _, name = match[1].rpartition("/")
        found.append((owner.split("/")[0] or package, name))
    return found


# The bag ---------------------------------------------------------------------------------------

Encode = Callable[[bytes], bytes]


class BagWriteError(Exception):
    """A bag cannot be begun; the text says why and what to do."""


@dataclass(frozen=True)
class BagTopic:
    """A topic in a bag: its full name, its type and the QoS that its publishers offer."""

    name: str
    definition: MessageDefinition
    qos: tuple[Qos, ...] = ()


class BagWriter:
    """Write one bag until `close`, or until the disk refuses.

    Args:
        folder: the bag; it must not exist.
        queue_bytes: how much may wait for the disk before messages are dropped.
        flush_period_s: steady time between two chunk ends [s].

    Attributes:
        counts: messages handed to the file, by topic name.
        dropped: messages lost before the file, by topic name (full queue, encoding, fault).
        fault: the sentence of the write error, from the moment it happens; None while all is well.
        encoding_errors: the newest encoding error, by topic name.

    Raises:
        BagWriteError: the folder exists or cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        queue_bytes: int = 64 << 20,
        flush_period_s: float = 0.5,
    ):
        self.folder = Path(folder)
        self.counts: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self.encoding_errors: dict[str, str] = {}
        self.fault: str | None = None
        self._queue_bytes = queue_bytes
        self._flush_period_s = flush_period_s
        self._custom_data: dict[str, str] = {}
        self._connections: dict[tuple[str, str], Connection] = {}
        self._waiting: deque = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._writer = _open(self.folder)
        self._thread = threading.Thread(target=self._run, name="bag_writer", daemon=True)
        self._thread.start()

    def write(
        self, topic: BagTopic, time_ns: int, data: bytes, encode: Encode | None = None
    ) -> bool:
        """Queue one message; False when it was dropped.

        Args:
            topic: where it belongs; a new topic is added to the bag by its first message.
            time_ns: receive time, node clock [ns].
            data: CDR bytes.
            encode: turns `data` into the bytes to be written, in the writer thread; a ValueError
                drops this message only.
        """
        with self._changed:
            full = self._waiting_bytes + len(data) > self._queue_bytes
            if full or self.fault or self._closing:
                self._drop(topic.name)
                return False
            self._waiting.append((topic, time_ns, data, encode))
            self._waiting_bytes += len(data)
            self._changed.notify()
        return True

    def close(self, custom_data: Mapping[str, str] | None = None, timeout_s: float = 60.0) -> None:
        """Write what waits, then the index and metadata.yaml; a fault is left in `fault`.

        Args:
            custom_data: words for metadata.yaml that are known only now.
            timeout_s: how long a disk that does not answer is waited for.
        """
        with self._changed:
            self._custom_data.update(custom_data or {})
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive() and self.fault is None:
            self._report(f"{self.folder}: the disk did not answer within {timeout_s:.0f} s")

    @property
    def messages(self) -> int:
        """Messages in the file so far."""
        return sum(self.counts.values())

    def _run(self) -> None:
        try:
            self._write_until_closed()
            for key, value in self._custom_data.items():
                self._writer.set_custom_data(key, value)
            self._writer.close()
        except Exception as error:  # whatever it is, a dead writer must not look like a live one
            self._fail(error)

    def _write_until_closed(self) -> None:
        flushed = time.monotonic()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing, self._flush_period_s)
                batch, self._waiting = self._waiting, deque()
            for topic, time_ns, data, encode in batch:
                self._write_one(topic, time_ns, data, encode)
                with self._changed:
                    self._waiting_bytes -= len(data)
                if time.monotonic() - flushed > self._flush_period_s:
                    self._end_chunk()
                    flushed = time.monotonic()
            if not batch:
                self._end_chunk()
                flushed = time.monotonic()
                if self._closing:
                    return

    def _write_one(self, topic: BagTopic, time_ns: int, data: bytes, encode: Encode | None) -> None:
        if encode is not None:
            try:
                data = encode(data)
            except ValueError as error:
                self.encoding_errors[topic.name] = str(error)
                self._drop(topic.name)
                return
        key = (topic.name, topic.definition.msgtype)
        connection = self._connections.get(key)
        if connection is None:
            connection = self._connections[key] = self._writer.add_connection(
                topic.name,
                topic.definition.msgtype,
                msgdef=topic.definition.text,
                rihs01=topic.definition.type_hash,
                offered_qos_profiles=topic.qos,
            )
        self._writer.write(connection, time_ns, data)
        self.counts[topic.name] = self.counts.get(topic.name, 0) + 1

    def _end_chunk(self) -> None:
        storage = self._writer.storage
        if storage.chunk.msgs:
            storage.close_chunk()
            storage.bio.flush()

    def _drop(self, name: str) -> None:
        self.dropped[name] = self.dropped.get(name, 0) + 1

    def _fail(self, error: Exception) -> None:
        self._report(f"recording to {self.folder} broke: {_cause(error)}")
        with suppress(OSError):
            self._writer.abort()
        try:
            report = repair(self.folder, self._custom_data)
        except (RepairError, OSError) as trouble:
            self.fault += (
                f"; what came before it is kept in {self.folder} and has no index yet ({trouble}): "
                f"make room, then run ros2 run spear_bringup bag_repair {self.folder}"
            )
            return
        self.counts = dict(report.counts)
        self.fault += f"; the {report.messages} messages before it are readable"

    def _report(self, text: str) -> None:
        with self._changed:
            self.fault = text
            for topic, *_ in self._waiting:
                self._drop(topic.name)
            self._waiting.clear()


def _cause(error: Exception) -> str:
    fix = "make room and repeat the trial"
    match getattr(error, "errno", None):
        case errno.ENOSPC | errno.EDQUOT:
            return f"the disk is full; {fix}"
        case errno.EFBIG:
            return f"the file reached its size limit; {fix}"
    return f"{type(error).__name__}: {error}"


def _open(folder: Path) -> Writer:
    try:
        writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        writer.open()
        writer.storage.bio.flush()
    except WriterError:
        raise BagWriteError(
            f"a bag {folder} exists already; give another trial_id or move it away"
        ) from None
    except OSError as error:
        raise BagWriteError(f"cannot make the bag {folder}: {error.strerror or error}") from None
    return writer


# Images ----------------------------------------------------------------------------------------


def compress(pixels: NDArray, encoding: str, jpeg_quality: int = 90) -> tuple[str, bytes]:
    """(format as CompressedImage has it, compressed bytes).

    8-bit images become JPEG; 16-bit ones become PNG, because depth must not be changed.

    Args:
        pixels: (H, W, 3) uint8 BGR, or (H, W) uint8 or uint16 grey.
        encoding: what the image was before, such as rgb8.
        jpeg_quality: 1 .. 100.

    Raises:
        ValueError: the pixels are of no such kind.
    """
    kind = (pixels.dtype.type, pixels.shape[2:])
    if kind == (np.uint16, ()):
        return f"{encoding}; png compressed", _encoded(".png", pixels, [])
    targets = {(np.uint8, (3,)): "bgr8", (np.uint8, ()): "mono8"}
    if kind not in targets:
        raise ValueError(f"a {encoding} image cannot be compressed; record its raw topic instead")
    jpeg = _encoded(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(jpeg_quality)])
    return f"{encoding}; jpeg compressed {targets[kind]}", jpeg


def _encoded(suffix: str, pixels: NDArray, options: list[int]) -> bytes:
    done, encoded = cv2.imencode(suffix, pixels, options)
    if not done:
        raise ValueError(f"OpenCV cannot write this image as {suffix}")
    return encoded.tobytes()
