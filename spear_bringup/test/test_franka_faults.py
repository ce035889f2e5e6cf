"""Each way in which a Franka stops moving is classed, and only `recover` brings it back."""

import os
import subprocess
import sys
import time

import franky
import numpy as np
import pytest
from franka_fixture import HOST, fault
from point_arm import until

from spear_bringup.control.path import path_through
from spear_bringup.drivers import franka as franka_module
from spear_bringup.drivers.franka import FrankaArm, FrankaSettings
from spear_bringup.drivers.franka_faults import fault_of, fault_of_state
from spear_bringup.drivers.protocol import FaultKind


@pytest.fixture
def arm(robot):
    """A connected arm without faults."""
    arm = FrankaArm(FrankaSettings(HOST, realtime="ignore", connect_timeout_s=20.0))
    arm.connect()
    arm.recover()
    yield arm
    arm.disconnect()


def along_y(arm, metres=0.05, seconds=1.0):
    """A path of five knots from where the arm is."""
    start = arm.read_state().commanded
    ends = start.position_m + np.outer(np.arange(1, 6) / 5, [0.0, metres, 0.0])
    return path_through(np.full(5, seconds / 5), ends, [start.orientation_xyzw] * 5, start)


def moves(arm):
    """Whether a path still moves the arm; goes back and forth so that it stays in place."""
    for metres in (0.04, -0.04):
        goal = arm.read_state().commanded.position_m[1] + metres
        arm.send(along_y(arm, metres, 0.6))

        def arrived(goal=goal):
            state = arm.read_state()
            arm.check()
            return state.mode == "Idle" and abs(state.commanded.position_m[1] - goal) < 0.003

        until(arrived)
    return True


def test_a_reflex_is_named_and_cleared_by_recover(robot, arm):
    arm.send(along_y(arm, 0.1, 4.0))
    until(lambda: arm.read_state().mode == "Move")
    robot.inject("reflex")
    seen = until(lambda: fault(arm.check))
    assert seen.kind is FaultKind.REFLEX
    assert "clear what it met" in str(seen)
    state = until(lambda: arm.read_state() if arm.read_state().mode == "Reflex" else None)
    assert state.errors == ("cartesian_reflex",)
    refused = fault(arm.send, along_y(arm))
    assert refused.kind is FaultKind.REFLEX
    assert fault(arm.check).kind is FaultKind.REFLEX, (
        "a reflex stays a fault until a person clears it"
    )
    arm.recover()
    arm.check()
    assert moves(arm)


def test_a_pressed_user_stop_is_a_fault_of_mode_until_it_is_released(robot, arm):
    robot.inject("mode UserStopped")
    until(lambda: arm.read_state().mode == "UserStopped")
    seen = fault(arm.check)
    assert seen.kind is FaultKind.MODE
    assert "user stop" in str(seen)
    assert fault(arm.recover).kind is FaultKind.MODE
    robot.inject("mode Idle")
    arm.recover()
    assert moves(arm)


def test_a_plan_that_fails_at_once_is_made_once_more(arm, monkeypatch):
    launches = []

    def first_one_fails(connection, make_motion, launch=arm._launch):
        launches.append(make_motion)
        if len(launches) == 1:
            raise RuntimeError("Motion planner failed with error code -111")
        launch(connection, make_motion)

    monkeypatch.setattr(arm, "_launch", first_one_fails)
    goal = arm.read_state().commanded.position_m[1] + 0.04
    arm.send(along_y(arm, 0.04))
    until(lambda: arm.check() is None and arm.read_state().commanded.position_m[1] > goal - 0.001)
    assert len(launches) == 2


def test_a_motion_that_fails_after_it_was_sent_is_not_sent_again(arm, monkeypatch):
    made = []

    def bad(path, robot, make=franka_module.cartesian_motion):
        made.append(path)
        return make(path.slowed(1e-2), robot)

    monkeypatch.setattr(franka_module, "cartesian_motion", bad)
    # A knot above the planner's limit is what it refuses.
    monkeypatch.setattr("spear_bringup.drivers.franka._KNOT_SHARE", 9.0)
    monkeypatch.setattr("spear_bringup.drivers.franka._START_CHECK_S", 0.0)
    before = arm.read_state().commanded.position_m
    seen = fault(arm.send, along_y(arm, 0.04)) or until(lambda: fault(arm.check))
    assert seen.kind is FaultKind.PLANNER and len(made) == 1
    time.sleep(0.1)
    arm.check()
    assert np.allclose(arm.read_state().commanded.position_m, before, atol=1e-3)


