"""Motion statistics of a dataset: how far, how fast and how often its arm moves.

First the counts, added up episode by episode and merged in any order; then what is odd about a
dataset beside its mixture; counting a whole store by several processes; a quick look at some
episodes.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.tracking import TimedPoses
from spear_policy.inference.episode import binary_gripper
from spear_policy.inference.statistics import Statistics, narrow_axes
from spear_policy.shared.files import write_atomically
from spear_policy.shared.workers import process_pool
from spear_training.data.reader import spread
from spear_training.data.statistics.sketch import Sketch
from spear_training.data.store.reader import EpisodeMotion, FrameStore, episode_motion
from spear_training.data.targets import DT_S, STEPS, ChunkTargets, chunk_targets, moments

# A moment is idle when its whole chunk stays within these and the gripper does nothing.
IDLE_M, IDLE_RAD = 0.002, 0.01
# Faster than any of these arms can be commanded to move: a unit or a frame is wrong.
IMPLAUSIBLE_SPEED_M_S, IMPLAUSIBLE_SPEED_RAD_S = 2.0, 4.0
# A gripper moves this much of its way within so many seconds of a command.
GRIPPER_MOVES, GRIPPER_S = 0.1, 1.0
_MOST_OUTLIERS = 50


def _three() -> tuple[Sketch, Sketch, Sketch]:
    return Sketch(), Sketch(), Sketch()


@dataclass
class MotionStatistics:
    """Counts over all moments of a dataset; parts of it are merged in any order.

    Attributes:
        translation: of the targets, x, y, z in the base frame [m], all steps of a chunk pooled.
        position: of the end effector, x, y, z in the base frame [m]; nothing where the data do
            not say where the robot stood.
        distance: of the last step of each chunk [m].
        turn: angle of the last step of each chunk [rad].
        lead: how far the commanded position is from the measured one of the same frame [m], and
        lead_turn: their angle [rad]; nothing where commands are not recorded.
        episodes, moments: how many there are.
        idle_moments: whose chunk does not move, although the episode goes on.
        held_steps: steps of chunks after the end of their episode.
        open_steps: steps of chunks that command an open gripper.
        gripper_changes: how often the gripper is commanded to open or close.
        gripper_followed, gripper_opposed: how often it was measured to move the same way within a
            second, and the other way.
        implausible_episodes: with a speed that no arm has.
        outliers: some of these episodes, and their speed.
    """

    translation: tuple[Sketch, Sketch, Sketch] = field(default_factory=_three)
    position: tuple[Sketch, Sketch, Sketch] = field(default_factory=_three)
    distance: Sketch = field(default_factory=Sketch)
    turn: Sketch = field(default_factory=Sketch)
    lead: Sketch = field(default_factory=Sketch)
    lead_turn: Sketch = field(default_factory=Sketch)
    episodes: int = 0
    moments: int = 0
    idle_moments: int = 0
    held_steps: int = 0
    open_steps: int = 0
    gripper_changes: int = 0
    gripper_followed: int = 0
    gripper_opposed: int = 0
    implausible_episodes: int = 0
    outliers: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        name: str,
        measured: TimedPoses,
        commanded: TimedPoses,
        gripper_commands: ArrayLike,
        state_known: bool = True,
        continues: bool = False,
        openings: NDArray | None = None,
    ) -> None:
        """Count an episode by its moments, see `targets.moments`. The name is for `outliers`.

        Args:
            name: of the episode.
            measured, commanded, gripper_commands: see `chunk_targets`.
            state_known: whether positions are more than sums of deltas.
            continues: whether the motion went on after the last stamp.
            openings: (T,) measured, where commands are to be compared with them.

        Raises:
            ValueError: stamps that do not belong together.
        """
        known = moments(measured.stamps_s, continues)
        at_s = measured.stamps_s[:known]
        found = chunk_targets(measured, commanded, gripper_commands, at_s)
        for axis in range(3):
            self.translation[axis].add(found.translations_m[..., axis])
            if state_known:
                self.position[axis].add(measured.poses[:, axis])
        distances = np.linalg.norm(found.translations_m, axis=-1)
        turns = quat.angle(found.rotations_xyzw)
        self.distance.add(distances[:, -1])
        self.turn.add(turns[:, -1])
        grip_commands = binary_gripper(gripper_commands)
        self.episodes += 1
        self.moments += known
        self.idle_moments += int(_idle(found, distances, turns, grip_commands[:known]).sum())
        self.held_steps += int((~found.recorded).sum())
        self.open_steps += int(found.grippers.sum())
        if commanded is not measured:
            apart = commanded.poses[:, :3] - measured.poses[:, :3]
            self.lead.add(np.linalg.norm(apart, axis=1))
            self.lead_turn.add(quat.angle(measured.poses[:, 3:], commanded.poses[:, 3:]))
        changes = np.flatnonzero(np.diff(grip_commands)) + 1
        self.gripper_changes += len(changes)
        if openings is not None:
            self._compare_gripper(measured.stamps_s, grip_commands, changes, openings)
        if why := _implausible(commanded):
            self.implausible_episodes += 1
            self._note(name, why)

    def _compare_gripper(
        self, stamps_s: NDArray, commands: NDArray, changes: NDArray, openings: NDArray
    ) -> None:
        """Count whether the measured gripper moves as it is commanded, within a second."""
        until = np.searchsorted(stamps_s, stamps_s[changes] + GRIPPER_S)
        until = np.minimum(until, np.append(changes[1:], len(stamps_s) - 1)[: len(changes)])
        moved = openings[until] - openings[changes - 1]
        wanted = commands[changes] - commands[changes - 1]
        clear = np.abs(moved) > GRIPPER_MOVES
        self.gripper_followed += int((clear & (moved * wanted > 0)).sum())
        self.gripper_opposed += int((clear & (moved * wanted < 0)).sum())

    def merge(self, other: "MotionStatistics") -> None:
        """Take in another part of the same dataset."""
        for name in ("translation", "position"):
            for mine, its in zip(getattr(self, name), getattr(other, name), strict=True):
                mine.merge(its)
        for name in _SKETCHES:
            getattr(self, name).merge(getattr(other, name))
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, why in other.outliers.items():
            self._note(name, why)

    @property
    def idle_share(self) -> float:
        """Share of moments whose chunk does not move."""
        return self.idle_moments / max(1, self.moments)

    @property
    def open_share(self) -> float:
        """Share of steps that command an open gripper."""
        return self.open_steps / max(1, self.translation[0].count)

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return {
            "translation": [sketch.to_dict() for sketch in self.translation],
            "position": [sketch.to_dict() for sketch in self.position],
            **{name: getattr(self, name).to_dict() for name in _SKETCHES},
            **{name: getattr(self, name) for name in _COUNTS},
            "outliers": dict(sorted(self.outliers.items())),
        }

    @classmethod
    def from_dict(cls, values: dict) -> "MotionStatistics":
        """Read what `to_dict` wrote.

        Raises:
            ValueError: something is missing or foreign.
        """
        try:
            return cls(
                translation=tuple(Sketch.from_dict(part) for part in values["translation"]),
                position=tuple(Sketch.from_dict(part) for part in values["position"]),
                **{name: Sketch.from_dict(values[name]) for name in _SKETCHES},
                outliers={str(key): str(why) for key, why in values["outliers"].items()},
                **{name: int(values[name]) for name in _COUNTS},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no statistics ({type(error).__name__}: {error})") from None

    def _note(self, name: str, why: str) -> None:
        """Keep the first few by name, so that the order of gathering does not matter."""
        self.outliers[name] = why
        for last in sorted(self.outliers)[_MOST_OUTLIERS:]:
            del self.outliers[last]


_SKETCHES = ("distance", "turn", "lead", "lead_turn")
_COUNTS = [each.name for each in fields(MotionStatistics) if each.type in (int, "int")]


def _idle(found: ChunkTargets, distances: NDArray, turns: NDArray, grip: NDArray) -> NDArray:
    still = (distances < IDLE_M).all(axis=1) & (turns < IDLE_RAD).all(axis=1)
    grips = (found.grippers != grip[:, None]).any(axis=1)
    return still & ~grips & found.recorded[:, 0]


def _implausible(commanded: TimedPoses) -> str:
    if len(commanded) < 2:
        return ""
    seconds = np.diff(commanded.stamps_s)
    speeds = np.linalg.norm(np.diff(commanded.poses[:, :3], axis=0), axis=1) / seconds
    turns = quat.angle(commanded.poses[:-1, 3:], commanded.poses[1:, 3:]) / seconds
    if speeds.max() > IMPLAUSIBLE_SPEED_M_S:
        return f"{speeds.max():.1f} m/s after step {int(speeds.argmax())}"
    if turns.max() > IMPLAUSIBLE_SPEED_RAD_S:
        return f"{turns.max():.1f} rad/s after step {int(turns.argmax())}"
    return ""


# Oddities: what to look at before training -----------------------------------------------------


@dataclass(frozen=True)
class OddityLimits:
    """Beyond what a dataset is pointed out.

    Attributes:
        outside_share: of its translations outside the mixture's 1 % .. 99 %.
        size_ratio: of its median motion in a second to the mixture's, either way.
        reach_m: of its positions from one end of an axis to the other.
        turn_rad: that 1 % of its chunks exceed.
        open_share: of steps with the gripper open, or closed: it hardly ever moves.
        idle_share: of moments at which nothing moves.
        lead_m, lead_rad: between the commanded and the measured pose of a frame, in the median.
    """

    outside_share: float = 0.15
    size_ratio: float = 5.0
    reach_m: float = 2.5
    turn_rad: float = 2.0
    open_share: float = 0.98
    idle_share: float = 0.3
    lead_m: float = 0.15
    lead_rad: float = 0.5


@dataclass(frozen=True)
class Oddity:
    """One thing about one dataset, and what it may mean."""

    dataset: str
    text: str


def oddities(
    motions: Mapping[str, MotionStatistics],
    pooled: Statistics,
    limits: OddityLimits | None = None,
) -> list[Oddity]:
    """Everything worth a look, by dataset.

    Args:
        motions: of each dataset.
        pooled: of the mixture.
    """
    limits = limits or OddityLimits()
    medians = {name: motion.distance.quantile(0.5) for name, motion in motions.items()}
    typical = float(np.median(list(medians.values())))
    found = []
    for name in sorted(motions):
        motion = motions[name]
        texts = [
            *_outside(motion, pooled, limits),
            *_size(medians[name], typical, limits, alone=len(motions) == 1),
            *_reach(motion, limits),
            *_gripper(motion, limits),
            *_lead(motion, limits),
        ]
        turn = motion.turn.quantile(0.99)
        if turn > limits.turn_rad:
            texts.append(
                f"1 % of the chunks turn by more than {turn:.1f} rad in their last step: check "
                "the unit and the order of the angles, or of the quaternion"
            )
        if motion.idle_share > limits.idle_share:
            texts.append(
                f"nothing moves at {100 * motion.idle_share:.0f} % of the moments: the model "
                "learns to wait; cut the recordings shorter"
            )
        if motion.implausible_episodes:
            first = next(iter(sorted(motion.outliers.items())))
            texts.append(
                f"{motion.implausible_episodes} of {motion.episodes} episodes move faster than an "
                f"arm can, e.g. {first[0]}: {first[1]}"
            )
        found += [Oddity(name, text) for text in texts]
    return found + [Oddity("mixture", text) for text in narrow_axes(pooled)]


def _outside(motion: MotionStatistics, pooled: Statistics, limits: OddityLimits) -> list[str]:
    texts = []
    low_high = zip(pooled.translation.low, pooled.translation.high, strict=True)
    for axis, sketch, (low, high) in zip("xyz", motion.translation, low_high, strict=True):
        share = 1 - sketch.share_between(low, high)
        if share > limits.outside_share:
            texts.append(
                f"{100 * share:.0f} % of its translations along {axis} are outside the mixture's "
                f"{low:.3f}..{high:.3f} m"
            )
    return texts


def _size(median: float, typical: float, limits: OddityLimits, alone: bool) -> list[str]:
    if alone or median <= 0 or typical <= 0:
        return []
    ratio = median / typical
    if 1 / limits.size_ratio <= ratio <= limits.size_ratio:
        return []
    return [
        f"its median motion in a second is {ratio:.2g} times the other datasets': check the unit "
        "of its positions and its rate"
    ]


def _reach(motion: MotionStatistics, limits: OddityLimits) -> list[str]:
    texts = []
    for axis, sketch in zip("xyz", motion.position, strict=True):
        if not sketch.count:
            continue
        reach = sketch.quantile(0.99) - sketch.quantile(0.01)
        if reach > limits.reach_m:
            texts.append(
                f"its positions span {reach:.1f} m along {axis}, more than an arm reaches: check "
                "their unit and frame"
            )
    return texts


def _gripper(motion: MotionStatistics, limits: OddityLimits) -> list[str]:
    texts = []
    share = motion.open_share
    state = "open" if share >= 0.5 else "closed"
    if max(share, 1 - share) > limits.open_share:
        texts.append(
            f"the gripper is commanded to be {state} in {100 * max(share, 1 - share):.1f} % of the "
            "steps: check which end of its numbers is open"
        )
    if motion.gripper_opposed > motion.gripper_followed:
        both = motion.gripper_opposed + motion.gripper_followed
        texts.append(
            f"the measured gripper moves against its command {motion.gripper_opposed} times of "
            f"{both}: closed and open are exchanged in one of the two"
        )
    return texts


def _lead(motion: MotionStatistics, limits: OddityLimits) -> list[str]:
    if not motion.lead.count:
        return []
    apart_m, apart_rad = motion.lead.quantile(0.5), motion.lead_turn.quantile(0.5)
    texts = []
    if apart_m > limits.lead_m:
        unit = ": one of them is in mm" if apart_m > 10 else ": check their units and frames"
        texts.append(
            f"commanded positions are {apart_m:.3g} m from the measured ones (median){unit}"
        )
    if apart_rad > limits.lead_rad:
        texts.append(
            f"commanded orientations are {apart_rad:.2f} rad from the measured ones (median): "
            "check the order of quaternions (xyzw, wxyz), the unit and order of angles, and that "
            "both are of the same frame of the hand"
        )
    return texts


# Counting a whole store ------------------------------------------------------------------------


KEPT = "meta/spear_motion.json"
VERSION = 3  # of what is counted; statistics kept by another are gathered anew
_EPISODES_A_TASK = 64


def kept_statistics(store: FrameStore) -> MotionStatistics | None:
    """What an earlier run kept beside the store; None where it does not fit any more."""
    try:
        values = json.loads((store.root / KEPT).read_text())
        if values["made_for"] != _made_for(store):
            return None
        return MotionStatistics.from_dict(values["statistics"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def gather(store: FrameStore, workers: int = 0) -> Iterator[tuple[int, MotionStatistics]]:
    """Count every moment of a store, part by part.

    Args:
        store: what is read; pictures are not.
        workers: processes; 0 counts in this one.

    Yields:
        how many episodes are counted, and the statistics so far; the last are the whole.

    Raises:
        DataFileError: an episode has numbers that no episode can have.
    """
    tasks = [
        range(begin, min(begin + _EPISODES_A_TASK, len(store.episodes)))
        for begin in range(0, len(store.episodes), _EPISODES_A_TASK)
    ]
    found, done = MotionStatistics(), 0
    for task, part in zip(tasks, _parts(store, tasks, workers), strict=True):
        found.merge(part)
        done += len(task)
        yield done, found


def keep(store: FrameStore, statistics: MotionStatistics) -> None:
    """Keep what was gathered beside the store. Raises OSError."""
    values = {"made_for": _made_for(store), "statistics": statistics.to_dict()}
    write_atomically(store.root / KEPT, json.dumps(values).encode())


def _parts(store: FrameStore, tasks: list[range], workers: int) -> Iterator[MotionStatistics]:
    if not workers or len(tasks) < 2:
        yield from (_count(store.root, task, store) for task in tasks)
        return
    with process_pool(min(workers, len(tasks))) as pool:
        yield from pool.map(_count, repeat(store.root), tasks)


def _count(root: Path, episodes: range, store: FrameStore | None = None) -> MotionStatistics:
    store = store or FrameStore(root)
    found, known = MotionStatistics(), store.metadata.state_known
    for episode in episodes:
        motion = episode_motion(store, episode)
        name = f"{store.metadata.name} episode {episode}"
        _add(found, name, motion, known)
    return found


def _add(statistics: MotionStatistics, name: str, motion: EpisodeMotion, known: bool) -> None:
    statistics.add(
        name,
        motion.measured,
        motion.commanded,
        motion.commands,
        known,
        motion.continues,
        motion.openings,
    )


def _made_for(store: FrameStore) -> dict:
    """What the statistics depend on."""
    return {
        "version": VERSION,
        "frames": len(store),
        "row_hash": store.metadata.row_hash,
        "action_from": store.metadata.action_from,
        "steps": STEPS,
        "dt_s": DT_S,
    }


# Some episodes of a store, for a quick look -----------------------------------------------------

MOST_FRAMES = 30_000  # a second or two of counting


@dataclass(frozen=True, eq=False)
class MotionSample:
    """What the motions of a store look like.

    Attributes:
        motion: counts over all moments of the episodes that were counted.
        whole: whether these are all.
        interval_s: median time between two frames [s]; NaN where no episode has two.
        longest_gap_s: between two frames of an episode [s].
    """

    motion: MotionStatistics
    whole: bool
    interval_s: float
    longest_gap_s: float


def sample_motion(store: FrameStore, most_frames: int = MOST_FRAMES) -> MotionSample:
    """Count some episodes; all of them where `stats` has counted them already or they are few.

    Raises:
        DataFileError: an episode has numbers that no episode can have.
    """
    share = min(1.0, most_frames / len(store))
    chosen = spread(range(len(store.episodes)), max(1, int(share * len(store.episodes))))
    kept = kept_statistics(store)
    motion, intervals_s = kept or MotionStatistics(), []
    for episode in chosen:
        found = episode_motion(store, episode)
        intervals_s.append(np.diff(found.measured.stamps_s))
        if kept is None:
            name = f"{store.metadata.name} episode {episode}"
            _add(motion, name, found, store.metadata.state_known)
    intervals = np.concatenate(intervals_s)
    return MotionSample(
        motion,
        motion.episodes == len(store.episodes),
        float(np.median(intervals)) if len(intervals) else float("nan"),
        float(intervals.max(initial=0.0)),
    )
