"""How to reach and drive a Franka, and the limits of its generation that bound its planner.

franky's planner bounds each axis of the end effector's frame alone, while the robot, the gate and
a person who reads a limit mean the length of the vector. So each axis gets 1/sqrt(3) of the limits
of acceleration and jerk: the planner uses them fully, on every axis that moves. Speed it uses only
as far as a path needs it: `franka.cartesian_motion` gives each waypoint what keeps the vector.
"""

import re
from dataclasses import dataclass

import franky
import numpy as np

from spear_bringup.drivers.protocol import FaultKind, RobotError

# The robot's own limits, by its generation --------------------------------------------------------

# On the length of the vector: `rate_limiting.h` of libfranka 0.21 (FR3) and of 0.9 (Panda);
# franky's `.max` are the Panda's.
ROBOT_LIMITS = {
    "fr3": {
        "max_linear_speed_m_s": 3.0,
        "max_angular_speed_rad_s": 2.5,
        "max_linear_acceleration_m_s2": 9.0,
        "max_angular_acceleration_rad_s2": 17.0,
        "max_linear_jerk_m_s3": 4500.0,
        "max_angular_jerk_rad_s3": 8500.0,
    },
    "panda": {
        "max_linear_speed_m_s": 1.7,
        "max_angular_speed_rad_s": 2.5,
        "max_linear_acceleration_m_s2": 13.0,
        "max_angular_acceleration_rad_s2": 25.0,
        "max_linear_jerk_m_s3": 6500.0,
        "max_angular_jerk_rad_s3": 12500.0,
    },
}
_FR3_JOINT_ACCELERATION_RAD_S2, _FR3_JOINT_JERK_RAD_S3 = 10.0, 5000.0
TICK_S = 1e-3  # of the robot's control
AXIS_SHARE = 3**-0.5  # of a vector's length for each of three axes, whatever its direction
SPEED_SHARE = 0.98  # of the limit of speed: the profiles of the three axes differ a little
# A motion that takes over begins with the speed of the last whole millisecond, half a millisecond
# old: for one millisecond the acceleration is half of what it was.
_TAKEOVER_S = 0.5e-3


@dataclass(frozen=True)
class FrankaSettings:
    """How to reach and drive one Franka.

    Attributes:
        address: host name or IP address of the robot's control box.
        realtime: "enforce" (refuse a kernel without real time) or "ignore" (simulated robot).
        robot_generation: "fr3", "panda", or "auto": what the robot's own description says.
        max_*: the gate's limits, on the length of the vector; the robot's planner keeps them too.
        joint_velocity_factor, joint_acceleration_factor, joint_jerk_factor: share (0..1) of the
            joints' own limits that the planner may use on the way home.
        collision_torque_nm, collision_force_n: contact thresholds of the robot's reflex.
        connect_timeout_s: how long `connect` may take.
    """

    address: str
    realtime: str = "enforce"
    robot_generation: str = "auto"
    max_linear_speed_m_s: float = 0.3
    max_angular_speed_rad_s: float = 1.0
    max_linear_acceleration_m_s2: float = 6.5
    max_angular_acceleration_rad_s2: float = 14.0
    max_linear_jerk_m_s3: float = 300.0
    max_angular_jerk_rad_s3: float = 1200.0
    joint_velocity_factor: float = 0.5
    joint_acceleration_factor: float = 0.6
    joint_jerk_factor: float = 0.15
    collision_torque_nm: float = 20.0
    collision_force_n: float = 30.0
    connect_timeout_s: float = 3.0


def generation_of(description: str | None, wanted: str, address: str) -> str:
    """Which robot it is, "fr3" or "panda".

    Args:
        description: the URDF that the robot sends about itself; None from the firmware of a Panda
            and of an FR3 before system 5.7, which have none.
        wanted: the parameter robot_generation.
        address: the robot's address, for the sentence.

    Raises:
        RobotError: nothing tells, or the parameter contradicts the robot.
    """
    named = re.search(r"<robot[^>]*\bname=[\"']([^\"']+)", description or "")
    name = named[1] if named else ""
    known = "panda" if "panda" in name else "fr3" if name.startswith(("fr3", "fp3")) else ""
    if wanted == "auto" and not known:
        told = f"calls itself {name!r}" if name else "does not say what it is"
        text = f"the robot at {address} {told}; set robot_generation to fr3 or panda"
        raise RobotError(FaultKind.MODE, text)
    if wanted != "auto" and known not in ("", wanted):
        text = f"the robot at {address} calls itself {name!r}, and robot_generation is {wanted}"
        raise RobotError(FaultKind.MODE, f"{text}; set it to {known} or auto")
    return known or wanted


def refuse_beyond(settings: FrankaSettings, generation: str) -> None:
    """Raise RobotError for a limit above the robot's own, naming the parameter and the number."""
    own = ROBOT_LIMITS[generation]
    for name, most in own.items():
        value = getattr(settings, name)
        if value > most:
            text = f"{name} is {value:g} and this robot ({generation}) allows {most:g}; lower it"
            raise RobotError(FaultKind.MODE, text)
    for kind, unit in (("linear", "m_s"), ("angular", "rad_s")):
        acceleration, jerk = f"max_{kind}_acceleration_{unit}2", f"max_{kind}_jerk_{unit}3"
        value, beside = getattr(settings, acceleration), getattr(settings, jerk)
        most = (own[jerk] - beside) * TICK_S**2 / _TAKEOVER_S
        if value > most:
            text = (
                f"{acceleration} is {value:g}; beside {jerk} {beside:g} this robot ({generation}), "
                f"whose jerk is {own[jerk]:g} at most, allows {most:.3g}; lower one of the two"
            )
            raise RobotError(FaultKind.MODE, text)


def limit_planner(robot: franky.Robot, settings: FrankaSettings, generation: str) -> None:
    """Bound the robot's planner by settings that were checked; not while it moves."""
    s = settings
    for name, value in (
        ("translation_velocity", SPEED_SHARE * s.max_linear_speed_m_s),
        ("rotation_velocity", SPEED_SHARE * s.max_angular_speed_rad_s),
        ("translation_acceleration", AXIS_SHARE * s.max_linear_acceleration_m_s2),
        ("rotation_acceleration", AXIS_SHARE * s.max_angular_acceleration_rad_s2),
        ("translation_jerk", AXIS_SHARE * s.max_linear_jerk_m_s3),
        ("rotation_jerk", AXIS_SHARE * s.max_angular_jerk_rad_s3),
    ):
        getattr(robot, f"{name}_limit").set(value)
    if generation == "fr3":
        for limit, most in (
            (robot.joint_acceleration_limit, _FR3_JOINT_ACCELERATION_RAD_S2),
            (robot.joint_jerk_limit, _FR3_JOINT_JERK_RAD_S3),
        ):
            limit.set(np.minimum(limit.max, most))
