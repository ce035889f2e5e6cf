"""How fast, how sharp, how far: the motion between knots as a cubic, judged without sampling gaps.

Between two knots with given velocities the reference is the cubic Hermite curve, in position and
in the rotation vector from the earlier knot (base axes). Its acceleration is linear in time, so
its largest value stands at an end; its jerk is constant. Speed is sampled, plus the most that it
can rise between two samples: jerk times the square of their spacing, over eight.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spear_bringup.control.path import Path
from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import Pose


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
