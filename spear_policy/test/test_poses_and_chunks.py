"""Deltas, chunks and the pose history."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import (
    Pose,
    PoseHistory,
    apply_delta,
    chunk_from_poses,
    delta_between,
    distance,
    entry_step,
    interpolate,
)

DOWN = Pose([0.45, 0.0, 0.38], [1.0, 0.0, 0.0, 0.0])
vectors = st.lists(st.floats(-1, 1), min_size=3, max_size=3)


def make_pose(position, rotation_vector) -> Pose:
    return Pose(position, Rotation.from_rotvec(rotation_vector).as_quat())


@given(vectors, vectors, vectors, vectors)
def test_a_delta_leads_from_the_anchor_to_the_target(p0, r0, p1, r1):
    anchor, target = make_pose(p0, r0), make_pose(p1, r1)
    translation, rotation = delta_between(anchor, target)
    assert rotation[3] >= 0
    translation_error, rotation_error = distance(apply_delta(anchor, translation, rotation), target)
    assert translation_error < 1e-12 and rotation_error < 1e-7


def test_translation_is_in_the_base_frame_and_rotation_in_the_end_effector_frame():
    moved = apply_delta(DOWN, [0, 0, 0.1], quat.from_rotation_vector([0, 0, 0.3]))
    assert np.allclose(moved.position_m, [0.45, 0, 0.48])
    base_turn = (
        Rotation.from_quat(moved.orientation_xyzw) * Rotation.from_quat(DOWN.orientation_xyzw).inv()
    )
    assert np.allclose(base_turn.as_rotvec(), [0, 0, -0.3])  # the gripper's z points down


def test_interpolation_starts_and_ends_at_its_poses():
    other = make_pose([0.5, 0.1, 0.3], [3.0, 0.2, 0.1])
    assert distance(interpolate(DOWN, other, 0.0), DOWN)[0] == 0
    assert max(distance(interpolate(DOWN, other, 1.0), other)) < 1e-7


@pytest.mark.parametrize(
    ("stamp_s", "now_s", "expected"),
    [
        (10.0, 10.0, 0),
        (10.0, 10.19, 0),
        (10.0, 10.2, 1),
        (10.0, 10.45, 2),
        (10.0, 11.0, 5),
        (10.0, 99.0, 5),
        (10.0, 9.0, 0),
    ],
)
def test_a_chunk_is_entered_at_the_first_step_after_now(stamp_s, now_s, expected):
    assert entry_step(stamp_s, 0.2, 5, now_s) == expected


def test_the_targets_of_a_chunk_are_the_poses_it_was_made_from():
    targets = [make_pose([0.45, 0.01 * k, 0.3], [3.0, 0.05 * k, 0.0]) for k in range(1, 6)]
    chunk = chunk_from_poses(1.0, 0.2, DOWN, DOWN, targets, np.zeros(5))
    positions, orientations = chunk.targets()
    assert np.allclose(positions, [t.position_m for t in targets])
    assert np.all(quat.angle(orientations, [t.orientation_xyzw for t in targets]) < 1e-7)
    assert np.allclose(chunk.due_times_s(), [1.2, 1.4, 1.6, 1.8, 2.0])


def test_the_history_interpolates_and_says_when_it_does_not_know():
    history = PoseHistory(length_s=1.0)
    assert history.at(0.0) is None
    for k in range(11):
        pose = Pose([0.4 + 0.01 * k, 0, 0.4], [1.0, 0, 0, 0])
        history.add(0.1 * k, pose, DOWN)
    measured, commanded = history.at(0.55)
    assert np.isclose(measured.position_m[0], 0.455) and np.allclose(
        commanded.position_m, DOWN.position_m
    )
    assert history.at(1.2) is None and history.at(-0.1) is None
    assert np.isclose(history.at(1.02, slack_s=0.05)[0].position_m[0], 0.5)


def test_the_history_starts_anew_when_the_clock_goes_back():
    history = PoseHistory()
    history.add(5.0, DOWN, DOWN)
    history.add(1.0, DOWN, DOWN)
    assert history.at(5.0) is None and history.at(1.0) is not None


@pytest.mark.parametrize(
    "bad", [([0, 0], [1, 0, 0, 0]), ([np.nan, 0, 0], [1, 0, 0, 0]), ([0, 0, 0], [0, 0, 0, 0])]
)
def test_a_pose_that_is_none_refuses_to_exist(bad):
    with pytest.raises(ValueError):
        Pose(*bad)
