"""Poses over time: interpolated between samples, and compared with what was really executed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import Pose


@dataclass(frozen=True, eq=False)
class TimedPoses:
    """Poses in the base frame at increasing stamps.

    Attributes:
        stamps_s: (N,) strictly increasing [s], N >= 1.
        poses: (N, 7) position [m] and orientation xyzw. The constructor removes rounding from the
            quaternions and gives each the sign nearest to the one before.

    Raises:
        ValueError: wrong shapes, a number that is not finite, a quaternion that is not unit, or
            stamps that do not increase; the text names the first sample at fault.
    """

    stamps_s: NDArray
    poses: NDArray

    def __post_init__(self):
        stamps, poses = np.array(self.stamps_s, float), np.array(self.poses, float)
        if stamps.ndim != 1 or not len(stamps):
            raise ValueError(f"stamps_s must have shape (N,) with N >= 1, got {stamps.shape}")
        if poses.shape != (len(stamps), 7):
            raise ValueError(
                f"poses must have shape ({len(stamps)}, 7), one for each stamp, got {poses.shape}"
            )
        _refuse_first(~np.isfinite(stamps), "stamp {} is not finite")
        _refuse_first(~np.isfinite(poses).all(axis=1), "pose {} has a number that is not finite")
        _refuse_first(
            ~quat.is_unit(poses[:, 3:]),
            "pose {} has no unit quaternion (xyzw); normalise it at its source",
        )
        _refuse_first(
            np.concatenate([[False], np.diff(stamps) <= 0]), "stamp {} is not after the one before"
        )
        poses[:, 3:] = quat.continuous(quat.unit(poses[:, 3:]))
        for name, array in (("stamps_s", stamps), ("poses", poses)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.stamps_s)

    @property
    def duration_s(self) -> float:
        """Last stamp minus first [s]."""
        return float(self.stamps_s[-1] - self.stamps_s[0])

    def at(self, times_s: ArrayLike) -> NDArray:
        """Poses (M, 7) at times (M,): positions linear, orientations by slerp, held at the ends."""
        times = np.clip(np.asarray(times_s, float), self.stamps_s[0], self.stamps_s[-1])
        if len(self) == 1:
            return np.repeat(self.poses, len(times), axis=0)
        after = np.clip(np.searchsorted(self.stamps_s, times, side="left"), 1, len(self) - 1)
        a, b = self.poses[after - 1], self.poses[after]
        start, end = self.stamps_s[after - 1], self.stamps_s[after]
        t = (times - start) / (end - start)
        positions = a[:, :3] + t[:, None] * (b[:, :3] - a[:, :3])
        return np.hstack([positions, quat.slerp(a[:, 3:], b[:, 3:], t)])


def replayed_motion(recorded: TimedPoses, start: Pose, start_stamp_s: float) -> TimedPoses:
    """A recorded motion moved to another robot: where it has to be, at every recorded step.

    The first recorded pose falls on `start` at `start_stamp_s`. The others follow by translation
    and rotation from the first, both in the axes of the robot's base: the motion in space is the
    same however the two robots name the axes of their hands.
    """
    poses = recorded.poses
    turns = quat.multiply(poses[:, 3:], quat.inverse(poses[0, 3:]))
    moved = np.hstack(
        [
            start.position_m + poses[:, :3] - poses[0, :3],
            quat.multiply(turns, start.orientation_xyzw),
        ]
    )
    return TimedPoses(recorded.stamps_s - recorded.stamps_s[0] + start_stamp_s, moved)


@dataclass(frozen=True, eq=False)
class TrackingErrors:
    """How far execution was from each target.

    Attributes:
        stamps_s: (N,) when each target was due [s].
        position_mm, rotation_deg: (N,) distance from the target at that time.
    """

    stamps_s: NDArray
    position_mm: NDArray
    rotation_deg: NDArray

    @property
    def worst_position_mm(self) -> float:
        """The largest position error [mm]."""
        return float(self.position_mm.max())

    @property
    def worst_rotation_deg(self) -> float:
        """The largest rotation error [deg]."""
        return float(self.rotation_deg.max())

    def within(self, position_mm: float, rotation_deg: float) -> bool:
        """Whether every step kept both limits."""
        return self.worst_position_mm <= position_mm and self.worst_rotation_deg <= rotation_deg

    def __str__(self) -> str:
        p, r = int(self.position_mm.argmax()), int(self.rotation_deg.argmax())
        return (
            f"{len(self.stamps_s)} steps, worst {self.position_mm[p]:.2f} mm at step {p} and "
            f"{self.rotation_deg[r]:.2f} deg at step {r}"
        )


def tracking_errors(
    targets: TimedPoses, executed: TimedPoses, lag_s: float = 0.0
) -> TrackingErrors:
    """Compare each target with the executed pose `lag_s` after it was due.

    Raises:
        ValueError: `executed` does not cover the time of every target. Holding its end instead
            would judge a pose that nobody measured.
    """
    times = targets.stamps_s + lag_s
    first, last = executed.stamps_s[0], executed.stamps_s[-1]
    if times[0] < first or times[-1] > last:
        raise ValueError(
            f"executed poses cover {first:.3f} to {last:.3f} s, the targets need {times[0]:.3f} to "
            f"{times[-1]:.3f} s; record the whole motion"
        )
    reached = executed.at(times)
    return TrackingErrors(
        stamps_s=targets.stamps_s,
        position_mm=1e3 * np.linalg.norm(reached[:, :3] - targets.poses[:, :3], axis=1),
        rotation_deg=np.degrees(quat.angle(targets.poses[:, 3:], reached[:, 3:])),
    )


def best_lag_s(
    targets: TimedPoses, executed: TimedPoses, most_s: float = 0.3, step_s: float = 0.005
) -> float:
    """The delay (0 to `most_s`) at which execution follows with the least mean position error [s].

    A robot follows its reference a little late; this separates that delay from a wrong path.
    Delays that `executed` does not cover are left out.
    """
    room_s = min(most_s, executed.stamps_s[-1] - targets.stamps_s[-1])
    lags = np.arange(0.0, max(room_s, 0.0) + 1e-9, step_s)
    means = [tracking_errors(targets, executed, lag).position_mm.mean() for lag in lags]
    return float(lags[int(np.argmin(means))])


def _refuse_first(bad: NDArray, text: str) -> None:
    if bad.any():
        raise ValueError(text.format(int(np.argmax(bad))))
