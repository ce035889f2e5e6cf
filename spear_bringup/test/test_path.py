"""The player enters a chunk at now, fades into it, and always ends at rest."""

import numpy as np
import pytest
from chunk_factory import DOWN, straight_chunk, turned

from spear_bringup.control.path import ChunkPlayer
from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import chunk_from_poses


def make_player():
    return ChunkPlayer(blend_s=0.2, min_lead_s=0.08)


def test_a_chunk_is_entered_at_now_and_not_at_its_first_step():
    plan = make_player().plan(straight_chunk([0.1, 0, 0], stamp_s=10.0), 10.45, DOWN)
    assert plan.skipped == 2
    assert np.isclose(plan.path.positions_m[-1, 0], DOWN.position_m[0] + 5 * 0.02)
    assert np.isclose(plan.path.durations_s[0], 0.15)  # what is left of the step due at 10.6


def test_a_step_that_is_due_too_soon_is_skipped():
    plan = make_player().plan(straight_chunk([0.1, 0, 0], stamp_s=10.0), 10.15, DOWN)
    assert plan.skipped == 1
    assert np.isclose(plan.path.durations_s[0], 0.25)


def test_a_chunk_without_a_step_left_is_an_error():
    with pytest.raises(ValueError, match="already due"):
        make_player().plan(straight_chunk([0.1, 0, 0], stamp_s=10.0), 11.0, DOWN)


def test_the_path_ends_at_rest_on_the_last_step():
    plan = make_player().plan(straight_chunk([0.1, 0.05, 0], stamp_s=10.0), 10.05, DOWN)
    assert np.all(plan.path.linear_m_s[-1] == 0)
    assert np.allclose(plan.path.positions_m[-1], DOWN.position_m + [0.1, 0.05, 0])


def test_constant_velocity_stays_constant_between_the_ends():
    plan = make_player().plan(straight_chunk([0.1, 0, 0], stamp_s=10.0), 10.0, DOWN)
    assert np.allclose(plan.path.linear_m_s[1:-1, 0], 0.1)


def test_knots_fade_from_the_running_reference_to_the_new_chunk():
    player = make_player()
    first = player.plan(straight_chunk([0.1, 0, 0], stamp_s=10.0), 10.0, DOWN)
    player.commit(first.path, first.start, 10.0)
    sideways = straight_chunk([0.0, 0.1, 0], stamp_s=10.1, chunk_id=2)
    now_s = 10.15
    before = player.running.at(10.3).pose.position_m
    plan = player.plan(sideways, now_s, player.running.at(now_s).pose)
    target = DOWN.position_m + [0.0, 0.02, 0.0]
    weight = (10.3 - now_s) / 0.2
    assert np.allclose(plan.path.positions_m[0], before + weight * (target - before))
    assert np.allclose(plan.path.positions_m[1], DOWN.position_m + [0, 0.04, 0])


def test_the_seam_is_the_difference_before_blending():
    player = make_player()
    first = player.plan(straight_chunk([0.1, 0, 0], stamp_s=10.0), 10.0, DOWN)
    player.commit(first.path, first.start, 10.0)
    same = straight_chunk([0.1, 0, 0], stamp_s=10.0, chunk_id=2)
    assert player.plan(same, 10.5, player.running.at(10.5).pose).seam_m < 1e-3
    away = straight_chunk([0.0, 0.1, 0], stamp_s=10.0, chunk_id=3)
    plan = player.plan(away, 10.5, player.running.at(10.5).pose)
    assert np.isclose(plan.seam_m, np.hypot(0.05, 0.05), atol=2e-3)


def test_a_robot_far_from_the_reference_is_planned_from_where_it_is():
    player = make_player()
    first = player.plan(straight_chunk([0.2, 0, 0], stamp_s=10.0), 10.0, DOWN)
    player.commit(first.path, first.start, 10.0)
    plan = player.plan(straight_chunk([0.2, 0, 0], stamp_s=10.4, chunk_id=2), 10.5, DOWN)
    assert np.allclose(plan.start.pose.position_m, DOWN.position_m)
    assert np.all(plan.start.linear_m_s == 0)


def test_the_reference_passes_its_knots_with_their_velocities():
    player = make_player()
    plan = player.plan(straight_chunk([0.1, 0.02, -0.05], stamp_s=10.0), 10.07, DOWN)
    player.commit(plan.path, plan.start, 10.07)
    times = 10.07 + np.cumsum(plan.path.durations_s)
    for i, time_s in enumerate(times[:-1]):
        sample = player.running.at(time_s)
        assert np.allclose(sample.pose.position_m, plan.path.positions_m[i])
        assert np.allclose(sample.linear_m_s, plan.path.linear_m_s[i])


def test_rotation_is_carried_out_in_the_end_effector_frame():
    targets = [turned(DOWN, [0, 0, 0.05 * k]) for k in range(1, 6)]
    chunk = chunk_from_poses(10.0, 0.2, DOWN, DOWN, targets, np.ones(5))
    plan = make_player().plan(chunk, 10.0, DOWN)
    assert quat.angle(plan.path.orientations_xyzw[-1], targets[-1].orientation_xyzw) < 1e-9
    # The gripper points down, so a turn about its own z is a turn about -z of the base.
    assert np.allclose(plan.path.angular_rad_s[2], [0, 0, -0.25], atol=1e-6)


def test_time_slip_is_the_lag_along_the_motion():
    player = make_player()
    plan = player.plan(straight_chunk([0.1, 0, 0], stamp_s=10.0), 10.0, DOWN)
    player.commit(plan.path, plan.start, 10.0)
    lagging = player.running.at(10.45).pose
    assert np.isclose(player.time_slip_s(10.5, lagging), 0.05, atol=2e-3)
