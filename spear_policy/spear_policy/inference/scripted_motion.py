"""The reference that the scripted expert moves: a gripper that points down, led to waypoints.

Position in the base frame and heading about base z follow a square-root controller: full speed
far away, constant deceleration near, exponential at the end, acceleration bounded throughout.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import Pose


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
class Reference:
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


def reference_at(pose: Pose, velocity_m_s: NDArray, max_tilt_rad: float = 0.6) -> Reference:
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
    return Reference(pose.position_m, heading, np.asarray(velocity_m_s, float), 0.0, tilt)


def advance(
    state: Reference,
    position_m: NDArray,
    heading_rad: float,
    speed_m_s: float,
    limits: MotionLimits,
    dt_s: float,
) -> Reference:
    """The reference `dt_s` later, on its way to a waypoint with at most `speed_m_s`."""
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


def between(a: Reference, b: Reference, t: float) -> Reference:
    """From a (t=0) to b (t=1), linear: the two are one short step apart."""
    mixed = {
        name: getattr(a, name) + t * (getattr(b, name) - getattr(a, name))
        for name in ("position_m", "heading_rad", "velocity_m_s", "turning_rad_s", "tilt")
    }
    return Reference(**mixed)


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
