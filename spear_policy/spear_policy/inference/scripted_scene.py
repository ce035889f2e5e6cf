"""The geometry that the scripted expert reasons with: where to grasp, where to let go.

All heights are of the TCP, the middle between the fingertips; the table top is z = 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry import quaternions as quat
from spear_policy.inference.engine import SceneObject
from spear_policy.inference.scripted_task import PickAndPlace, find

FINGER_REACH_M = 0.055  # from the grasp centre to the outside of an open finger
_FINGER_DEPTH_M = 0.025  # a taller object is grasped this far below its top
_TRAVEL_CLEARANCE_M = 0.08  # of the TCP above everything on the table
_MAX_HEADING_RAD = 1.85  # the last joint turns this far to both sides of the home heading
_REACH_M = (0.20, 0.78)  # horizontal distance from the base


@dataclass(frozen=True)
class Gripper:
    """Openings (0 closed .. 1 open) that tell what is between the fingers."""

    max_width_m: float = 0.08

    def holds(self, width_m: float, opening: float) -> bool:
        """Whether the fingers rest on something `width_m` wide."""
        return 0.6 * width_m <= opening * self.max_width_m <= width_m + 0.006

    def empty(self, width_m: float, opening: float) -> bool:
        """Whether the fingers closed further than something `width_m` wide would let them."""
        return opening * self.max_width_m < 0.6 * width_m

    def clears(self, width_m: float, opening: float) -> bool:
        """Whether the fingers are far enough apart to move along something `width_m` wide."""
        return opening * self.max_width_m >= min(width_m + 0.012, 0.9 * self.max_width_m)


@dataclass(frozen=True, eq=False)
class Scene:
    """One task among the objects as they are now; raises ValueError when it cannot be done."""

    task: PickAndPlace
    objects: Mapping[str, SceneObject]

    def __post_init__(self):
        for name in (self.task.item, self.task.place):
            x, y, _ = find(self.objects, name).pose.position_m
            if not _REACH_M[0] <= np.hypot(x, y) <= _REACH_M[1]:
                raise ValueError(
                    f"the {name} is out of reach at x {x:.2f} m, y {y:.2f} m; it must stand "
                    f"{_REACH_M[0]:g} to {_REACH_M[1]:g} m from the robot's base: put it back"
                )

    @property
    def item(self) -> SceneObject:
        """What is to be moved."""
        return self.objects[self.task.item]

    @property
    def place(self) -> SceneObject:
        """Where it is to go."""
        return self.objects[self.task.place]

    @cached_property
    def travel_z_m(self) -> float:
        """Height at which nothing on the table is in the way, not even of a carried item."""
        tops = [top_m(thing) for name, thing in self.objects.items() if name != self.task.item]
        return max([self.item.size_m[2], *tops]) + _TRAVEL_CLEARANCE_M

    @cached_property
    def release_bottom_m(self) -> float:
        """Height of the item's bottom where the fingers let go."""
        top = top_m(self.place)
        if not self.task.inside:
            return top + 0.003
        # Open fingers are wider than a bowl: their tips stay at the height of its rim.
        return max(top - 0.008, bottom_m(self.place) + 0.005)

    @cached_property
    def release_m(self) -> NDArray:
        """(3,) TCP where the fingers let go."""
        z = self.release_bottom_m + self.item.size_m[2] / 2 + grasp_offset_m(self.item)
        return np.array([*self.place.pose.position_m[:2], z])

    def is_placed(self, item_position_m: NDArray) -> bool:
        """Whether the item, its centre there, is on its place or falls onto it when let go."""
        place = self.place
        half = min(place.size_m[:2]) / 2
        offset = item_position_m[:2] - place.pose.position_m[:2]
        bottom = item_position_m[2] - self.item.size_m[2] / 2
        lowest = bottom_m(place) if self.task.inside else place.pose.position_m[2]
        within = np.hypot(*offset) < max(half - 0.01, half / 2)
        return bool(within and lowest - 0.005 <= bottom <= self.release_bottom_m + 0.015)

    def support_z_m(self, spot_xy_m: NDArray, but_for: str) -> float:
        """Height of what lies under a spot, the table or an object other than `but_for`."""
        tops = [0.0]
        for name, thing in self.objects.items():
            away = np.hypot(*(thing.pose.position_m[:2] - spot_xy_m))
            if name != but_for and away < max(thing.size_m[:2]) / 2 + 0.03:
                tops.append(top_m(thing))
        return max(tops)

    def grasp_heading_rad(self, current_rad: float) -> float:
        """The heading that closes the fingers on two faces of the item: the nearest free one."""
        return min(self._grasps, key=lambda grasp: abs(grasp[0] - current_rad) + grasp[1])[0]

    @cached_property
    def _grasps(self) -> list[tuple[float, float]]:
        """The headings that grasp the item, each with the cost of what is in the fingers' way."""
        first, period = _grasp_axis(self.item)
        headings = first + period * np.arange(-8, 9)
        return [(float(h), self._blocked(h)) for h in headings if abs(h) <= _MAX_HEADING_RAD]

    def _blocked(self, heading_rad: float) -> float:
        """A cost for fingers that would come down on something else."""
        across = np.array([-np.sin(heading_rad), np.cos(heading_rad)]) * FINGER_REACH_M
        centre = self.item.pose.position_m[:2]
        cost = 0.0
        for name, thing in self.objects.items():
            if name != self.task.item:
                for finger in (centre + across, centre - across):
                    away = np.hypot(*(thing.pose.position_m[:2] - finger))
                    cost += 2.0 * (away < min(thing.size_m[:2]) / 2 + 0.005)
        return cost


def top_m(thing: SceneObject) -> float:
    """Height of the top of an upright object."""
    return float(thing.pose.position_m[2] + thing.size_m[2] / 2)


def bottom_m(thing: SceneObject) -> float:
    """Height of the bottom of an upright object."""
    return float(thing.pose.position_m[2] - thing.size_m[2] / 2)


def grasp_offset_m(thing: SceneObject) -> float:
    """How far above the object's centre the TCP grasps it."""
    return max(0.0, thing.size_m[2] / 2 - _FINGER_DEPTH_M)


def grasp_width_m(thing: SceneObject) -> float:
    """Distance between the two faces that the fingers close on."""
    return min(thing.size_m[:2])


def _grasp_axis(thing: SceneObject) -> tuple[float, float]:
    """A heading that grasps the object, and after which turn the next one follows [rad]."""
    axes = quat.rotate(thing.pose.orientation_xyzw, np.eye(3))  # rows: the object's x, y, z
    x_m, y_m, _ = thing.size_m
    if abs(axes[2, 2]) > 0.9 and abs(x_m - y_m) > 0.005:
        # The fingers lie along tool y, which must follow the shorter side.
        along = axes[1] if x_m < y_m else axes[0]
        return float(np.arctan2(along[1], along[0])), np.pi
    level = axes[np.argmin(np.abs(axes[:, 2]))]
    return float(np.arctan2(level[1], level[0])), np.pi / 2
