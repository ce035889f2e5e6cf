"""What the scripted expert does in a situation: by the situation only, it keeps no phase.

So it starts in the middle, tries again after a failed grasp, and follows an object that moved. In
order: the reference that it moves, the sentence that it reads, the geometry that it reasons with,
and the rules. Poses are of the TCP, the middle between the fingertips, in the base frame; the table
top is z = 0.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import GRIPPER_CLOSED, GRIPPER_OPEN, Pose
from spear_policy.inference.engine import SceneObject

# The reference: a gripper that points down, led to waypoints --------------------------------------


@dataclass(frozen=True)
class MotionLimits:
    """Bounds of the reference; the last step of a chunk keeps to them as the first does."""

    linear_speed_m_s: float = 0.20
    linear_acceleration_m_s2: float = 0.5
    angular_speed_rad_s: float = 0.8
    angular_acceleration_rad_s2: float = 2.0
    levelling_speed_rad_s: float = 0.2  # at which a tilt found at the start is taken out
    stiffness_per_s: float = 5.0  # of the exponential approach at the end


@dataclass(frozen=True, eq=False)
class GripperReference:
    """Where the gripper is wanted, and how fast.

    `tilt` (3,) is what is left of the tilt that it had at first: a rotation vector in tool axes
    [rad].
    """

    position_m: NDArray
    heading_rad: float
    velocity_m_s: NDArray
    turning_rad_s: float
    tilt: NDArray

    @property
    def pose(self) -> Pose:
        """The pose in the base frame."""
        tilt = quat.from_rotation_vector(self.tilt)
        return Pose(self.position_m, quat.multiply(_downward(self.heading_rad), tilt))


def reference_at(pose: Pose, velocity_m_s: NDArray, max_tilt_rad: float = 0.6) -> GripperReference:
    """The reference that stands at `pose`.

    Raises:
        ValueError: the gripper does not point down within `max_tilt_rad`.
    """
    forward = quat.rotate(pose.orientation_xyzw, [1.0, 0.0, 0.0])
    heading = float(np.arctan2(forward[1], forward[0]))
    level = quat.inverse(_downward(heading))
    tilt = quat.rotation_vector(quat.multiply(level, pose.orientation_xyzw))
    degrees = float(np.degrees(np.linalg.norm(tilt)))
    if degrees > np.degrees(max_tilt_rad):
        raise ValueError(
            f"the gripper is tilted by {degrees:.0f} degrees; the scripted expert needs it to "
            "point down: send the robot home"
        )
    return GripperReference(pose.position_m, heading, np.asarray(velocity_m_s, float), 0.0, tilt)


def advance(
    state: GripperReference,
    position_m: NDArray,
    heading_rad: float,
    speed_m_s: float,
    limits: MotionLimits,
    dt_s: float,
) -> GripperReference:
    """The reference `dt_s` later, on its way to a waypoint with at most `speed_m_s`.

    Position (base frame) and heading (about base z) follow a square-root controller: full speed far
    away, constant deceleration near, exponential at the end, acceleration bounded throughout.
    """
    away = position_m - state.position_m
    distance = float(np.sqrt(away @ away))
    speed = _approach_speed(
        distance, speed_m_s, limits.linear_acceleration_m_s2, limits.stiffness_per_s
    )
    wanted = away * (speed / distance) if distance > 1e-9 else np.zeros(3)
    change = wanted - state.velocity_m_s
    size = float(np.sqrt(change @ change))
    allowed = limits.linear_acceleration_m_s2 * dt_s
    velocity = state.velocity_m_s + change * (allowed / size if size > allowed else 1.0)

    turn = heading_rad - state.heading_rad
    rate = _approach_speed(
        abs(turn),
        limits.angular_speed_rad_s,
        limits.angular_acceleration_rad_s2,
        limits.stiffness_per_s,
    )
    step = limits.angular_acceleration_rad_s2 * dt_s
    difference = float(np.sign(turn)) * rate - state.turning_rad_s
    turning = state.turning_rad_s + min(max(difference, -step), step)

    tilt = float(np.sqrt(state.tilt @ state.tilt))
    left = max(0.0, 1.0 - limits.levelling_speed_rad_s * dt_s / tilt) if tilt > 0 else 0.0
    return replace(
        state,
        position_m=state.position_m + dt_s * (state.velocity_m_s + velocity) / 2,
        heading_rad=state.heading_rad + dt_s * (state.turning_rad_s + turning) / 2,
        velocity_m_s=velocity,
        turning_rad_s=turning,
        tilt=state.tilt * left,
    )


def between(a: GripperReference, b: GripperReference, t: float) -> GripperReference:
    """From a (t=0) to b (t=1), linear: the two are one short step apart."""
    mixed = {
        name: getattr(a, name) + t * (getattr(b, name) - getattr(a, name))
        for name in ("position_m", "heading_rad", "velocity_m_s", "turning_rad_s", "tilt")
    }
    return GripperReference(**mixed)


def _approach_speed(distance: float, cap: float, acceleration: float, stiffness: float) -> float:
    """The highest speed from which a stop at `distance` is comfortable."""
    deceleration = 0.7 * acceleration  # below the bound, so that the reference can follow it
    linear_zone = deceleration / stiffness**2
    if distance < linear_zone:
        return min(cap, stiffness * distance)
    return min(cap, float(np.sqrt(2 * deceleration * (distance - linear_zone / 2))))


def _downward(heading_rad: float) -> NDArray:
    """Orientation (4,) xyzw of a gripper that points down, tool x along base x at heading 0."""
    half = heading_rad / 2
    return np.array([np.cos(half), np.sin(half), 0.0, 0.0])


# The task: one object, one place, read from a sentence --------------------------------------------


_SENTENCE = re.compile(
    r"(?:please )?(?:put|place|set|move|drop|stack)(?: down)? (?P<item>.+?) "
    r"(?P<how>on top of|onto|on|upon|inside|into|in) (?P<place>.+?)(?: please)?"
)
_INSIDE = ("inside", "into", "in")


@dataclass(frozen=True)
class PickAndPlace:
    """Put `item` on `place`, or into it."""

    item: str
    place: str
    inside: bool


def parse(instruction: str) -> PickAndPlace:
    """The task in a sentence such as "Put the red cube on the plate."; case does not matter.

    Raises:
        ValueError: the sentence has another form; the text shows one that works.
    """
    words = " ".join(re.sub(r"[.,!]", " ", instruction.lower()).split())
    match = _SENTENCE.fullmatch(words)
    if match is None:
        raise ValueError(
            f"the scripted expert cannot follow {instruction!r}; use a form like "
            "'put the red cube on the plate' or 'put the red cube in the bowl'"
        )
    item, place = (re.sub(r"^(the|a|an) ", "", match[part]) for part in ("item", "place"))
    if item == place:
        raise ValueError(f"{instruction!r} names {item!r} twice; name an object and its place")
    return PickAndPlace(item, place, match["how"] in _INSIDE)


def find(objects: Mapping[str, SceneObject], name: str) -> SceneObject:
    """The object of that name.

    Raises:
        ValueError: there is none; the text names those that are there.
    """
    if name not in objects:
        known = ", ".join(sorted(objects)) or "nothing at all"
        raise ValueError(f"there is no {name!r} in the scene; it has {known}")
    return objects[name]


# The geometry: where to grasp, where to let go ----------------------------------------------------

FINGER_REACH_M = 0.055  # from the grasp centre to the outside of an open finger
_FINGER_DEPTH_M = 0.025  # a taller object is grasped this far below its top
_TRAVEL_CLEARANCE_M = 0.08  # of the TCP above everything on the table
_MAX_HEADING_RAD = 1.85  # the last joint turns this far to both sides of the home heading
_REACH_M = (0.20, 0.78)  # horizontal distance from the base


@dataclass(frozen=True)
class GripperOpenings:
    """Openings (0 closed .. 1 open) that show what is between the fingers."""

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
class ScriptedScene:
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
        tops = [top_m(obj) for name, obj in self.objects.items() if name != self.task.item]
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
        for name, obj in self.objects.items():
            away = np.hypot(*(obj.pose.position_m[:2] - spot_xy_m))
            if name != but_for and away < max(obj.size_m[:2]) / 2 + 0.03:
                tops.append(top_m(obj))
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
        for name, obj in self.objects.items():
            if name != self.task.item:
                for finger in (centre + across, centre - across):
                    away = np.hypot(*(obj.pose.position_m[:2] - finger))
                    cost += 2.0 * (away < min(obj.size_m[:2]) / 2 + 0.005)
        return cost


def top_m(obj: SceneObject) -> float:
    """Height of the top of an upright object."""
    return float(obj.pose.position_m[2] + obj.size_m[2] / 2)


def bottom_m(obj: SceneObject) -> float:
    """Height of the bottom of an upright object."""
    return float(obj.pose.position_m[2] - obj.size_m[2] / 2)


def grasp_offset_m(obj: SceneObject) -> float:
    """How far above the object's centre the TCP grasps it."""
    return max(0.0, obj.size_m[2] / 2 - _FINGER_DEPTH_M)


