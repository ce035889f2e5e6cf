"""The vision-language path computes what transformers' PaliGemma computes."""

from dataclasses import replace

import pytest
import torch
from checkpoint_checks import public_paligemma
from toy_models import MICRO

from spear_policy.model.config import CameraConfig
from spear_policy.model.public_weights import load_paligemma
from spear_policy.model.spear import ModelInputs, build

CONFIG = replace(MICRO, depth=None, expert=None, cameras=(CameraConfig("external", 56, 56),))
WORDS = [[2, 40, 41, 42, 108], [2, 300, 301, 302, 108]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(theirs, ours) with the same random values, by way of a folder of theirs."""
    theirs, folder = public_paligemma(CONFIG), tmp_path_factory.mktemp("paligemma")
    theirs.save_pretrained(folder)
    ours = build(CONFIG)
    load_paligemma(ours, folder)
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
