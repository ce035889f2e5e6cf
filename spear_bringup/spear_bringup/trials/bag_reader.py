"""A trial's bag as arrays and frames. The types come from the bag itself, not from this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader, AnyReaderError


def _empty(*shape) -> NDArray:
    return np.zeros((0, *shape))


@dataclass(frozen=True, eq=False)
class CommandSeries:
    """The messages of `command` in order, N of them.

    Attributes:
        stamps_s: (N,) hand-over to the robot, node clock [s].
        sent: (N,) bool, whether knots went to the robot.
        verdicts, reasons: (N,) int, GateStatus constants.
        seams_m, seams_rad: (N,) new minus running reference at entry.
        observation_ages_s: (N,) image stamp to hand-over [s].
        time_slips_s: (N,) lag of the execution behind its due time [s].
        gripper_openings: (N,) wanted opening after hysteresis, 0 closed .. 1 open.
    """

    stamps_s: NDArray = field(default_factory=_empty)
    sent: NDArray = field(default_factory=lambda: np.zeros(0, bool))
    verdicts: NDArray = field(default_factory=lambda: np.zeros(0, int))
    reasons: NDArray = field(default_factory=lambda: np.zeros(0, int))
    seams_m: NDArray = field(default_factory=_empty)
    seams_rad: NDArray = field(default_factory=_empty)
    observation_ages_s: NDArray = field(default_factory=_empty)
    time_slips_s: NDArray = field(default_factory=_empty)
    gripper_openings: NDArray = field(default_factory=_empty)


@dataclass(frozen=True, eq=False)
class StateSeries:
    """The messages of `ee_state` in order, N of them.

    Attributes:
        stamps_s: (N,) robot time mapped to the node clock [s].
        measured, commanded: (N, 7) position [m] and orientation xyzw, base frame.
        gripper_openings: (N,) measured, 0 closed .. 1 open.
    """

    stamps_s: NDArray = field(default_factory=_empty)
    measured: NDArray = field(default_factory=lambda: _empty(7))
    commanded: NDArray = field(default_factory=lambda: _empty(7))
    gripper_openings: NDArray = field(default_factory=_empty)


@dataclass(frozen=True, eq=False)
class GateSeries:
    """The messages of `gate_status` in order, N of them.

    Attributes:
        stamps_s: (N,) time of the verdict, node clock [s].
        verdicts, reasons: (N,) int, GateStatus constants.
        counts: (N, 5) verdicts since the driver's activation, by verdict.
    """

    stamps_s: NDArray = field(default_factory=_empty)
    verdicts: NDArray = field(default_factory=lambda: np.zeros(0, int))
    reasons: NDArray = field(default_factory=lambda: np.zeros(0, int))
    counts: NDArray = field(default_factory=lambda: np.zeros((0, 5), int))


@dataclass(frozen=True, eq=False)
class TrialSeries:
    """All that a report needs of one bag, but the images.

    Attributes:
        folder: the bag.
        start_s, end_s: receive times of its first and last message, node clock [s].
        counts: messages by topic.
        real_time_factors: (K,) simulated over wall time, once a second; empty on a real robot.
        custom_data: the recorder's words in metadata.yaml.
    """

    folder: Path
    start_s: float
    end_s: float
    counts: dict[str, int] = field(default_factory=dict)
    commands: CommandSeries = field(default_factory=CommandSeries)
    states: StateSeries = field(default_factory=StateSeries)
    gate: GateSeries = field(default_factory=GateSeries)
    real_time_factors: NDArray = field(default_factory=_empty)
    custom_data: dict[str, str] = field(default_factory=dict)


class BagReadError(Exception):
    """A bag cannot be read; the text says why and what to do."""


def read_trial(folder: Path) -> TrialSeries:
    """Everything but the images of one bag.

    Raises:
        BagReadError: no bag there, or it was never closed.
    """
    folder = Path(folder)
    collected: dict[str, list] = {name: [] for name in _COLLECT}
    with _open(folder) as reader:
        wanted = {}
        for name in _COLLECT:
            if connection := _connection(reader, name):
                wanted[connection.id] = name
        connections = [c for c in reader.connections if c.id in wanted]
        for connection, _, raw in reader.messages(connections) if connections else ():
            name = wanted[connection.id]
            message = reader.deserialize(raw, connection.msgtype)
            collected[name].append(_COLLECT[name](message))
        counts = {c.topic: c.msgcount for c in reader.connections}
        start_ns, end_ns = (reader.start_time, reader.end_time) if sum(counts.values()) else (0, 0)
    return TrialSeries(
        folder=folder,
        start_s=start_ns * 1e-9,
        end_s=end_ns * 1e-9,
        counts=counts,
        commands=_series(CommandSeries, collected["command"]),
        states=_series(StateSeries, collected["ee_state"]),
        gate=_series(GateSeries, collected["gate_status"]),
        real_time_factors=np.array(collected["sim_world/real_time_factor"], float),
        custom_data=_custom_data(folder),
    )


def cameras(folder: Path) -> list[str]:
    """The cameras with images in the bag: "external", "wrist" or both."""
    with _open(folder) as reader:
        found = {name: _connection(reader, _image_topic(name)) for name in ("external", "wrist")}
        return [name for name, connection in found.items() if connection and connection.msgcount]


def frames(folder: Path, camera: str) -> Iterator[tuple[float, NDArray]]:
    """(receive time [s, node clock], BGR image (H, W, 3) uint8) of one camera, in order.

    An image that cannot be decoded is passed over: a report must survive a bad frame.
    """
    with _open(folder) as reader:
        connection = _connection(reader, _image_topic(camera))
        if connection is None:
            return
        for _, time_ns, raw in reader.messages([connection]):
            message = reader.deserialize(raw, connection.msgtype)
            image = cv2.imdecode(np.asarray(message.data), cv2.IMREAD_COLOR)
            if image is not None:
                yield time_ns * 1e-9, image


@contextmanager
def _open(folder: Path):
    folder = Path(folder)
    if not (folder / "metadata.yaml").exists():
        fix = f"repair it with: ros2 run spear_bringup bag_repair {folder}"
        raise BagReadError(
            f"{folder} was never closed; {fix}" if folder.exists() else f"there is no bag {folder}"
        )
    try:
        with AnyReader([folder]) as reader:
            yield reader
    except AnyReaderError as error:
        raise BagReadError(f"{folder}: {error}") from None


def _image_topic(camera: str) -> str:
    return f"{camera}/image_raw/compressed"


def _connection(reader: AnyReader, name: str):
    """The connection of a relative topic name, whatever namespace it was recorded in."""
    found = [c for c in reader.connections if c.topic.endswith(f"/{name}")]
    return min(found, key=lambda c: len(c.topic), default=None)


def _custom_data(folder: Path) -> dict[str, str]:
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text())
    return metadata["rosbag2_bagfile_information"].get("custom_data") or {}


def _series(kind, rows: list[tuple]):
    return kind(*(np.array(column) for column in zip(*rows, strict=True))) if rows else kind()


def _seconds(stamp) -> float:
    return stamp.sec + stamp.nanosec * 1e-9


def _pose(pose) -> list[float]:
    p, q = pose.position, pose.orientation
    return [p.x, p.y, p.z, q.x, q.y, q.z, q.w]


def _command(message) -> tuple:
    return (
        _seconds(message.header.stamp),
        len(message.knots) > 0,
        message.gate.verdict,
        message.gate.reason,
        message.seam_translation,
        message.seam_rotation,
        _seconds(message.observation_age),
        _seconds(message.time_slip),
        message.gripper_opening,
    )


def _state(message) -> tuple:
    stamp_s = _seconds(message.header.stamp)
    return stamp_s, _pose(message.measured), _pose(message.commanded), message.gripper_opening


def _gate(message) -> tuple:
    return (
        _seconds(message.header.stamp),
        message.verdict,
        message.reason,
        [int(count) for count in message.counts],
    )


_COLLECT = {
    "command": _command,
    "ee_state": _state,
    "gate_status": _gate,
    "sim_world/real_time_factor": lambda message: message.data,
}
