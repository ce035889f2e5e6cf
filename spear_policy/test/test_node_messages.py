"""Numbers to messages and back."""

import numpy as np
import pytest
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Pose as PoseMsg
from hypothesis import given
from hypothesis import strategies as st

from spear_msgs.msg import ActionChunk
from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import Pose, apply_delta, chunk_from_poses
from spear_policy.nodes import messages


@pytest.mark.parametrize("seconds", [0.0, 0.2, 1.999999999, 1795358576.838678637])
def test_a_stamp_keeps_its_time_within_a_microsecond(seconds):
    # A double holds today's time in steps of a quarter of a microsecond.
    assert messages.stamp_to_s(messages.s_to_stamp(seconds)) == pytest.approx(seconds, abs=1e-6)


@given(st.integers(0, 2**31 - 2), st.integers(0, 999_999_999))
def test_a_stamp_that_went_through_numbers_is_still_the_same_time(sec, nanosec):
    # A chunk is stamped with its image: who looks for that image compares the two.
    seconds = messages.stamp_to_s(Time(sec=sec, nanosec=nanosec))
    assert messages.stamp_to_s(messages.s_to_stamp(seconds)) == seconds


def test_a_stamp_never_has_a_full_second_of_nanoseconds():
    stamp = messages.s_to_stamp(0.9999999999)
    assert (stamp.sec, stamp.nanosec) == (1, 0)


def test_a_negative_duration_keeps_its_nanoseconds_positive():
    duration = messages.s_to_duration(-0.25)
    assert (duration.sec, duration.nanosec) == (-1, 750_000_000)
    assert messages.stamp_to_s(duration) == pytest.approx(-0.25)
    assert messages.stamp_to_s(Duration(sec=2, nanosec=5)) == pytest.approx(2.000000005)
    assert messages.stamp_to_s(Time(sec=2)) == 2.0


def test_a_pose_comes_back_in_xyzw():
    pose = Pose([1.0, 2.0, 3.0], quat.from_rotation_vector([0.1, 0.2, 0.3]))
    message = messages.pose_to_msg(pose)
    assert message.orientation.w == pose.orientation_xyzw[3]
    back = messages.pose_from_msg(message)
    np.testing.assert_allclose(back.position_m, pose.position_m)
    np.testing.assert_allclose(back.orientation_xyzw, pose.orientation_xyzw)
    np.testing.assert_array_equal(
        messages.pose_array(messages.pose_from_array(np.arange(7.0))), np.arange(7.0)
    )


@pytest.mark.parametrize("hostile", [np.nan, 2.0])
def test_a_pose_that_is_none_is_refused_but_can_be_looked_at(hostile):
    message = PoseMsg()
    message.orientation.w = hostile
    with pytest.raises(ValueError, match="quaternion"):
        messages.pose_from_msg(message)
    assert messages.pose_array(message).shape == (7,)


@pytest.mark.parametrize("kind", ["measured", "commanded"])
def test_a_chunk_comes_back_with_every_number(kind):
    anchor = Pose([0.5, 0.0, 0.3], [1.0, 0.0, 0.0, 0.0])
    other = Pose([0.6, 0.1, 0.3], [1.0, 0.0, 0.0, 0.0])
    targets = [
        apply_delta(anchor, [0.01 * k, 0.0, 0.0], quat.from_rotation_vector([0, 0, 0.1 * k]))
        for k in range(1, 6)
    ]
    chunk = chunk_from_poses(
        12.5, 0.2, anchor, other, targets, [1, 1, 0, 0, 0], anchor_kind=kind, final=True
    )
    message = messages.chunk_to_msg(chunk, "franka_base", "franka_ee")
    assert message.kind == ActionChunk.KIND_STEPS and message.header.frame_id == "franka_base"
    back = messages.chunk_from_msg(message)
    for name in ("translations_m", "rotations_xyzw", "gripper_openings", "anchor", "anchor_kind"):
        np.testing.assert_array_equal(getattr(back, name), getattr(chunk, name))
    assert (back.stamp_s, back.dt_s, back.final) == (12.5, pytest.approx(0.2), True)


def test_each_step_stands_for_itself():
    anchor = Pose([0.5, 0.0, 0.3], [1.0, 0.0, 0.0, 0.0])
    chunk = chunk_from_poses(10.0, 0.2, anchor, anchor, [anchor] * 3, [1, 1, 1])
    message = messages.chunk_to_msg(chunk, "franka_base", "franka_ee")
    assert [step.step for step in message.steps] == [1, 2, 3]
    due = [messages.stamp_to_s(step.header.stamp) for step in message.steps]
    np.testing.assert_allclose(due, [10.2, 10.4, 10.6])
    assert {step.rotation_frame_id for step in message.steps} == {"franka_ee"}
    assert all(step.anchor == message.anchor_measured for step in message.steps)


def test_hostile_numbers_pass_through_for_the_gate_to_judge():
    message = ActionChunk()
    message.steps.append(messages.EndEffectorDelta())
    message.steps[0].translation.x = float("nan")
    chunk = messages.chunk_from_msg(message)
    assert np.isnan(chunk.translations_m[0, 0])
    assert messages.chunk_from_msg(ActionChunk()).translations_m.shape == (0, 3)


def test_an_unknown_anchor_kind_is_refused():
    with pytest.raises(ValueError, match="anchor_kind 7 is unknown"):
        messages.chunk_from_msg(ActionChunk(anchor_kind=7))
