"""pi0's weights compute here what they compute in transformers, time and velocity turned round."""

from dataclasses import replace

import pytest
import torch
from checkpoint_checks import changed, copies, public_pi0, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from toy_models import MICRO, micro, observation

from spear_policy.model.checkpoint import WEIGHTS
from spear_policy.model.config import CameraConfig, ExpertConfig, FlowConfig
from spear_policy.model.public_layouts import paligemma
from spear_policy.model.public_weights import load_paligemma, load_pi0_expert, reverse_time
from spear_policy.model.sampling import Sampler
from spear_policy.model.spear import build, time_embedding

EXPERT = "paligemma_with_expert.gemma_expert"
WIDTH, MLP = MICRO.expert.width, MICRO.expert.mlp_width
# As pi0 is: square pictures, no depth encoder; R^4 because all its actions go straight.
PI0 = replace(
    MICRO,
    depth=None,
    cameras=(CameraConfig("external", 56, 56), CameraConfig("wrist", 56, 56)),
    flow=FlowConfig(rotation="r4", rotation_geometric_loss="none", rotation_velocity_loss="mse"),
)


@pytest.fixture(scope="module")
def published():
    return public_pi0(MICRO)


@pytest.fixture(scope="module")
def tensors(published, tmp_path_factory):
    """As transformers, openpi's torch port and (behind `model.`) lerobot name them."""
    folder = tmp_path_factory.mktemp("published")
    published.save_pretrained(folder)
    return load_file(folder / WEIGHTS)


def write_pi0(folder, tensors, prefix="", **changes):
    named = {f"{prefix}{name}": values for name, values in (tensors | changes).items()}
    folder.mkdir(exist_ok=True)
    save_file({k: v for k, v in named.items() if v is not None}, folder / WEIGHTS)
    return folder


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "model.", "module._orig_mod."])
def test_velocities_and_chunks_equal_those_of_transformers_pi0(
    published, tensors, tmp_path, prefix
):
    """Both halves; an output table that has drifted from the input's does not matter."""
    table = "paligemma_with_expert.paligemma.lm_head.weight"
    folder = write_pi0(tmp_path / "pi0", tensors, prefix, **{table: torch.ones(576, 64)})
    model = build(PI0)
    vlm, expert = load_paligemma(model, folder), load_pi0_expert(model, folder)
    assert set(vlm.taken) == set(paligemma(PI0)) | {"tokens.coordinates"}
    assert not expert.left
    assert set(expert.taken) == {n for n, _ in model.named_parameters() if n[:7] == "expert."}
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    inputs = observation(PI0, text_valid=valid)
    tau = torch.tensor([0.3, 0.85])
    noise = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(7))
    pictures = torch.full((2, 32), PI0.vocabulary.image_id)
    theirs = {
        "state": inputs.state,
        "input_ids": torch.cat([pictures, inputs.text_ids], dim=1),
        "pixel_values": 2 * torch.stack(inputs.images, dim=1) - 1,
        "pixel_attention_mask": torch.ones(2, 2, dtype=torch.bool),
        "attention_mask": torch.cat([torch.ones(2, 32), valid], dim=1).long(),
        "noise": noise,
    }
    expected = -published(timestep=1 - tau, **theirs).logits
    assert expected.std() > 0.1
    velocity = model.velocity(inputs, noise, tau)
    torch.testing.assert_close(velocity, expected, atol=2e-5, rtol=1e-5)
    expected = published.sample_actions(num_steps=7, **theirs)
    chunk = Sampler(model, steps=7)(inputs, noise=noise)
    torch.testing.assert_close(chunk, expected, atol=2e-5, rtol=1e-5)


