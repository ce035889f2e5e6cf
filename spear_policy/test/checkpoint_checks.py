"""Public models at our sizes, and what the tests of their checkpoints ask of every loader."""

import pytest
import torch
from transformers import (
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
