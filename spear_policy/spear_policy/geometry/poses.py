"""Poses, deltas between them, their recent history, and chunks of deltas.

A delta moves in the base frame and turns in the end-effector frame:
    position = anchor.position + translation,    orientation = anchor.orientation * rotation.
"""

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_policy.geometry import quaternions as quat


@dataclass(frozen=True, eq=False)
class Pose:
    """A pose in the base frame: position_m (3,), orientation_xyzw (4,) unit.

    Raises:
        ValueError: wrong shape, not finite, or no unit quaternion.
    """

    position_m: NDArray
    orientation_xyzw: NDArray

    def __post_init__(self):
        position = np.array(self.position_m, float)
        if position.shape != (3,) or not np.all(np.isfinite(position)):
            raise ValueError(f"position_m must be 3 finite numbers, got {position.tolist()}")
        orientation = np.array(self.orientation_xyzw, float)
        if orientation.shape != (4,):
            raise ValueError(f"orientation_xyzw must be 4 numbers, got {orientation.tolist()}")
        object.__setattr__(self, "position_m", position)
        object.__setattr__(self, "orientation_xyzw", quat.unit(orientation))


def apply_delta(anchor: Pose, translation_m: ArrayLike, rotation_xyzw: ArrayLike) -> Pose:
    """The pose that a delta leads to: translation in base axes, rotation in the anchor's axes."""
    return Pose(
        anchor.position_m + np.asarray(translation_m, float),
        quat.multiply(anchor.orientation_xyzw, quat.unit(rotation_xyzw)),
    )


def delta_between(anchor: Pose, target: Pose) -> tuple[NDArray, NDArray]:
    """The delta (translation_m (3,), rotation_xyzw (4,) with w >= 0) from `anchor` to `target`."""
    rotation = quat.multiply(quat.inverse(anchor.orientation_xyzw), target.orientation_xyzw)
    return target.position_m - anchor.position_m, quat.half_space(rotation)


def interpolate(a: Pose, b: Pose, t: float) -> Pose:
    """From a (t=0) to b (t=1): straight line and constant-speed shortest rotation."""
    position = a.position_m + t * (b.position_m - a.position_m)
    return Pose(position, quat.slerp(a.orientation_xyzw, b.orientation_xyzw, t))


def distance(a: Pose, b: Pose) -> tuple[float, float]:
    """(translation [m], rotation [rad]) between two poses."""
    translation = float(np.linalg.norm(b.position_m - a.position_m))
    return translation, float(quat.angle(a.orientation_xyzw, b.orientation_xyzw))


class PoseHistory:
    """Samples (stamp, measured pose, commanded pose) of the last `length_s` seconds.

    Not thread-safe: the owner locks.
    """

    def __init__(self, length_s: float = 3.0):
        self.length_s = length_s
        self._samples: deque[tuple[float, Pose, Pose]] = deque()

    def add(self, stamp_s: float, measured: Pose, commanded: Pose) -> None:
        """Append a sample; one that is not newer than the last starts the history anew.

        A stamp that goes back means that the clock was reset: poses from before it belong to
        another time.
        """
        if self._samples and stamp_s <= self._samples[-1][0]:
            if stamp_s == self._samples[-1][0]:
                return
            self._samples.clear()
        self._samples.append((stamp_s, measured, commanded))
        while self._samples[0][0] < stamp_s - self.length_s:
            self._samples.popleft()

    @property
    def newest(self) -> tuple[float, Pose, Pose] | None:
        """The newest sample, or None."""
        return self._samples[-1] if self._samples else None

    def at(self, stamp_s: float, slack_s: float = 0.0) -> tuple[Pose, Pose] | None:
        """(measured, commanded) at `stamp_s`, or None when the history does not cover it.

        Within `slack_s` before the first or after the last sample the nearest one is given.
        """
        samples = self._samples
        if not samples:
            return None
        first, last = samples[0], samples[-1]
        if not first[0] - slack_s <= stamp_s <= last[0] + slack_s:
            return None
        if stamp_s <= first[0]:
            return first[1:]
        if stamp_s >= last[0]:
            return last[1:]
        index = bisect_left(samples, stamp_s, key=lambda sample: sample[0])
        (t0, measured0, commanded0), (t1, measured1, commanded1) = (
            samples[index - 1],
            samples[index],
        )
        t = (stamp_s - t0) / (t1 - t0)
        return interpolate(measured0, measured1, t), interpolate(commanded0, commanded1, t)


