"""The KV cache changes nothing: chunks and answers are those of reading everything anew."""

from dataclasses import replace

import pytest
import torch
from toy_models import MICRO, micro, observation

from spear_policy.model.gemma import StaticKVCache, ids_from_columns
from spear_policy.model.sampling import Sampler, answer
from spear_policy.model.spear import ModelInputs

# Chunks ------------------------------------------------------------------------------------------


def uncached(model, inputs, noise, steps):
    """Every step reads the images, the text and the state anew."""
    flow = Sampler(model).flow

    def velocity(actions, k, tau):
        return model.velocity(inputs, actions, torch.full((len(actions),), k / steps))

    with torch.no_grad():
        return flow.integrate(velocity, noise, steps)


def noise_of(model, batch=2, seed=7):
    flow = Sampler(model).flow
    generator = torch.Generator().manual_seed(seed)
    return flow.noise(batch, model.config.chunk_length, generator=generator)


PADDED = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)


@pytest.mark.parametrize("text_valid", [None, PADDED])
@pytest.mark.parametrize("rotation", ["s3", "r4", "matrix", "euler"])
def test_cached_and_uncached_sampling_agree(rotation, text_valid):
    model = micro(flow=replace(MICRO.flow, rotation=rotation))
    inputs, noise = observation(text_valid=text_valid), noise_of(model)
    chunk = Sampler(model, steps=4)(inputs, noise=noise)
    assert chunk.shape == (2, 5, model.config.flow.action_dim)
    torch.testing.assert_close(chunk, uncached(model, inputs, noise, 4), atol=1e-5, rtol=1e-5)


def test_positions_are_resampled_once_and_are_exactly_those_of_each_chunk():
    model, inputs = micro(), observation()
    sampler, noise = Sampler(model), noise_of(model)
    resampled = []
    for encoder in (model.siglip, model.depth):
        encoder.positions.register_forward_hook(lambda *_: resampled.append(1))
    chunk = sampler(inputs, noise=noise)
    assert not resampled
    with torch.no_grad():
        anew = sampler.read(inputs, image_tokens=model.image_tokens(inputs.images))
    assert resampled
    assert torch.equal(sampler.denoise(anew, noise), chunk)


def test_a_seed_makes_a_chunk_reproducible():
    model, inputs = micro(), observation()
    sampler = Sampler(model)

    def draw(seed):
        return sampler(inputs, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.allclose(draw(1), draw(2), atol=1e-2)


def test_the_number_of_steps_is_a_parameter():
    model, inputs = micro(), observation()
    noise = noise_of(model)
    chunks = {steps: Sampler(model, steps)(inputs, noise=noise) for steps in (1, 2, 10)}
    default = Sampler(model)
    assert default.steps == 10
    assert torch.equal(default(inputs, noise=noise), chunks[10])
    assert not torch.allclose(chunks[1], chunks[2], atol=1e-3)
    for chunk in chunks.values():
        norms = chunk[..., 3:7].norm(dim=-1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
        assert (chunk[..., 3] >= 0).all()


def test_rows_of_a_batch_do_not_mix():
    model = micro()
    both, noise = observation(), noise_of(model)
    one = observation(
        images=tuple(image[1:] for image in both.images),
        text_ids=both.text_ids[1:],
        state=both.state[1:],
    )
    sampler = Sampler(model)
    together, alone = sampler(both, noise=noise), sampler(one, noise=noise[1:])
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


def test_reduced_precision_keeps_quaternions_unit_and_outputs_in_fp32():
    model = micro().to(torch.bfloat16)
    chunk = Sampler(model)(observation(), generator=torch.Generator().manual_seed(0))
    assert chunk.dtype == torch.float32
    norms = chunk[..., 3:7].norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-6, rtol=0)


def test_a_model_without_actions_and_zero_steps_are_refused():
    with pytest.raises(ValueError, match="micro has no action expert"):
        Sampler(micro(expert=None))
    with pytest.raises(ValueError, match="0 sampling steps: at least 1"):
        Sampler(micro(), steps=0)


def test_tokens_that_are_not_kept_make_room_for_the_next():
    cache = StaticKVCache(2, 1, 7, 3)
    tokens = torch.randn(2, 1, 7, 3)
    for begin, end, kept in ((0, 4, 4), (4, 6, 0), (5, 7, 2)):
        for layer, (keys, values) in enumerate(cache.room(end - begin)):
            keys[:, begin - end :] = tokens[layer, :, begin:end]
            values[:, begin - end :] = -tokens[layer, :, begin:end]
        cache.keep(kept)
    expected = tokens[:, :, [0, 1, 2, 3, 5, 6]]
    for layer, (keys, values) in enumerate(cache.room(0)):
        assert torch.equal(keys, expected[layer]) and torch.equal(values, -expected[layer])


def test_a_memory_that_is_too_small_says_so():
    with pytest.raises(ValueError, match="5 tokens do not fit a cache made for 4"):
        StaticKVCache(1, 1, 4, 2).room(5)


# Answers -----------------------------------------------------------------------------------------


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
def test_an_answer_ends_with_its_end_token_and_the_other_goes_on():
    swapped = micro(expert=None)
    swapped.tokens.coordinates.zero_()  # answers in words
    for seed in range(50):
        valid = torch.ones(2, 6, dtype=torch.bool)
        inputs = observation(text_valid=valid, state=None, seed=seed)
        tokens = answer(swapped, inputs, 8)
        second = tokens[0][1]
        others = {tokens[0][0], *tokens[1], *inputs.text_ids.flatten().tolist()}
        if second not in others and EOS not in others:
            break
    assert second not in others and second < MICRO.vocabulary.size
    # make the first answer's second token the end token by exchanging their rows
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
