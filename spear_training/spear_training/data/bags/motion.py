"""Where the arm and its gripper were while a bag was recorded, from whatever topics say it.

SPEAR's own trials have `ee_state` and `command`. Of other recorders a user's file names the topics
(`BagTopics`): the pose from PoseStamped and its like, from tf, or from a Franka's joints; the
gripper from a joint or a number. Every stream keeps its own stamps: `BagMotion` is brought to those
of the pictures later.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.tracking import TimedPoses
from spear_policy.inference.episode import LONGEST_GAP_S, EpisodeError, longest_gap_s
from spear_policy.shared.config import ConfigError, read_dataclass
from spear_training.data.bags.folder import BagFolder
from spear_training.data.oxe.poses import end_effector_poses
from spear_training.data.oxe.reader import linear_opening
from spear_training.data.oxe.table import FROM_MEASURED, REACHED, LinearGripper, read_yaml
from spear_training.data.reader import DataFileError
from spear_training.data.store.format import EXTERNAL, WRIST

# What a user says of another recorder's bags --------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PoseTopic:
    """Messages with a pose: PoseStamped, Pose, Odometry, TransformStamped and their like.

    Attributes:
        topic: as it stands in the bag.
        position_unit: of its numbers.
    """

    encoding: ClassVar[str] = "pose"
    topic: str
    position_unit: Literal["m", "mm"] = "m"


@dataclass(frozen=True, kw_only=True)
class TfPose:
    """The transform of /tf and /tf_static from a base frame to the end effector's frame."""

    encoding: ClassVar[str] = "tf"
    base: str
    end_effector: str
    topic: str = "/tf"
    static_topic: str = "/tf_static"


@dataclass(frozen=True, kw_only=True)
class FrankaJointsPose:
    """JointState of a Franka; `joints` are the names of joint 1 to 7 in it."""

    encoding: ClassVar[str] = "franka_joints"
    topic: str
    joints: tuple[str, ...]
    end_effector: Literal["flange", "hand"] = "hand"

    def __post_init__(self):
        if len(self.joints) != 7:
            raise ConfigError(f"joints has {len(self.joints)} names: a Franka has 7")


PoseSource = PoseTopic | TfPose | FrankaJointsPose


@dataclass(frozen=True, kw_only=True)
class GripperTopic:
    """One number between two that mean closed and open.

    Attributes:
        topic: of a JointState, Float32, Float64 or of anything with a field `data`.
        closed_at, open_at: the two numbers; beyond them it is clipped.
        joint: which one of a JointState.
    """

    topic: str
    closed_at: float
    open_at: float
    joint: str = ""

    def __post_init__(self):
        if self.closed_at == self.open_at:
            raise ConfigError("closed_at and open_at are the same number")


@dataclass(frozen=True, kw_only=True)
class BagTopics:
    """Which topics hold what, in a YAML file.

        robot: Franka Panda
        cameras: {external: /camera/color/image_raw/compressed, wrist: /wrist/image_raw}
        pose: {encoding: tf, base: panda_link0, end_effector: panda_hand_tcp}
        gripper_opening:
          {topic: /joint_states, joint: panda_finger_joint1, closed_at: 0.0, open_at: 0.04}

    Attributes:
        robot: which robot moved.
        cameras: "external", and "wrist" where there is one -> Image or CompressedImage.
        pose: measured pose of the end effector in the robot's base frame.
        gripper_opening: measured.
        command: commanded pose, or the word: reached.
        gripper_command: or the word: from_measured.
        instruction: topic of a String; "" where --instruction or the bag's metadata has it.
    """

    robot: str
    cameras: Mapping[str, str]
    pose: PoseSource
    gripper_opening: GripperTopic
    command: PoseSource | Literal["reached"] = REACHED
    gripper_command: GripperTopic | Literal["from_measured"] = FROM_MEASURED
    instruction: str = ""

    def __post_init__(self):
        if EXTERNAL not in self.cameras or set(self.cameras) - {EXTERNAL, WRIST}:
            raise ConfigError(f"cameras must name {EXTERNAL!r}, and {WRIST!r} where there is one")


