"""What a Franka commands itself keeps the limits, by its own 1 kHz record and its own norm."""

import time
from dataclasses import replace

import numpy as np
import pytest
from franka_fixture import HOST, fault

from spear_bringup.control.path import path_through
from spear_bringup.drivers.franka import FrankaArm, FrankaSettings
from spear_bringup.drivers.franka_limits import ROBOT_LIMITS, generation_of, refuse_beyond
from spear_bringup.drivers.homing import joint_path
from spear_bringup.drivers.protocol import FaultKind, RobotError
from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import apply_delta

SETTINGS = FrankaSettings(HOST, realtime="ignore")
HOME_RAD = np.array([0.0, -0.3313, 0.0, -2.2884, 0.0, 1.9571, 0.7854])
PERIOD_S, STEPS = 0.2, 5
DIAGONAL = np.array([0.6, 0.55, -0.58])


@pytest.fixture
def arm(robot):
    """A connected arm."""
    arm = FrankaArm(SETTINGS)
    arm.connect()
    yield arm
    arm.disconnect()


def at_rest(arm):
    """The state once the arm rests."""
    steady_end_s, quiet = time.monotonic() + 60.0, 0
    while quiet < 10:
        assert time.monotonic() < steady_end_s, "the arm did not come to rest"
        state = arm.read_state()
        arm.check()
        still = np.max(np.abs(state.joint_velocities_rad_s)) < 0.003
        quiet = quiet + 1 if state.mode == "Idle" and still else 0
    return state


def go_home(arm):
    """To the home position, and to rest there."""
    here = arm.read_state().joint_positions_rad
    if np.max(np.abs(here - HOME_RAD)) > 1e-3:
        way = joint_path(here, HOME_RAD, 1.0)
        arm.send_joints(way.durations_s, way.positions_rad)
        time.sleep(0.02)
    return at_rest(arm)


def commanded(robot, arm, tmp_path, wanted, seconds, stop=False):
    """Rows (n, 8) of the record while a new path to what is `wanted` is sent each 0.2 s.

    Ungated, so that it is the planner that keeps the limits. `wanted` gives translation and
    rotation vector from home, in base and end-effector axes, at a time.
    """
    start_s, start, next_s = (state := go_home(arm)).robot_time_s, state.commanded, 0.0
    robot.inject("record")
    while (now_s := (state := arm.read_state()).robot_time_s - start_s) < seconds:
        arm.check()
        if now_s >= next_s:
            next_s += PERIOD_S
            moves = [wanted(now_s + PERIOD_S * i) for i in range(1, STEPS + 1)]
            poses = [apply_delta(start, m, quat.from_rotation_vector(r)) for m, r in moves]
            arm.send(
                path_through(
                    np.full(STEPS, PERIOD_S),
                    np.array([pose.position_m for pose in poses]),
                    np.array([pose.orientation_xyzw for pose in poses]),
                    state.commanded,
                )
            )
    if stop:
        arm.stop()
    at_rest(arm)
    robot.inject(f"write {tmp_path / 'record.npy'}")
    return np.load(tmp_path / "record.npy")


def peaks(rows):
    """Largest speed, acceleration and jerk of translation, then of rotation: lengths of vectors.

    Differences of the commanded pose at 1 kHz: the jerk is a mean over three milliseconds. In a
    motion's first 20 ms from rest there is no jerk here, and the acceleration is their mean: until
    the simulated robot has its first answer it does not wait for the client, and a state that this
    misses, on a busy machine, is a step of its extrapolation.
    """
    turns = quat.multiply(rows[1:, 4:], quat.inverse(rows[:-1, 4:]))
    found = []
    for velocity in (np.diff(rows[:, 1:4], axis=0) / 1e-3, quat.rotation_vector(turns) / 1e-3):
        acceleration = np.diff(velocity, axis=0) / 1e-3
        jerk = np.diff(acceleration, axis=0) / 1e-3
        moving = np.linalg.norm(velocity, axis=1) > 1e-5
        under_way = np.convolve(moving, np.ones(20), "valid") == 20
        single, jerk = (
            np.linalg.norm(each[skipped:][under_way[: len(each) - skipped]], axis=1)
            for each, skipped in ((acceleration, 18), (jerk, 17))
        )
        mean = np.linalg.norm(velocity[20:] - velocity[:-20], axis=1) / 20e-3
        found += [
            np.linalg.norm(velocity, axis=1).max(),
            max(single.max(initial=0.0), mean.max()),
            jerk.max(initial=0.0),
        ]
    return np.array(found)


def zigzag(t):
    """0 at the start, then +1 and -1 in turn, each 0.2 s."""
    knots = np.array([0.0, *np.resize([1.0, -1.0], 40)])
    return np.interp(t, PERIOD_S * np.arange(len(knots)), knots)


