"""What the motions of one data set look like, gathered episode by episode."""

from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.tracking import TimedPoses
from spear_policy.inference.episode import binary_gripper
from spear_training.data.statistics.sketch import Sketch
from spear_training.data.targets import ChunkTargets, chunk_targets

# A moment is idle when its whole chunk stays within these and the gripper does nothing.
IDLE_M, IDLE_RAD = 0.002, 0.01
# Faster than any of these arms can be told to move: a unit or a frame is wrong.
IMPLAUSIBLE_SPEED_M_S, IMPLAUSIBLE_SPEED_RAD_S = 2.0, 4.0
_MOST_OUTLIERS = 50


def _three() -> tuple[Sketch, Sketch, Sketch]:
    return Sketch(), Sketch(), Sketch()


@dataclass
class MotionStatistics:
    """Counts over all moments of a data set; parts of it are merged in any order.

    Attributes:
        translation: of the targets, x, y, z in the base frame [m], all steps of a chunk pooled.
        position: of the end effector, x, y, z in the base frame [m]; nothing where the data do
            not say where the robot stood.
        distance: of the last step of each chunk [m].
        turn: angle of the last step of each chunk [rad].
        episodes, moments: how many there are.
        idle_moments: whose chunk does not move, although the episode goes on.
        held_steps: steps of chunks after the end of their episode.
        open_steps: steps of chunks that tell the gripper to be open.
        gripper_changes: how often the gripper is told to open or close.
        implausible_episodes: with a speed that no arm has.
        outliers: some of these episodes, and their speed.
    """

    translation: tuple[Sketch, Sketch, Sketch] = field(default_factory=_three)
    position: tuple[Sketch, Sketch, Sketch] = field(default_factory=_three)
    distance: Sketch = field(default_factory=Sketch)
    turn: Sketch = field(default_factory=Sketch)
    episodes: int = 0
    moments: int = 0
    idle_moments: int = 0
    held_steps: int = 0
    open_steps: int = 0
    gripper_changes: int = 0
    implausible_episodes: int = 0
    outliers: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        name: str,
        measured: TimedPoses,
        told: TimedPoses,
        gripper_commands: ArrayLike,
        state_known: bool = True,
    ) -> None:
        """Count an episode; every sample of it is a moment. The name is for `outliers`.

        Args:
            name: of the episode.
            measured, told, gripper_commands: see `chunk_targets`.
            state_known: whether positions are more than sums of deltas.

        Raises:
            ValueError: stamps that do not belong together.
        """
        found = chunk_targets(measured, told, gripper_commands, measured.stamps_s)
        for axis in range(3):
            self.translation[axis].add(found.translations_m[..., axis])
            if state_known:
                self.position[axis].add(measured.poses[:, axis])
        distances = np.linalg.norm(found.translations_m, axis=-1)
        turns = quat.angle(found.rotations_xyzw)
        self.distance.add(distances[:, -1])
        self.turn.add(turns[:, -1])
        told_grip = binary_gripper(gripper_commands)
        self.episodes += 1
        self.moments += len(measured)
        self.idle_moments += int(_idle(found, distances, turns, told_grip).sum())
        self.held_steps += int((~found.recorded).sum())
        self.open_steps += int(found.grippers.sum())
        self.gripper_changes += int((np.diff(told_grip) != 0).sum())
        if why := _implausible(told):
            self.implausible_episodes += 1
            self._note(name, why)

    def merge(self, other: "MotionStatistics") -> None:
        """Take in another part of the same data set."""
        for name in ("translation", "position"):
            for mine, its in zip(getattr(self, name), getattr(other, name), strict=True):
                mine.merge(its)
        self.distance.merge(other.distance)
        self.turn.merge(other.turn)
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
        """Share of steps that tell the gripper to be open."""
        return self.open_steps / max(1, self.translation[0].count)

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return {
            "translation": [sketch.to_dict() for sketch in self.translation],
            "position": [sketch.to_dict() for sketch in self.position],
            "distance": self.distance.to_dict(),
            "turn": self.turn.to_dict(),
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
                distance=Sketch.from_dict(values["distance"]),
                turn=Sketch.from_dict(values["turn"]),
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


_COUNTS = [each.name for each in fields(MotionStatistics) if each.type in (int, "int")]


def _idle(found: ChunkTargets, distances: NDArray, turns: NDArray, grip: NDArray) -> NDArray:
    still = (distances < IDLE_M).all(axis=1) & (turns < IDLE_RAD).all(axis=1)
    grips = (found.grippers != grip[:, None]).any(axis=1)
    return still & ~grips & found.recorded[:, 0]


def _implausible(told: TimedPoses) -> str:
    if len(told) < 2:
        return ""
    seconds = np.diff(told.stamps_s)
    speeds = np.linalg.norm(np.diff(told.poses[:, :3], axis=0), axis=1) / seconds
    turns = quat.angle(told.poses[:-1, 3:], told.poses[1:, 3:]) / seconds
    if speeds.max() > IMPLAUSIBLE_SPEED_M_S:
        return f"{speeds.max():.1f} m/s after step {int(speeds.argmax())}"
    if turns.max() > IMPLAUSIBLE_SPEED_RAD_S:
        return f"{turns.max():.1f} rad/s after step {int(turns.argmax())}"
    return ""
