"""The fast path gives the sampler's chunks, whatever of it is kept, padded or compiled."""

from dataclasses import replace

import pytest
import torch
from toy_models import MICRO, micro

from spear_policy.inference.chunk_runner import ChunkRunner
from spear_policy.model.sampling import Sampler
from spear_policy.model.spear import ModelInputs


@pytest.fixture(scope="module")
def model():
    return micro()


def picture(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        camera.name: torch.randint(
            0, 256, (3, camera.height, camera.width), generator=generator, dtype=torch.uint8
        )
        for camera in MICRO.cameras
    }


STATE = torch.tensor([0.1, 0.2, 0.3, 1.0, 0.0, 0.0, 0.0, 1.0])


def noise_of(model, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return Sampler(model).flow.noise(1, MICRO.chunk_length, generator)


def expected(model, images, ids, present=None):
    """The plain sampler, with black images where there are none."""
    black = {c.name: torch.zeros(3, c.height, c.width, dtype=torch.uint8) for c in MICRO.cameras}
    pictures = tuple((black | images)[c.name][None] for c in MICRO.cameras)
    inputs = ModelInputs(pictures, torch.tensor([ids]), state=STATE[None], present=present)
    return Sampler(model)(inputs, noise=noise_of(model))[0]


def run(runner, images, ids):
    runner.load(images, ids, STATE)
    return runner.run(noise_of(runner.sampler.model)).clone()


@pytest.mark.parametrize("buckets", [False, True])
def test_chunks_equal_the_samplers_for_prompts_of_any_length_in_any_order(model, buckets):
    runner = ChunkRunner(model, buckets=buckets)
    for seed, length in enumerate([4, 17, 4, 48, 30, 4]):
        images, ids = picture(seed), list(range(3, 3 + length))
        torch.testing.assert_close(
            run(runner, images, ids), expected(model, images, ids), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize(
    ("absent", "masked"),
    [
        (("wrist",), False),
        (("external",), False),
        (("wrist",), True),
        (("external", "wrist"), False),
    ],
)
def test_an_absent_camera_is_black_and_encoded_only_once(absent, masked):
    model = micro(mask_missing_camera=masked)
    runner = ChunkRunner(model, absent=absent)
    encoded = []
    hook = model.siglip.register_forward_hook(lambda m, given, out: encoded.append(len(given[0])))
    images = {name: each for name, each in picture().items() if name not in absent}
    present = torch.tensor([[c.name not in absent for c in MICRO.cameras]])
    chunk = run(runner, images, [2, 5, 9])
    hook.remove()
    assert encoded == ([len(images)] if images else [])
    wanted = expected(model, images, [2, 5, 9], present)
    torch.testing.assert_close(chunk, wanted, atol=1e-5, rtol=1e-5)


def test_a_chunk_can_be_denoised_again_from_what_was_read(model):
    runner = ChunkRunner(model)
    first = run(runner, picture(), [2, 5])
    runner.denoise()
    assert torch.equal(runner._now.actions[0], first)


def test_warming_up_leaves_nothing_behind(model):
    runner = ChunkRunner(model, buckets=True)
    runner.warm_up()
    images = picture(3)
    torch.testing.assert_close(
        run(runner, images, [2, 5, 9]), expected(model, images, [2, 5, 9]), atol=1e-5, rtol=1e-5
    )


def test_what_cannot_be_is_refused(model):
    with pytest.raises(ValueError, match="CUDA graphs need a GPU, the model is on cpu"):
        ChunkRunner(model, graphs=True)
    with pytest.raises(ValueError, match="no camera 'left': the model has external, wrist"):
        ChunkRunner(model, absent=("left",))
    with pytest.raises(ValueError, match="49 tokens"):
        ChunkRunner(model, buckets=True).load({}, [3] * 49, STATE)


@pytest.mark.slow
def test_compiled_chunks_equal_the_samplers():
    model = micro(max_text_tokens=4, flow=replace(MICRO.flow, steps=2))
    runner = ChunkRunner(model, compile=True)
    for seed in range(3):
        images, ids = picture(seed), [2, 7, 108]
        torch.testing.assert_close(
            run(runner, images, ids), expected(model, images, ids), atol=1e-4, rtol=1e-4
        )
