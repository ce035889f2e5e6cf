"""The representations of rotation agree with scipy and lead from noise to the target."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spear_policy.geometry.quaternions import wxyz_from_xyzw, xyzw_from_wxyz
from spear_policy.model import s3
from spear_policy.model.config import FlowConfig
from spear_policy.model.rotation_flows import (
    euler_from_quaternion,
    from_model_frame,
    gram_schmidt,
    matrix_from_quaternion,
    quaternion_from_euler,
    quaternion_from_matrix,
    rotation_flow,
    to_model_frame,
)

KINDS = ["s3", "r4", "matrix", "euler"]
quickly = settings(max_examples=60, deadline=None)
unit_quaternions = (
    st.lists(st.floats(-1, 1), min_size=4, max_size=4)
    .map(lambda q: torch.tensor(q, dtype=torch.float64))
    .filter(lambda q: q.norm() > 0.1)
    .map(lambda q: q / q.norm())
)


def degrees_apart(q, p):
    return torch.rad2deg(s3.rotation_angle(q.double(), p.double()))


def scipy_rotation(q_wxyz):
    return Rotation.from_quat(xyzw_from_wxyz(q_wxyz))


def targets(count=500, largest_degrees=60.0, seed=0):
    """Rotations (count, 4) of up to `largest_degrees`, w >= 0, fp64."""
    generator = np.random.default_rng(seed)
    axis = generator.normal(size=(count, 3))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    turn = np.radians(generator.uniform(0, largest_degrees, size=(count, 1)))
    return torch.from_numpy(wxyz_from_xyzw(Rotation.from_rotvec(turn * axis).as_quat()))


@pytest.mark.parametrize("kind", KINDS)
@quickly
@given(q=unit_quaternions)
def test_encoding_and_decoding_keep_the_rotation(kind, q):
    flow = rotation_flow(FlowConfig(rotation=kind))
    x = flow.encode(q)
    assert x.shape == (flow.dims,) == (FlowConfig(rotation=kind).rotation_dims,)
    decoded = flow.decode(x)
    assert degrees_apart(decoded, q) < 1e-5
    assert decoded[0] >= 0 and abs(decoded.norm() - 1) < 1e-12


@quickly
@given(q=unit_quaternions)
def test_both_signs_have_the_same_encoding(q):
    for kind in ("s3", "r4", "matrix"):
        flow = rotation_flow(FlowConfig(rotation=kind))
        if abs(q[0]) > 1e-9:
            torch.testing.assert_close(flow.encode(q), flow.encode(-q), atol=1e-12, rtol=0)


@quickly
@given(q=unit_quaternions)
def test_matrices_and_angles_agree_with_scipy(q):
    theirs = scipy_rotation(q)
    matrix = matrix_from_quaternion(q)
    assert np.allclose(matrix, theirs.as_matrix(), atol=1e-12)
    assert degrees_apart(quaternion_from_matrix(matrix), q) < 1e-5
    angles = euler_from_quaternion(q)
    again = Rotation.from_euler("xyz", angles.numpy())  # lower case: about fixed axes
    assert (again.inv() * theirs).magnitude() < 1e-7
    if abs(angles[1]) < math.radians(89):  # beyond, scipy makes another choice
        difference = angles.numpy() - theirs.as_euler("xyz")
        assert np.allclose(np.cos(difference), 1, atol=1e-12)


@quickly
@given(angles=st.lists(st.floats(-7, 7), min_size=3, max_size=3))
def test_any_angles_decode_to_the_rotation_scipy_gives(angles):
    q = quaternion_from_euler(torch.tensor(angles, dtype=torch.float64))
    theirs = Rotation.from_euler("xyz", angles)
    assert (scipy_rotation(q).inv() * theirs).magnitude() < 1e-7


@pytest.mark.parametrize("pitch", [90.0, -90.0])
def test_angles_at_gimbal_lock_still_mean_the_rotation(pitch):
    q_xyzw = Rotation.from_euler("xyz", [40.0, pitch, -25.0], degrees=True).as_quat()
    q = torch.from_numpy(wxyz_from_xyzw(q_xyzw))
    angles = euler_from_quaternion(q)
    assert torch.rad2deg(angles[1]).item() == pytest.approx(pitch, abs=1e-5)
    assert degrees_apart(quaternion_from_euler(angles), q) < 1e-5


@pytest.mark.parametrize("axis", [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.6, 0, 0.8]])
def test_half_turns_survive_the_matrix(axis):
    q = torch.tensor([0.0, *axis], dtype=torch.float64)
    assert degrees_apart(quaternion_from_matrix(matrix_from_quaternion(q)), q) < 1e-5


def test_gram_schmidt_makes_rotations_of_any_matrices():
    noise = torch.randn(500, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rotation = gram_schmidt(noise)
    identity = torch.eye(3, dtype=torch.float64).expand(500, 3, 3)
    torch.testing.assert_close(rotation.mT @ rotation, identity, atol=1e-9, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), identity[:, 0, 0], atol=1e-9, rtol=0)
    torch.testing.assert_close(gram_schmidt(rotation), rotation, atol=1e-12, rtol=0)
    cosine = (rotation[..., 0] * noise[..., 0]).sum(-1) / noise[..., 0].norm(dim=-1)
    torch.testing.assert_close(cosine, identity[:, 0, 0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 20])
def test_the_true_field_leads_to_the_target(kind, steps):
    flow = rotation_flow(FlowConfig(rotation=kind))
    q1 = targets()
    x0 = flow.noise((500,), torch.Generator().manual_seed(1))
    x1 = flow.encode(q1.float())
    x = x0
    for k in range(steps):
        x = flow.step(x, flow.velocity(x0, x1, k / steps), 1 / steps)
    assert degrees_apart(flow.decode(x), q1).max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_velocity_is_the_time_derivative_of_the_path(kind):
    flow = rotation_flow(FlowConfig(rotation=kind))
    x0 = flow.noise((500,), torch.Generator().manual_seed(1), dtype=torch.float64)
    x1 = flow.encode(targets())
    t, h = torch.linspace(0.01, 0.99, 500, dtype=torch.float64), 1e-6
    difference = (flow.interpolate(x0, x1, t + h) - flow.interpolate(x0, x1, t - h)) / (2 * h)
    torch.testing.assert_close(flow.velocity(x0, x1, t), difference, atol=1e-7, rtol=0)
    torch.testing.assert_close(flow.interpolate(x0, x1, 0.0), x0, atol=1e-12, rtol=0)
    torch.testing.assert_close(flow.interpolate(x0, x1, 1.0), x1, atol=1e-12, rtol=0)


@pytest.mark.parametrize("loss", ["chordal", "angle"])
@pytest.mark.parametrize("kind", ["r4", "matrix", "euler"])
def test_linear_flows_are_judged_by_the_rotation_that_a_step_reaches(kind, loss):
    """Table 11's linear rows: cosine of the velocities, distance of the integrated rotations."""
    flow = rotation_flow(FlowConfig(rotation=kind, rotation_geometric_loss=loss))
    x0, x1 = flow.noise((50,), torch.Generator().manual_seed(0)), flow.encode(targets(50).float())
    u = flow.velocity(x0, x1, 0.3)
    x, ahead = flow.interpolate(x0, x1, 0.3), flow.interpolate(x0, x1, 0.5)
    torch.testing.assert_close(flow.velocity_loss(3.0 * u, u), torch.zeros(50), atol=1e-6, rtol=0)
    right = flow.geometric_loss(flow.step(x, u, 0.2), ahead, torch.tensor(0.2))
    assert right.max() < 1e-3
    v = (u + 0.5).requires_grad_()
    wrong = flow.geometric_loss(flow.step(x, v, 0.2), ahead, torch.tensor(0.2))
    degrees = degrees_apart(flow.decode(flow.step(x, v, 0.2)), flow.decode(ahead))
    expected = torch.deg2rad(degrees) if loss == "angle" else 2 * (torch.deg2rad(degrees) / 4).sin()
    torch.testing.assert_close(wrong.double(), expected, atol=1e-4, rtol=1e-3)
    wrong.sum().backward()
    assert torch.isfinite(v.grad).all() and v.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["r4", "matrix", "euler"])
