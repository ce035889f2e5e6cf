"""Flow matching on S^3: golden values, agreement with scipy, every angle, every precision."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from spear_policy.geometry import quaternions as xyzw
from spear_policy.model import s3

ANGLES = [0.0, 1e-12, 1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 0.3, 1.0, 1.5, 2.5, 3.0]  # [rad], in R^4
components = st.lists(st.floats(-1, 1), min_size=4, max_size=4)
unit_quaternions = (
    components.map(lambda q: torch.tensor(q, dtype=torch.float64))
    .filter(lambda q: q.norm() > 0.1)
    .map(lambda q: q / q.norm())
)
half_quaternions = unit_quaternions.map(s3.half_space)
vectors = components.map(lambda v: 3 * torch.tensor(v, dtype=torch.float64))
times = st.floats(0, 1)
quickly = settings(max_examples=60, deadline=None)


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


Q_E = f64(0.5, 0.5, 0.5, 0.5)
Q_1 = f64(math.cos(math.radians(15)), math.sin(math.radians(15)), 0, 0)
Q_TAU = f64(0.7068342515, 0.4652282847, 0.3767943631, 0.3767943631)
U = f64(0.609431069, -0.1757373644, -0.4631289572, -0.4631289572)
Q_AHEAD = f64(0.7647571558, 0.4457465807, 0.3289806062, 0.3289806062)


def pairs_at(theta, count=200, dtype=torch.float64):
    """Pairs (count, 4) that are `theta` apart in R^4; the first has w >= 0."""
    generator = torch.Generator().manual_seed(3)
    q0 = s3.random_half_sphere((count,), generator, dtype=torch.float64)
    across = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    across = s3.unit(across - (across * q0).sum(-1, keepdim=True) * q0)
    return q0.to(dtype), (math.cos(theta) * q0 + math.sin(theta) * across).to(dtype)


def assert_close(actual, expected, atol=1e-9):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


def test_golden_path():
    assert_close(s3.angle(Q_E, Q_1), torch.tensor(0.911738291, dtype=torch.float64))
    assert_close(s3.slerp(Q_E, Q_1, 0.3), Q_TAU)
    assert_close(s3.velocity(Q_E, Q_1, 0.3), U)
    assert_close(s3.slerp(Q_E, Q_1, 0.4), Q_AHEAD)


def test_golden_body_rate_and_step():
    q, u = s3.slerp(Q_E, Q_1, 0.3), s3.velocity(Q_E, Q_1, 0.3)
    omega = 2.0 * s3.multiply(s3.conjugate(q), u)
    assert_close(omega, f64(0, -0.8154835185, -1.4124588868, -0.8154835185))
    assert_close(s3.exp_step(q, u, 0.1), Q_AHEAD)


def test_golden_losses_of_a_velocity_with_a_radial_part():
    q, u = s3.slerp(Q_E, Q_1, 0.3), s3.velocity(Q_E, Q_1, 0.3)
    v = u + 0.7 * q + f64(0.1, -0.2, 0.05, 0.3)
    reached = s3.exp_step(q, v, 0.1)
    assert_close(reached, f64(0.7670185378, 0.4206897336, 0.3298556167, 0.3548210575))
    assert_close(s3.cosine_loss(v, u), torch.tensor(0.3112443737, dtype=torch.float64))
    distance = s3.chordal_distance(reached, s3.slerp(Q_E, Q_1, 0.4))
    assert_close(distance, torch.tensor(0.0360756706, dtype=torch.float64))


def test_the_step_is_the_papers_quaternion_product():
    """Eq. 5 and 6 written out: q (x) [cos(dphi/2), axis sin(dphi/2)], omega = 2 Im(q* v)."""
    generator = torch.Generator().manual_seed(0)
    q = s3.random_half_sphere((500,), generator, dtype=torch.float64)
    v = torch.randn(500, 4, generator=generator, dtype=torch.float64)
    omega = 2.0 * s3.multiply(s3.conjugate(q), v)[:, 1:]
    rate = omega.norm(dim=-1, keepdim=True)
    half_turn = 0.5 * rate * 0.2
    dq = torch.cat([torch.cos(half_turn), torch.sin(half_turn) * omega / rate], dim=-1)
    assert_close(s3.exp_step(q, v, 0.2), s3.half_space(s3.multiply(q, dq)), atol=1e-11)


@quickly
@given(half_quaternions, half_quaternions, times)
def test_slerp_stays_on_the_half_sphere_and_agrees_with_scipy(q0, q1, t):
    q = s3.slerp(q0, q1, t)
    assume(s3.angle(q0, q1) < 3.0)  # beyond, both have w near 0 and the way is all but free
    assert abs(q.norm() - 1) < 1e-12
    assert q[0] >= -1e-12
    ends = [xyzw.xyzw_from_wxyz(q0), xyzw.xyzw_from_wxyz(q1)]
    if q0 @ q1 > 0.01:  # scipy goes the short way around
        theirs = Slerp([0, 1], Rotation.from_quat(ends))(t).as_quat()
        assert xyzw.angle(xyzw.xyzw_from_wxyz(q), theirs) < 1e-7


@quickly
@given(half_quaternions, half_quaternions, times)
def test_velocity_is_tangent_with_the_angle_as_its_length(q0, q1, t):
    theta = s3.angle(q0, q1)
    assume(theta < 3.0)
    u = s3.velocity(q0, q1, t)
    assert abs(u @ s3.slerp(q0, q1, t)) < 1e-9
    assert abs(u.norm() - theta) < 1e-9


@quickly
@given(half_quaternions, half_quaternions, st.floats(0.01, 0.99))
def test_velocity_is_the_time_derivative_of_slerp(q0, q1, t):
    assume(s3.angle(q0, q1) < 2.5)
    h = 1e-6
    difference = (s3.slerp(q0, q1, t + h) - s3.slerp(q0, q1, t - h)) / (2 * h)
    assert_close(s3.velocity(q0, q1, t), difference, atol=1e-8)


@quickly
@given(half_quaternions, vectors, st.floats(0, 1))
def test_a_step_ends_on_the_half_sphere_for_any_velocity(q, v, dt):
    reached = s3.exp_step(q, v, dt)
    assert abs(reached.norm() - 1) < 1e-12
    assert reached[0] >= 0


@quickly
@given(unit_quaternions, unit_quaternions)
def test_distances_do_not_depend_on_signs(q, p):
    for distance in (s3.chordal_distance, s3.chordal_distance_squared, s3.rotation_angle):
        for other in (distance(-q, p), distance(q, -p), distance(p, q)):
            assert_close(other, distance(q, p), atol=1e-12)


@quickly
@given(unit_quaternions, unit_quaternions)
def test_distances_are_functions_of_the_rotation_angle(q, p):
    numpy_q, numpy_p = xyzw.xyzw_from_wxyz(q), xyzw.xyzw_from_wxyz(p)
    expected = (Rotation.from_quat(numpy_q).inv() * Rotation.from_quat(numpy_p)).magnitude()
    assert s3.rotation_angle(q, p).item() == pytest.approx(expected, abs=1e-7)
    assert s3.chordal_distance(q, p).item() == pytest.approx(2 * math.sin(expected / 4), abs=2e-6)
    squared = s3.chordal_distance_squared(q, p).item()
    assert squared == pytest.approx(4 * math.sin(expected / 4) ** 2, abs=1e-7)


@quickly
@given(unit_quaternions, unit_quaternions)
def test_products_agree_with_the_numpy_ones(q, p):
    expected = xyzw.multiply(xyzw.xyzw_from_wxyz(q), xyzw.xyzw_from_wxyz(p))
    assert np.allclose(xyzw.xyzw_from_wxyz(s3.multiply(q, p)), expected, atol=1e-14)
    assert_close(s3.multiply(q, s3.conjugate(q)), f64(1, 0, 0, 0), atol=1e-12)


@pytest.mark.parametrize("theta", ANGLES)
def test_fp32_follows_fp64_at_every_angle(theta):
    q0, q1 = pairs_at(theta)
    single = q0.float(), q1.float()
    rounding = 1e-6 / max(math.sin(theta), 0.3) ** 2  # directions are lost towards pi
    assert_close(s3.angle(*single).double(), s3.angle(q0, q1), atol=1e-6)
    assert_close(s3.slerp(*single, 0.3).double(), s3.slerp(q0, q1, 0.3), atol=rounding)
    assert_close(s3.velocity(*single, 0.3).double(), s3.velocity(q0, q1, 0.3), atol=4 * rounding)
    assert_close(s3.slerp(*single, 0.3).norm(dim=-1), torch.ones(200), atol=3e-7)


def test_fp32_keeps_small_angles_that_arccos_would_lose():
    q0, q1 = pairs_at(1e-4, dtype=torch.float32)
    theta = s3.angle(q0, q1)
    assert ((theta - 1e-4).abs() < 1e-3 * 1e-4).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("theta", [*ANGLES, 3.14, math.pi])
def test_slopes_are_finite_at_every_angle(theta, dtype):
    q0, q1 = (q.requires_grad_() for q in pairs_at(theta, dtype=dtype))
    q, u = s3.slerp(q0, q1, 0.3), s3.velocity(q0, q1, 0.3)
    reached = s3.exp_step(q, u, 0.1)
    losses = [s3.chordal_distance(reached, q1), s3.rotation_angle(q0, q1), s3.cosine_loss(q1, u)]
    (sum(loss.sum() for loss in losses) + q.sum() + u.sum()).backward()
    assert torch.isfinite(q0.grad).all()
    assert torch.isfinite(q1.grad).all()


@pytest.mark.parametrize("same", [Q_E, f64(1, 0, 0, 0)])
def test_identical_ends_have_no_velocity_and_exact_slopes(same):
    q0, q1 = same.clone().requires_grad_(), same.clone().requires_grad_()
    assert s3.angle(q0, q1) == 0
    assert_close(s3.velocity(q0, q1, 0.3).detach(), torch.zeros(4, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda a, b: s3.slerp(a, b, 0.3), (q0, q1))
    assert torch.autograd.gradcheck(lambda a, b: s3.velocity(a, b, 0.3), (q0, q1))
    zero = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, v: s3.exp_step(a, v, 0.1), (q0, zero))


def test_slopes_are_those_of_finite_differences():
    q0, q1 = (q.requires_grad_() for q in pairs_at(0.8, count=3))
    v = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    v.requires_grad_()
    t = f64(0.1, 0.5, 0.9).requires_grad_()
    for function, inputs in (
        (s3.slerp, (q0, q1, t)),
        (s3.velocity, (q0, q1, t)),
        (s3.exp_step, (q0, v, t)),
        (s3.cosine_loss, (v, q1)),
        (s3.squared_error, (v, q1)),
        (s3.chordal_distance, (q0, q1)),
        (s3.chordal_distance_squared, (q0, q1)),
        (s3.rotation_angle, (q0, q1)),
    ):
        assert torch.autograd.gradcheck(function, inputs), function.__name__


def test_the_cosine_of_a_prediction_of_zero_has_a_moderate_slope():
    """A zero-initialised output layer predicts it."""
    v = torch.zeros(500, 4, requires_grad=True)
    q0, q1 = pairs_at(0.5)
    s3.cosine_loss(v, s3.velocity(q0[0], q1[0], 0.3).float()).sum().backward()
    norms = v.grad.norm(dim=-1)
    assert (norms > 1.0).all() and (norms <= 100.1).all()


def test_fp32_slopes_are_right_at_small_angles():
    q0, q1 = pairs_at(1e-5)
    slopes = []
    for dtype in (torch.float32, torch.float64):
        ends = [q.to(dtype).requires_grad_() for q in (q0, q1)]
        (s3.slerp(*ends, 0.3)[:, 1].sum() + s3.velocity(*ends, 0.3)[:, 2].sum()).backward()
        slopes.append(torch.cat([q.grad.double() for q in ends]))
    assert_close(slopes[0], slopes[1], atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 20])
def test_the_true_field_leads_to_the_target_in_fp32(steps):
    generator = torch.Generator().manual_seed(steps)
    q0 = s3.random_half_sphere((2000,), generator)
    turn = torch.rand(2000, 1, generator=generator) * math.radians(60)
    axis = torch.nn.functional.normalize(torch.randn(2000, 3, generator=generator), dim=-1)
    q1 = torch.cat([torch.cos(turn / 2), torch.sin(turn / 2) * axis], dim=-1)
    q = q0
    for k in range(steps):
        q = s3.exp_step(q, s3.velocity(q0, q1, k / steps), 1 / steps)
    error = torch.rad2deg(s3.rotation_angle(q.double(), s3.unit(q1.double())))
    assert error.max() < 1e-3
    assert (q.norm(dim=-1) - 1).abs().max() < 3e-7


def test_half_sphere_noise_is_uniform_over_rotations():
    q = s3.random_half_sphere((40_000,), torch.Generator().manual_seed(0))
    assert q.shape == (40_000, 4)
    assert (q[:, 0] >= 0).all()
    assert_close(q.norm(dim=-1), torch.ones(40_000), atol=3e-7)
    turn = torch.rad2deg(s3.rotation_angle(q, torch.tensor([1.0, 0, 0, 0])))
    assert turn.mean().item() == pytest.approx(126.48, abs=0.5)  # 90 degrees and 2 / pi rad
    assert q[:, 1:].mean(0).abs().max() < 0.01


def test_noise_is_reproducible_and_takes_any_leading_shape():
    a = s3.random_half_sphere((2, 3), torch.Generator().manual_seed(7))
    b = s3.random_half_sphere((2, 3), torch.Generator().manual_seed(7), dtype=torch.bfloat16)
    assert a.shape == (2, 3, 4)
    assert torch.equal(a, b)  # half precision is not for quaternions
    assert s3.random_half_sphere((), dtype=torch.float64).dtype == torch.float64


def test_times_broadcast_over_the_leading_dimensions():
    generator = torch.Generator().manual_seed(0)
    q0, q1 = (s3.random_half_sphere((4, 5), generator) for _ in range(2))
    per_chunk = torch.rand(4, generator=generator)
    per_step = per_chunk[:, None].expand(4, 5)
    v = torch.randn(4, 5, 4, generator=generator)
    for function, second in ((s3.slerp, q1), (s3.velocity, q1), (s3.exp_step, v)):
        whole = function(q0, second, per_chunk)
        assert torch.equal(whole, function(q0, second, per_step))
        for i in range(4):
            single = function(q0[i], second[i], per_chunk[i].item())
            assert_close(whole[i], single, atol=1e-6)
    path = s3.slerp(q0[0, 0], q1[0, 0], per_chunk)
    assert path.shape == (4, 4)
    assert_close(path[2], s3.slerp(q0[0, 0], q1[0, 0], per_chunk[2]), atol=1e-7)


def test_times_with_a_last_dimension_are_refused():
    q = s3.random_half_sphere((2, 5))
    with pytest.raises(ValueError, match="no last dimension"):
        s3.slerp(q, q, torch.rand(2, 5, 1))


def test_autocast_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    q0, q1 = (s3.random_half_sphere((4, 5), generator) for _ in range(2))
    v, t = torch.randn(4, 5, 4, generator=generator), torch.rand(4, generator=generator)

    def everything():
        q = s3.slerp(q0, q1, t)
        results = [q, s3.velocity(q0, q1, t), s3.exp_step(q, v, t), s3.multiply(q0, q1)]
        return [*results, s3.cosine_loss(v, q1), s3.chordal_distance(q0, q1), s3.angle(q0, q1)]

    plain = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = everything()
    for a, b in zip(plain, under_autocast, strict=True):
        assert b.dtype == torch.float32
        assert torch.equal(a, b)


def test_half_precision_inputs_are_computed_in_fp32():
    q0, q1 = (s3.random_half_sphere((3,)).bfloat16() for _ in range(2))
    q = s3.slerp(q0, q1, torch.tensor([0.1, 0.5, 0.9]))
    assert torch.equal(q, s3.slerp(q0.float(), q1.float(), torch.tensor([0.1, 0.5, 0.9])))
    assert s3.velocity(q0.double(), q1.double(), 0.2).dtype == torch.float64


def test_the_hot_functions_have_no_data_dependent_branches():
    def whole(q0, q1, v, t):
        q = s3.slerp(q0, q1, t)
        loss = s3.cosine_loss(v, s3.velocity(q0, q1, t)).sum()
        return loss + s3.chordal_distance(s3.exp_step(q, v, 0.1), q1).sum()

    q0, q1 = s3.random_half_sphere((2, 5)), s3.random_half_sphere((2, 5))
    v, t = torch.randn(2, 5, 4), torch.rand(2)
    traced = torch.compile(whole, backend="eager", fullgraph=True)
    assert_close(traced(q0, q1, v, t), whole(q0, q1, v, t), atol=1e-5)


def test_cosine_is_skipped_where_the_target_hardly_moves():
    v = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    u = torch.tensor([[0.0, 5e-4, 0, 0], [0.0, 2e-3, 0, 0]])
    loss = s3.cosine_loss(v, u)
    loss.sum().backward()
    assert loss[0] == 0 and torch.equal(v.grad[0], torch.zeros(4))
    assert loss[1] > 0 and v.grad[1].abs().max() > 0


def test_cosine_ignores_speed_and_punishes_the_radial_part():
    q, u = s3.slerp(Q_E, Q_1, 0.3), s3.velocity(Q_E, Q_1, 0.3)
    assert_close(s3.cosine_loss(3.0 * u, u), torch.tensor(0.0, dtype=torch.float64), atol=1e-12)
    assert s3.cosine_loss(u + q, u) > 0.1
    assert s3.cosine_loss(-u, u).item() == pytest.approx(2.0)
    assert torch.isfinite(s3.cosine_loss(torch.zeros(4), U.float()))


def test_geometric_scale_divides_by_the_step():
    loss, delta = torch.ones(2, 5), torch.tensor([0.5, 0.01])
    assert torch.equal(s3.rot_geo_scale(loss, delta, "none"), loss)
    expected = torch.tensor([2.0, 100.0])[:, None].expand(2, 5)
    assert_close(s3.rot_geo_scale(loss, delta, "inv_delta"), expected, atol=1e-5)
    assert torch.isfinite(s3.rot_geo_scale(loss, torch.zeros(2), "inv_delta")).all()
    with pytest.raises(ValueError, match="'none' or 'inv_delta'"):
        s3.rot_geo_scale(loss, delta, "inverse")


@pytest.mark.parametrize(
    ("bad", "norm"),
    [([0.0, 0, 0, 0], "0"), ([0.5, 0, 0, 0.1], "0.509902"), ([math.nan, 0, 0, 1], "nan")],
)
def test_quaternions_that_are_not_unit_are_refused_with_one_sentence(bad, norm):
    q = torch.tensor([[1.0, 0, 0, 0], bad])
    with pytest.raises(ValueError, match=f"^state: quaternion 1 of 2.*norm {norm}, not 1; normal"):
        s3.check_unit(q, "state")


def test_unit_quaternions_pass_and_wrong_shapes_do_not():
    s3.check_unit(s3.random_half_sphere((3, 5)), "rotation")
    s3.check_unit(torch.zeros(0, 4), "rotation")
    with pytest.raises(ValueError, match="rotation must have 4 numbers"):
        s3.check_unit(torch.ones(2, 3), "rotation")