@settings(deadline=None, max_examples=50)
@given(tau=st.floats(0.0, 1.0), width=st.sampled_from([4, 32, 64]), seed=st.integers(0, 99))
def test_reversing_time_in_the_weights_is_exact_for_every_tau(tau, width, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(width, 2 * width, generator=generator, dtype=torch.float64)
    features = torch.randn(width, generator=generator, dtype=torch.float64)
    expert = ExpertConfig(width=width, mlp_width=8)

    def read_by(layer, t):
        phi = time_embedding(torch.tensor(t, dtype=torch.float64), width, expert).double()
        return layer @ torch.cat([features, phi])

    turned = reverse_time(weight, expert)
    torch.testing.assert_close(read_by(turned, tau), read_by(weight, 1 - tau), atol=2e-5, rtol=0)
    torch.testing.assert_close(reverse_time(turned, expert), weight, atol=1e-5, rtol=0)


def test_heads_of_32_dimensions_stay_as_they_were_and_are_named(tensors, tmp_path):
    model = micro()
    before = copies(model)
    public_pi0(MICRO, dims=32).save_pretrained(tmp_path / "wide")
    filled = load_pi0_expert(model, tmp_path / "wide")
    heads = [f"expert.{head}" for head in ("action_in", "state_in", "action_out")]
    left = {f"{head}.{kind}" for head in heads for kind in ("weight", "bias")}
    assert set(filled.left) == left
    everything = {name for name in before if name.startswith("expert.")}
    assert set(filled.taken) == changed(model, before) == everything - left
    assert {"state_proj.weight", "action_out_proj.bias"} < set(filled.ignored)
    matrices = micro(flow=FlowConfig(rotation="matrix"))  # 13 numbers an action, 8 a state
    filled = load_pi0_expert(matrices, write_pi0(tmp_path / "pi0", tensors))
    assert {name.split(".")[1] for name in filled.left} == {"action_in", "action_out"}


def test_a_spoiled_pi0_is_refused_by_file_and_key_and_changes_nothing(tensors, tmp_path):
    model, folder = micro(), tmp_path / "pi0"
    path = folder / WEIGHTS
    key = f"{EXPERT}.model.layers.1.mlp.down_proj.weight"
    for value, words in (
        (None, "has no tensor"),
        (torch.full((WIDTH, MLP), float("inf")), "NaN or infinity"),
        (torch.zeros(WIDTH, WIDTH), "is needed"),
    ):
        write_pi0(folder, tensors, **{key: value})
        refused(load_pi0_expert, model, folder, path, key, words)
    for key in ("state_proj.weight", "action_out_proj.bias", "action_time_mlp_in.weight"):
        write_pi0(folder, tensors, **{key: None})
        refused(load_pi0_expert, model, folder, path, f"has no tensor '{key}'")
    write_pi0(folder, tensors, **{"gripper_head.weight": torch.zeros(2)})
    refused(load_pi0_expert, model, folder, "unknown tensor 'gripper_head.weight'")
    adaptive = {
        f"{EXPERT}.model.norm.weight": None,
        f"{EXPERT}.model.norm.dense.weight": torch.zeros(3 * WIDTH, WIDTH),
    }
    write_pi0(folder, tensors, **adaptive)
    refused(load_pi0_expert, model, folder, path, "pi0.5")
    save_file({"a": torch.zeros(1)}, path)
    refused(load_pi0_expert, model, folder, path, f"{EXPERT}.model.norm.weight")
    write_pi0(folder, tensors)
    load_pi0_expert(model, path)  # the file itself does as well
    slow = micro(expert=replace(MICRO.expert, time_max_period=8.0))
    with pytest.raises(ValueError, match="time_max_period are 0.004 and 8.0"):
        load_pi0_expert(slow, folder)
    with pytest.raises(ValueError, match="no action expert"):
        load_pi0_expert(micro(expert=None), folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_keeps_its_dtype_when_it_is_filled(tensors, tmp_path, dtype):
    model = micro().to(dtype)
    load_pi0_expert(model, write_pi0(tmp_path / "pi0", tensors))
    assert {values.dtype for values in model.parameters()} == {dtype}
    expected = -tensors["action_out_proj.weight"].to(dtype)
    assert torch.equal(model.expert.action_out.weight, expected)
