"""A driver's session on a simulated Franka: silence, the hand, and the numbers of its YAML."""

import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from franka_fixture import HOST
from point_arm import assert_noticed_in_time, until

from spear_bringup.control.command_core import CommandCore, GripperLogic
from spear_bringup.control.gate import Reason
from spear_bringup.control.limits import Limits, Timing
from spear_bringup.drivers.arm_session import ArmSession
from spear_bringup.drivers.franka import (
    FrankaArm,
    FrankaGripper,
    FrankaGripperSettings,
    FrankaSettings,
)
from spear_bringup.drivers.gripper_worker import GripperWorker
from spear_bringup.drivers.homing import joint_path
from spear_bringup.drivers.protocol import FaultKind, RobotError

TRIES = 3


@pytest.fixture
def session(robot):
    """An active session that counts a robot as lost after 0.1 s."""
    arm = FrankaArm(FrankaSettings(HOST, realtime="ignore"))
    session = ArmSession(
        arm,
        CommandCore(Limits(), Timing()),
        now_s=time.time,
        simulated_time=False,
        robot_timeout_s=0.1,
    )
    session.open()
    yield session
    session.close()


def recovered(session):
    """Whether the session came back and stays without a latch for a moment."""
    try:
        session.recover()
    except RobotError:
        return False
    before = session.sample
    until(lambda: session.sample is not before)
    return session.core.latched is None


@pytest.mark.parametrize("moving", [False, True])
def test_a_frozen_robot_is_noticed_within_0_14_s_though_franky_needs_1_s(robot, session, moving):
    for _ in range(TRIES):
        until(lambda: recovered(session))
        if moving:
            here = session.sample.state.joint_positions_rad
            turn = 0.2 if here[0] < 0.1 else -0.2
            way = joint_path(here, here + (turn, 0, 0, 0, 0, 0, 0), 0.3)
            session.arm.send_joints(way.durations_s, way.positions_rad)
            until(lambda: not session.still or session.core.latched)
        robot.freeze()
        try:
            # On a busy machine the robot may have been silent before; that is reported alike.
            until(lambda: session.core.latched is not None)
        finally:
            robot.thaw()
        assert session.core.latched.reason is Reason.ROBOT_LOST
        assert_noticed_in_time(session)
    until(lambda: recovered(session))


@pytest.fixture
def gripper(robot):
    """A connected hand."""
    gripper = FrankaGripper(FrankaGripperSettings(HOST))
    gripper.connect()
    yield gripper
    gripper.disconnect()


def test_the_hand_closes_and_opens_and_its_width_is_read_on_the_way(gripper):
    worker = GripperWorker(gripper, min_dwell_s=0.0, read_period_s=0.01)
    worker.start()
    worker.request(1.0)
    until(lambda: worker.report.opening > 0.95)
    worker.request(0.0)
    widths = []
    until(lambda: widths.append(worker.report.width_m) or widths[-1] < 0.002)
    between = {round(width, 4) for width in widths if 0.01 < width < 0.07}
    assert len(between) > 3, "the width was not read while the fingers moved"
    until(lambda: worker.report.busy_s == 0.0)
    assert not worker.report.holding and worker.report.fault is None
    worker.close()


def test_a_silent_hand_is_reported_while_its_width_still_comes(robot, gripper):
    worker = GripperWorker(gripper, min_dwell_s=0.0, stuck_after_s=1.0)
    worker.start()
    robot.inject("gripper_silent")
    try:
        worker.request(1.0)
        until(lambda: worker.report.fault is not None)
        assert "has not answered" in worker.report.fault
        until(lambda: worker.report.opening > 0.95)
    finally:
        robot.inject("gripper_answers")
    until(lambda: worker.report.fault is None)
    worker.close()


def test_a_hand_at_a_wrong_address_fails_with_a_sentence():
    with pytest.raises(RobotError, match="gripper at 127.42.0.99 refuses") as refusal:
        FrankaGripper(FrankaGripperSettings("127.42.0.99")).connect()
    assert refusal.value.kind is FaultKind.NETWORK


def test_the_yaml_has_the_defaults_of_the_classes_that_it_fills():
    from spear_policy.nodes.parameters import read_specs

    specs = read_specs(Path(__file__).parents[1] / "config" / "franka_driver.yaml")
    for settings in (Limits(), Timing()):
        for field in fields(settings):
            assert np.allclose(specs[field.name].default, getattr(settings, field.name)), field.name
    for field in fields(FrankaSettings):
        if field.name != "address":
            assert specs[field.name].default == field.default, field.name
    logic = GripperLogic()
    for name in ("close_below", "open_above", "min_dwell_s"):
        assert specs[f"gripper_{name}"].default == getattr(logic, name)
    hand = FrankaGripperSettings("")
    assert specs["gripper_speed_m_s"].default == hand.speed_m_s
    assert specs["gripper_force_n"].default == hand.force_n
    stops = [name for name, spec in specs.items() if name.startswith("max_") and not spec.safety]
    assert not stops, f"limits that are not marked as safety parameters: {stops}"
