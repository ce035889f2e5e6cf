"""Trials that SPEAR recorded (rosbag2 folders, MCAP or sqlite3), as episodes.

One picture of the external camera is one step; everything else is brought to its stamp: poses by
interpolation, the wrist picture nearest in time, the gripper command that was in force. Commanded
poses are the robot's own commanded pose, so a policy's recording and a teacher's are alike.

`BagFolder` is an open bag, `BagReader` makes episodes of many, and `store_metadata` is what they
make a store say about itself.
"""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader, AnyReaderError

from spear_policy.geometry.tracking import TimedPoses
from spear_policy.inference.episode import Episode, EpisodeError
from spear_policy.inference.image_codec import CvBridge
from spear_policy.inference.observation import rgb_of_message
from spear_training.data.reader import DataFileError, EncodedVideo
from spear_training.data.store.format import EXTERNAL, WRIST, CameraMetadata, StoreMetadata

# One bag: its messages by relative topic name -------------------------------------------------

METADATA = "metadata.yaml"
STORAGE_SUFFIXES = (".mcap", ".db3")


def find_bags(root: Path) -> list[Path]:
    """Folders that are bags, at `root` or below it, sorted; unclosed ones are found as well.

    Raises:
        DataFileError: there is none.
    """
    root = Path(root)
    files = [root, *root.rglob("*")] if root.is_dir() else []
    found = sorted({f.parent for f in files if f.suffix in STORAGE_SUFFIXES and f.is_file()})
    if not found:
        raise DataFileError(f"{root}: no bag there; give the folder that holds bags/ or one bag")
    return found


class BagFolder:
    """An open bag; made by `open_bag`."""

    def __init__(self, folder: Path, reader: AnyReader, namespace: str | None):
        self.folder, self._reader = folder, reader
        self._namespace = None if namespace is None else namespace.strip("/")

    def has(self, name: str) -> bool:
        """Whether there are messages under a relative topic name such as "ee_state"."""
        return any(connection.msgcount for connection in self._connections(name))

    def messages(self, name: str) -> Iterator[object]:
        """Messages of a relative topic name, in the order of their reception.

        Raises:
            DataFileError: a message is damaged, or two robots have that topic.
        """
        connections = self._connections(name)
        if not connections:
            return
        try:
            for connection, _, raw in self._reader.messages(connections):
                yield self._reader.deserialize(raw, connection.msgtype)
        except Exception as error:  # rosbags lets struct's, lz4's and sqlite's errors through
            raise DataFileError(
                f"{self.folder}: {name} is damaged ({type(error).__name__}: {error}); "
                "copy the bag again"
            ) from None

    def _connections(self, name: str) -> list:
        wanted = f"/{name}" if self._namespace is None else f"/{self._namespace}/{name}"
        wanted = wanted.replace("//", "/")
        found = [
            connection
            for connection in self._reader.connections
            if connection.topic == wanted
            or (self._namespace is None and connection.topic.endswith(wanted))
        ]
        topics = sorted({connection.topic for connection in found})
        if len(topics) > 1:
            raise DataFileError(
                f"{self.folder} has {' and '.join(topics)}: say which robot by its namespace"
            )
        return found


@contextmanager
def open_bag(folder: Path, namespace: str | None = None) -> Iterator[BagFolder]:
    """Open a bag.

    Args:
        namespace: of the robot, "" for none; None: the only one in the bag.

    Raises:
        DataFileError: it was never closed, or cannot be read.
    """
    folder = Path(folder)
    if not (folder / METADATA).exists():
        raise DataFileError(
            f"{folder} was never closed; fix it with: "
            f"python3 -m spear_bringup.trials.bag_repair {folder}"
        )
    try:
        with AnyReader([folder]) as reader:
            yield BagFolder(folder, reader, namespace)
    except (AnyReaderError, AssertionError) as error:
        raise DataFileError(f"{folder}: {error}; copy the bag again") from None