def test_linear_noise_is_standard_normal(kind):
    flow = rotation_flow(FlowConfig(rotation=kind))
    noise = flow.noise((20_000,), torch.Generator().manual_seed(0))
    assert noise.mean(0).abs().max() < 0.03
    assert (noise.std(0) - 1).abs().max() < 0.03


@pytest.mark.parametrize(
    ("kind", "distance"),
    [
        ("chordal", s3.chordal_distance),
        ("chordal_sq", s3.chordal_distance_squared),
        ("angle", s3.rotation_angle),
    ],
)
def test_the_geometric_loss_is_chosen_by_name(kind, distance):
    q, p = s3.random_half_sphere((2, 5)), s3.random_half_sphere((2, 5))
    delta = torch.tensor([0.1, 0.5])
    flow = rotation_flow(FlowConfig(rotation_geometric_loss=kind, rot_geo_scale="inv_delta"))
    expected = distance(q, p) / delta[:, None]
    torch.testing.assert_close(flow.geometric_loss(q, p, delta), expected)
    none = rotation_flow(FlowConfig(rotation_geometric_loss="none"))
    assert torch.equal(none.geometric_loss(q, p, delta), torch.zeros(2, 5))


@pytest.mark.parametrize("kind", KINDS)
def test_the_velocity_loss_is_chosen_by_name(kind):
    v, u = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    cosine = rotation_flow(FlowConfig(rotation=kind, rotation_velocity_loss="cosine"))
    mse = rotation_flow(FlowConfig(rotation=kind, rotation_velocity_loss="mse"))
    assert torch.equal(cosine.velocity_loss(v, u), s3.cosine_loss(v, u))
    torch.testing.assert_close(mse.velocity_loss(v, u), (v - u).square().sum(-1))


