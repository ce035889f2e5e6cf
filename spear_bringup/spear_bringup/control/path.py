"""A timed Cartesian path by its knots: the player plans it, the gate judges it, a robot runs it."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import Pose


@dataclass(frozen=True, eq=False)
class Path:
    """Knots from a known start, base frame; the last one is at rest.

    Attributes:
        durations_s: (N,) least time from the knot before; the first counts from the start.
        positions_m: (N, 3).
        orientations_xyzw: (N, 4), unit.
        linear_m_s: (N, 3) velocity at each knot.
        angular_rad_s: (N, 3) angular velocity at each knot, base axes.
    """

    durations_s: NDArray
    positions_m: NDArray
    orientations_xyzw: NDArray
    linear_m_s: NDArray
    angular_rad_s: NDArray

    def __len__(self) -> int:
        return len(self.durations_s)

    def slowed(self, scale: float) -> "Path":
        """The same knots, every duration `scale` times as long, every velocity divided by it."""
        return replace(
            self,
            durations_s=self.durations_s * scale,
            linear_m_s=self.linear_m_s / scale,
            angular_rad_s=self.angular_rad_s / scale,
        )


def path_through(durations_s, positions_m, orientations_xyzw, start) -> Path:
    """A path through knots with central-difference velocities, at rest at the end.

    Args:
        durations_s: (N,) time from the knot before, the first from `start`.
        positions_m, orientations_xyzw: (N, 3) and (N, 4) knots.
        start: `Pose` at time 0, the neighbour of the first knot.
    """
    durations = np.asarray(durations_s, float)
    times = np.concatenate([[0.0], np.cumsum(durations)])
    positions = np.vstack([start.position_m, positions_m])
    orientations = np.vstack([start.orientation_xyzw, orientations_xyzw])
    orientations = quat.continuous(orientations)
    span = (times[2:] - times[:-2])[:, None]
    linear = np.zeros((len(durations), 3))
    angular = np.zeros((len(durations), 3))
    linear[:-1] = (positions[2:] - positions[:-2]) / span
    turn = quat.multiply(orientations[2:], quat.inverse(orientations[:-2]))  # in base axes
    angular[:-1] = quat.rotation_vector(turn) / span
    return Path(durations, positions[1:], orientations[1:], linear, angular)


# How fast, how sharp, how far: the motion between knots as a cubic, judged without sampli.


@dataclass(frozen=True, eq=False)
class Start:
    """Where a path starts: a pose and its velocities, base frame [m/s, rad/s]."""

    pose: Pose
    linear_m_s: NDArray
    angular_rad_s: NDArray

    @classmethod
    def at_rest(cls, pose: Pose) -> "Start":
        """The pose, without motion."""
        return cls(pose, np.zeros(3), np.zeros(3))


@dataclass(frozen=True)
class Peaks:
    """The largest magnitudes on a path: translation (m, s) and rotation (rad, s)."""

    linear_speed_m_s: float
    angular_speed_rad_s: float
    linear_acceleration_m_s2: float
    angular_acceleration_rad_s2: float
    linear_jerk_m_s3: float
    angular_jerk_rad_s3: float


_SAMPLES = 33
_U = np.linspace(0.0, 1.0, _SAMPLES)[:, None, None]


def turns(path: Path, start: Pose) -> NDArray:
    """Rotation vectors (N, 3) [rad] in base axes from each knot's predecessor to the knot."""
    before = np.vstack([start.orientation_xyzw, path.orientations_xyzw[:-1]])
    return quat.rotation_vector(quat.multiply(path.orientations_xyzw, quat.inverse(before)))


def peaks(path: Path, start: Start) -> Peaks:
    """The largest speed, acceleration and jerk of `path` when it begins with `start`'s velocity."""
    durations = path.durations_s[:, None]
    moves = path.positions_m - np.vstack([start.pose.position_m, path.positions_m[:-1]])
    linear = _extremes(moves, durations, start.linear_m_s, path.linear_m_s)
    angular = _extremes(turns(path, start.pose), durations, start.angular_rad_s, path.angular_rad_s)
    return Peaks(linear[0], angular[0], linear[1], angular[1], linear[2], angular[2])


def _extremes(moves, durations, first_velocity, velocities) -> tuple[float, float, float]:
    chord = moves / durations
    v0 = np.vstack([first_velocity, velocities[:-1]])
    v1 = velocities
    # Derivative of the cubic Hermite curve in u = t / T.
    speed = 6 * _U * (1 - _U) * chord + (1 - _U) * (1 - 3 * _U) * v0 + _U * (3 * _U - 2) * v1
    a0 = (6 * chord - 4 * v0 - 2 * v1) / durations
    a1 = (-6 * chord + 2 * v0 + 4 * v1) / durations
    jerk = 6 * (v0 + v1 - 2 * chord) / durations**2
    jerks = np.linalg.norm(jerk, axis=-1)
    between = jerks * (durations[:, 0] / (_SAMPLES - 1)) ** 2 / 8
    speeds = np.linalg.norm(speed, axis=-1).max(axis=0) + between
    accelerations = np.maximum(np.linalg.norm(a0, axis=-1), np.linalg.norm(a1, axis=-1))
    return float(speeds.max()), float(accelerations.max()), float(jerks.max())
