"""The vision-language path computes what transformers' PaliGemma computes."""

from dataclasses import replace

import pytest
import torch
from toy_models import MICRO
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

from spear_policy.model.checkpoints.layouts import paligemma, read
from spear_policy.model.config import CameraConfig
from spear_policy.model.initialisation import build
from spear_policy.model.inputs import ModelInputs

CONFIG = replace(
    MICRO, depth=None, fusion="none", expert=None, cameras=(CameraConfig("external", 56, 56),)
)
WORDS = [[2, 40, 41, 42, 108], [2, 300, 301, 302, 108]]


def fill(model, theirs):
    """Load PaliGemma's tensors by the layout; returns the names that it does not give."""
    parameters = dict(model.named_parameters())
    layout = paligemma(model.config)
    with torch.no_grad():
        for name, source in layout.items():
            parameters[name].copy_(read(source, theirs, parameters[name].shape))
    return set(parameters) - set(layout)


@pytest.fixture(scope="module")
def pair():
    """(theirs, ours) with the same random values."""
    vision, language = CONFIG.siglip, CONFIG.language
    config = PaliGemmaConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": vision.width,
            "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.heads,
            "intermediate_size": vision.mlp_width,
            "image_size": 56,
            "patch_size": 14,
            "vision_use_head": False,
            "projection_dim": language.width,
        },
        text_config={
            "model_type": "gemma",
            "hidden_size": language.width,
            "num_hidden_layers": language.layers,
            "num_attention_heads": language.heads,
            "num_key_value_heads": 1,
            "head_dim": language.head_dim,
            "intermediate_size": language.mlp_width,
            "vocab_size": 576,  # padded, as the real one
        },
        projection_dim=language.width,
        image_token_id=CONFIG.vocabulary.image_id,
        hidden_size=language.width,
    )
    theirs = PaliGemmaForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0.0, 0.15, generator=generator)
    ours = build(CONFIG)
    assert fill(ours, theirs.state_dict()) == {"tokens.coordinates"}
    return theirs, ours


def ask_both(pair, **kinds):
    theirs, ours = pair
    generator = torch.Generator().manual_seed(1)
    image, text = torch.rand(2, 3, 56, 56, generator=generator), torch.tensor(WORDS)
    pictures = torch.full((2, 16), CONFIG.vocabulary.image_id)
    ids = torch.cat([pictures, text], dim=1)
    types, bidirectional = None, None
    if kinds:
        types = torch.zeros_like(ids)
        types[:, 16 + kinds["prompt"] :] = 1
        bidirectional = types[:, 16:] == 0
    expected = theirs(
        input_ids=ids,
        pixel_values=2 * image - 1,
        attention_mask=torch.ones_like(ids),
        token_type_ids=types,
    ).logits[:, 16:, : CONFIG.vocabulary.size]
    logits = ours.text_logits(ModelInputs((image,), text), bidirectional)
    return expected, logits[..., : CONFIG.vocabulary.size]


@torch.no_grad()
def test_the_logits_of_a_prompt_equal_paligemmas(pair):
    expected, logits = ask_both(pair)
    assert expected.std() > 0.5
    assert (logits - expected).abs().max() <= 1e-4


@torch.no_grad()
def test_the_logits_of_prompt_and_causal_answer_equal_paligemmas(pair):
    pair[0].train()  # transformers makes the prefix-LM mask only then; there is no dropout
    try:
        expected, logits = ask_both(pair, prompt=3)
    finally:
        pair[0].eval()
    assert (logits - expected).abs().max() <= 1e-4
    assert (ask_both(pair)[1] - logits).abs().max() > 1e-2  # the mask does something


def test_a_missing_or_misshapen_tensor_is_named(pair):
    tensors = dict(pair[0].state_dict())
    lost = "model.language_model.layers.1.self_attn.k_proj.weight"
    del tensors[lost]
    with pytest.raises(ValueError, match=lost):
        fill(pair[1], tensors)
    tensors[lost] = torch.zeros(17, 64)
    with pytest.raises(ValueError, match="layers.1.self_attn.q_proj.weight' gives .97, 64. where"):
        fill(pair[1], tensors)
