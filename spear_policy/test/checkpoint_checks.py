"""Public models at our sizes, and what the tests of their checkpoints ask of every loader."""

import pytest
import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PI0Config,
    PI0ForConditionalGeneration,
)

from spear_policy.model.checkpoint import CheckpointError


def copies(model):
    return {name: values.detach().clone() for name, values in model.named_parameters()}


def changed(model, before):
    return {name for name, values in model.named_parameters() if not values.equal(before[name])}


def refused(load, model, path, *parts):
    """The refusal names these parts in one sentence, and the model is as it was."""
    before = copies(model)
    with pytest.raises(CheckpointError) as found:
        load(model, path)
    assert "\n" not in str(found.value)
    for part in parts:
        assert str(part) in str(found.value)
    assert not changed(model, before)


def scrambled(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.15, generator=generator)
    return module.eval()


def public_paligemma(ours):
    """A PaliGemma of transformers with the sizes of a configuration and random values."""
    return scrambled(PaliGemmaForConditionalGeneration(PaliGemmaConfig(**_paligemma_sizes(ours))))


def public_pi0(ours, dims=8):
    """A pi0 of transformers with the sizes of a configuration and random values."""
    expert = _gemma_sizes(ours, ours.expert.width, ours.expert.mlp_width)
    config = PI0Config(
        vlm_config={"model_type": "paligemma"} | _paligemma_sizes(ours),
        dit_config=expert,
        chunk_size=ours.chunk_length,
        max_state_dim=dims,
        max_action_dim=dims,
    )
    return scrambled(PI0ForConditionalGeneration(config))


def _gemma_sizes(ours, width, mlp_width):
    language = ours.language
    return {
        "model_type": "gemma",
        "hidden_size": width,
        "num_hidden_layers": language.layers,
        "num_attention_heads": language.heads,
        "num_key_value_heads": 1,
        "head_dim": language.head_dim,
        "intermediate_size": mlp_width,
        "vocab_size": ours.vocabulary.size + 64,  # padded, as the real one
    }


def _paligemma_sizes(ours):
    vision, language = ours.siglip, ours.language
    return {
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": vision.width,
            "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.heads,
            "intermediate_size": vision.mlp_width,
            "image_size": ours.patch_size * vision.position_grid,
            "patch_size": ours.patch_size,
            "vision_use_head": False,
            "projection_dim": language.width,
        },
        "text_config": _gemma_sizes(ours, language.width, language.mlp_width),
        "projection_dim": language.width,
        "image_token_id": ours.vocabulary.image_id,
        "hidden_size": language.width,
    }


def public_dinov2(depth):
    """A DINOv2 of transformers with the sizes of a depth encoder and random values."""
    side = 14 * depth.position_grid
    config = Dinov2Config(
        hidden_size=depth.width,
        num_hidden_layers=depth.layers,
        num_attention_heads=depth.heads,
        mlp_ratio=depth.mlp_width // depth.width,
        image_size=side,
    )
    config.patch_size = 14
    return scrambled(Dinov2Model(Dinov2Config.from_dict(config.to_dict())))


def _moge_tensors(dinov2, prefix):
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
    for i in range(dinov2.config.num_hidden_layers):
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
    """A model.pt as MoGe's own, whose decoder reads the last four layers or, in v2, 1 and 3."""
    if version == 1:
        tensors = _moge_tensors(dinov2, "backbone")
        extra = ("head.projects.0.weight", "image_mean", "image_std")
        defaults = {"encoder": "dinov2_vitl14", "intermediate_layers": 4}
    else:
        tensors = _moge_tensors(dinov2, "encoder.backbone")
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
