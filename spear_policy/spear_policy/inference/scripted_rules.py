"""What the scripted expert does in a situation. It looks at the situation only, keeps no phase.

So it starts in the middle, tries again after a failed grasp, and follows an object that moved.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry.chunks import GRIPPER_CLOSED, GRIPPER_OPEN
from spear_policy.inference.scripted_motion import Reference
from spear_policy.inference.scripted_scene import Scene, grasp_offset_m

CLOSING_S, OPENING_S = 1.0, 0.8  # from the command until the fingers count as settled
_TRAVEL_SPEED_M_S, _NEAR_SPEED_M_S = 0.20, 0.12
_THERE_M, _REST_M_S = 0.003, 0.02


@dataclass(eq=False)
class Situation:
    """The arm, the gripper and the item at one time; the planner moves it forward.

    Attributes:
        gripper: what the gripper is told, GRIPPER_CLOSED or GRIPPER_OPEN.
        told_s: when it was told so.
        settled_s: when the fingers will have come to rest after that command.
        between: the item is between the fingers, so closed fingers hold it.
        other: the name of another object that they hold instead; "" for none.
        item_m: (3,) centre of the item.
    """

    time_s: float
    reference: Reference
    gripper: float
    told_s: float
    settled_s: float
    between: bool
    other: str
    item_m: NDArray

    @property
    def settled(self) -> bool:
        """Whether the fingers are at rest."""
        return self.time_s >= self.settled_s - 1e-6  # times are sums of substeps

    @property
    def holding(self) -> bool:
        """Whether the item is firmly in the gripper."""
        return self.gripper == GRIPPER_CLOSED and self.settled and self.between


@dataclass(frozen=True, eq=False)
class Order:
    """Where to go, how fast at most, and what to tell the gripper; `done` when nothing is left."""

    position_m: NDArray
    heading_rad: float
    gripper: float
    speed_m_s: float = _TRAVEL_SPEED_M_S
    done: bool = False


def decide(now: Situation, scene: Scene) -> Order:
    """The order for this situation."""
    if now.gripper == GRIPPER_CLOSED and not now.settled:
        return _stay(now, GRIPPER_CLOSED)
    if now.other:
        return _put_down(now, scene)
    if now.holding:
        return _carry(now, scene)
    if scene.is_placed(now.item_m):
        return _leave(now, scene)
    return _fetch(now, scene)


def _stay(now: Situation, gripper: float) -> Order:
    return Order(now.reference.position_m, now.reference.heading_rad, gripper)


def _to(now: Situation, x: float, y: float, z: float, gripper: float, **more) -> Order:
    heading = more.pop("heading_rad", now.reference.heading_rad)
    return Order(np.array([x, y, z]), heading, gripper, **more)


def _put_down(now: Situation, scene: Scene) -> Order:
    """Stand the wrong object on whatever is below, then let go."""
    x, y, z = now.reference.position_m
    thing = scene.objects[now.other]
    below = scene.support_z_m(np.array([x, y]), but_for=now.other)
    floor = below + thing.size_m[2] / 2 + grasp_offset_m(thing) + 0.003
    if z > floor + _THERE_M:
        return _to(now, x, y, floor, GRIPPER_CLOSED, speed_m_s=_NEAR_SPEED_M_S)
    return _stay(now, GRIPPER_OPEN)


def _carry(now: Situation, scene: Scene) -> Order:
    """Up, over the place, down, let go."""
    x, y, z = now.reference.position_m
    goal = scene.release_m
    travel_z = scene.travel_z_m
    away = np.hypot(x - goal[0], y - goal[1])
    if away > (0.015 if z < travel_z - 0.02 else 0.004):
        if z < travel_z - 0.004:
            return _to(now, x, y, travel_z, GRIPPER_CLOSED, speed_m_s=_NEAR_SPEED_M_S)
        return _to(now, goal[0], goal[1], travel_z, GRIPPER_CLOSED)
    if z > goal[2] + _THERE_M or not _at_rest(now):
        return _to(now, *goal, GRIPPER_CLOSED, speed_m_s=_NEAR_SPEED_M_S)
    return _stay(now, GRIPPER_OPEN)


def _leave(now: Situation, scene: Scene) -> Order:
    """Open and go up; then all is done."""
    x, y, z = now.reference.position_m
    if now.gripper != GRIPPER_OPEN or not now.settled:
        return _stay(now, GRIPPER_OPEN)
    travel_z = max(scene.travel_z_m, z)
    done = z > travel_z - 0.004
    return _to(now, x, y, travel_z, GRIPPER_OPEN, speed_m_s=_NEAR_SPEED_M_S, done=done)


def _fetch(now: Situation, scene: Scene) -> Order:
    """Up, over the item with the fingers along its faces, down, close."""
    x, y, z = now.reference.position_m
    travel_z = scene.travel_z_m
    deep = z < travel_z - 0.02
    if now.gripper == GRIPPER_CLOSED:
        return _stay(now, GRIPPER_OPEN)  # they closed on nothing
    if deep and not now.settled:
        return _stay(now, GRIPPER_OPEN)
    heading = scene.grasp_heading_rad(now.reference.heading_rad)
    goal = now.item_m + [0.0, 0.0, grasp_offset_m(scene.item)]
    away = np.hypot(x - goal[0], y - goal[1])
    turned = abs(heading - now.reference.heading_rad)
    if away > (0.012 if deep else 0.004) or turned > (0.2 if deep else 0.03):
        if z < travel_z - 0.004:
            return _to(now, x, y, travel_z, GRIPPER_OPEN, speed_m_s=_NEAR_SPEED_M_S)
        return _to(now, goal[0], goal[1], travel_z, GRIPPER_OPEN, heading_rad=heading)
    if not now.settled:
        return _to(now, goal[0], goal[1], travel_z, GRIPPER_OPEN, heading_rad=heading)
    if z > goal[2] + _THERE_M or not _at_rest(now):
        return _to(now, *goal, GRIPPER_OPEN, heading_rad=heading, speed_m_s=_NEAR_SPEED_M_S)
    return _stay(now, GRIPPER_CLOSED)


def _at_rest(now: Situation) -> bool:
    velocity = now.reference.velocity_m_s
    return bool(velocity @ velocity < _REST_M_S**2)
