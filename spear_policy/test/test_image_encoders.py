"""The image encoders compute what the public models compute."""

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model, SiglipVisionConfig, SiglipVisionModel

from spear_policy.model.config import DepthEncoderConfig, SiglipConfig
from spear_policy.model.public_layouts import TensorSource, read
from spear_policy.model.spear import initialise
from spear_policy.model.vision import DepthEncoder, SiglipEncoder

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
