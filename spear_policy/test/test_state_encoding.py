"""The state as the model reads it, and its chunk in the robot's frames."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import Pose
from spear_policy.inference.statistics import (
    Range,
    Statistics,
    decode_chunk,
    encode_state,
    normalise,
    seam_margin,
    seam_warning,
)
from spear_policy.model.rotation_flows import from_model_frame, to_model_frame

STATISTICS = Statistics(
    "quantile",
    Range((-0.1, -0.2, -0.3), (0.1, 0.2, 0.3), (0.0,) * 3, (0.05,) * 3),
    Range((0.2, -0.4, 0.0), (0.8, 0.4, 0.6), (0.5, 0.0, 0.3), (0.1,) * 3),
)
IDENTITY = [0.0, 0.0, 0.0, 1.0]
DOWN = [1.0, 0.0, 0.0, 0.0]  # a Franka whose gripper points down: w = 0
quickly = settings(max_examples=60, deadline=None)
rotations = st.lists(st.floats(-3, 3), min_size=3, max_size=3).map(
    lambda vector: Rotation.from_rotvec(vector).as_quat()
)


def turned(q_xyzw, rotation_vector):
    return quat.multiply(q_xyzw, quat.from_rotation_vector(rotation_vector))


def test_the_state_is_position_quaternion_wxyz_and_gripper():
    pose = Pose([0.8, -0.4, 0.3], Rotation.from_euler("z", 60, degrees=True).as_quat())
    state = encode_state(pose, 0.75, STATISTICS, IDENTITY)
    assert state.dtype == np.float32 and state.shape == (8,)
    turn = [math.cos(math.pi / 6), 0, 0, math.sin(math.pi / 6)]
    assert np.allclose(state, [1, -1, 0, *turn, 0.5], atol=1e-5)


@quickly
@given(rotations, rotations)
def test_the_encoded_rotation_leads_from_the_reference_and_has_w_at_least_zero(q, reference):
    state = encode_state(Pose([0, 0, 0], q), 0.0, STATISTICS, reference)
    assert state[3] >= 0 and abs(np.linalg.norm(state[3:7]) - 1) < 1e-6
    back = Rotation.from_quat(reference) * Rotation.from_quat(quat.xyzw_from_wxyz(state[3:7]))
    assert (back.inv() * Rotation.from_quat(q)).magnitude() < 1e-6
    assert np.array_equal(state, encode_state(Pose([0, 0, 0], -q), 0.0, STATISTICS, reference))


def test_a_reference_keeps_the_state_of_a_gripper_that_points_down_continuous():
    sway = [Pose([0.5, 0, 0.3], turned(DOWN, [angle, 0, 0])) for angle in (-0.02, 0.02)]
    literal = [encode_state(pose, 1.0, STATISTICS, IDENTITY) for pose in sway]
    near = [encode_state(pose, 1.0, STATISTICS, DOWN) for pose in sway]
    assert np.linalg.norm(literal[1] - literal[0]) > 1.9  # across the seam: q becomes -q
    assert np.linalg.norm(near[1] - near[0]) < 0.03


@pytest.mark.parametrize(("opening", "value"), [(0, -1), (0.5, 0), (1, 1), (1.02, 1), (-0.02, -1)])
def test_the_gripper_becomes_minus_one_to_one_and_overshoot_is_cut(opening, value):
    state = encode_state(Pose([0.5, 0, 0.3], IDENTITY), opening, STATISTICS, IDENTITY)
    assert state[7] == value


@pytest.mark.parametrize("opening", [float("nan"), float("inf"), 80.0, -1.0])
def test_a_gripper_opening_that_is_none_is_refused(opening):
    with pytest.raises(ValueError, match="gripper opening is .*robot driver"):
        encode_state(Pose([0.5, 0, 0.3], IDENTITY), opening, STATISTICS, IDENTITY)


def test_a_reference_that_is_no_rotation_is_refused():
    with pytest.raises(ValueError, match="unit quaternion"):
        encode_state(Pose([0.5, 0, 0.3], IDENTITY), 1.0, STATISTICS, [0, 0, 0, 0])


def test_a_chunk_decodes_to_metres_xyzw_and_a_binary_gripper():
    quarter = Rotation.from_euler("x", 90, degrees=True).as_quat()
    chunk = decode_chunk(
        [[1, -1, 0], [0, 0, 0]],
        [quat.wxyz_from_xyzw(quarter), [1, 0, 0, 0]],
        [0.01, 0.0],
        Pose([0.5, 0, 0.3], DOWN),
        STATISTICS,
    )
    assert np.allclose(chunk.translations_m, [[0.1, -0.2, 0], [0, 0, 0]], atol=1e-6)
    assert np.allclose(chunk.rotations_xyzw, [quarter, IDENTITY])
    assert chunk.gripper_openings.tolist() == [1.0, 0.0]


@quickly
@given(
    rotations,
    st.lists(rotations, min_size=5, max_size=5),
    st.sampled_from(["end_effector", "base"]),
)
def test_the_change_of_axes_agrees_with_the_one_in_torch_and_with_scipy(anchor, deltas, frame):
    """A delta (end-effector axes) goes to the model's axes in torch and comes back in numpy."""
    anchor_wxyz = torch.from_numpy(quat.wxyz_from_xyzw(anchor))
    delta_wxyz = torch.from_numpy(quat.wxyz_from_xyzw(np.array(deltas)))
    in_model = to_model_frame(delta_wxyz, anchor_wxyz, frame)
    if frame == "base":
        a, d = Rotation.from_quat(anchor), Rotation.from_quat(np.array(deltas))
        assert ((a * d * a.inv()).inv() * as_rotation(in_model)).magnitude().max() < 1e-6
    decoded = decode_chunk(
        np.zeros((5, 3)), in_model.numpy(), np.zeros(5), Pose([0, 0, 0], anchor), STATISTICS, frame
    ).rotations_xyzw
    in_torch = quat.xyzw_from_wxyz(from_model_frame(in_model, anchor_wxyz, frame).numpy())
    assert quat.angle(decoded, in_torch).max() < 1e-6
    assert quat.angle(decoded, np.array(deltas)).max() < 1e-6
    assert np.all(decoded[:, 3] >= 0)


