"""Trials that SPEAR recorded, as episodes.

One picture of the external camera is one step; everything else is brought to its stamp: poses by
interpolation, the wrist picture nearest in time, the gripper command that was in force. Poses
that were told come from the robot's own commanded pose, so a policy's recording and a teacher's
are alike.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry.tracking import TimedPoses
from spear_policy.inference.decoding import decode
from spear_policy.inference.engine import CameraSpec
from spear_policy.inference.episode import Episode, EpisodeError
from spear_policy.inference.frame_buffer import Frame
from spear_policy.inference.image_codec import CvBridge
from spear_policy.inference.synchroniser import InputProblem
from spear_training.data.bags.bag_folder import BagFolder, custom_data, find_bags, open_bag
from spear_training.data.encoded_video import EncodedVideo

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
    stamps, measured, told, openings, frames = zip(*states, strict=True)
    state_stamps = _increasing(np.array(stamps), "ee_state")
    keep = state_stamps.kept
    motion = TimedPoses(state_stamps.stamps_s, np.array(measured)[keep])
    commanded = TimedPoses(state_stamps.stamps_s, np.array(told)[keep])

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
        instruction=words.get("instruction") or _spoken(bag),
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
    told = [
        (_seconds(message.header.stamp), message.gripper_opening)
        for message in bag.messages("command")
        if len(message.knots)
    ]
    if not told:
        return (opening >= 0.5).astype(float)
    stamps, wanted = np.array(sorted(told)).T
    last = np.searchsorted(stamps, steps_s, side="right") - 1
    before = (opening >= 0.5).astype(float)
    return np.where(last >= 0, np.clip(wanted[np.maximum(last, 0)], 0, 1), before)


def _spoken(bag: BagFolder) -> str:
    sentences = {message.data.strip() for message in bag.messages("instruction")} - {""}
    if len(sentences) > 1:
        raise EpisodeError(f"{len(sentences)} different instructions in one bag: record trials")
    return sentences.pop() if sentences else ""


def _video(messages: list, camera: str) -> EncodedVideo:
    bridge = CvBridge(None, None)

    def rgb(message) -> NDArray[np.uint8]:
        try:
            frame = {camera: Frame(message=message, stamp_s=0.0, received_s=0.0)}
            return decode(frame, (CameraSpec(camera, 0, 0),), {camera: camera}, bridge)[camera]
        except InputProblem as error:
            raise ValueError(str(error)) from None

    return EncodedVideo(messages, rgb)


def _state(message) -> tuple:
    poses = [_pose(message.measured), _pose(message.commanded)]
    stamp_s = _seconds(message.header.stamp)
    return stamp_s, *poses, message.gripper_opening, message.header.frame_id


def _pose(pose) -> list[float]:
    p, q = pose.position, pose.orientation
    return [p.x, p.y, p.z, q.x, q.y, q.z, q.w]


def _seconds(stamp) -> float:
    return stamp.sec + stamp.nanosec * 1e-9
