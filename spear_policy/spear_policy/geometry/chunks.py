"""An action chunk as numbers, and its clock: what engines answer with and drivers execute."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import Pose, delta_between

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