def test_a_planner_that_refuses_twice_is_a_fault_and_the_next_motion_runs(arm, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("spear_bringup.drivers.franka._KNOT_SHARE", 9.0)
        too_fast = along_y(arm).slowed(1e-2)
        seen = fault(arm.send, too_fast) or until(lambda: fault(arm.check))
    assert seen.kind is FaultKind.PLANNER
    until(lambda: arm.read_state().mode == "Idle")
    assert moves(arm)


def test_a_cut_cable_is_a_network_fault_and_only_recover_reconnects(robot, arm):
    arm.send(along_y(arm, 0.1, 4.0))
    until(lambda: arm.read_state().mode == "Move")
    robot.freeze()
    try:
        seen = until(lambda: fault(arm.read_state))
    finally:
        robot.thaw()
    assert seen.kind is FaultKind.NETWORK
    time.sleep(0.2)  # the robot is there again, and that alone must not bring it back
    for call, arguments in ((arm.read_state, ()), (arm.check, ()), (arm.stop, ())):
        assert fault(call, *arguments).kind is FaultKind.NETWORK
    arm.recover()
    arm.check()
    assert moves(arm)


@pytest.mark.kills_processes
def test_a_robot_that_was_switched_off_comes_back_by_recover(robot, arm):
    robot.kill()
    seen = until(lambda: fault(arm.read_state))
    assert seen.kind is FaultKind.NETWORK
    refused = fault(arm.recover)
    assert refused.kind is FaultKind.NETWORK
    assert HOST in str(refused) and "FCI" in str(refused)
    robot.start()
    assert fault(arm.read_state).kind is FaultKind.NETWORK
    arm.recover()
    assert moves(arm)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.42.0.99", ("127.42.0.99", "refuses", "robot_host")),  # nobody listens there
        ("no-such-robot.invalid", ("no host", "robot_host")),
    ],
)
def test_a_wrong_address_fails_with_a_sentence(address, words):
    arm = FrankaArm(FrankaSettings(address, realtime="ignore"))
    seen = fault(arm.connect)
    assert seen.kind is FaultKind.NETWORK
    assert all(word in str(seen) for word in words), str(seen)


def test_a_robot_that_another_program_holds_fails_connect_in_bounded_time(arm):
    second = FrankaArm(FrankaSettings(HOST, realtime="ignore", connect_timeout_s=0.5))
    seen = fault(second.connect)  # without its limit it would wait for ever
    assert seen.kind is FaultKind.NETWORK
    assert "another program" in str(seen)
    assert moves(arm), "the first client lost the robot"


def test_a_silent_address_does_not_keep_the_process_from_ending():
    code = (
        "from spear_bringup.drivers.franka import FrankaArm, FrankaSettings\n"
        "FrankaArm(FrankaSettings('10.255.255.1', 'ignore', connect_timeout_s=0.5)).connect()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "RobotError" in done.stderr and "10.255.255.1" in done.stderr


def test_a_kernel_without_real_time_is_refused_with_the_way_out(robot):
    if os.path.exists("/sys/kernel/realtime"):
        pytest.skip("this kernel has real time, so nothing is refused")
    seen = fault(FrankaArm(FrankaSettings(HOST, realtime="enforce")).connect)
    assert "realtime" in str(seen) and "ignore" in str(seen)


@pytest.mark.parametrize(
    ("error", "mode", "kind"),
    [
        (franky.NetworkException("libfranka: UDP receive: Timeout"), "Move", FaultKind.NETWORK),
        (RuntimeError("Net Exception"), "Idle", FaultKind.NETWORK),
        (RuntimeError("Motion planner failed with error code -100"), "Idle", FaultKind.PLANNER),
        (franky.ControlException("motion aborted by reflex! []"), "Move", FaultKind.REFLEX),
        (franky.CommandException("not possible in the current mode"), "Reflex", FaultKind.REFLEX),
        (franky.CommandException("not possible in the current mode"), "Guiding", FaultKind.MODE),
        (
            franky.ControlException("Move command aborted: User Stop pressed!"),
            "UserStopped",
            FaultKind.MODE,
        ),
        (franky.InvalidMotionTypeException("type of motion"), "Move", FaultKind.PLANNER),
        (RuntimeError("something new"), "Idle", FaultKind.NETWORK),
    ],
)
def test_errors_of_franky_are_classed(error, mode, kind):
    seen = fault_of(error, "10.0.0.1", mode)
    assert seen.kind is kind
    assert "libfranka" not in str(seen) and "\n" not in str(seen)


@pytest.mark.parametrize(
    ("mode", "errors", "kind"),
    [
        ("Idle", (), None),
        ("Move", (), None),
        ("Idle", ("joint_reflex",), FaultKind.REFLEX),
        ("Reflex", (), FaultKind.REFLEX),
        ("UserStopped", (), FaultKind.MODE),
        ("Guiding", (), FaultKind.MODE),
        ("Other", (), FaultKind.MODE),
    ],
)
def test_a_state_alone_tells_whether_the_robot_may_move(mode, errors, kind):
    seen = fault_of_state(mode, errors)
    assert (seen.kind if seen else None) is kind
