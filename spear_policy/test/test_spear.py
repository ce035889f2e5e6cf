"""Inputs are checked by name; the time embedding has the specification's values."""

import math

import numpy as np
import pytest
import torch
from toy_models import MICRO, micro, observation

from spear_policy.model.config import ExpertConfig
from spear_policy.model.sampling import FoldedActionEmbedding, Sampler
from spear_policy.model.spear import time_embedding

# Inputs ------------------------------------------------------------------------------------------


def changed(**values):
    return observation(**values)


def images_with(index, image):
    images = list(observation().images)
    images[index] = image
    return tuple(images)


def state_with(column, value):
    state = observation().state
    state[0, column] = value
    return state


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"images": images_with(0, torch.zeros(2, 3, 56, 42))}, "the external image has the shape"),
        ({"images": images_with(1, torch.zeros(2, 28, 28, 3))}, "the wrist image has the shape"),
        ({"images": observation().images[:1]}, "1 images, but the model has the cameras"),
        ({"text_ids": torch.zeros(2, 4)}, "text_ids are not integers"),
        ({"text_valid": torch.ones(2, 3, dtype=torch.bool)}, "text_valid has the shape"),
        ({"state": torch.zeros(2, 7)}, "state has the shape .2, 7., not .2, 8."),
        ({"state": None}, "state is missing"),
    ],
)
def test_a_wrong_shape_is_named_by_the_sampler(values, words):
    with pytest.raises(ValueError, match=words):
        Sampler(micro())(changed(**values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"images": images_with(0, torch.full((2, 3, 42, 56), 255.0))}, "from 255 to 255: give"),
        ({"images": images_with(1, torch.full((2, 3, 28, 28), np.nan))}, "the wrist image"),
        ({"text_ids": torch.tensor([[2, 600], [2, 5]])}, "text_ids has 600"),
        ({"text_ids": torch.tensor([[2, 512], [2, 5]])}, "text_ids has 512"),
        ({"state": state_with(1, np.nan)}, "state is not finite"),
        ({"state": state_with(4, 3.0)}, "rotation in state"),
    ],
)
def test_wrong_values_are_named(values, words):
    inputs = changed(**values)
    inputs.check_shapes(MICRO)
    with pytest.raises(ValueError, match=words):
        Sampler(micro())(inputs)


def test_lawful_inputs_pass():
    for inputs in (observation(), changed(text_ids=torch.tensor([[2, 513], [2, 576]]))):
        inputs.check_shapes(MICRO)
        inputs.check_values(MICRO)


@torch.no_grad()
def test_uint8_and_float_images_give_the_same_tokens():
    model = micro()
    bytes_ = tuple((255 * image).round().to(torch.uint8) for image in observation().images)
    floats = tuple(image.float() / 255.0 for image in bytes_)
    ours = model.image_tokens(bytes_)
    assert torch.equal(ours, model.image_tokens(floats))


# The action expert -------------------------------------------------------------------------------


EXPERT = ExpertConfig(width=8, mlp_width=16)


def test_the_time_embedding_has_the_golden_values_of_the_specification():
    """Width 8, tau = 0.3, periods 0.004, 0.04, 0.4 and 4."""
    sines, cosines = time_embedding(torch.tensor(0.3), 8, EXPERT).chunk(2)
    assert sines[2] == pytest.approx(-1.0, abs=1e-6)
    assert sines[3] == pytest.approx(0.4539904997, abs=1e-6)
    assert cosines[3] == pytest.approx(0.8910065242, abs=1e-6)


def test_the_fastest_period_keeps_its_digits_in_half_precision_surroundings():
    """Its angle reaches 1571 rad at tau = 1, where fp32 is wrong in the fourth digit."""
    taus = torch.linspace(0, 1, 101, dtype=torch.float64)
    expected = [math.sin(2 * math.pi * tau / 0.004) for tau in taus.tolist()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sines = time_embedding(taus, 8, EXPERT)[:, 0]
    torch.testing.assert_close(
        sines.double(), torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0
    )


@torch.no_grad()
def test_the_folded_embedding_is_the_embedding():
    expert = micro().expert
    taus = torch.arange(10) / 10
    folded = FoldedActionEmbedding(expert, taus)
    actions = torch.randn(3, MICRO.chunk_length, 8, generator=torch.Generator().manual_seed(0))
    for k, tau in enumerate(taus):
        direct = expert.embed_actions(actions, tau.expand(3))
        torch.testing.assert_close(folded(actions, k), direct, atol=1e-5, rtol=1e-5)