def grasp_width_m(obj: SceneObject) -> float:
    """Distance between the two faces that the fingers close on."""
    return min(obj.size_m[:2])


def _grasp_axis(obj: SceneObject) -> tuple[float, float]:
    """A heading that grasps the object, and after which turn the next one follows [rad]."""
    axes = quat.rotate(obj.pose.orientation_xyzw, np.eye(3))  # rows: the object's x, y, z
    x_m, y_m, _ = obj.size_m
    if abs(axes[2, 2]) > 0.9 and abs(x_m - y_m) > 0.005:
        # The fingers lie along tool y, which must follow the shorter side.
        along = axes[1] if x_m < y_m else axes[0]
        return float(np.arctan2(along[1], along[0])), np.pi
    level = axes[np.argmin(np.abs(axes[:, 2]))]
    return float(np.arctan2(level[1], level[0])), np.pi / 2


# The rules ----------------------------------------------------------------------------------------

CLOSING_S, OPENING_S = 1.0, 0.8  # from the command until the fingers count as settled
_TRAVEL_SPEED_M_S, _NEAR_SPEED_M_S = 0.20, 0.12
_THERE_M, _REST_M_S = 0.003, 0.02


@dataclass(eq=False)
class Situation:
    """The arm, the gripper and the item at one time; the planner moves it forward.

    Attributes:
        gripper: what the gripper is commanded, GRIPPER_CLOSED or GRIPPER_OPEN.
        commanded_s: when that was commanded.
        settled_s: when the fingers will have come to rest after that command.
        between: the item is between the fingers, so closed fingers hold it.
        other: the name of another object that they hold instead; "" for none.
        item_m: (3,) centre of the item.
    """

    time_s: float
    reference: GripperReference
    gripper: float
    commanded_s: float
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
    """Where to go, how fast at most, what to command the gripper; `done` when nothing is left."""

    position_m: NDArray
    heading_rad: float
    gripper: float
    speed_m_s: float = _TRAVEL_SPEED_M_S
    done: bool = False


