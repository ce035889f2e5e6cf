"""From paths to franky motions: units, whole milliseconds, bounds of the robot's planner."""

from dataclasses import dataclass

import franky
import numpy as np
from numpy.typing import NDArray

from spear_bringup.control.path import Path

KNOT_SPEED_MARGIN = 0.9  # of the planner's limit, which it refuses a knot to stand at exactly
PLANNER_SPEED_MARGIN = 1.25  # between two knots the robot's own profile is faster than their chord


@dataclass(frozen=True)
class FrankaSettings:
    """How to reach and drive one Franka.

    Attributes:
        address: host name or IP address of the robot's control box.
        realtime: "enforce" (refuse a kernel without real time) or "ignore" (simulated robot).
        velocity_factor, acceleration_factor, jerk_factor: share (0..1) of the robot's own limits
            that its planner may use, whatever a path asks for.
        max_linear_speed_m_s, max_angular_speed_rad_s: the gate's limits. Where they are the lower
            ones, they bound the robot's planner too, with PLANNER_SPEED_MARGIN on top.
        collision_torque_nm, collision_force_n: contact thresholds of the robot's reflex.
        connect_timeout_s: how long `connect` may take.
    """

    address: str
    realtime: str = "enforce"
    velocity_factor: float = 0.5
    acceleration_factor: float = 0.6
    jerk_factor: float = 0.15
    max_linear_speed_m_s: float = 0.3
    max_angular_speed_rad_s: float = 1.0
    collision_torque_nm: float = 20.0
    collision_force_n: float = 30.0
    connect_timeout_s: float = 3.0


def limit_planner(robot: franky.Robot, settings: FrankaSettings) -> None:
    """Bound the end-effector speeds that the robot's planner may reach; not while it moves."""
    for limit, wanted in (
        (robot.translation_velocity_limit, settings.max_linear_speed_m_s),
        (robot.rotation_velocity_limit, settings.max_angular_speed_rad_s),
    ):
        # Motions multiply the limit with the factor again.
        limit.set(min(limit.max, PLANNER_SPEED_MARGIN * wanted / settings.velocity_factor))


def cartesian_stop(settings: FrankaSettings) -> franky.CartesianStopMotion:
    """Come to rest from a Cartesian motion."""
    return franky.CartesianStopMotion(_factors(settings))


def joint_stop(settings: FrankaSettings) -> franky.JointStopMotion:
    """Come to rest from a joint motion."""
    return franky.JointStopMotion(_factors(settings))


def cartesian_motion(
    path: Path, robot: franky.Robot, settings: FrankaSettings
) -> franky.CartesianWaypointMotion:
    """Absolute waypoints with a velocity each and a last one at rest; single-use."""
    share = KNOT_SPEED_MARGIN * settings.velocity_factor
    linear = _shortened(path.linear_m_s, share * robot.translation_velocity_limit.get())
    angular = _shortened(path.angular_rad_s, share * robot.rotation_velocity_limit.get())
    waypoints = []
    for i, duration in enumerate(_milliseconds(path.durations_s)):
        pose = franky.RobotPose(franky.Affine(path.positions_m[i], path.orientations_xyzw[i]))
        target = franky.CartesianState(pose)
        if i < len(path) - 1:  # a last knot with a velocity would have to be followed by another
            velocity = franky.RobotVelocity(franky.Twist(linear[i], angular[i]))
            target = franky.CartesianState(pose, velocity)
        waypoints.append(
            franky.CartesianWaypoint(
                target, franky.ReferenceType.Absolute, minimum_time=franky.Duration(duration)
            )
        )
    return franky.CartesianWaypointMotion(waypoints, relative_dynamics_factor=_factors(settings))


def joint_motion(
    durations_s: NDArray, joints: NDArray, robot: franky.Robot, settings: FrankaSettings
) -> franky.JointWaypointMotion:
    """Joint waypoints (N, 7) [rad] with central-difference velocities, at rest at the end."""
    limits = KNOT_SPEED_MARGIN * settings.velocity_factor * robot.joint_velocity_limit.get()
    velocities = np.zeros_like(joints)
    if len(joints) > 1:
        here = np.asarray(robot.state.q_d, float)
        knots = np.vstack([here, joints])
        spans = durations_s[:-1] + durations_s[1:]
        velocities[:-1] = (knots[2:] - knots[:-2]) / spans[:, None]
    velocities = np.clip(velocities, -limits, limits)
    waypoints = [
        franky.JointWaypoint(
            franky.JointState(position, velocity),
            franky.ReferenceType.Absolute,
            minimum_time=franky.Duration(duration),
        )
        for position, velocity, duration in zip(
            joints, velocities, _milliseconds(durations_s), strict=True
        )
    ]
    return franky.JointWaypointMotion(waypoints, relative_dynamics_factor=_factors(settings))


def _factors(settings: FrankaSettings) -> franky.RelativeDynamicsFactor:
    return franky.RelativeDynamicsFactor(
        settings.velocity_factor, settings.acceleration_factor, settings.jerk_factor
    )


def _shortened(vectors: NDArray, limit: float) -> NDArray:
    """Each row of (N, 3) scaled to a length of at most `limit`, direction kept."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors * np.minimum(1.0, limit / np.maximum(length, 1e-12))


def _milliseconds(durations_s: NDArray) -> list[int]:
    """Durations in whole milliseconds whose sums do not drift; at least 1 ms each."""
    ends = np.round(1e3 * np.cumsum(durations_s)).astype(int)
    return [max(1, int(step)) for step in np.diff(ends, prepend=0)]