# Action chunks: what engines answer with and drivers execute, and when each step is due ---------

GRIPPER_CLOSED, GRIPPER_OPEN = 0.0, 1.0


@dataclass(frozen=True, eq=False)
class Chunk:
    """Deltas of N steps, all relative to the same anchor; hostile numbers are allowed in here.

    The command gate judges a chunk, so this class holds what came without judging it.

    Attributes:
        stamp_s: observation time, node clock [s]; step k (1-based) is due at stamp_s + k * dt_s.
        dt_s: time between steps [s].
        translations_m: (N, 3), base frame.
        rotations_xyzw: (N, 4), end-effector frame of the anchor.
        gripper_openings: (N,), 0 closed .. 1 open.
        anchor_measured, anchor_commanded: (7,) position and xyzw at stamp_s, base frame.
        anchor_kind: "measured" or "commanded": which of the two the deltas start from.
    """

    stamp_s: float
    dt_s: float
    translations_m: NDArray
    rotations_xyzw: NDArray
    gripper_openings: NDArray
    anchor_measured: NDArray
    anchor_commanded: NDArray
    anchor_kind: str = "measured"
    chunk_id: int = 0
    source_id: str = ""
    final: bool = False

    @property
    def anchor(self) -> NDArray:
        """(7,) the anchor in use: position [m] and orientation xyzw."""
        measured = self.anchor_kind == "measured"
        return self.anchor_measured if measured else self.anchor_commanded

    def due_times_s(self) -> NDArray:
        """(N,) when each step is due, node clock [s]."""
        return self.stamp_s + self.dt_s * np.arange(1, len(self.translations_m) + 1)

    def targets(self) -> tuple[NDArray, NDArray]:
        """Absolute targets: positions (N, 3) [m] and orientations (N, 4) xyzw, base frame."""
        positions = self.anchor[:3] + self.translations_m
        return positions, quat.multiply(self.anchor[3:], self.rotations_xyzw)


def entry_step(stamp_s: float, dt_s: float, count: int, now_s: float) -> int:
    """Index (0-based) of the first step that is due after `now_s`; `count` when none is left.

    A chunk is entered where now is, never at its start: the steps in the past are gone.
    """
    # The small term keeps a step that is due exactly now out of the plan.
    return int(np.clip(np.floor((now_s - stamp_s) / dt_s + 1e-9), 0, count))


def chunk_from_poses(
    stamp_s: float,
    dt_s: float,
    measured: Pose,
    commanded: Pose,
    targets: list[Pose],
    gripper_openings,
    anchor_kind: str = "measured",
    final: bool = False,
) -> Chunk:
    """The chunk whose steps lead to `targets` (absolute, base frame) from the chosen anchor."""
    anchor = measured if anchor_kind == "measured" else commanded
    deltas = [delta_between(anchor, target) for target in targets]
    return Chunk(
        stamp_s=stamp_s,
        dt_s=dt_s,
        translations_m=np.array([t for t, _ in deltas]).reshape(-1, 3),
        rotations_xyzw=np.array([r for _, r in deltas]).reshape(-1, 4),
        gripper_openings=np.asarray(gripper_openings, float),
        anchor_measured=as_array(measured),
        anchor_commanded=as_array(commanded),
        anchor_kind=anchor_kind,
        final=final,
    )


def as_array(pose: Pose) -> NDArray:
    """A pose as (7,): position [m], orientation xyzw."""
    return np.concatenate([pose.position_m, pose.orientation_xyzw])
