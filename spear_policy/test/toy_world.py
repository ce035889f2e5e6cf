"""A kinematic table-top in numpy: an arm that lags behind its chunks, fingers, things to carry."""

from dataclasses import dataclass, field, replace

import numpy as np

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import Chunk, Pose
from spear_policy.inference.engine import Observation, SceneObject

HOME = Pose([0.45, 0.0, 0.40], [1.0, 0.0, 0.0, 0.0])
CUBE_M = 0.04
PLATE = ((0.15, 0.15, 0.014), 0.008)  # size, height of the floor
BOWL = ((0.144, 0.144, 0.042), 0.008)
MAX_WIDTH_M, FINGER_SPEED_M_S = 0.08, 0.12
_STEP_S = 0.02


def turned(position, yaw_rad):
    """An upright pose."""
    return Pose(position, quat.from_rotation_vector([0.0, 0.0, yaw_rad]))


def random_objects(seed, clearance_m=0.14):
    """Two cubes, a plate and a bowl, apart from each other, as the simulated world has them."""
    draws = np.random.default_rng(seed)
    spots = []
    while len(spots) < 4:
        spot = draws.uniform((0.35, -0.25), (0.62, 0.25))
        if all(np.linalg.norm(spot - other) > clearance_m for other in spots):
            spots.append(spot)
    yaws = draws.uniform(-np.pi, np.pi, 2)
    objects = {}
    for name, spot, yaw in zip(("red cube", "green cube"), spots[:2], yaws, strict=True):
        objects[name] = SceneObject(turned([*spot, CUBE_M / 2], yaw), (CUBE_M,) * 3)
    for name, spot, (size, _) in zip(("plate", "bowl"), spots[2:], (PLATE, BOWL), strict=True):
        objects[name] = SceneObject(turned([*spot, size[2] / 2], 0.0), size)
    return objects


