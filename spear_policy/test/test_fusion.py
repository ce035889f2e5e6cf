"""Image features of two encoders become one token a patch."""

from dataclasses import replace

import pytest
import torch
from toy_models import MICRO, micro, observation

from spear_policy.model.spear import build, initialise
from spear_policy.model.vision import Fusion


def fusion(**changes):
    module = Fusion(replace(MICRO, **changes))
    initialise(module, torch.Generator().manual_seed(0))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def features():
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(2, 16, width, generator=generator) for width in (64, 256))


@torch.no_grad()
def test_the_average_of_two_projectors_is_one_linear_layer_on_the_concatenation():
    """The paper's main text and its appendix describe the same function (decision 2)."""
    module, (siglip, depth) = fusion(), features()
    weight = torch.cat([module.siglip_projector.weight, module.depth_projector.weight], dim=1)
    bias = module.siglip_projector.bias + module.depth_projector.bias
    joined = torch.nn.functional.linear(torch.cat([siglip, depth], -1), 0.5 * weight, 0.5 * bias)
    torch.testing.assert_close(module(siglip, depth), joined, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_without_fusion_siglips_projector_is_all():
    module, (siglip, _) = fusion(fusion="none", depth=None), features()
    assert torch.equal(module(siglip), module.siglip_projector(siglip))


@torch.no_grad()
def test_points_are_added_to_siglips_features_and_invalid_points_add_nothing():
    module, (siglip, _) = fusion(fusion="point_map", depth=None), features()
    points = torch.randn(2, 16, 3)
    points[0, 3, 2], points[1, 5] = torch.nan, torch.inf
    tokens, plain = module(siglip, points=points), module.siglip_projector(siglip)
    embedded = module.point_embedding(points)
    torch.testing.assert_close(tokens, module.siglip_projector(siglip + embedded))
    same = (tokens == plain).all(-1)
    assert same.nonzero().tolist() == [[0, 3], [1, 5]]


def test_a_model_with_a_point_map_acts_on_the_points():
    model = micro(fusion="point_map", depth=None)
    generator = torch.Generator().manual_seed(2)
    points = tuple(torch.randn(2, n, 3, generator=generator) for n in MICRO.image_tokens)
    nearer = tuple(0.5 * each for each in points)
    actions, tau = torch.zeros(2, 5, 8), torch.full((2,), 0.5)
    with torch.no_grad():
        far, near = (
            model.velocity(observation(points=each), actions, tau) for each in (points, nearer)
        )
    assert (far - near).abs().max() > 1e-4
    with pytest.raises(ValueError, match="needs points"):
        observation().check_shapes(model.config)
    with pytest.raises(ValueError, match="points of wrist has the shape"):
        observation(points=(points[0], points[0])).check_shapes(model.config)


@torch.no_grad()
def test_a_zero_depth_projector_starts_from_half_of_siglips_tokens():
    model = build(replace(MICRO, depth_projector_init="zero"))
    inputs = observation()
    half = 0.5 * model.fusion.siglip_projector(model.siglip(inputs.images))
    torch.testing.assert_close(model.image_tokens(inputs.images), half)


def test_the_same_seed_builds_the_same_model():
    first, second, other = build(MICRO, seed=1), build(MICRO, seed=1), build(MICRO, seed=2)
    for name, parameter in first.named_parameters():
        assert torch.isfinite(parameter).all(), name
        assert torch.equal(parameter, second.get_parameter(name)), name
    assert not torch.equal(first.tokens.words, other.tokens.words)