def custom_data(folder: Path) -> dict[str, str]:
    """Words that the recorder left in the bag's metadata: instruction, outcome, seed, ...

    Raises:
        DataFileError: the metadata is damaged.
    """
    try:
        values = yaml.safe_load((folder / METADATA).read_text())
        found = values["rosbag2_bagfile_information"].get("custom_data") or {}
        return {str(key): str(value) for key, value in found.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise DataFileError(
            f"{folder / METADATA}: damaged ({type(error).__name__}: {error})"
        ) from None


# Episodes -------------------------------------------------------------------------------------

SUCCESS = "SUCCESS"


@dataclass(frozen=True)
class BagRules:
    """What a bag must be to become an episode.

    Attributes:
        outcomes: of trials that are used; None: all.
        namespace: of the robot, "" for none; None: the only one in the bag.
        max_state_gap_s: longest time without an ee_state over which poses are interpolated.
        max_wrist_skew_s: furthest that the wrist picture may be from the external one.
    """

    outcomes: tuple[str, ...] | None = (SUCCESS,)
    namespace: str | None = None
    max_state_gap_s: float = 0.25
    max_wrist_skew_s: float = 0.1


class BagReader:
    """The bags at or below a folder; see EpisodeReader.

    Raises:
        DataFileError: there is no bag.
    """

    def __init__(self, root: str | Path, rules: BagRules | None = None):
        self._root, self._rules = Path(root), rules or BagRules()
        self._bags = find_bags(self._root)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self._root.resolve().name

    def __len__(self) -> int:
        return len(self._bags)

    def read(self, index: int) -> Episode:
        """Episode `index`. Raises DataFileError, EpisodeError or IndexError."""
        folder = self._bags[index]
        place = {"dataset": self.name, "file": folder.name, "index": str(index)}
        with open_bag(folder, self._rules.namespace) as bag:
            words = custom_data(folder)
            self._check_outcome(words.get("outcome"), folder)
            try:
                return _episode(bag, words, place, self._rules)
            except EpisodeError as error:
                said = str(error)
                named = said if said.startswith(self.name) else f"{folder}: {said}"
                raise EpisodeError(named) from None

    def _check_outcome(self, outcome: str | None, folder: Path) -> None:
        if self._rules.outcomes is not None and outcome not in self._rules.outcomes:
            said = f"is {outcome}" if outcome else "was not recorded"
            raise EpisodeError(
                f"{folder}: the trial's outcome {said}; only {', '.join(self._rules.outcomes)} is "
                "used unless other outcomes are asked for"
            )


def _episode(bag: BagFolder, words: dict[str, str], place: dict, rules: BagRules) -> Episode:
    states = [_state(message) for message in bag.messages("ee_state")]
    if not states:
        raise EpisodeError("no ee_state: the driver was not recorded")
    stamps, measured, commands, openings, frames = zip(*states, strict=True)
    state_stamps = _increasing(np.array(stamps), "ee_state")
    keep = state_stamps.kept
    motion = TimedPoses(state_stamps.stamps_s, np.array(measured)[keep])
    commanded = TimedPoses(state_stamps.stamps_s, np.array(commands)[keep])

    pictures = _pictures(bag, "external")
    if not pictures:
        raise EpisodeError("no picture of the external camera")
    seen = _increasing(np.array([_seconds(m.header.stamp) for m in pictures]), "external camera")
    inside = (seen.stamps_s >= motion.stamps_s[0]) & (seen.stamps_s <= motion.stamps_s[-1])
    if not inside.any():
        raise EpisodeError("no picture was taken while ee_state was recorded: check the clocks")
    steps_s = seen.stamps_s[inside]
    _check_gaps(motion.stamps_s, steps_s, rules.max_state_gap_s)
    external = [pictures[i] for i in np.flatnonzero(seen.kept)[inside]]
    images = {"external": _video(external, "external")}
    if wrist := _pictures(bag, "wrist"):
        images["wrist"] = _video(_nearest(wrist, steps_s, rules.max_wrist_skew_s), "wrist")

    opening = np.interp(steps_s, motion.stamps_s, np.clip(np.array(openings)[keep], 0, 1))
    known = {key: words[key] for key in ("trial_id", "outcome", "engine", "seed") if key in words}
    return Episode(
        stamps_s=steps_s,
        poses=motion.at(steps_s),
        command_poses=commanded.at(steps_s),
        gripper_openings=opening,
        gripper_commands=_gripper_commands(bag, steps_s, opening),
        instruction=words.get("instruction") or _spoken_instruction(bag),
        images=images,
        robot=frames[0].removesuffix("_base"),
        source=place | known,
    )


@dataclass(frozen=True)
class _Stamps:
    stamps_s: NDArray
    kept: NDArray  # of the messages, without those that repeat a stamp


def _increasing(stamps_s: NDArray, what: str) -> _Stamps:
    steps = np.diff(stamps_s)
    if (steps < 0).any():
        first = int(np.argmax(steps < 0))
        raise EpisodeError(
            f"the stamps of {what} run backwards after message {first} "
            f"({stamps_s[first]:.3f} s, then {stamps_s[first + 1]:.3f} s): the clock was reset "
            "while it was recorded"
        )
    kept = np.concatenate([[True], steps > 0])
    return _Stamps(stamps_s[kept], kept)


def _check_gaps(state_stamps_s: NDArray, steps_s: NDArray, longest_s: float) -> None:
    gaps = np.diff(state_stamps_s)
    for gap in np.flatnonzero(gaps > longest_s):
        begin, end = state_stamps_s[gap], state_stamps_s[gap + 1]
        if ((steps_s > begin) & (steps_s < end)).any():
            raise EpisodeError(
                f"no ee_state from {begin:.3f} to {end:.3f} s: where the arm was then is not known"
            )


def _pictures(bag: BagFolder, camera: str) -> list:
    compressed = f"{camera}/image_raw/compressed"
    return list(bag.messages(compressed if bag.has(compressed) else f"{camera}/image_raw"))


def _nearest(pictures: list, steps_s: NDArray, furthest_s: float) -> list:
    """The picture nearest in time to each step."""
    stamps = np.array([_seconds(message.header.stamp) for message in pictures])
    order = np.argsort(stamps, kind="stable")
    after = np.clip(np.searchsorted(stamps[order], steps_s), 1, max(1, len(stamps) - 1))
    pair = np.minimum(np.stack([after - 1, after]), len(stamps) - 1)
    distance = np.abs(stamps[order][pair] - steps_s)
    chosen = order[np.where(distance[0] <= distance[1], pair[0], pair[1])]
    off = distance.min(axis=0)
    if (off > furthest_s).any():
        step = int(np.argmax(off > furthest_s))
        raise EpisodeError(
            f"step {step} has no wrist picture within {furthest_s:g} s (the nearest is "
            f"{off[step]:.3f} s away): the wrist camera stopped"
        )
    return [pictures[i] for i in chosen]


def _gripper_commands(bag: BagFolder, steps_s: NDArray, opening: NDArray) -> NDArray:
    """What was in force at each step; what was measured before the first command."""
    commands = [
        (_seconds(message.header.stamp), message.gripper_opening)
        for message in bag.messages("command")
        if len(message.knots)
    ]
    if not commands:
        return (opening >= 0.5).astype(float)
    stamps, wanted = np.array(sorted(commands)).T
    last = np.searchsorted(stamps, steps_s, side="right") - 1
    before = (opening >= 0.5).astype(float)
    return np.where(last >= 0, np.clip(wanted[np.maximum(last, 0)], 0, 1), before)


def _spoken_instruction(bag: BagFolder) -> str:
    sentences = {message.data.strip() for message in bag.messages("instruction")} - {""}
    if len(sentences) > 1:
        raise EpisodeError(f"{len(sentences)} different instructions in one bag: record trials")
    return sentences.pop() if sentences else ""


def _video(messages: list, camera: str) -> EncodedVideo:
    decode = partial(rgb_of_message, topic=camera, bridge=CvBridge(None, None))
    return EncodedVideo(messages, decode)


def _state(message) -> tuple:
    poses = [_pose(message.measured), _pose(message.commanded)]
    stamp_s = _seconds(message.header.stamp)
    return stamp_s, *poses, message.gripper_opening, message.header.frame_id


def _pose(pose) -> list[float]:
    p, q = pose.position, pose.orientation
    return [p.x, p.y, p.z, q.x, q.y, q.z, q.w]


def _seconds(stamp) -> float:
    return stamp.sec + stamp.nanosec * 1e-9


# What a store of our own trials says about itself ---------------------------------------------

# The rate and the robot are those of some bags, spread over all of them.
PROBED_BAGS = 5
# A rate nearer to a whole number than this is that number.
WHOLE_HZ = 0.02


def store_metadata(root: str | Path, rules: BagRules | None = None) -> StoreMetadata:
    """The metadata of the store that the bags at or below `root` are imported to.

    Pictures of our cameras have square pixels; commands of the arm and the gripper are recorded.

    Raises:
        DataFileError: there is no bag, not one of those that are probed can be used, or they
            are of different robots.
    """
    rules = rules or BagRules()
    bags = find_bags(Path(root))
    reader = BagReader(root, rules)
    episodes = _probed(reader, root)
    robots = sorted({episode.robot for episode in episodes})
    if len(robots) > 1:
        raise DataFileError(
            f"{root}: bags of {' and '.join(robots)}: a store is of one robot; import them apart"
        )
    cameras = (EXTERNAL, WRIST) if _any_wrist(bags, rules.namespace) else (EXTERNAL,)
    return StoreMetadata(
        name=reader.name,
        robot=robots[0],
        control_hz=control_hz(episodes),
        cameras=tuple(CameraMetadata(name) for name in cameras),
        action_from="commanded",
        gripper_from="commanded",
        reader="rosbag2 of our own trials",
        source={
            "outcomes": "any" if rules.outcomes is None else list(rules.outcomes),
            "namespace": rules.namespace,
            "max_state_gap_s": rules.max_state_gap_s,
            "max_wrist_skew_s": rules.max_wrist_skew_s,
        },
    )


def control_hz(episodes: Sequence[Episode]) -> float:
    """Pictures a second: the median over all intervals of some episodes [1/s].

    Raises:
        DataFileError: none of them has two pictures.
    """
    intervals_s = np.concatenate([np.diff(episode.stamps_s) for episode in episodes])
    if not len(intervals_s):
        raise DataFileError("the bags hold one picture each: their rate is not known")
    hz = 1 / statistics.median(intervals_s.tolist())
    return float(round(hz)) if abs(hz - round(hz)) < WHOLE_HZ * hz else round(hz, 2)


def _probed(reader: BagReader, root: str | Path) -> list[Episode]:
    """A few sound episodes, from all over the folder."""
    found: list[Episode] = []
    first_reason = ""
    for index in np.random.default_rng(0).permutation(len(reader)).tolist():
        try:
            found.append(reader.read(index))
        except (DataFileError, EpisodeError) as error:
            first_reason = first_reason or str(error)
        if len(found) == PROBED_BAGS:
            break
    if not found:
        raise DataFileError(f"{root}: none of {len(reader)} bags can be used; {first_reason}")
    return found


def _any_wrist(bags: Sequence[Path], namespace: str | None) -> bool:
    """Whether one of the bags has pictures of the wrist camera; damaged ones are passed over."""
    for folder in bags:
        try:
            with open_bag(folder, namespace) as bag:
                if bag.has(f"{WRIST}/image_raw/compressed") or bag.has(f"{WRIST}/image_raw"):
                    return True
        except DataFileError:
            continue
    return False
