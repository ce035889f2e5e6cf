"""Poses over time and the judgement of what was executed."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spear_policy.geometry.tracking import TimedPoses, best_lag_s, tracking_errors

DOWN = np.array([1.0, 0.0, 0.0, 0.0])  # a gripper that points down


def path_of(times_s, delay_s=0.0):
    """Return a curved, turning motion, sampled at times, running `delay_s` late."""
    t = np.asarray(times_s) - delay_s
    positions = np.stack([0.45 + 0.1 * np.sin(t), 0.1 * t, 0.3 + 0.05 * np.cos(2 * t)], axis=1)
    turns = Rotation.from_euler("z", 0.4 * np.sin(t)[:, None]) * Rotation.from_quat(DOWN)
    return TimedPoses(np.asarray(times_s), np.hstack([positions, turns.as_quat()]))


def test_a_pose_between_two_samples_lies_on_the_line_and_the_shortest_turn():
    quarter = Rotation.from_euler("z", 90, degrees=True).as_quat()
    poses = TimedPoses([10.0, 12.0], [[0, 0, 0, 0, 0, 0, 1], [0.2, 0, 0.4, *quarter]])
    (pose,) = poses.at([10.5])
    assert np.allclose(pose[:3], [0.05, 0, 0.1])
    assert np.allclose(Rotation.from_quat(pose[3:]).as_rotvec(degrees=True), [0, 0, 22.5])


def test_the_ends_are_held_and_samples_are_met_exactly():
    poses = path_of([0.0, 0.2, 0.4])
    assert np.allclose(poses.at([-1.0, 0.0, 0.2, 0.4, 9.0]), poses.poses[[0, 0, 1, 2, 2]])
    assert np.array_equal(TimedPoses([1.0], poses.poses[:1]).at([0, 5]), poses.poses[[0, 0]])


def test_a_quaternion_that_changes_sign_makes_no_detour():
    flipped = [[0, 0, 0, *DOWN], [0, 0, 0, *-DOWN], [0, 0, 0, *DOWN]]
    poses = TimedPoses([0.0, 1.0, 2.0], flipped)
    assert np.allclose(poses.poses[:, 3:], DOWN)
    assert np.allclose(poses.at([0.5])[0, 3:], DOWN)


@pytest.mark.parametrize(
    ("stamps", "poses", "text"),
    [
        ([], np.zeros((0, 7)), "N >= 1"),
        ([0.0, 1.0], np.tile([0, 0, 0, 0, 0, 0, 1.0], (3, 1)), r"\(2, 7\)"),
        ([0.0, 0.0], np.tile([0, 0, 0, 0, 0, 0, 1.0], (2, 1)), "stamp 1 is not after"),
        ([0.0, np.inf], np.tile([0, 0, 0, 0, 0, 0, 1.0], (2, 1)), "stamp 1 is not finite"),
        ([0.0, 1.0], [[0, 0, 0, 0, 0, 0, 1], [0, np.nan, 0, 0, 0, 0, 1]], "pose 1 has a number"),
        ([0.0, 1.0], [[0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 1.1]], "pose 1 has no unit"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(stamps, poses, text):
    with pytest.raises(ValueError, match=text):
        TimedPoses(stamps, poses)


def test_errors_are_measured_at_the_due_times_in_mm_and_degrees():
    targets = path_of(np.arange(0, 2, 0.2))
    dense = path_of(np.arange(-0.1, 2.1, 0.01))
    off = dense.poses.copy()
    off[:, :3] += [0.003, 0, 0.004]
    off[:, 3:] = (
        Rotation.from_quat(off[:, 3:]) * Rotation.from_euler("x", 1.5, degrees=True)
    ).as_quat()
    errors = tracking_errors(targets, TimedPoses(dense.stamps_s, off))
    assert np.allclose(errors.position_mm, 5.0, atol=0.01)
    assert np.allclose(errors.rotation_deg, 1.5, atol=0.01)
    assert errors.within(5.1, 1.6)
    assert not errors.within(4.9, 1.6)
    assert not errors.within(5.1, 1.4)
    assert "5.00 mm" in str(errors)


def test_a_step_that_nobody_measured_is_not_judged():
    with pytest.raises(ValueError, match="record the whole motion"):
        tracking_errors(path_of([0.0, 0.2, 0.4]), path_of([0.0, 0.1, 0.3]))


def test_a_delay_is_told_from_a_wrong_path():
    targets = path_of(np.arange(0, 3, 0.2))
    late = path_of(np.arange(-0.5, 4, 0.01), delay_s=0.06)
    assert tracking_errors(targets, late).worst_position_mm > 3.0
    lag_s = best_lag_s(targets, late)
    assert lag_s == pytest.approx(0.06, abs=0.006)
    assert tracking_errors(targets, late, lag_s).worst_position_mm < 0.5
