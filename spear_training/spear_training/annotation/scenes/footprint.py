"""The rectangles that things take up on the ground, and whether two of them are apart."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Footprint:
    """The rectangle that something takes up on the ground.

    Attributes:
        centre_m: (2,).
        half_m: (2,) half lengths along its own two axes.
        yaw_rad: of its first axis.
    """

    centre_m: NDArray[np.float64]
    half_m: NDArray[np.float64]
    yaw_rad: float

    @property
    def corners_m(self) -> NDArray[np.float64]:
        """(4, 2)."""
        signs = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)])
        return self.centre_m + (signs * self.half_m) @ turn(self.yaw_rad).T

    def apart_from(self, other: "Footprint", gap_m: float) -> bool:
        """Whether a line with `gap_m` of room separates the two rectangles."""
        for yaw in (self.yaw_rad, other.yaw_rad):
            ours, theirs = self.corners_m @ turn(yaw), other.corners_m @ turn(yaw)
            if (ours.min(axis=0) > theirs.max(axis=0) + gap_m).any():
                return True
            if (theirs.min(axis=0) > ours.max(axis=0) + gap_m).any():
                return True
        return False

    def inside(self, half_m: tuple[float, float]) -> bool:
        """Whether it lies within the rectangle of these half lengths about the origin."""
        return bool((np.abs(self.corners_m) <= np.asarray(half_m)).all())


def turn(yaw_rad: float) -> NDArray[np.float64]:
    """Turn by an angle in the plane (2, 2)."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[cos, -sin], [sin, cos]])