def load_topics(path: str | Path) -> BagTopics:
    """Read a user's file.

    Raises:
        DataFileError: the file is missing or no YAML, or a field is unknown, missing or
            impossible; it is named.
    """
    try:
        return read_dataclass(BagTopics, read_yaml(Path(path), ""), "topics")
    except ConfigError as error:
        raise DataFileError(f"{path}: {error}") from None


# Streams: what was recorded, each with its own stamps ------------------------------------------


# Messages may overtake each other by so much; more, and a clock was reset.
LATEST_S = 0.5


@dataclass(frozen=True, eq=False)
class Numbers:
    """Numbers (N,) or rows (N, K) at increasing stamps (N,) [s]."""

    stamps_s: NDArray
    values: NDArray


@dataclass(frozen=True, eq=False)
class BagMotion:
    """What a bag says of the arm and the gripper.

    Attributes:
        measured, commanded: poses; `commanded` is None where it was not recorded.
        opening: measured, 0 closed .. 1 open.
        gripper_command: each in force until the next; None where commands were not recorded.
        robot: which robot moved.
    """

    measured: TimedPoses
    commanded: TimedPoses | None
    opening: Numbers
    gripper_command: Numbers | None
    robot: str


# A gripper that was never commanded: it stays as it was measured.
NO_COMMAND = Numbers(np.array([np.inf]), np.array([1.0]))


def increasing(stamps_s: NDArray, what: str) -> NDArray:
    """In which order (N,) to take messages so that their stamps increase, each stamp once.

    Raises:
        EpisodeError: they run backwards by more than messages overtake each other.
    """
    late_s = np.maximum.accumulate(stamps_s) - stamps_s
    if (late_s > LATEST_S).any():
        first = int(np.argmax(late_s > LATEST_S)) - 1
        raise EpisodeError(
            f"the stamps of {what} run backwards after message {first} "
            f"({stamps_s[first]:.3f} s, then {stamps_s[first + 1]:.3f} s): the clock was reset "
            "while it was recorded"
        )
    order = np.argsort(stamps_s, kind="stable")
    return order[np.concatenate([[True], np.diff(stamps_s[order]) > 0])]


def covered(times_s: NDArray, stamps_s: NDArray, least_gap_s: float = LONGEST_GAP_S) -> NDArray:
    """At which times (T,) a stream with these stamps (N,) is known: neither outside nor in a hole.

    A hole is a time without messages that is longer than `episode.longest_gap_s` says.
    """
    after = np.searchsorted(stamps_s, times_s, side="left")
    inside = (times_s >= stamps_s[0]) & (times_s <= stamps_s[-1])
    gaps_s = np.diff(stamps_s, prepend=stamps_s[0])[np.minimum(after, len(stamps_s) - 1)]
    at_stamp = stamps_s[np.minimum(after, len(stamps_s) - 1)] == times_s
    return inside & (at_stamp | (gaps_s <= longest_gap_s(stamps_s, least_gap_s)))


def seconds(stamp: Any) -> float:
    """Of a Time message [s]."""
    return stamp.sec + stamp.nanosec * 1e-9


def stamp_s(message: Any, received_s: float) -> float:
    """When a message says that it is from; when it was received, where it does not say."""
    header = getattr(message, "header", None)
    return (header is not None and seconds(header.stamp)) or received_s


def pose_numbers(pose: Any) -> list[float]:
    """(7,) position [m] and xyzw of a Pose or a Transform."""
    p = pose.position if hasattr(pose, "position") else pose.translation
    q = pose.orientation if hasattr(pose, "orientation") else pose.rotation
    return [p.x, p.y, p.z, q.x, q.y, q.z, q.w]


def _stream(rows: list[tuple[float, Any]], what: str) -> Numbers:
    """Rows of (stamp, numbers) in order. Raises EpisodeError where there is none."""
    if not rows:
        raise EpisodeError(f"no message on {what}")
    stamps = np.array([stamp for stamp, _ in rows])
    order = increasing(stamps, what)
    return Numbers(stamps[order], np.array([values for _, values in rows], float)[order])


def _timed(stream: Numbers, what: str) -> TimedPoses:
    try:
        return TimedPoses(stream.stamps_s, stream.values)
    except ValueError as error:
        raise EpisodeError(f"{what}: {error}") from None


# SPEAR's own trials ----------------------------------------------------------------------------


