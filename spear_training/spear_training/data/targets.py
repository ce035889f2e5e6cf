"""The targets of a model: the chunk at a moment of an episode.

For the moment t of a frame and step k = 1..5

    translation_k = p(t + 0.2 k) - p(t)              in the base frame [m]
    rotation_k    = q(t)^-1 q(t + 0.2 k)             in the end effector's frame at t, w >= 0
    gripper_k     = the last gripper command at t + 0.2 k, open or closed

where t + 0.2 k reads the commanded poses, if they were recorded, and t the measured ones. Between
two samples positions are linear and orientations take the shortest rotation, whatever rate they
were recorded at; after the last sample everything stays as it was. Every frame of an episode is
such a moment: nothing is thinned out, but for the last second of an episode that goes on where
nothing was recorded (`moments`).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.tracking import TimedPoses
from spear_policy.inference.episode import binary_gripper

STEPS, DT_S = 5, 0.2
Reference = Literal["anchor", "previous"]
REFERENCES = ("anchor", "previous")


@dataclass(frozen=True, eq=False)
class ChunkTargets:
    """The chunks at A moments of one episode, N steps each.

    Attributes:
        translations_m: (A, N, 3), base frame.
        rotations_xyzw: (A, N, 4), w >= 0, end-effector frame of what the step starts from.
        grippers: (A, N), 0 closed or 1 open.
        recorded: (A, N) bool, False for steps after the end of the episode, which hold its last
            pose.
    """

    translations_m: NDArray
    rotations_xyzw: NDArray
    grippers: NDArray
    recorded: NDArray


def chunk_targets(
    measured: TimedPoses,
    commanded: TimedPoses,
    gripper_commands: ArrayLike,
    moments_s: ArrayLike,
    steps: int = STEPS,
    dt_s: float = DT_S,
    reference: Reference = "anchor",
) -> ChunkTargets:
    """The chunks at some moments of one episode.

    Args:
        measured: where the end effector was; the deltas start from it.
        commanded: where it was commanded to be at the same stamps, or `measured` where nobody
            recorded that.
        gripper_commands: (T,) at the stamps, 0 closed .. 1 open; `binary_gripper` decides
            what lies between.
        moments_s: (A,) on the clock of the stamps.
        steps, dt_s: of a chunk.
        reference: anchor: every step starts from the pose at its moment, as the wire has it.
            previous: each step starts from the one before.

    Raises:
        ValueError: shapes or stamps that do not belong together, a moment outside the episode,
            or an unknown reference.
    """
    stamps, moments = measured.stamps_s, np.asarray(moments_s, float)
    commands = np.asarray(gripper_commands, float)
    if not np.array_equal(stamps, commanded.stamps_s) or commands.shape != stamps.shape:
        raise ValueError(
            "measured poses, commanded poses and gripper commands need the same stamps"
        )
    if moments.ndim != 1 or not ((moments >= stamps[0]) & (moments <= stamps[-1])).all():
        raise ValueError(f"moments must be a list within {stamps[0]:g}..{stamps[-1]:g} s")
    if reference not in REFERENCES:
        raise ValueError(f"the reference is {reference!r}: it may be {' or '.join(REFERENCES)}")
    due = moments[:, None] + dt_s * np.arange(1, steps + 1)
    targets = commanded.at(due.ravel()).reshape(*due.shape, 7)
    starts = np.broadcast_to(measured.at(moments)[:, None], targets.shape)
    if reference == "previous":
        starts = np.concatenate([starts[:, :1], targets[:, :-1]], axis=1)
    # A sample that is due within rounding of a stamp belongs to it.
    last_commanded = np.searchsorted(stamps, due + 1e-6, side="right") - 1
    return ChunkTargets(
        translations_m=targets[..., :3] - starts[..., :3],
        rotations_xyzw=quat.half_space(
            quat.multiply(quat.inverse(starts[..., 3:]), targets[..., 3:])
        ),
        grippers=binary_gripper(commands)[last_commanded],
        recorded=due <= stamps[-1] + 1e-6,
    )


def moments(stamps_s: NDArray, continues: bool, reach_s: float = STEPS * DT_S) -> int:
    """How many of the frames of an episode, from the first on, are moments to train on.

    Args:
        stamps_s: (T,) of its frames.
        continues: the motion went on after the last of them, so that a chunk that reaches beyond
            is not known; see Episode.
        reach_s: of a chunk.

    Returns:
        T, or fewer where it continues; at least 1.
    """
    if not continues:
        return len(stamps_s)
    last_s = stamps_s[-1] - reach_s + 1e-6
    return max(1, int(np.searchsorted(stamps_s, last_s, side="right")))


def followed(
    start_pose: ArrayLike, targets: ChunkTargets, moment: int, reference: Reference = "anchor"
) -> NDArray:
    """The poses (N, 7) that a robot at `start_pose` (7,) reaches by the chunk of one moment.

    This is what a driver does with a chunk, so it shows on a plot whether
    the deltas mean what was recorded.
    """
    pose = np.asarray(start_pose, float)
    poses = []
    for step in range(targets.translations_m.shape[1]):
        start = poses[-1] if poses and reference == "previous" else pose
        position = start[:3] + targets.translations_m[moment, step]
        turned = quat.multiply(start[3:], targets.rotations_xyzw[moment, step])
        poses.append(np.concatenate([position, turned]))
    return np.array(poses)