def test_shortest_noise_lies_on_the_targets_side_and_half_noise_stays():
    q1 = s3.half_space(s3.unit(torch.tensor([0.1, 1.0, 0.0, 0.0]))).expand(500, 4)
    half, shortest = (rotation_flow(FlowConfig(noise_sign=s)) for s in ("half", "shortest"))
    noise = half.noise((500,), torch.Generator().manual_seed(0))
    assert torch.equal(half.pair(noise, q1), noise)
    paired = shortest.pair(noise, q1)
    assert ((paired * q1).sum(-1) >= 0).all()
    assert (paired[:, 0] < 0).any()
    assert degrees_apart(paired, noise).max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_changes_nothing(kind):
    flow = rotation_flow(FlowConfig(rotation=kind))
    q1 = targets(10).float()

    def everything():
        x0, x1 = flow.noise((10,), torch.Generator().manual_seed(0)), flow.encode(q1)
        x = flow.interpolate(x0, x1, torch.linspace(0, 1, 10))
        v = flow.velocity(x0, x1, 0.5)
        return [x, flow.step(x, v, 0.1), flow.decode(x), flow.velocity_loss(v, x1)]

    plain = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = everything()
    for a, b in zip(plain, under_autocast, strict=True):
        assert b.dtype == torch.float32
        assert torch.equal(a, b)


def test_base_frame_deltas_agree_with_scipy():
    anchor, reached = Rotation.random(50, random_state=0), Rotation.random(50, random_state=1)
    delta = torch.from_numpy(wxyz_from_xyzw((anchor.inv() * reached).as_quat()))
    q_anchor = torch.from_numpy(wxyz_from_xyzw(anchor.as_quat()))
    base = to_model_frame(delta, q_anchor, "base")
    assert ((scipy_rotation(base) * anchor).inv() * reached).magnitude().max() < 1e-7
    assert (base[:, 0] >= 0).all()
    assert degrees_apart(from_model_frame(base, q_anchor, "base"), delta).max() < 1e-5


def test_one_anchor_serves_a_whole_chunk():
    q_anchor = s3.random_half_sphere((3,))
    delta = s3.random_half_sphere((3, 5))
    base = to_model_frame(delta, q_anchor, "base")
    for i in range(3):
        expected = s3.multiply(s3.multiply(q_anchor[i], delta[i]), s3.conjugate(q_anchor[i]))
        assert degrees_apart(base[i], expected).max() < 1e-3
    assert degrees_apart(from_model_frame(base, q_anchor, "base"), delta).max() < 1e-3


def test_end_effector_deltas_stay_and_unknown_frames_are_refused():
    delta, q_anchor = s3.random_half_sphere((3, 5)), s3.random_half_sphere((3,))
    assert torch.equal(to_model_frame(delta, q_anchor, "end_effector"), delta)
    assert torch.equal(from_model_frame(delta, q_anchor, "end_effector"), delta)
    with pytest.raises(ValueError, match="'end_effector' or 'base'"):
        to_model_frame(delta, q_anchor, "world")