def as_rotation(q_wxyz: torch.Tensor) -> Rotation:
    return Rotation.from_quat(quat.xyzw_from_wxyz(q_wxyz.numpy()))


@quickly
@given(rotations)
def test_a_base_turn_about_z_decodes_to_a_turn_of_the_world_about_z(anchor):
    turn = quat.from_rotation_vector([[0, 0, 0.3]])
    decoded = decode_chunk(
        [[0, 0, 0]], quat.wxyz_from_xyzw(turn), [1], Pose([0, 0, 0], anchor), STATISTICS, "base"
    )
    reached = quat.multiply(anchor, decoded.rotations_xyzw[0])
    expected = quat.multiply(turn[0], anchor)
    assert quat.angle(reached, expected) < 1e-6


def test_translations_go_there_and_back():
    moves = np.random.default_rng(0).normal(0, 0.1, (5, 3))
    model = normalise(moves, STATISTICS.translation, STATISTICS.scheme)
    same = np.tile([1.0, 0, 0, 0], (5, 1))
    back = decode_chunk(model, same, np.zeros(5), Pose([0, 0, 0], IDENTITY), STATISTICS)
    assert np.allclose(back.translations_m, moves)


def good_chunk():
    return np.zeros((5, 3)), np.tile([1.0, 0, 0, 0], (5, 1)), np.zeros(5)


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("hostile", [np.nan, np.inf])
def test_a_step_that_is_not_finite_is_named(part, hostile):
    chunk = good_chunk()
    chunk[part][3] = hostile
    with pytest.raises(ValueError, match="step 4 of 5 of the model's chunk"):
        decode_chunk(*chunk, Pose([0, 0, 0], IDENTITY), STATISTICS)


def test_a_rotation_of_no_length_is_named():
    chunk = good_chunk()
    chunk[1][0] = 0.0
    with pytest.raises(ValueError, match="step 1 of 5"):
        decode_chunk(*chunk, Pose([0, 0, 0], IDENTITY), STATISTICS)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_shapes_that_do_not_belong_together_are_refused(part):
    chunk = list(good_chunk())
    chunk[part] = chunk[part][:4]
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        decode_chunk(*chunk, Pose([0, 0, 0], IDENTITY), STATISTICS)


def test_another_rotation_frame_is_refused():
    with pytest.raises(ValueError, match="'world'"):
        decode_chunk(*good_chunk(), Pose([0, 0, 0], IDENTITY), STATISTICS, "world")


@quickly
@given(rotations, st.floats(0, math.pi))
def test_the_seam_margin_is_the_cosine_of_half_the_turn(reference, angle):
    orientation = turned(reference, [0, angle, 0])
    assert abs(seam_margin(orientation, reference) - math.cos(angle / 2)) < 1e-9
    assert seam_margin(-orientation, reference) == seam_margin(orientation, reference)


def test_the_seam_is_warned_of_only_near_it():
    assert seam_warning(turned(DOWN, [0.6, 0.4, 0.8]), DOWN) == ""
    assert "180 degrees" in seam_warning(DOWN, IDENTITY)
    assert "margin 0.10" in seam_warning(turned(DOWN, [0, 2 * math.acos(0.1), 0]), DOWN)
