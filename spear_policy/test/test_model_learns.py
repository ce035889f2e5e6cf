"""The parts together: sentences, pictures and states become chunks, and the loss teaches them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from toy_models import MICRO, observation

from spear_policy.model import s3
from spear_policy.model.config import preset
from spear_policy.model.flow_matching import FlowMatching
from spear_policy.model.prompts import pad, prompt_ids
from spear_policy.model.sampling import Sampler
from spear_policy.model.spear import ModelInputs, build
from spear_policy.model.tokenizer import TextTokenizer, train_tokenizer

TASKS = 4
COPIES = 4  # of each task in a batch, with noise of their own
UPDATES = 200


def tasks(flow):
    """Random observations and for each an unrelated chunk: it can only be learned by looking."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(TASKS, 5, 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    angles = np.linspace(0.3, 1.2, 5)[:, None]
    xyzw = Rotation.from_rotvec((axes * angles).reshape(-1, 3)).as_quat().reshape(TASKS, 5, 4)
    rotation = s3.half_space(torch.tensor(np.roll(xyzw, 1, axis=-1), dtype=torch.float32))
    translation = torch.tensor(rng.uniform(-1, 1, (TASKS, 5, 3)), dtype=torch.float32)
    gripper = torch.tensor(rng.choice([-1.0, 1.0], (TASKS, 5, 1)), dtype=torch.float32)
    return observation(batch=TASKS), flow.encode(translation, rotation, gripper)


def repeated(inputs, count):
    return ModelInputs(
        tuple(image.repeat(count, 1, 1, 1) for image in inputs.images),
        inputs.text_ids.repeat(count, 1),
        state=inputs.state.repeat(count, 1),
    )


def test_a_model_trained_by_the_flows_loss_samples_the_chunks_that_it_was_shown():
    config = replace(MICRO, flow=replace(MICRO.flow, rot_geo_scale="inv_delta", steps=5))
    flow, model = FlowMatching(config.flow), build(config)
    inputs, targets = tasks(flow)
    optimiser = torch.optim.Adam(model.parameters(), betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(0)
    batch, wanted = repeated(inputs, COPIES), targets.repeat(COPIES, 1, 1)
    for update in range(UPDATES):
        optimiser.param_groups[0]["lr"] = 3e-3 * min(1, update / 20) * (1 - update / UPDATES)
        sample = flow.draw(wanted, generator)
        loss = flow.loss(model.velocity(batch, sample.noisy, sample.tau), sample)
        optimiser.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    chunk = Sampler(model)(inputs, generator=torch.Generator().manual_seed(1))
    ours, theirs = flow.decode(chunk), flow.decode(targets)
    error = (ours[0] - theirs[0]).norm(dim=-1).mean() / theirs[0].norm(dim=-1).mean()
    assert error < 0.3  # 1 for a model that never moves
    degrees = torch.rad2deg(s3.rotation_angle(ours[1], theirs[1])).mean()
    assert degrees < 0.5 * loss.rotation_identity_degrees
    assert ((ours[2] > 0) == (theirs[2] > 0)).float().mean() > 0.95


@pytest.fixture(scope="module")
def tiny():
    return build(preset("tiny"), seed=3)


def test_a_sentence_and_two_pictures_become_a_chunk(tiny, tmp_path):
    config = tiny.config
    train_tokenizer(config.vocabulary).save(tmp_path)
    tokenizer = TextTokenizer.load(tmp_path, config.vocabulary)  # as from a checkpoint folder
    sentences = ["put the carrot on the plate", "open the drawer"]
    rows = [
        prompt_ids(sentence, tokenizer, config.vocabulary, config.max_text_tokens)
        for sentence in sentences
    ]
    ids, valid = pad(rows, max(map(len, rows)))
    assert valid.sum(1).tolist() == list(map(len, rows))
    generator = torch.Generator().manual_seed(0)
    images = tuple(
        torch.randint(0, 256, (2, 3, c.height, c.width), generator=generator, dtype=torch.uint8)
        for c in config.cameras
    )
    state = torch.tensor([[0.1, -0.2, 0.3, 1, 0, 0, 0, 1]] * 2)
    inputs = ModelInputs(images, torch.tensor(ids), torch.tensor(valid), state)
    inputs.check_values(config)
    sampler = Sampler(tiny)
    chunk = sampler(inputs, generator=generator)
    translation, q_wxyz, gripper = sampler.flow.decode(chunk)
    assert translation.shape == (2, 5, 3) and gripper.shape == (2, 5, 1)
    torch.testing.assert_close(q_wxyz.norm(dim=-1), torch.ones(2, 5))
    other = ModelInputs(images, inputs.text_ids.flip(0), inputs.text_valid.flip(0), state)
    noise = sampler.flow.noise(2, 5, generator=generator)
    change = sampler(inputs, noise=noise) - sampler(other, noise=noise)
    assert change.abs().amax((1, 2)).min() > 1e-4  # the sentence matters


def test_under_autocast_the_velocity_stays_fp32_and_close(tiny):
    inputs = observation(tiny.config)
    actions, tau = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)), torch.rand(2)
    with torch.no_grad():
        exact = tiny.velocity(inputs, actions, tau)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            reduced = tiny.velocity(inputs, actions, tau)
    assert reduced.dtype == torch.float32
    assert (reduced - exact).norm() < 0.05 * exact.norm()
    assert not torch.equal(reduced, exact)
