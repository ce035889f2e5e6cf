"""MoGe's encoder is read from model.pt of either version, or refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoint_checks import changed, copies, refused, scrambled
from toy_models import MICRO, micro
from transformers import Dinov2Config, Dinov2Model

from spear_policy.model.public_weights import load_moge

DEPTH = MICRO.depth
SECOND = replace(MICRO, depth=replace(DEPTH, output_layers=(1, 3)))


@pytest.fixture(scope="module")
def dinov2():
    side = 14 * DEPTH.position_grid
    config = Dinov2Config(
        hidden_size=DEPTH.width,
        num_hidden_layers=DEPTH.layers,
        num_attention_heads=DEPTH.heads,
        mlp_ratio=DEPTH.mlp_width // DEPTH.width,
        image_size=side,
    )
    config.patch_size = 14
    return scrambled(Dinov2Model(Dinov2Config.from_dict(config.to_dict())))


def moge_tensors(dinov2, prefix):
    """MoGe's names for a DINOv2 of transformers."""
    theirs = dinov2.state_dict()
    names = {
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    tensors = {name: theirs[key] for name, key in names.items()}
    for i in range(DEPTH.layers):
        block, layer = f"blocks.{i}", f"encoder.layer.{i}"
        for kind in ("weight", "bias"):
            attention = [theirs[f"{layer}.attention.{p}_proj.{kind}"] for p in "qkv"]
            tensors[f"{block}.attn.qkv.{kind}"] = torch.cat(attention)
            tensors[f"{block}.attn.proj.{kind}"] = theirs[f"{layer}.attention.o_proj.{kind}"]
            for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                tensors[f"{block}.{part}.{kind}"] = theirs[f"{layer}.{part}.{kind}"]
        for number in (1, 2):
            gamma = theirs[f"{layer}.layer_scale{number}.lambda1"]
            tensors[f"{block}.ls{number}.gamma"] = gamma
    return {f"{prefix}.{name}": values.clone() for name, values in tensors.items()}


def write_moge(path, dinov2, version=1, settings=None, **changes):
    if version == 1:
        tensors = moge_tensors(dinov2, "backbone")
        extra = ("head.projects.0.weight", "image_mean", "image_std")
        defaults = {"encoder": "dinov2_vitl14", "intermediate_layers": 4}
    else:
        tensors = moge_tensors(dinov2, "encoder.backbone")
        extra = (
            "encoder.output_projections.0.weight",
            "encoder.image_mean",
            "neck.a",
            "mask_head.b",
        )
        extra += ("points_head.c", "normal_head.d", "scale_head.0.weight")
        defaults = {"encoder": {"backbone": "dinov2_vitl14", "intermediate_layers": [1, 3]}}
    tensors |= {name: torch.zeros(3) for name in extra} | changes
    tensors = {name: values for name, values in tensors.items() if values is not None}
    torch.save({"model_config": settings or defaults, "model": tensors}, path)
    return path


@torch.no_grad()
@pytest.mark.parametrize("version", [1, 2])
def test_moges_encoder_gives_dinov2s_features_from_either_version(dinov2, tmp_path, version):
    path = write_moge(tmp_path / "model.pt", dinov2, version)
    model = micro() if version == 1 else micro(depth=SECOND.depth)
    before = copies(model)
    filled = load_moge(model, path)
    assert set(filled.taken) == changed(model, before) == {n for n in before if n[:6] == "depth."}
    assert len(filled.ignored) == {1: 3, 2: 7}[version]
    image = torch.rand(1, 3, 70, 70)  # the table's own grid: no resampling
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    hidden = dinov2((image - mean) / std, output_hidden_states=True).hidden_states
    layers = model.config.depth.output_layers
    expected = torch.cat([dinov2.layernorm(hidden[i + 1])[:, 1:] for i in layers], dim=-1)
    assert expected.std() > 0.05
    torch.testing.assert_close(model.depth([image]), expected, atol=1e-4, rtol=1e-4)


def test_output_layers_that_moge_was_not_trained_with_are_refused(dinov2, tmp_path):
    first = write_moge(tmp_path / "first.pt", dinov2)
    second = write_moge(tmp_path / "second.pt", dinov2, 2)
    wanted = "set depth.output_layers"
    refused(load_moge, micro(), second, second, "[1, 3], not [1, 2, 3, 4]", wanted)
    refused(load_moge, micro(depth=SECOND.depth), first, "is 4", "[1, 2, 3, 4], not [1, 3]", wanted)
    unsaid = write_moge(tmp_path / "unsaid.pt", dinov2, 2, settings={"neck": {}})
    refused(load_moge, micro(), unsaid, "(5, 11, 17, 23)", wanted)
    strange = write_moge(tmp_path / "strange.pt", dinov2, settings={"intermediate_layers": "all"})
    refused(load_moge, micro(), strange, wanted)


def test_a_spoiled_moge_is_refused_by_file_and_key_and_changes_nothing(dinov2, tmp_path):
    path, model = tmp_path / "model.pt", micro()
    key = "backbone.blocks.3.mlp.fc2.weight"
    for value, words in (
        (None, "has no tensor"),
        (torch.full((64, 128), float("nan")), "NaN"),
        (torch.zeros(64, 64), "is needed"),
        (torch.zeros(64, 128, dtype=torch.int32), "not floating-point"),
    ):
        write_moge(path, dinov2, **{key: value})
        refused(load_moge, model, path, path, key, words)
    write_moge(path, dinov2, **{"backbone.register_tokens": torch.zeros(4, 64)})
    refused(load_moge, model, path, "unknown tensor 'backbone.register_tokens'")
    whole = write_moge(path, dinov2).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(load_moge, model, path, path, "again")
    torch.save({"model": {"a": 1}, "model_config": {}}, path)
    refused(load_moge, model, path, "'model'")
    torch.save(torch.zeros(3), path)
    refused(load_moge, model, path, "'model_config'")
    refused(load_moge, model, tmp_path / "nowhere.pt", "nowhere.pt", "cannot read")
    with pytest.raises(ValueError, match="micro has no depth encoder"):
        load_moge(micro(depth=None, fusion="none"), path)


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_nothing_in_a_moge_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"a": Hostile()}, "model_config": {}}, "model.pt")
    refused(load_moge, micro(), Path("model.pt"), "model.pt")
    assert not Path("executed").exists()
