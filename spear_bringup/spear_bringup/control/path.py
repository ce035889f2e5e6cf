"""Timed Cartesian paths, and the player that turns chunks into them.

A path is known by its knots. Between two of them the reference is the cubic Hermite curve with the
velocities at its ends, in position and in the rotation vector from the earlier knot (base axes).

`ChunkPlayer` enters a chunk at now, fades out of the running path, and ends at rest. The gate
judges its paths (`gate.peaks`), and a robot runs them.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import Chunk, Pose, distance, entry_step, interpolate

# Beyond this the robot is not doing what the reference says, and fading from it would be a jump.
RESYNCHRONISE_M = 0.03
RESYNCHRONISE_RAD = 0.2


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


@dataclass(frozen=True, eq=False)
class Reference:
    """Pose and velocities at one time of a path, base frame [m/s, rad/s]."""

    pose: Pose
    linear_m_s: NDArray
    angular_rad_s: NDArray

    @classmethod
    def at_rest(cls, pose: Pose) -> "Reference":
        """The pose, without motion."""
        return cls(pose, np.zeros(3), np.zeros(3))


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


def turns(path: Path, start: Pose) -> NDArray:
    """Rotation vectors (N, 3) [rad] in base axes from each knot's predecessor to the knot."""
    before = np.vstack([start.orientation_xyzw, path.orientations_xyzw[:-1]])
    return quat.rotation_vector(quat.multiply(path.orientations_xyzw, quat.inverse(before)))


@dataclass(frozen=True, eq=False)
class RunningPath:
    """A path under way since `start_s` (node clock), as the cubic between its knots."""

    path: Path
    start: Reference
    start_s: float

    @property
    def end_s(self) -> float:
        """When the path comes to rest, node clock."""
        return self.start_s + float(np.sum(self.path.durations_s))

    def at(self, time_s: float) -> Reference:
        """Pose and velocity of the reference at a time; the rest pose after the end."""
        ends = self.start_s + np.cumsum(self.path.durations_s)
        if time_s >= ends[-1]:
            return Reference.at_rest(
                Pose(self.path.positions_m[-1], self.path.orientations_xyzw[-1])
            )
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
        return Reference(Pose(before.pose.position_m + offset, orientation), linear, angular)

    def knots_passed(self, time_s: float) -> int:
        """How many knots the reference has reached at a time."""
        ends = self.start_s + np.cumsum(self.path.durations_s)
        return int(np.searchsorted(ends, time_s, side="right"))

    def _knot(self, index: int) -> Reference:
        path = self.path
        pose = Pose(path.positions_m[index], path.orientations_xyzw[index])
        return Reference(pose, path.linear_m_s[index], path.angular_rad_s[index])


@dataclass(frozen=True, eq=False)
class Plan:
    """What a chunk becomes at a given now: the blended path, its start, and the seam before it."""

    path: Path
    start: Reference
    skipped: int
    seam_m: float
    seam_rad: float


class ChunkPlayer:
    """Holds the running reference and plans the next path from a chunk. Numbers only, no robot."""

    def __init__(self, blend_s: float, min_lead_s: float):
        self.blend_s, self.min_lead_s = blend_s, min_lead_s
        self.running: RunningPath | None = None

    def reference(self, now_s: float, commanded: Pose) -> Reference:
        """The running reference at now, or rest at the robot's own commanded pose."""
        return self._followed(now_s, commanded) or Reference.at_rest(commanded)

    def _followed(self, now_s: float, commanded: Pose) -> Reference | None:
        """The running reference at now; None when there is none or the robot is not on it."""
        if self.running is None:
            return None
        reference = self.running.at(now_s)
        translation, rotation = distance(reference.pose, commanded)
        on_it = translation <= RESYNCHRONISE_M and rotation <= RESYNCHRONISE_RAD
        return reference if on_it else None

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
        followed = self._followed(now_s, commanded)
        old = self.running if followed else None
        start = followed or Reference.at_rest(commanded)
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

    def commit(self, path: Path, start: Reference, now_s: float) -> None:
        """The path was sent: it is the running reference from now on."""
        self.running = RunningPath(path, start, now_s)

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
