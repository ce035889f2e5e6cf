"""Both image encoders, their positions and their fusion, against transformers and numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_models import MICRO, observation
from transformers import Dinov2Config, Dinov2Model, SiglipVisionConfig, SiglipVisionModel

from spear_policy.model.config import DepthEncoderConfig, SiglipConfig
from spear_policy.model.public_layouts import TensorSource, read
from spear_policy.model.spear import build, initialise
from spear_policy.model.vision import (
    DepthEncoder,
    Fusion,
    PositionTable,
    SiglipEncoder,
    resample_by_offset,
    resample_to_size,
)

# Learned positions -------------------------------------------------------------------------------


def cubic_weights(fraction):
    """Keys' cubic convolution with a = -0.75, for the four neighbours of a sample."""
    a = -0.75
    distances = np.array([1 + fraction, fraction, 1 - fraction, 2 - fraction])
    near = ((a + 2) * distances - (a + 3)) * distances**2 + 1
    far = ((a * distances - 5 * a) * distances + 8 * a) * distances - 4 * a
    return np.where(distances <= 1, near, far)


def resampling_matrix(side, count, factor):
    """One axis: output sample i lies at (i + 0.5) / factor - 0.5; borders repeat."""
    matrix = np.zeros((count, side))
    for i in range(count):
        x = (i + 0.5) / factor - 0.5
        first = int(np.floor(x))
        for offset, weight in zip(range(-1, 3), cubic_weights(x - first), strict=True):
            matrix[i, np.clip(first + offset, 0, side - 1)] += weight
    return matrix


def resampled(table, side, rows, columns, row_factor, column_factor):
    """Both axes, in fp64 numpy."""
    square = table.double().numpy().reshape(side, side, -1)
    down = resampling_matrix(side, rows, row_factor)
    across = resampling_matrix(side, columns, column_factor)
    return np.einsum("ri,cj,ijw->rcw", down, across, square).reshape(rows * columns, -1)


@pytest.fixture
def table():
    return torch.randn(37 * 37, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("rows", "columns"), [(15, 20), (8, 8), (45, 60)])
def test_moge_resamples_by_a_factor_with_an_offset_of_a_tenth_of_a_cell(table, rows, columns):
    ours = resample_by_offset(table, rows, columns, 0.1).numpy()
    expected = resampled(table, 37, rows, columns, (rows + 0.1) / 37, (columns + 0.1) / 37)
    assert ours.shape == (rows * columns, 6)
    np.testing.assert_allclose(ours, expected, atol=2e-5)
    by_size = resampled(table, 37, rows, columns, rows / 37, columns / 37)
    assert np.abs(ours - by_size).max() > 0.05  # the offset is no rounding matter


@pytest.mark.parametrize(("rows", "columns"), [(15, 20), (8, 8)])
def test_siglip_resamples_to_the_size(rows, columns):
    table = torch.randn(16 * 16, 6, generator=torch.Generator().manual_seed(1))
    ours = resample_to_size(table, rows, columns).numpy()
    expected = resampled(table, 16, rows, columns, rows / 16, columns / 16)
    np.testing.assert_allclose(ours, expected, atol=2e-5)
    assert not np.allclose(ours, resample_to_size(table, rows, columns, "bilinear"), atol=0.05)


