"""Answers are generated token by token from a memory, as if everything were read anew."""

import pytest
import torch
from toy_models import MICRO, micro, observation

from spear_policy.model.gemma import ids_from_columns
from spear_policy.model.sampling import answer
from spear_policy.model.spear import ModelInputs

EOS = MICRO.vocabulary.eos_id


def reread(model, inputs, row, count):
    """Greedy decoding of one row that computes all logits for each token, without padding."""
    length = int(inputs.text_valid[row].sum())
    ids = inputs.text_ids[row : row + 1, :length]
    images = tuple(image[row : row + 1] for image in inputs.images)
    for _ in range(count):
        prompt = torch.arange(ids.shape[1]).unsqueeze(0) < length
        logits = model.text_logits(ModelInputs(images, ids), prompt)[:, -1]
        ids = torch.cat([ids, ids_from_columns(logits.argmax(-1), MICRO.vocabulary)[:, None]], 1)
        if ids[0, -1] == EOS:
            break
    return ids[0, length:].tolist()


@pytest.fixture(scope="module")
def model():
    return micro(expert=None)


@pytest.fixture(scope="module")
def inputs():
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[0, 4:] = False
    return observation(text_valid=valid, state=None)


@torch.no_grad()
def test_an_answer_from_memory_equals_one_that_reads_everything_anew(model, inputs):
    answers = answer(model, inputs, 8)
    assert answers == [reread(model, inputs, row, 8) for row in range(2)]


@torch.no_grad()
def test_an_answer_ends_with_its_end_token_and_the_other_goes_on(model, inputs):
    tokens = answer(model, inputs, 8)
    # make the first answer's second token the end token by exchanging their rows
    swapped = micro(expert=None)
    second = tokens[0][1]
    assert second < MICRO.vocabulary.size and second not in [tokens[0][0], *tokens[1]]
    assert not {EOS, second} & set(inputs.text_ids.flatten().tolist())
    rows = swapped.tokens.words
    rows[[EOS, second]] = rows[[second, EOS]].clone()
    assert answer(swapped, inputs, 8) == [[tokens[0][0], EOS], tokens[1]]


@torch.no_grad()
def test_3d_tokens_can_be_the_answer():
    model = micro(expert=None)
    model.tokens.coordinates[7] = 100 * model.tokens.words[3:440].mean(0)
    model.tokens.coordinates[9] = -100 * model.tokens.words[3:440].mean(0)
    inputs = observation(text_valid=torch.ones(2, 6, dtype=torch.bool), state=None)
    begin = MICRO.vocabulary.coordinate_begin
    assert {begin + 7, begin + 9} & {token for row in answer(model, inputs, 4) for token in row}
