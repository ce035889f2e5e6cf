"""The way home is smooth, within its speed, and judged where the end effector goes."""

import numpy as np
import pytest

from spear_bringup.control.gate import Reason, Verdict
from spear_bringup.control.limits import Limits
from spear_bringup.drivers.homing import joint_path, judge_joint_path
from spear_policy.geometry.poses import Pose

DOWN = np.array([1.0, 0.0, 0.0, 0.0])
START = np.array([0.45, 0.0, 0.38])


def place(joints_rad):
    """Forward kinematics of an arm whose joints are the position."""
    return Pose(joints_rad, DOWN)


@pytest.mark.parametrize("travel", [0.001, 0.2, 2.0])
def test_no_joint_is_faster_than_the_limit_and_the_goal_is_reached(travel):
    goal = START + (travel, -travel / 2, 0.0)
    path = joint_path(START, goal, max_speed_rad_s=0.5)
    steps = np.diff(np.vstack([START, path.positions_rad]), axis=0)
    assert np.max(np.abs(steps) / path.durations_s[:, None]) <= 0.5
    assert np.allclose(path.positions_rad[-1], goal)
    assert path.total_s == pytest.approx(np.sum(path.durations_s))


def test_a_good_way_passes_as_it_is():
    path = joint_path(START, START + (0.1, 0.1, 0.0), 0.2)
    gate, allowed = judge_joint_path(path, place(START), place, Limits())
    assert gate.verdict is Verdict.PASS
    assert allowed.total_s == pytest.approx(path.total_s)


def test_a_way_that_is_too_fast_at_the_end_effector_is_slowed_down_and_not_bent():
    path = joint_path(START, START + (0.2, 0.0, 0.0), 0.5)
    limits = Limits(max_linear_speed_m_s=0.2)
    gate, allowed = judge_joint_path(path, place(START), place, limits)
    assert gate.verdict is Verdict.CLAMPED
    assert allowed.total_s > 1.5 * path.total_s
    assert np.array_equal(allowed.positions_rad, path.positions_rad)


def test_a_way_that_leaves_the_workspace_in_between_is_rejected():
    def over_the_top(joints_rad):
        bulge = 0.6 * np.sin(np.pi * (joints_rad[0] - START[0]) / 0.2)
        return Pose(joints_rad + (0.0, 0.0, bulge), DOWN)

    path = joint_path(START, START + (0.2, 0.0, 0.0), 0.2)
    gate, _ = judge_joint_path(path, place(START), over_the_top, Limits())
    assert (gate.verdict, gate.reason) == (Verdict.REJECTED, Reason.OUTSIDE_WORKSPACE)