STILL = np.zeros(3)
MOTIONS = {
    "a diagonal line at 0.15 m/s from rest": (lambda t: (0.15 * t * DIAGONAL, STILL), 1.0, False),
    "a hold at 0.2 m/s": (lambda t: (0.2 * t * DIAGONAL, STILL), 0.7, True),
    "a line along one axis at the limit": (lambda t: ([0.0, 0.3 * t, 0.0], STILL), 0.8, False),
    "a diagonal turn at 0.5 rad/s": (lambda t: (STILL, 0.5 * t * DIAGONAL), 0.8, True),
    "a turn about a turning axis": (
        lambda t: (STILL, 0.2 * np.array([np.sin(5 * t), 1 - np.cos(5 * t), np.sin(3 * t)])),
        1.2,
        False,
    ),
    "a rotation that reverses each 0.2 s": (
        lambda t: (STILL, 0.125 * zigzag(t) * DIAGONAL),
        1.4,
        False,
    ),
    "a line that reverses each 0.2 s": (lambda t: (0.04 * zigzag(t) * DIAGONAL, STILL), 1.2, True),
}


@pytest.mark.parametrize("name", MOTIONS)
def test_the_commanded_pose_keeps_the_limits_on_the_length_of_its_vectors(
    robot, arm, tmp_path, name
):
    found = peaks(commanded(robot, arm, tmp_path, *MOTIONS[name]))
    s, own = SETTINGS, ROBOT_LIMITS["fr3"]
    limits = np.array([getattr(s, limit) for limit in own])[[0, 2, 4, 1, 3, 5]]
    robots = np.array(list(own.values()))[[0, 2, 4, 1, 3, 5]]
    bounded = [0, 1, 3, 4]
    assert np.all(found[bounded] <= 1.001 * limits[bounded]), found
    # Where one motion takes over from another the jerk is above the planner's, not the robot's.
    assert np.all(found <= robots), found
    assert found.max() > 0.1, "nothing moved"


def test_a_planner_that_fails_is_a_fault_on_the_way_and_none_at_the_end_of_the_path(robot, arm):
    failure, connection = (
        RuntimeError("Motion planner failed with error code -111"),
        arm._connection,
    )
    start = go_home(arm).commanded
    arm.send(
        path_through([0.3], [start.position_m + [0, 0, 0.02]], [start.orientation_xyzw], start)
    )
    assert fault(arm._after_failure, connection, failure).kind is FaultKind.PLANNER
    steady_end_s = time.monotonic() + 30.0
    while fault(arm._after_failure, connection, failure):
        assert time.monotonic() < steady_end_s
        time.sleep(0.01)


@pytest.mark.parametrize("generation", ROBOT_LIMITS)
@pytest.mark.parametrize("name", ROBOT_LIMITS["fr3"])
def test_a_limit_above_the_robots_own_is_refused_by_name_and_number(generation, name):
    refuse_beyond(SETTINGS, generation)
    most = ROBOT_LIMITS[generation][name]
    with pytest.raises(RobotError, match=rf"^{name} is .*{generation}.* allows {most:g}; lower"):
        refuse_beyond(replace(SETTINGS, **{name: 1.01 * most}), generation)


def test_an_acceleration_that_leaves_no_room_for_a_takeover_is_refused():
    with pytest.raises(RobotError, match="max_linear_acceleration_m_s2 is 8.9; .* allows 8.4"):
        refuse_beyond(replace(SETTINGS, max_linear_acceleration_m_s2=8.9), "fr3")


def test_a_robot_refuses_limits_above_its_own_at_once_and_is_free_again(robot):
    arm = FrankaArm(replace(SETTINGS, max_angular_acceleration_rad_s2=20.0))
    refusal = fault(arm.connect)
    assert refusal.kind is FaultKind.MODE
    assert "max_angular_acceleration_rad_s2 is 20" in str(refusal) and "17" in str(refusal)
    again = FrankaArm(SETTINGS)
    again.connect()
    again.disconnect()


def test_the_generation_is_what_the_robot_says_or_else_what_the_parameter_says():
    fr3, panda = '<?xml version="1.0" ?>\n<robot name="fr3v2">', "<robot name='panda'>"
    assert generation_of(fr3, "auto", "host") == generation_of(None, "fr3", "host") == "fr3"
    assert generation_of(panda, "auto", "host") == generation_of("", "panda", "host") == "panda"
    for description, wanted, sentence in (
        (None, "auto", "host does not say what it is; set robot_generation to fr3 or panda"),
        ('<robot name="ufo">', "auto", "calls itself 'ufo'; set robot_generation"),
        (fr3, "panda", "calls itself 'fr3v2', and robot_generation is panda; set it to fr3"),
    ):
        with pytest.raises(RobotError, match=sentence):
            generation_of(description, wanted, "host")
