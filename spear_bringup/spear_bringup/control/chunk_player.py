"""From chunks to a path: enter at now, fade out of the running reference, end at rest."""

from dataclasses import dataclass

import numpy as np

from spear_bringup.control.path import Path, Start, path_through, turns
from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.chunks import Chunk, entry_step
from spear_policy.geometry.poses import Pose, distance, interpolate

# Beyond this the robot is not doing what the reference says, and fading from it would be a jump.
RESYNCHRONISE_M = 0.03
RESYNCHRONISE_RAD = 0.2


@dataclass(frozen=True, eq=False)
class Running:
    """A path under way since `start_s` (node clock), as the cubic between its knots."""

    path: Path
    start: Start
    start_s: float

    @property
    def end_s(self) -> float:
        """When the path comes to rest, node clock."""
        return self.start_s + float(np.sum(self.path.durations_s))

    def at(self, time_s: float) -> Start:
        """Pose and velocity of the reference at a time; the rest pose after the end."""
        ends = self.start_s + np.cumsum(self.path.durations_s)
        if time_s >= ends[-1]:
            return Start.at_rest(Pose(self.path.positions_m[-1], self.path.orientations_xyzw[-1]))
        i = int(np.searchsorted(ends, time_s, side="right"))
        before = self.start if i == 0 else self._knot(i - 1)
        duration = float(self.path.durations_s[i])
        u = float(np.clip((time_s - (ends[i] - duration)) / duration, 0.0, 1.0))
        move = self.path.positions_m[i] - before.pose.position_m
        turn = turns(self.path, self.start.pose)[i]
        offset, linear = _hermite(move, before.linear_m_s, self.path.linear_m_s[i], duration, u)
        angle, angular = _hermite(
            turn, before.angular_rad_s, self.path.angular_rad_s[i], duration, u
        )
        orientation = quat.multiply(quat.from_rotation_vector(angle), before.pose.orientation_xyzw)
        return Start(Pose(before.pose.position_m + offset, orientation), linear, angular)

    def _knot(self, index: int) -> Start:
        path = self.path
        pose = Pose(path.positions_m[index], path.orientations_xyzw[index])
        return Start(pose, path.linear_m_s[index], path.angular_rad_s[index])


@dataclass(frozen=True, eq=False)
class Plan:
    """What a chunk becomes at a given now: the blended path, its start, and the seam before it."""

    path: Path
    start: Start
    skipped: int
    seam_m: float
    seam_rad: float


class ChunkPlayer:
    """Holds the running reference and plans the next path from a chunk. Numbers only, no robot."""

    def __init__(self, blend_s: float, min_lead_s: float):
        self.blend_s, self.min_lead_s = blend_s, min_lead_s
        self.running: Running | None = None

    def reference(self, now_s: float, commanded: Pose) -> Start:
        """The running reference at now, or rest at the robot's own commanded pose."""
        return (
            self.running.at(now_s) if self._followed(now_s, commanded) else Start.at_rest(commanded)
        )

    def _followed(self, now_s: float, commanded: Pose) -> bool:
        """Whether there is a running reference and the robot is on it."""
        if self.running is None:
            return False
        translation, rotation = distance(self.running.at(now_s).pose, commanded)
        return translation <= RESYNCHRONISE_M and rotation <= RESYNCHRONISE_RAD

    def first_step(self, chunk: Chunk, now_s: float) -> int:
        """Index of the first step that is due late enough to be gone to."""
        return entry_step(
            chunk.stamp_s, chunk.dt_s, len(chunk.translations_m), now_s + self.min_lead_s
        )

    def plan(self, chunk: Chunk, now_s: float, commanded: Pose) -> Plan:
        """The path through the steps that are not yet due.

        Each knot stands at its step's due time. Within `blend_s` from now a knot lies between
        the running reference and the new target: translation linear, rotation by slerp.

        Raises:
            ValueError: no step is left.
        """
        first = self.first_step(chunk, now_s)
        due_s = chunk.due_times_s()[first:]
        if not len(due_s):
            raise ValueError("every step of the chunk is already due")
        positions, orientations = chunk.targets()
        orientations = orientations / np.linalg.norm(orientations, axis=-1, keepdims=True)
        old = self.running if self._followed(now_s, commanded) else None
        start = old.at(now_s) if old else Start.at_rest(commanded)
        seam = distance(start.pose, _target_at(chunk, positions, orientations, now_s))
        knots = []
        for time_s, position, orientation in zip(
            due_s, positions[first:], orientations[first:], strict=True
        ):
            target = Pose(position, orientation)
            weight = min((time_s - now_s) / self.blend_s, 1.0)
            before = old.at(time_s).pose if old else start.pose
            knots.append(interpolate(before, target, weight))
        path = path_through(
            np.diff(due_s, prepend=now_s),
            np.array([knot.position_m for knot in knots]),
            np.array([knot.orientation_xyzw for knot in knots]),
            start.pose,
        )
        return Plan(path, start, first, *seam)

    def commit(self, path: Path, start: Start, now_s: float) -> None:
        """The path was sent: it is the running reference from now on."""
        self.running = Running(path, start, now_s)

    def halt(self) -> None:
        """The robot was stopped: there is no reference any more."""
        self.running = None

    def moving(self, now_s: float) -> bool:
        """Whether the reference is not yet at rest."""
        return self.running is not None and now_s < self.running.end_s

    def time_slip_s(self, now_s: float, commanded: Pose) -> float:
        """How long the robot's commanded pose lags behind the reference, along its motion [s]."""
        if self.running is None:
            return 0.0
        reference = self.running.at(now_s)
        speed = float(np.linalg.norm(reference.linear_m_s))
        if speed < 0.02:  # too slow to tell a lag from noise
            return 0.0
        behind = reference.pose.position_m - commanded.position_m
        return float(behind @ reference.linear_m_s / speed**2)


def _target_at(chunk: Chunk, positions, orientations, now_s: float) -> Pose:
    """What the chunk asks for at now: between its steps, the anchor being step 0."""
    places = np.vstack([chunk.anchor[:3], positions])
    turned = np.vstack([chunk.anchor[3:], orientations])
    t = float(np.clip((now_s - chunk.stamp_s) / chunk.dt_s, 0.0, len(places) - 1))
    i = min(int(t), len(places) - 2)
    return interpolate(Pose(places[i], turned[i]), Pose(places[i + 1], turned[i + 1]), t - i)


def _hermite(move, v0, v1, duration_s, u):
    """Offset and velocity of the cubic with end offset `move` and end velocities v0, v1."""
    h01, h10, h11 = u * u * (3 - 2 * u), u * (1 - u) ** 2, u * u * (u - 1)
    offset = h01 * move + duration_s * (h10 * v0 + h11 * v1)
    velocity = 6 * u * (1 - u) * move / duration_s + (1 - u) * (1 - 3 * u) * v0
    return offset, velocity + u * (3 * u - 2) * v1
