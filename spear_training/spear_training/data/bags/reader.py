"""Recordings of ROS as episodes: SPEAR's own trials, and bags of other recorders by their topics.

One picture of the external camera is one step; everything else is brought to its stamp: poses by
interpolation, the wrist picture nearest in time, the gripper command that was in force. Commanded
poses are the robot's own commanded pose, so a policy's recording and a teacher's are alike.

`BagReader` makes episodes of many bags, and `store_metadata` is what they make a store say about
itself.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spear_policy.inference.episode import LONGEST_GAP_S, Episode, EpisodeError
from spear_policy.inference.image_codec import CvBridge
from spear_policy.inference.observation import rgb_of_message
from spear_training.data.bags.folder import (
    METADATA,
    BagFolder,
    custom_data,
    find_bags,
    left_out,
    open_bag,
)
from spear_training.data.bags.motion import (
    BagMotion,
    BagTopics,
    covered,
    held_topics,
    increasing,
    other_motion,
    stamp_s,
    trial_motion,
)
from spear_training.data.oxe.table import plain
from spear_training.data.reader import DataFileError, EncodedVideo, outline
from spear_training.data.store.format import EXTERNAL, WRIST, CameraMetadata, StoreMetadata

# Episodes -------------------------------------------------------------------------------------

SUCCESS = "SUCCESS"


@dataclass(frozen=True)
class BagRules:
    """What a bag must be to become an episode.

    Attributes:
        outcomes: of trials that are used; None: all.
        namespace: of the robot, "" for none; None: the only one in the bag.
        max_state_gap_s: longest time without a pose over which poses are interpolated, where they
            usually come more often.
        max_wrist_skew_s: furthest that the wrist picture may be from the external one.
        topics: of another recorder; None: a trial of SPEAR.
        instruction: where neither the bag nor its metadata has one.
    """

    outcomes: tuple[str, ...] | None = (SUCCESS,)
    namespace: str | None = None
    max_state_gap_s: float = LONGEST_GAP_S
    max_wrist_skew_s: float = 0.1
    topics: BagTopics | None = None
    instruction: str = ""

    @property
    def action_from(self) -> str:
        """Whether commanded poses are recorded: "commanded" or "reached"."""
        reached = self.topics and self.topics.command == "reached"
        return "reached" if reached else "commanded"

    @property
    def gripper_from(self) -> str:
        """Whether gripper commands are recorded: "commanded" or "measured"."""
        measured = self.topics and self.topics.gripper_command == "from_measured"
        return "measured" if measured else "commanded"


class BagReader:
    """The bags at or below a folder; see EpisodeReader.

    Attributes:
        left_out: files that may be recordings too, but are not read.

    Raises:
        DataFileError: there is no bag.
    """

    def __init__(self, root: str | Path, rules: BagRules | None = None):
        self._root, self._rules = Path(root), rules or BagRules()
        self._bags = find_bags(self._root)
        self.left_out = left_out(self._root)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self._root.resolve().stem if self._root.is_file() else self._root.resolve().name

    def __len__(self) -> int:
        return len(self._bags)

    def read(self, index: int) -> Episode:
        """Episode `index`. Raises DataFileError, EpisodeError or IndexError."""
        path = self._bags[index]
        place = {"dataset": self.name, "file": path.name, "index": str(index)}
        with open_bag(path, self._rules.namespace) as bag:
            words = custom_data(path)
            try:
                if not bag.topics:
                    folder = path if path.is_dir() else path.parent
                    raise EpisodeError(
                        "it lists no message; if it was torn, find them with: "
                        f"ros2 run spear_bringup bag_repair {folder}"
                    )
                if not (self._rules.topics or bag.has("ee_state")):
                    raise EpisodeError(
                        "no ee_state: the driver was not recorded, or another recorder wrote it "
                        "(say with --topics which topics hold what); it has "
                        f"{held_topics(bag)}"
                    )
                self._check_outcome(words.get("outcome"), path)
                return _episode(bag, words, place, self._rules)
            except EpisodeError as error:
                said = str(error).removeprefix(f"{self.name} {path.name} episode {index}: ")
                raise EpisodeError(f"{path}: {said}") from None

    def _check_outcome(self, outcome: str | None, path: Path) -> None:
        if self._rules.outcomes is not None and outcome not in self._rules.outcomes:
            said = f"is {outcome}" if outcome else "was not recorded"
            if path.is_dir() and not (path / METADATA).exists():
                said += " (it was never closed; fix it with: "
                said += f"ros2 run spear_bringup bag_repair {path})"
            raise EpisodeError(
                f"the trial's outcome {said}; only {', '.join(self._rules.outcomes)} is "
                "used unless --outcomes asks for others"
            )


def _episode(bag: BagFolder, words: dict[str, str], place: dict, rules: BagRules) -> Episode:
    topics = rules.topics
    motion = other_motion(bag, topics) if topics else trial_motion(bag)
    stamps_s, pictures = _pictures(bag, EXTERNAL, topics)
    if not pictures:
        raise EpisodeError(f"no picture of the external camera{_held(bag)}")
    known = _known(motion, stamps_s, rules.max_state_gap_s)
    steps_s = stamps_s[known]
    if not known.any():
        raise EpisodeError("no picture was taken while poses were recorded: check the clocks")
    images = {EXTERNAL: _video([pictures[i] for i in np.flatnonzero(known)], EXTERNAL)}
    wrist_stamps_s, wrist = _pictures(bag, WRIST, topics)
    if wrist:
        nearest = _nearest(wrist_stamps_s, steps_s, rules.max_wrist_skew_s)
        images[WRIST] = _video([wrist[i] for i in nearest], WRIST)
    opening = np.interp(steps_s, motion.opening.stamps_s, motion.opening.values)
    (_, instruction), *later = _instructions(bag, words, rules, steps_s)
    kept = {key: words[key] for key in ("trial_id", "outcome", "engine", "seed") if key in words}
    within = (stamps_s >= steps_s[0]) & (stamps_s <= steps_s[-1])
    holes = int((within & ~known).sum())
    return Episode(
        stamps_s=steps_s,
        poses=motion.measured.at(steps_s),
        command_poses=None if motion.commanded is None else motion.commanded.at(steps_s),
        gripper_openings=opening,
        gripper_commands=_gripper_commands(motion, steps_s, opening),
        instruction=instruction,
        later_instructions=tuple(later),
        images=images,
        robot=motion.robot,
        source=place | kept,
        notes=f"{holes} pictures are left out: poses are missing around them." if holes else "",
        left_out=holes,
    )


def _known(motion: BagMotion, times_s: NDArray, gap_s: float) -> NDArray:
    """At which times (T,) everything that is interpolated was recorded."""
    streams = [motion.measured.stamps_s, motion.opening.stamps_s]
    if motion.commanded is not None:
        streams.append(motion.commanded.stamps_s)
    return np.all([covered(times_s, stamps_s, gap_s) for stamps_s in streams], axis=0)


def _pictures(bag: BagFolder, camera: str, topics: BagTopics | None) -> tuple[NDArray, list]:
    """Stamps, increasing, and messages of a camera; none where the bag does not have it."""
    if topics:
        topic = topics.cameras.get(camera, "")
    else:
        compressed = f"{camera}/image_raw/compressed"
        topic = compressed if bag.has(compressed) else f"{camera}/image_raw"
    if not topic:
        return np.zeros(0), []
    received = [(stamp_s(message, at_s), message) for at_s, message in bag.received(topic)]
    stamps_s = np.array([stamp for stamp, _ in received])
    order = increasing(stamps_s, f"{camera} camera") if received else []
    return stamps_s[order], [received[i][1] for i in order]


def _held(bag: BagFolder) -> str:
    held = [name for name, kind in sorted(bag.topics.items()) if kind.endswith("Image")]
    return f"; it has pictures on {', '.join(held)}" if held else ""


def _nearest(stamps_s: NDArray, steps_s: NDArray, furthest_s: float) -> NDArray:
    """The number (T,) of the picture nearest in time to each step."""
    after = np.clip(np.searchsorted(stamps_s, steps_s), 1, max(1, len(stamps_s) - 1))
    pair = np.minimum(np.stack([after - 1, after]), len(stamps_s) - 1)
    distance = np.abs(stamps_s[pair] - steps_s)
    off = distance.min(axis=0)
    if (off > furthest_s).any():
        step = int(np.argmax(off > furthest_s))
        raise EpisodeError(
            f"step {step} has no wrist picture within {furthest_s:g} s (the nearest is "
            f"{off[step]:.3f} s away): the wrist camera stopped"
        )
    return np.where(distance[0] <= distance[1], pair[0], pair[1])


def _gripper_commands(motion: BagMotion, steps_s: NDArray, opening: NDArray) -> NDArray | None:
    """What was in force at each step; what was measured before the first command."""
    before = (opening >= 0.5).astype(float)
    commands = motion.gripper_command
    if commands is None:
        return None
    last = np.searchsorted(commands.stamps_s, steps_s, side="right") - 1
    wanted = np.clip(commands.values, 0, 1)
    return np.where(last >= 0, wanted[np.maximum(last, 0)], before)


def _instructions(
    bag: BagFolder, words: dict[str, str], rules: BagRules, steps_s: NDArray
) -> list[tuple[int, str]]:
    """From which step on which sentence is the instruction."""
    if said := words.get("instruction", "").strip():
        return [(0, said)]
    topic = (rules.topics.instruction if rules.topics else "instruction") or None
    found: dict[int, str] = {}
    for at_s, message in bag.received(topic) if topic else ():
        step = int(np.searchsorted(steps_s, at_s)) if found else 0
        if message.data.strip() and step < len(steps_s):
            found[step] = message.data.strip()
    # The same sentence again is no other task.
    changes: list[tuple[int, str]] = []
    for step, sentence in found.items():
        if not changes or changes[-1][1] != sentence:
            changes.append((step, sentence))
    if not changes and not rules.instruction:
        raise EpisodeError("it has no instruction: give one with --instruction")
    return changes or [(0, rules.instruction)]


def _video(messages: list, camera: str) -> EncodedVideo:
    decode = partial(rgb_of_message, topic=camera, bridge=CvBridge(None, None))
    return EncodedVideo(messages, decode)


# What a store of bags says about itself -------------------------------------------------------

# The rate and the robot are those of some bags, spread over all of them.
PROBED_BAGS = 5
# So many that fail for the same reason speak for all.
MOST_ALIKE = 8
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
    cameras = (EXTERNAL, WRIST) if _any_wrist(bags, rules) else (EXTERNAL,)
    return StoreMetadata(
        name=reader.name,
        robot=robots[0],
        control_hz=control_hz(episodes),
        cameras=tuple(CameraMetadata(name) for name in cameras),
        action_from=rules.action_from,
        gripper_from=rules.gripper_from,
        reader="rosbag2 by its topics" if rules.topics else "rosbag2 of our own trials",
        source={
            "outcomes": "any" if rules.outcomes is None else list(rules.outcomes),
            "namespace": rules.namespace,
            "max_state_gap_s": rules.max_state_gap_s,
            "max_wrist_skew_s": rules.max_wrist_skew_s,
            **({"topics": plain(rules.topics)} if rules.topics else {}),
            **({"instruction": rules.instruction} if rules.instruction else {}),
            **({"left_out": reader.left_out} if reader.left_out else {}),
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
    reasons: list[str] = []
    for index in np.random.default_rng(0).permutation(len(reader)).tolist():
        try:
            found.append(reader.read(index))
        except (DataFileError, EpisodeError) as error:
            reasons.append(str(error))
        alike = len(reasons) >= MOST_ALIKE and len(set(map(outline, reasons))) == 1
        if len(found) == PROBED_BAGS or (alike and not found):
            break
    if not found:
        looked_at = f"none of {len(reasons)} bags" + " looked at" * (len(reasons) < len(reader))
        raise DataFileError(f"{root}: {looked_at} can be used; {reasons[0]}")
    return found


def _any_wrist(bags: Sequence[Path], rules: BagRules) -> bool:
    """Whether one of the bags has pictures of the wrist camera; damaged ones are passed over."""
    if rules.topics:
        return WRIST in rules.topics.cameras
    for folder in bags:
        try:
            with open_bag(folder, rules.namespace) as bag:
                if bag.has(f"{WRIST}/image_raw/compressed") or bag.has(f"{WRIST}/image_raw"):
                    return True
        except DataFileError:
            continue
    return False