def trial_motion(bag: BagFolder) -> BagMotion:
    """By the topics `ee_state` and `command`. Raises EpisodeError."""
    states = list(bag.messages("ee_state"))
    rows = [
        (
            seconds(each.header.stamp),
            [*pose_numbers(each.measured), *pose_numbers(each.commanded), each.gripper_opening],
        )
        for each in states
    ]
    stream = _stream(rows, "ee_state")
    values = stream.values
    measured, commanded = (Numbers(stream.stamps_s, values[:, part : part + 7]) for part in (0, 7))
    commands = [
        (seconds(message.header.stamp), message.gripper_opening)
        for message in bag.messages("command")
        if len(message.knots)
    ]
    return BagMotion(
        _timed(measured, "ee_state"),
        _timed(commanded, "ee_state"),
        Numbers(stream.stamps_s, np.clip(values[:, 14], 0, 1)),
        _stream(sorted(commands), "command") if commands else NO_COMMAND,
        states[0].header.frame_id.removesuffix("_base"),
    )


# Bags of other recorders ------------------------------------------------------------------------


def other_motion(bag: BagFolder, topics: BagTopics) -> BagMotion:
    """By the topics that a user names. Raises EpisodeError and DataFileError."""
    commanded = None if topics.command == REACHED else _poses(bag, topics.command)
    command = None
    if topics.gripper_command != FROM_MEASURED:
        command = _gripper(bag, topics.gripper_command)
    opening = _gripper(bag, topics.gripper_opening)
    return BagMotion(_poses(bag, topics.pose), commanded, opening, command, topics.robot)


def held_topics(bag: BagFolder) -> str:
    """Topics and types in words."""
    return ", ".join(f"{name} ({kind})" for name, kind in sorted(bag.topics.items())) or "nothing"


def _received(bag: BagFolder, topic: str) -> Iterator[tuple[float, Any]]:
    """Stamp and message. Raises EpisodeError where there is none."""
    if not bag.has(topic):
        raise EpisodeError(f"no message on {topic}; it has {held_topics(bag)}")
    return ((stamp_s(message, at_s), message) for at_s, message in bag.received(topic))


def _poses(bag: BagFolder, source: PoseSource) -> TimedPoses:
    match source:
        case TfPose():
            return _tf_poses(bag, source)
        case FrankaJointsPose():
            stream = _joint_numbers(bag, source.topic, source.joints)
            try:
                poses = end_effector_poses(stream.values, source.end_effector)
            except EpisodeError as error:
                raise EpisodeError(f"{source.topic}: {error}") from None
            return _timed(Numbers(stream.stamps_s, poses), source.topic)
        case PoseTopic():
            rows = [
                (at_s, _pose_in(message, source.topic))
                for at_s, message in _received(bag, source.topic)
            ]
            stream = _stream(rows, source.topic)
            stream.values[:, :3] *= 1e-3 if source.position_unit == "mm" else 1.0
            return _timed(stream, source.topic)


def _pose_in(message: Any, topic: str) -> list[float]:
    """The pose of a message; it may lie one or two fields deep, as in Odometry."""
    for name in ("pose", "pose", "transform"):
        message = getattr(message, name, message)
    if not (hasattr(message, "orientation") or hasattr(message, "rotation")):
        raise EpisodeError(f"{topic} has {message.__msgtype__}, which has no pose")
    return pose_numbers(message)


def _gripper(bag: BagFolder, rule: GripperTopic) -> Numbers:
    if rule.joint:
        stream = _joint_numbers(bag, rule.topic, (rule.joint,))
        stream = Numbers(stream.stamps_s, stream.values[:, 0])
    else:
        rows = []
        for at_s, message in _received(bag, rule.topic):
            if not np.isscalar(getattr(message, "data", None)):
                raise EpisodeError(
                    f"{rule.topic} has {message.__msgtype__}, which is no single number; name its "
                    "`joint` if it is a JointState"
                )
            rows.append((at_s, float(message.data)))
        stream = _stream(rows, rule.topic)
    linear = LinearGripper(
        key=rule.topic, closed_at=rule.closed_at, open_at=rule.open_at, saturate=True
    )
    return Numbers(stream.stamps_s, linear_opening(linear, stream.values, rule.topic))


