"""A timed Cartesian path by its knots: the player plans it, the gate judges it, a robot runs it."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry import quaternions as quat


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
