"""The simulated robot as franky sees it: the fixes of franky-sim, grasping, faults, addresses."""

import dataclasses
import os
import signal
import socket
import struct
import subprocess
import sys
import time

import franky
import numpy as np
import pytest
from franky_sim.franka_gripper_protocol import GripperCommand, GripperCommandStatus
from franky_sim.franka_robot_protocol import RobotMode
from scipy.spatial.transform import Rotation

from spear_bringup.graph import free_loopback_host
from spear_bringup.sim.franka_robot import pack_state
from spear_bringup.sim.franka_server import HAND_PORT, AddressError, require_free
from spear_bringup.sim.world import World, WorldSettings

DOWN = Rotation.from_quat([1.0, 0.0, 0.0, 0.0])
CUBE = "red cube"


@pytest.fixture(scope="module")
def world():
    """A world without cameras that runs as fast as this machine can."""
    settings = WorldSettings(
        host=free_loopback_host(), layout="fixed", cameras=False, real_time_factor=0.0
    )
    world = World(settings)
    world.start()
    yield world
    world.close()


@pytest.fixture(scope="module")
def arm(world):
    robot = franky.Robot(world.settings.host, realtime_config=franky.RealtimeConfig.Ignore)
    robot.relative_dynamics_factor = 0.3
    return robot


@pytest.fixture(scope="module")
def hand(world):
    return franky.Gripper(world.settings.host)


@pytest.fixture(scope="module")
def arm_world():
    """A second world, whose only client may be frozen and killed."""
    settings = WorldSettings(host=free_loopback_host(), cameras=False, real_time_factor=0.0)
    world = World(settings)
    world.start()
    yield world
    world.close()


def to(x, y, z, yaw_rad=0.0):
    pose = franky.Affine([x, y, z], (Rotation.from_euler("z", yaw_rad) * DOWN).as_quat())
    return franky.CartesianMotion(pose, franky.ReferenceType.Absolute)