def _joint_numbers(bag: BagFolder, topic: str, joints: tuple[str, ...]) -> Numbers:
    """(N, K) positions of some joints; messages of other joints are passed over."""
    rows, held = [], set()
    for at_s, message in _received(bag, topic):
        names, positions = getattr(message, "name", ()), getattr(message, "position", ())
        position = dict(zip(names, positions, strict=False))
        held |= position.keys()
        if all(name in position for name in joints):
            rows.append((at_s, [position[name] for name in joints]))
    if not rows:
        raise EpisodeError(
            f"{topic} has no message with {', '.join(joints)}; it has {', '.join(sorted(held))}"
        )
    return _stream(rows, topic)


# tf ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Edge:
    """A frame in its parent's: always the same, or by time."""

    parent: str
    poses: TimedPoses
    fixed: bool


def _tf_poses(bag: BagFolder, source: TfPose) -> TimedPoses:
    edges = _tf_edges(bag, source)
    hand, base = (_to_root(edges, name) for name in (source.end_effector, source.base))
    # Up to the first frame that both have in common.
    common = next((name for name in hand if name in base), None)
    if common is None:
        raise EpisodeError(
            f"tf does not connect {source.base} and {source.end_effector}; it has "
            f"{', '.join(sorted({*edges, *(edge.parent for edge in edges.values())}))}"
        )
    up, down = ([edges[n] for n in way[: way.index(common)]] for way in (hand, base))
    moving = [edge for edge in (*up, *down) if not edge.fixed]
    if not moving:
        raise EpisodeError(f"tf: {source.end_effector} never moves in {source.base}")
    # At the stamps of what is sent most often, while all the others are known.
    stamps_s = max((edge.poses.stamps_s for edge in moving), key=len)
    for edge in moving:
        stamps_s = stamps_s[covered(stamps_s, edge.poses.stamps_s)]
    if not len(stamps_s):
        raise EpisodeError(f"tf: the parts of {source.end_effector} have no time in common")
    in_hand, in_base = (_composed(way, stamps_s) for way in (up, down))
    turn = quat.inverse(in_base[:, 3:])
    position = quat.rotate(turn, in_hand[:, :3] - in_base[:, :3])
    poses = np.hstack([position, quat.multiply(turn, in_hand[:, 3:])])
    return _timed(Numbers(stamps_s, poses), "tf")


def _tf_edges(bag: BagFolder, source: TfPose) -> dict[str, _Edge]:
    rows: dict[tuple[str, str], list[tuple[float, list[float]]]] = {}
    fixed: set[str] = set()
    for topic in (source.static_topic, source.topic):
        for at_s, message in bag.received(topic):
            for each in message.transforms:
                child, parent = (
                    name.strip("/") for name in (each.child_frame_id, each.header.frame_id)
                )
                place = seconds(each.header.stamp) or at_s, pose_numbers(each.transform)
                rows.setdefault((child, parent), []).append(place)
                fixed |= {child} if topic == source.static_topic else set()
    edges = {}
    for (child, parent), places in rows.items():
        if child in edges:
            raise EpisodeError(f"tf: {child} has the parents {edges[child].parent} and {parent}")
        stream = _stream(places[-1:] if child in fixed else places, f"tf of {child}")
        edges[child] = _Edge(parent, _timed(stream, f"tf of {child}"), child in fixed)
    return edges


def _to_root(edges: Mapping[str, _Edge], frame: str) -> list[str]:
    """The frame, its parent, and so on."""
    frame = frame.strip("/")
    way = [frame]
    while way[-1] in edges and edges[way[-1]].parent not in way:
        way.append(edges[way[-1]].parent)
    return way


def _composed(way: list[_Edge], stamps_s: NDArray) -> NDArray:
    """(T, 7) poses in the last parent, of edges from the frame upwards."""
    poses = np.tile(np.array([0, 0, 0, 0, 0, 0, 1.0]), (len(stamps_s), 1))
    for edge in way:
        above = edge.poses.at(stamps_s)
        position = above[:, :3] + quat.rotate(above[:, 3:], poses[:, :3])
        poses = np.hstack([position, quat.multiply(above[:, 3:], poses[:, 3:])])
    return poses