def test_a_grid_of_the_tables_own_size_stays_as_it_is(table):
    assert torch.equal(resample_by_offset(table, 37, 37, 0.1), table)
    torch.testing.assert_close(resample_to_size(table, 37, 37), table, atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_positions_follow_values_that_are_exchanged_behind_the_tables_back(table):
    module = PositionTable(37, 6, lambda *grid: resample_by_offset(*grid, 0.1))
    module.table.copy_(table)
    before = module(8, 8)
    module.table.data.copy_(3.0 * table)  # as EMA weights are: changes neither address nor version
    torch.testing.assert_close(module(8, 8), 3.0 * before)


def test_the_table_learns_through_the_resampling():
    module = PositionTable(4, 2, resample_to_size)
    torch.nn.init.ones_(module.table)
    module(3, 5).sum().backward()
    assert module.table.grad.abs().min() > 0


def test_a_table_that_is_not_square_is_named():
    with pytest.raises(ValueError, match="7 rows is not square"):
        resample_to_size(torch.zeros(7, 2), 2, 2)


# Encoders ----------------------------------------------------------------------------------------


SIGLIP = SiglipConfig(width=48, layers=3, heads=4, mlp_width=96, position_grid=4)
DEPTH = DepthEncoderConfig(
    width=48, layers=5, heads=4, mlp_width=192, output_layers=(1, 2, 3, 4), position_grid=37
)


def randomised(model, seed=0):
    """Every parameter at random, those that begin as zeros or ones too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2, generator=generator)
    return model.eval()


def pictures(*sizes, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(batch, 3, h, w, generator=generator) for h, w in sizes]


def take_over(encoder, model, rows):
    """Fill ours from theirs by (ours, theirs...) rows of names, blocks numbered {i}."""
    theirs, filled = model.state_dict(), {}
    for name, parameter in encoder.named_parameters():
        head, dot, tail = name.partition("blocks.")
        index, _, rest = tail.partition(".")
        key = f"blocks.{{i}}.{rest}" if dot else head
        source = rows[key]
        keys = tuple(each.format(i=index) for each in source.keys)
        filled[name] = read(TensorSource(keys, source.begin, source.end), theirs, parameter.shape)
    encoder.load_state_dict(filled)
    return encoder.eval()


def with_bias(ours, *theirs):
    return {
        f"{ours}.{kind}": TensorSource(tuple(f"{name}.{kind}" for name in theirs))
        for kind in ("weight", "bias")
    }


def dinov2_rows():
    layer = "encoder.layer.{i}"
    rows = {
        "class_token": TensorSource(("embeddings.cls_token",)),
        "mask_token": TensorSource(("embeddings.mask_token",)),
        "class_position": TensorSource(("embeddings.position_embeddings",), 0, 1),
        "positions.table": TensorSource(("embeddings.position_embeddings",), 1),
        "blocks.{i}.scale1.gamma": TensorSource((f"{layer}.layer_scale1.lambda1",)),
        "blocks.{i}.scale2.gamma": TensorSource((f"{layer}.layer_scale2.lambda1",)),
    }
    rows |= with_bias("patch", "embeddings.patch_embeddings.projection")
    rows |= with_bias("norm", "layernorm")
    rows |= with_bias("blocks.{i}.qkv", *(f"{layer}.attention.{p}_proj" for p in "qkv"))
    rows |= with_bias("blocks.{i}.out", f"{layer}.attention.o_proj")
    for name in ("norm1", "norm2"):
        rows |= with_bias(f"blocks.{{i}}.{name}", f"{layer}.{name}")
    for name in ("fc1", "fc2"):
        rows |= with_bias(f"blocks.{{i}}.{name}", f"{layer}.mlp.{name}")
    return rows


def siglip_rows():
    layer = "encoder.layers.{i}"
    rows = {"positions.table": TensorSource(("embeddings.position_embedding.weight",))}
    rows |= with_bias("patch", "embeddings.patch_embedding")
    rows |= with_bias("norm", "post_layernorm")
    rows |= with_bias("blocks.{i}.qkv", *(f"{layer}.self_attn.{p}_proj" for p in "qkv"))
    rows |= with_bias("blocks.{i}.out", f"{layer}.self_attn.out_proj")
    for number in (1, 2):
        rows |= with_bias(f"blocks.{{i}}.norm{number}", f"{layer}.layer_norm{number}")
        rows |= with_bias(f"blocks.{{i}}.fc{number}", f"{layer}.mlp.fc{number}")
    return rows


@pytest.fixture(scope="module")
def dinov2():
    config = Dinov2Config(
        hidden_size=48, num_hidden_layers=5, num_attention_heads=4, mlp_ratio=4, image_size=518
    )
    config.patch_size = 14
    model = randomised(Dinov2Model(config))
    return model, take_over(DepthEncoder(DEPTH, 14), model, dinov2_rows())


@torch.no_grad()
def test_the_depth_encoder_gives_dinov2s_hidden_states_at_518_px(dinov2):
    model, encoder = dinov2
    (image,) = pictures((518, 518), batch=1)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    theirs = model((image - mean) / std, output_hidden_states=True).hidden_states
    expected = torch.cat([model.layernorm(theirs[i + 1])[:, 1:] for i in DEPTH.output_layers], -1)
    ours = encoder([image])
    assert ours.shape == (1, 37 * 37, 4 * 48)
    assert (ours - expected).abs().max() <= 1e-4


@torch.no_grad()
def test_siglip_gives_transformers_features_where_the_position_tables_agree():
    config = SiglipVisionConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        image_size=56,
        patch_size=14,
        vision_use_head=False,
    )
    model = randomised(SiglipVisionModel(config))
    encoder = take_over(SiglipEncoder(SIGLIP, 14), model, siglip_rows())
    (square,) = pictures((56, 56))
    expected = model(2 * square - 1).last_hidden_state
    assert (encoder([square]) - expected).abs().max() <= 1e-4
    (wide,) = pictures((42, 70))
    expected = model(2 * wide - 1, interpolate_pos_encoding=True).last_hidden_state
    assert (encoder([wide]) - expected).abs().max() <= 1e-4


def encoders():
    generator = torch.Generator().manual_seed(0)
    for encoder in (SiglipEncoder(SIGLIP, 14), DepthEncoder(DEPTH, 14)):
        initialise(encoder, generator)
        randomised(encoder)
        yield encoder


@torch.no_grad()
def test_images_packed_together_do_not_see_each_other():
    first, second = pictures((42, 56), (28, 28))
    for encoder in encoders():
        packed = encoder([first, second])
        alone = torch.cat([encoder([first]), encoder([second])], dim=1)
        torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-4)


def test_the_patches_are_numbered_row_by_row():
    for encoder in encoders():
        image = pictures((42, 56))[0].requires_grad_()
        x = encoder.patch(image)  # before attention mixes them
        x.flatten(2)[0, :, 5].sum().backward()  # row 1, column 1 of 3 x 4
        touched = image.grad[0].abs().sum(0).nonzero()
        assert touched.min(0).values.tolist() == [14, 14]
        assert touched.max(0).values.tolist() == [27, 27]


# Fusion ------------------------------------------------------------------------------------------


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
def test_without_a_depth_encoder_siglips_projector_is_all():
    module, (siglip, _) = fusion(depth=None), features()
    assert torch.equal(module(siglip), module.siglip_projector(siglip))


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