def wait_until(condition, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def let_pass(world, seconds):
    end = world.time_s + seconds
    wait_until(lambda: world.time_s >= end)


def commanded_and_measured(robot):
    state = robot.state
    return state.O_T_EE_c.translation, state.O_T_EE.translation


def test_the_measured_pose_trails_the_commanded_one_in_motion_and_meets_it_at_rest(world, arm):
    arm.move(to(0.45, 0.0, 0.35))
    arm.move(to(0.45, 0.15, 0.35), asynchronous=True)
    gaps = []
    while not arm.poll_motion():
        commanded, measured = commanded_and_measured(arm)
        gaps.append(np.linalg.norm(commanded - measured))
    arm.join_motion()
    assert 0.002 < max(gaps) < 0.03
    let_pass(world, 0.5)
    commanded, measured = commanded_and_measured(arm)
    assert commanded == pytest.approx([0.45, 0.15, 0.35], abs=1e-5)
    assert measured == pytest.approx(commanded, abs=5e-4)


def test_motions_in_a_row_add_up_and_end_at_rest(arm):
    """Each starts where the one before was told to end, and with no speed left over."""
    arm.move(to(0.45, 0.0, 0.35))
    for sign in (1, -1, 1, -1):
        step = franky.Affine([0.0, 0.0, sign * 0.03])
        arm.move(franky.CartesianMotion(step, franky.ReferenceType.Relative))
        assert np.abs(arm.state.O_dP_EE_c.linear).max() < 1e-6
        assert np.abs(arm.state.dq_d).max() < 1e-6
    commanded, _ = commanded_and_measured(arm)
    assert commanded == pytest.approx([0.45, 0.0, 0.35], abs=1e-5)


def test_joint_motions_reach_their_joints(world, arm):
    goal = np.array([0.1, -0.3, 0.1, -2.2, 0.0, 1.95, 0.9])
    arm.move(franky.JointMotion(goal))
    let_pass(world, 0.5)
    assert arm.state.q == pytest.approx(goal, abs=2e-3)


def test_our_state_packet_is_franky_sims(world, arm):
    arm.relative_dynamics_factor = 0.02  # slowly: it must still move when we look
    arm.move(to(0.45, 0.05, 0.36), asynchronous=True)
    arm.relative_dynamics_factor = 0.3
    server = world.server.robot

    def both():
        state = server.robot_state
        return pack_state(world.sim.robots[0], *server.modes), state.pack_state(), state

    wait_until(lambda: server.current_motion_id)
    ours, theirs, state = world.call(both)
    assert ours == theirs and state.robot_mode == RobotMode.kMove
    arm.join_motion()
    ours, theirs, state = world.call(both)
    assert ours == theirs and state.robot_mode == RobotMode.kIdle


def test_a_cube_is_grasped_lifted_and_carried_without_slipping(world, arm, hand):
    world.reset(0)
    cube = world.object_poses()[CUBE]
    x, y, z = cube.position_m
    yaw = Rotation.from_quat(cube.orientation_xyzw).as_euler("xyz")[2]
    hand.open(0.1)
    arm.move(to(x, y, 0.15, yaw))
    arm.move(to(x, y, z, yaw))
    assert hand.grasp(0.0, 0.1, 40.0, 0.01, 0.08)
    assert hand.width == pytest.approx(0.04, abs=1e-3)
    arm.move(to(x, y, 0.20, yaw))
    arm.move(to(0.50, 0.15, 0.25, yaw))
    let_pass(world, 0.5)
    carried = world.object_poses()[CUBE]
    assert carried.position_m == pytest.approx([0.50, 0.15, 0.25], abs=4e-3)
    let_pass(world, 3.0)
    assert world.object_poses()[CUBE].position_m == pytest.approx(carried.position_m, abs=5e-4)
    hand.open(0.1)


def test_a_grasp_of_just_the_width_presses_and_an_empty_one_says_false(world, arm, hand):
    hand.open(0.1)
    arm.move(to(0.45, 0.0, 0.35))
    assert hand.grasp(0.04, 0.1, 30.0, 0.005, 0.005) is False
    hand.open(0.1)
    world.reset(0)
    cube = world.object_poses()[CUBE]
    x, y, z = cube.position_m
    yaw = Rotation.from_quat(cube.orientation_xyzw).as_euler("xyz")[2]
    arm.move(to(x, y, 0.15, yaw))
    arm.move(to(x, y, z, yaw))
    assert hand.grasp(0.04, 0.1, 30.0, 0.005, 0.005) is True
    arm.move(to(x, y, 0.15, yaw))
    assert world.object_poses()[CUBE].position_m[2] > 0.14
    hand.open(0.1)


def test_a_gripper_command_that_is_replaced_is_answered_as_aborted(arm_world):
    """Spoken on the wire: franky's own threads may hold back the second command."""
    header = struct.Struct("<HII")
    connect, move, stop = 0, GripperCommand.kMove, GripperCommand.kStop
    with (
        socket.create_connection((arm_world.settings.host, HAND_PORT)) as hand,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as states,
    ):
        states.bind(("127.0.0.1", 0))

        def send(command, number, payload=b""):
            hand.sendall(header.pack(command, number, header.size + len(payload)) + payload)

        def answer():
            command, number, size = header.unpack(receive(hand, header.size))
            return command, number, receive(hand, size - header.size)[:2]

        send(connect, 0, struct.pack("<HH", 3, states.getsockname()[1]))
        assert answer()[:2] == (connect, 0)
        # Slowly: this world runs as fast as it can, and the command must still be under way then.
        send(move, 1, struct.pack("<dd", 0.0, 0.001))
        wait_until(lambda: arm_world.server.robot.robot.hand_width < 0.0795)
        send(stop, 2)
        assert answer() == (move, 1, struct.pack("<H", GripperCommandStatus.kAborted))
        assert answer() == (stop, 2, struct.pack("<H", GripperCommandStatus.kSuccess))


def receive(connection, size):
    data = b""
    while len(data) < size:
        data += connection.recv(size - len(data))
    return data


def test_a_reflex_stops_the_motion_until_it_is_recovered(world, arm):
    arm.move(to(0.45, 0.0, 0.35))
    arm.move(to(0.45, 0.15, 0.35), asynchronous=True)
    wait_until(lambda: world.server.robot.current_motion_id)
    world.call(world.server.robot.trigger_reflex)
    with pytest.raises(franky.ControlException, match="cartesian_reflex"):
        arm.join_motion()
    assert arm.has_errors
    with pytest.raises(franky.CommandException):
        arm.move(to(0.45, 0.0, 0.35))
    assert arm.recover_from_errors() and not arm.has_errors
    arm.move(to(0.45, 0.0, 0.35))


CLIENT = """
import franky, sys
robot = franky.Robot(sys.argv[1], realtime_config=franky.RealtimeConfig.Ignore)
robot.relative_dynamics_factor = 0.02
print("moving", flush=True)
robot.move(franky.CartesianMotion(franky.Affine([0, 0, 0.3]), franky.ReferenceType.Relative))
"""


@pytest.fixture
def client_in_motion(arm_world):
    """A client in its own process, in the middle of a motion of many seconds."""
    command = [sys.executable, "-c", CLIENT, arm_world.settings.host]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout.readline().strip() == "moving"
        server = arm_world.server.robot
        wait_until(lambda: np.abs(server.robot.inner_state.dq).max() > 0.005)
        yield client
        client.kill()


def test_physics_waits_for_a_client_that_is_late_but_not_for_a_dead_one(
    arm_world, client_in_motion, monkeypatch
):
    server = arm_world.server.robot
    given_up = []  # (unanswered states, simulated time) at each loss of patience
    wait = server.wait_for_client

    def watched():
        unanswered, before = server.client_lag_ticks, server.client_silent
        wait()
        if server.client_silent and not before:
            given_up.append((unanswered, arm_world.time_s))

    monkeypatch.setattr(server, "wait_for_client", watched)
    os.kill(client_in_motion.pid, signal.SIGSTOP)
    wait_until(lambda: given_up)
    unanswered, waited_at_s = given_up[0]
    assert unanswered == 1  # not a tick passed without its answer
    wait_until(lambda: arm_world.time_s > waited_at_s + 0.1)


def test_a_client_that_dies_leaves_the_arm_still_and_the_next_one_is_served(
    arm_world, client_in_motion
):
    client_in_motion.kill()
    server = arm_world.server.robot
    wait_until(lambda: not server.current_motion_id)
    robot = franky.Robot(arm_world.settings.host, realtime_config=franky.RealtimeConfig.Ignore)
    let_pass(arm_world, 0.5)
    assert np.abs(robot.state.dq).max() < 1e-3


def test_a_taken_port_is_named_with_the_fix(world):
    with pytest.raises(AddressError, match=r"port 1337 of 127\..* already taken.*another address"):
        World(dataclasses.replace(world.settings, seed=1))


@pytest.mark.parametrize("port", [1337, 1338])
def test_either_port_may_be_the_taken_one(port):
    host = free_loopback_host()
    with socket.create_server((host, port)):
        with pytest.raises(AddressError, match=f"port {port} of {host} is already taken"):
            require_free(host)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_refused_in_words(host):
    with pytest.raises(AddressError, match=f"'{host}' is no address of this machine"):
        require_free(host)


def test_a_closed_world_frees_its_ports_for_the_next():
    settings = WorldSettings(host=free_loopback_host(), cameras=False, real_time_factor=0.0)
    for _ in range(2):
        world = World(settings)
        world.start()
        robot = franky.Robot(settings.host, realtime_config=franky.RealtimeConfig.Ignore)
        assert robot.state.q == pytest.approx(world.server.robot.robot.initial_q, abs=1e-2)
        del robot
        world.close()