def decide(now: Situation, scene: ScriptedScene) -> Order:
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


def _put_down(now: Situation, scene: ScriptedScene) -> Order:
    """Stand the wrong object on whatever is below, then let go."""
    x, y, z = now.reference.position_m
    obj = scene.objects[now.other]
    below = scene.support_z_m(np.array([x, y]), but_for=now.other)
    floor = below + obj.size_m[2] / 2 + grasp_offset_m(obj) + 0.003
    if z > floor + _THERE_M:
        return _to(now, x, y, floor, GRIPPER_CLOSED, speed_m_s=_NEAR_SPEED_M_S)
    return _stay(now, GRIPPER_OPEN)


def _carry(now: Situation, scene: ScriptedScene) -> Order:
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


def _leave(now: Situation, scene: ScriptedScene) -> Order:
    """Open and go up; then all is done."""
    x, y, z = now.reference.position_m
    if now.gripper != GRIPPER_OPEN or not now.settled:
        return _stay(now, GRIPPER_OPEN)
    travel_z = max(scene.travel_z_m, z)
    done = z > travel_z - 0.004
    return _to(now, x, y, travel_z, GRIPPER_OPEN, speed_m_s=_NEAR_SPEED_M_S, done=done)


def _fetch(now: Situation, scene: ScriptedScene) -> Order:
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
