"""Flow matching of action chunks: what is drawn, what is lost, where integration ends."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import betaincinv

from spear_policy.model import s3
from spear_policy.model.config import FlowConfig
from spear_policy.model.flow_matching import SPEED_BINS, FlowMatching, FlowSample, tau_quantile

KINDS = ["s3", "r4", "matrix", "euler"]
IDENTITY = torch.tensor([1.0, 0.0, 0.0, 0.0])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_actions(batch=4, length=5, largest_degrees=60.0, seed=0):
    """Translations [B, H, 3], rotations of limited angle [B, H, 4], gripper targets [B, H, 1]."""
    generator = seeded(seed)
    turn = torch.rand(batch, length, 1, generator=generator) * math.radians(largest_degrees)
    axis = torch.randn(batch, length, 3, generator=generator)
    axis = axis / axis.norm(dim=-1, keepdim=True)
    q_wxyz = torch.cat([torch.cos(turn / 2), torch.sin(turn / 2) * axis], dim=-1)
    gripper = torch.randint(0, 2, (batch, length, 1), generator=generator) * 2.0 - 1.0
    return torch.randn(batch, length, 3, generator=generator), q_wxyz, gripper


def true_velocity(flow, sample):
    """The velocity [B, H, D] that has no loss."""
    d = flow.rotation.dims
    v = sample.targets - sample.noise
    rotation = flow.rotation.velocity(
        sample.noise[..., 3 : 3 + d], sample.targets[..., 3 : 3 + d], sample.tau
    )
    return torch.cat([v[..., :3], rotation, v[..., -1:]], dim=-1)


def degrees_apart(q, p):
    return torch.rad2deg(s3.rotation_angle(q.double(), p.double()))


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_and_decoding_keep_the_action(kind):
    flow = FlowMatching(FlowConfig(rotation=kind))
    translation, q_wxyz, gripper = random_actions()
    a = flow.encode(translation, -q_wxyz, gripper)
    assert a.shape == (4, 5, FlowConfig(rotation=kind).action_dim)
    decoded = flow.decode(a)
    assert torch.equal(decoded[0], translation)
    assert degrees_apart(decoded[1], q_wxyz).max() < 1e-3
    assert (decoded[1][..., 0] >= 0).all()
    assert torch.equal(decoded[2], gripper)


def test_the_papers_layout_is_translation_quaternion_gripper():
    flow = FlowMatching(FlowConfig())
    q = torch.tensor([0.5, -0.5, 0.5, -0.5])
    a = flow.encode(torch.tensor([0.1, 0.2, 0.3]), -q, torch.tensor([1.0]))
    torch.testing.assert_close(a, torch.tensor([0.1, 0.2, 0.3, 0.5, -0.5, 0.5, -0.5, 1.0]))


def test_bad_actions_are_refused_with_one_sentence():
    flow = FlowMatching(FlowConfig())
    translation, q, gripper = random_actions(1, 2)
    bad_translation = translation.clone()
    bad_translation[0, 1, 2] = math.nan
    with pytest.raises(ValueError, match="translation has values that are not finite"):
        flow.encode(bad_translation, q, gripper)
    with pytest.raises(ValueError, match="^rotation: quaternion 0 of 2.*norm 0, not 1"):
        flow.encode(translation, 0.0 * q, gripper)
    with pytest.raises(ValueError, match="-1 .closed. or .1 .open."):
        flow.encode(translation, q, (gripper + 1) / 2)
    with pytest.raises(ValueError, match="gripper has values that are not finite"):
        flow.encode(translation, q, gripper * math.inf)
    with pytest.raises(ValueError, match="gripper has shape"):
        flow.encode(translation, q, gripper[..., 0])
    with pytest.raises(ValueError, match="translation has shape"):
        flow.encode(translation[:, :1], q, gripper)


@pytest.mark.parametrize("kind", ["s3", "r4", "matrix"])
def test_numbers_that_mean_no_rotation_are_refused(kind):
    flow = FlowMatching(FlowConfig(rotation=kind))
    zeros = torch.zeros(1, 5, flow.config.action_dim)
    with pytest.raises(ValueError, match="the rotation decoded from actions"):
        flow.decode(zeros)


def test_actions_of_another_kind_or_not_finite_are_refused():
    flow = FlowMatching(FlowConfig(rotation="matrix"))
    with pytest.raises(ValueError, match="rotation 'matrix' have 13 numbers"):
        flow.decode(torch.zeros(1, 5, 8))
    with pytest.raises(ValueError, match="actions has values that are not finite"):
        flow.decode(torch.full((1, 5, 13), math.nan))
    with pytest.raises(ValueError, match=r"not \[B, H, D\]"):
        flow.draw(torch.zeros(5, 13))
    with pytest.raises(ValueError, match="0..1 for each chunk"):
        flow.draw(torch.zeros(1, 5, 13), tau=1.5)


def test_drawn_times_have_the_configured_distribution():
    flow = FlowMatching(FlowConfig())
    targets = flow.encode(*random_actions(20_000, 1))
    tau = flow.draw(targets, seeded()).tau.double().numpy()
    b = 1.0 - tau / 0.999
    assert stats.kstest(b, stats.beta(1.5, 1.0).cdf).pvalue > 0.01
    assert tau.mean() == pytest.approx(0.40, abs=0.01)
    assert (tau > 0.9).mean() == pytest.approx(0.031, abs=0.005)


def test_other_time_distributions_are_drawn_through_their_inverse():
    config = FlowConfig(time_alpha=2.0, time_beta=3.0, time_scale=1.0)
    flow = FlowMatching(config)
    tau = flow.draw(torch.zeros(20_000, 1, 8), seeded()).tau.double().numpy()
    assert stats.kstest(1.0 - tau, stats.beta(2.0, 3.0).cdf).pvalue > 0.01
    probability = torch.rand(100, generator=seeded(), dtype=torch.float64)
    closed_form = tau_quantile(probability, FlowConfig())
    general = 0.999 * (1.0 - betaincinv(1.5, 1.0, probability.numpy()))
    assert np.allclose(closed_form, general, atol=1e-12)


def test_steps_of_the_geometric_loss_stay_inside_the_path():
    flow = FlowMatching(FlowConfig())
    targets = torch.zeros(20_000, 1, 8)
    sample = flow.draw(targets, seeded())
    assert (sample.tau + sample.delta <= 1 + 1e-6).all()
    early = sample.tau <= 0.99
    assert (sample.delta[early] >= 0.01 - 1e-6).all()
    assert sample.delta.max() > 0.9
    late = flow.draw(targets, seeded(), tau=0.996)
    torch.testing.assert_close(late.delta, torch.full((20_000,), 0.004), atol=1e-6, rtol=0)
    uniform = (flow.draw(targets, seeded(), tau=0.5).delta - 0.01) / 0.49
    assert stats.kstest(uniform.numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_a_chunk_shares_its_time_but_not_its_noise(kind):
    flow = FlowMatching(FlowConfig(rotation=kind))
    targets = flow.encode(*random_actions())
    sample = flow.draw(targets, seeded())
    assert sample.tau.shape == sample.delta.shape == (4,)
    assert len(torch.unique(sample.tau)) == 4
    assert len(torch.unique(sample.noise[..., 0])) == len(torch.unique(sample.noise[..., 4])) == 20
    d, t = flow.rotation.dims, sample.tau[:, None, None]
    rotation = flow.rotation.interpolate(
        sample.noise[..., 3 : 3 + d], targets[..., 3 : 3 + d], sample.tau
    )
    straight = (1 - t) * sample.noise + t * targets
    torch.testing.assert_close(sample.noisy[..., 3 : 3 + d], rotation)
    torch.testing.assert_close(sample.noisy[..., :3], straight[..., :3])
    torch.testing.assert_close(sample.noisy[..., -1:], straight[..., -1:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_makes_a_draw_reproducible(kind):
    flow = FlowMatching(FlowConfig(rotation=kind))
    targets = flow.encode(*random_actions())
    a, b, c = (flow.draw(targets, seeded(seed)) for seed in (5, 5, 6))
    for name in ("tau", "delta", "noise", "noisy"):
        assert torch.equal(getattr(a, name), getattr(b, name))
        assert not torch.equal(getattr(a, name), getattr(c, name))
    noises = [flow.noise(2, 5, seeded(seed)) for seed in (5, 5, 6)]
    assert torch.equal(noises[0], noises[1]) and not torch.equal(noises[0], noises[2])
    assert flow.noise(2, 5).shape == noises[0].shape == (2, 5, flow.config.action_dim)


def test_shortest_noise_is_paired_in_training_only():
    flow = FlowMatching(FlowConfig(noise_sign="shortest"))
    q = torch.tensor([0.1, math.sqrt(0.99), 0.0, 0.0]).expand(500, 1, 4)
    targets = flow.encode(torch.zeros(500, 1, 3), q, torch.ones(500, 1, 1))
    noise = flow.draw(targets, seeded()).noise[..., 3:7]
    assert ((noise * q).sum(-1) >= 0).all() and (noise[..., 0] < 0).any()
    assert (flow.noise(500, 1, seeded())[..., 3] >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_true_velocity_has_no_loss(kind):
    flow = FlowMatching(FlowConfig(rotation=kind, rot_geo_scale="inv_delta"))
    sample = flow.draw(flow.encode(*random_actions(64)), seeded())
    loss = flow.loss(true_velocity(flow, sample), sample)
    assert loss.total < 1e-3
    assert loss.rotation_error_degrees < 1e-3
    # The mean of 0..60 degrees, and what such a predictor flows through in each interval.
    assert loss.rotation_identity_degrees.item() == pytest.approx(30.0, abs=3)
    ratio = loss.speed_ratio[~loss.speed_ratio.isnan()]
    torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-5, rtol=0)


def test_losses_are_the_written_out_sums():
    """Eq. 2, 8, 9 and 10 with plain numpy on one sample."""
    flow = FlowMatching(FlowConfig())
    sample = flow.draw(flow.encode(*random_actions(3, 2)), seeded())
    v = torch.randn(3, 2, 8, generator=seeded(1))
    loss = flow.loss(v, sample)
    difference = (v - true_velocity(flow, sample)).double().numpy()
    assert loss.translation.item() == pytest.approx(
        np.mean(np.sum(difference[..., :3] ** 2, axis=-1)), rel=1e-5
    )
    assert loss.gripper.item() == pytest.approx(np.mean(difference[..., 7] ** 2), rel=1e-5)
    u = true_velocity(flow, sample)[..., 3:7].double().numpy()
    v_q = v[..., 3:7].double().numpy()
    norms = np.linalg.norm(v_q, axis=-1) * np.linalg.norm(u, axis=-1)
    cosine = np.mean(1 - np.sum(v_q * u, axis=-1) / norms)
    assert loss.rotation_velocity.item() == pytest.approx(cosine, rel=1e-5)
    ahead = s3.slerp(sample.noise[..., 3:7], sample.targets[..., 3:7], sample.tau + sample.delta)
    reached = s3.exp_step(sample.noisy[..., 3:7], v[..., 3:7], sample.delta)
    chords = [np.linalg.norm((reached + s * ahead).double().numpy(), axis=-1) for s in (-1, 1)]
    chordal = np.mean(np.minimum(*chords))
    assert loss.rotation_geometric.item() == pytest.approx(chordal, rel=1e-5)
    parts = loss.translation + loss.gripper + loss.rotation_velocity + loss.rotation_geometric
    assert torch.equal(loss.total, parts)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_of_weight_zero_do_not_count(kind):
    flow = FlowMatching(FlowConfig(rotation=kind))
    sample = flow.draw(flow.encode(*random_actions(8)), seeded())
    v = true_velocity(flow, sample) + 0.3 * torch.randn(8, 5, flow.config.action_dim)
    v.requires_grad_()
    weight = torch.ones(8, 5)
    weight[:, 3:] = 0
    masked = flow.loss(v, sample, weight)
    masked.total.backward()
    assert torch.equal(v.grad[:, 3:], torch.zeros_like(v.grad[:, 3:]))
    assert v.grad[:, :3].abs().min(dim=0).values.max() > 0
    everything = flow.loss(v, sample, weight.bool())
    assert torch.equal(masked.total, everything.total)
    ones = flow.loss(v, sample, torch.ones(8, 5))
    torch.testing.assert_close(ones.total, flow.loss(v, sample).total)
    assert flow.loss(v, sample, torch.zeros(8, 5)).total == 0


def test_figures_are_detached_and_slopes_are_finite_at_the_ends_of_time():
    flow = FlowMatching(FlowConfig(rot_geo_scale="inv_delta"))
    targets = flow.encode(*random_actions())
    for tau in (0.0, 0.999, 1.0):
        sample = flow.draw(targets, seeded(), tau=tau)
        v = torch.randn(4, 5, 8, generator=seeded(2), requires_grad=True)
        loss = flow.loss(v, sample)
        loss.total.backward()
        assert torch.isfinite(v.grad).all()
        for figure in ("rotation_error_degrees", "rotation_identity_degrees", "speed_ratio"):
            assert not getattr(loss, figure).requires_grad


def test_speed_is_told_for_each_interval_of_tau():
    flow = FlowMatching(FlowConfig())
    targets = flow.encode(*random_actions(6))
    tau = torch.tensor([0.1, 0.3, 0.5, 0.85, 0.92, 0.99])
    sample = flow.draw(targets, seeded(), tau=tau)
    v = true_velocity(flow, sample) * torch.tensor([1, 1, 1, 0.5, 0.3, 0.1])[:, None, None]
    ratio = flow.loss(v, sample).speed_ratio
    assert len(ratio) == len(SPEED_BINS) - 1
    expected = torch.tensor([1.0, 1.0, 1.0, math.nan, 0.5, 0.3, 0.1])
    torch.testing.assert_close(ratio, expected, atol=1e-5, rtol=0, equal_nan=True)


def test_wrong_shapes_of_predictions_are_refused():
    flow = FlowMatching(FlowConfig())
    sample = flow.draw(flow.encode(*random_actions()), seeded())
    with pytest.raises(ValueError, match=r"predicted_velocity has shape \[4, 8\]"):
        flow.loss(torch.zeros(4, 8), sample)
    with pytest.raises(ValueError, match=r"weight has shape \[4\]"):
        flow.loss(torch.zeros(4, 5, 8), sample, torch.ones(4))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 20])
def test_integration_of_the_true_field_reaches_the_targets(kind, steps):
    flow = FlowMatching(FlowConfig(rotation=kind))
    translation, q_wxyz, gripper = random_actions(64)
    targets, noise = flow.encode(translation, q_wxyz, gripper), flow.noise(64, 5, seeded(1))
    seen = []

    def velocity(a, k, tau):
        seen.append((k, tau))
        assert a.shape == targets.shape
        times = torch.full((64,), tau)
        exact = FlowSample(times, times, noise, a, targets)
        return true_velocity(flow, exact)

    reached = flow.decode(flow.integrate(velocity, noise, steps))
    assert seen == [(k, k / steps) for k in range(steps)]
    torch.testing.assert_close(reached[0], translation, atol=1e-5, rtol=0)
    assert degrees_apart(reached[1], q_wxyz).max() < 1e-3
    torch.testing.assert_close(reached[2], gripper, atol=1e-5, rtol=0)


def test_the_number_of_steps_is_the_configured_one_unless_given():
    flow = FlowMatching(FlowConfig(steps=3))
    calls = []

    def still(a, k, tau):
        calls.append(k)
        return torch.zeros_like(a)

    noise = flow.noise(1, 5, seeded())
    torch.testing.assert_close(flow.integrate(still, noise), noise)
    assert calls == [0, 1, 2]
    with pytest.raises(ValueError, match="0 denoising steps"):
        flow.integrate(still, noise, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_and_half_precision_predictions_change_nothing(kind):
    flow = FlowMatching(FlowConfig(rotation=kind))
    targets = flow.encode(*random_actions())
    v = torch.randn(4, 5, flow.config.action_dim, generator=seeded(3)).bfloat16()

    def everything():
        sample = flow.draw(targets, seeded())
        loss = flow.loss(v, sample)
        chunk = flow.integrate(lambda a, k, tau: v, flow.noise(4, 5, seeded()))
        return [sample.noisy, loss.total, loss.rotation_error_degrees, chunk]

    plain = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = everything()
    for a, b in zip(plain, under_autocast, strict=True):
        assert b.dtype == torch.float32
        assert torch.equal(a, b)
    assert torch.equal(plain[1], flow.loss(v.float(), flow.draw(targets, seeded())).total)


def test_fp64_stays_fp64():
    flow = FlowMatching(FlowConfig())
    targets = flow.encode(*(part.double() for part in random_actions()))
    sample = flow.draw(targets, seeded())
    assert {v.dtype for v in vars(sample).values()} == {torch.float64}
    assert flow.loss(torch.zeros(4, 5, 8), sample).total.dtype == torch.float64
    noise = flow.noise(1, 5, seeded(), dtype=torch.float64)
    assert flow.integrate(lambda a, k, tau: torch.zeros_like(a), noise).dtype == torch.float64


def small_network(inputs, outputs, width=128):
    layers, sizes = [], [inputs, width, width, width]
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [torch.nn.Linear(a, b), torch.nn.SiLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, outputs))


def train_on_small_rotations(config, updates):
    """Mean error [deg] of sampled rotations after a short training, and the identity's."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = FlowMatching(config)
        dim, generator = config.action_dim, seeded(0)
        network = small_network(6 + dim + 8, dim)

    def problem(batch):
        """A context [B, 1, 6], and the action that it determines."""
        context = torch.rand(batch, 1, 6, generator=generator) * 2 - 1
        half_turn = context[..., :3] * math.radians(10) / 2
        q_wxyz = s3.unit(torch.cat([torch.ones(batch, 1, 1), torch.tan(half_turn)], dim=-1))
        return context, (context[..., 3:], q_wxyz, torch.sign(context[..., :1]))

    def predict(context, a, tau):
        angles = tau[:, None, None] * torch.pi * torch.tensor([0.5, 1.0, 2.0, 4.0])
        return network(torch.cat([context, a, torch.sin(angles), torch.cos(angles)], dim=-1))

    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=updates)
    for _ in range(updates):
        context, actions = problem(512)
        sample = flow.draw(flow.encode(*actions), generator)
        loss = flow.loss(predict(context, sample.noisy, sample.tau), sample)
        optimiser.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()

    context, (_, q_wxyz, _) = problem(512)
    with torch.no_grad():
        chunk = flow.integrate(
            lambda a, k, tau: predict(context, a, torch.full((512,), tau)),
            flow.noise(512, 1, generator),
        )
    reached = flow.decode(chunk)[1]
    return degrees_apart(reached, q_wxyz).mean(), degrees_apart(q_wxyz, IDENTITY).mean()


@pytest.mark.parametrize(
    ("kind", "share"), [("s3", 0.25), ("r4", 0.6), ("matrix", 0.4), ("euler", 0.4)]
)
def test_a_short_training_beats_never_rotating(kind, share):
    """Rotations are up to 17 degrees, noise is 126: the loss alone would show nothing.

    Five steps: the speed near tau = 1, which longer integrations need, is learnt last.
    """
    config = FlowConfig(rotation=kind, rot_geo_scale="inv_delta", steps=5)
    error, identity = train_on_small_rotations(config, updates=400)
    assert error < share * identity