@dataclass
class ToyWorld:
    """Time goes in steps of 20 ms; a chunk takes effect `latency_s` after its stamp.

    Attributes:
        lag_s: time constant of the arm behind the reference.
        objects_delay_s: age of the ground truth in an observation.
    """

    objects: dict
    arm: Pose = HOME
    width_m: float = MAX_WIDTH_M
    latency_s: float = 0.05
    lag_s: float = 0.05
    objects_delay_s: float = 0.1
    slippery_until_s: float = 0.0
    now_s: float = 100.0
    fastest_m_s: float = 0.0
    fastest_rad_s: float = 0.0
    _chunks: list = field(default_factory=list)
    _carried: tuple | None = None
    _past: list = field(default_factory=list)
    _opening: float = 1.0
    _followed: Chunk | None = None

    def __post_init__(self):
        self.commanded = self.arm

    def observe(self, instruction: str) -> Observation:
        """What a policy would be given now."""
        seen = self.objects
        for stamp_s, objects in self._past:
            if stamp_s <= self.now_s - self.objects_delay_s:
                seen = objects
        return Observation(
            stamp_s=self.now_s,
            measured=self.arm,
            commanded=self.commanded,
            gripper_opening=self.width_m / MAX_WIDTH_M,
            instruction=instruction,
            objects=seen,
        )

    def take(self, chunk: Chunk) -> None:
        """A chunk, stamped now, goes to the robot."""
        self._chunks.append(chunk)

    def hold(self) -> None:
        """Stop where the arm is."""
        self._chunks.clear()

    def run(self, duration_s: float) -> None:
        """Let time pass."""
        for _ in range(round(duration_s / _STEP_S)):
            self._step(_STEP_S)

    def _step(self, dt_s: float) -> None:
        self.now_s += dt_s
        ready = [k for k, c in enumerate(self._chunks) if c.stamp_s + self.latency_s <= self.now_s]
        if ready:
            self._chunks = self._chunks[ready[-1] :]
            self._follow(self._chunks[0], dt_s)
        self.arm = _mix(self.arm, self.commanded, dt_s / (self.lag_s + dt_s))
        self._carry()
        self._past = [*self._past[-20:], (self.now_s, dict(self.objects))]

    def _follow(self, chunk: Chunk, dt_s: float) -> None:
        due_s = chunk.due_times_s()
        due = int(np.searchsorted(due_s, self.now_s + 1e-9)) - 1  # the newest step already due
        last = len(due_s) - 1
        if chunk is not self._followed:
            self._followed = chunk
            self._targets = [Pose(*pair) for pair in zip(*chunk.targets(), strict=True)]
        after = self._targets[min(due + 1, last)]
        if due < 0:  # on the way from where it is to the first step
            target = _mix(self.commanded, after, dt_s / (due_s[0] - self.now_s + dt_s))
        else:
            target = _mix(self._targets[due], after, (self.now_s - due_s[due]) / chunk.dt_s)
            self._opening = float(chunk.gripper_openings[due])
        moved = np.linalg.norm(target.position_m - self.commanded.position_m)
        # Twice the distance of two quaternions is the angle between them, when it is this small.
        turned_by = 2 * np.linalg.norm(target.orientation_xyzw - self.commanded.orientation_xyzw)
        self.fastest_m_s = max(self.fastest_m_s, float(moved) / dt_s)
        self.fastest_rad_s = max(self.fastest_rad_s, float(turned_by) / dt_s)
        self.commanded = target
        self._move_fingers(self._opening, dt_s)

    def _move_fingers(self, opening: float, dt_s: float) -> None:
        goal = opening * MAX_WIDTH_M
        if abs(goal - self.width_m) < 1e-9:
            return
        inside = self._carried[0] if self._carried else self._between_fingers()
        if inside and goal < CUBE_M and self.now_s >= self.slippery_until_s:
            goal = max(goal, CUBE_M - 0.0007)
        step = np.clip(goal - self.width_m, -FINGER_SPEED_M_S * dt_s, FINGER_SPEED_M_S * dt_s)
        self.width_m = float(self.width_m + step)
        gripped = self.width_m <= CUBE_M and inside and self.now_s >= self.slippery_until_s
        if gripped and self._carried is None:
            thing = self.objects[inside]
            offset = thing.pose.position_m - self.arm.position_m
            self._carried = (inside, offset, thing.pose.orientation_xyzw, self.arm.orientation_xyzw)
        elif self.width_m > CUBE_M + 0.001 and self._carried:
            name, self._carried = self._carried[0], None
            self.objects = {**self.objects, name: self._dropped(name)}

    def _between_fingers(self) -> str:
        for name, thing in self.objects.items():
            if "cube" not in name:
                continue
            axes = quat.rotate(thing.pose.orientation_xyzw, np.eye(3))[:2, :2]
            y = quat.rotate(self.arm.orientation_xyzw, [0.0, 1.0, 0.0])[:2]
            aligned = np.max(np.abs(axes @ y)) > np.cos(0.2)
            away = np.abs(thing.pose.position_m - self.arm.position_m)
            if aligned and np.linalg.norm(away[:2]) < 0.015 and away[2] < 0.02:
                return name
        return ""

    def _carry(self) -> None:
        if self._carried:
            name, offset, orientation, hand = self._carried
            turn = quat.multiply(self.arm.orientation_xyzw, quat.inverse(hand))
            pose = Pose(self.arm.position_m + offset, quat.multiply(turn, orientation))
            self.objects = {**self.objects, name: replace(self.objects[name], pose=pose)}

    def _dropped(self, name: str) -> SceneObject:
        """The object where it comes to rest: on a dish, or on the table."""
        thing = self.objects[name]
        spot = thing.pose.position_m[:2]
        floor = 0.0
        for dish, (size, inside) in (("plate", PLATE), ("bowl", BOWL)):
            if dish in self.objects:
                middle = self.objects[dish].pose.position_m[:2]
                floor = inside if np.hypot(*(middle - spot)) < size[0] / 2 else floor
        pose = Pose([*spot, floor + CUBE_M / 2], thing.pose.orientation_xyzw)
        return replace(thing, pose=pose)


def _mix(a: Pose, b: Pose, t: float) -> Pose:
    """From a to b; for rotations as small as a step the normalised sum is as good as slerp."""
    t = min(max(t, 0.0), 1.0)
    turned_b = quat.nearest_sign(b.orientation_xyzw, a.orientation_xyzw)
    mixed = (1 - t) * a.orientation_xyzw + t * turned_b
    return Pose(a.position_m + t * (b.position_m - a.position_m), mixed / np.linalg.norm(mixed))
