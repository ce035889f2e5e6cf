"""pi0's action expert computes here what it computed there, with time and velocity turned round."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from checkpoint_checks import changed, copies, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from toy_models import MICRO, micro, observation

from spear_policy.model.checkpoint import WEIGHTS
from spear_policy.model.config import ExpertConfig, FlowConfig
from spear_policy.model.gemma import DynamicKVCache
from spear_policy.model.public_weights import load_pi0_expert, reverse_time
from spear_policy.model.spear import time_embedding

LANGUAGE = MICRO.language
EXPERT = "paligemma_with_expert.gemma_expert"
WIDTH, MLP = MICRO.expert.width, MICRO.expert.mlp_width


def pi0_tensors(dims=8, seed=0):
    """Random tensors by the names of openpi's torch port."""
    generator = torch.Generator().manual_seed(seed)
    rows = LANGUAGE.heads * LANGUAGE.head_dim
    shapes = {f"{EXPERT}.model.norm.weight": (WIDTH,), f"{EXPERT}.lm_head.weight": (16, WIDTH)}
    for i in range(LANGUAGE.layers):
        layer = f"{EXPERT}.model.layers.{i}"
        shapes |= {
            f"{layer}.input_layernorm.weight": (WIDTH,),
            f"{layer}.post_attention_layernorm.weight": (WIDTH,),
            f"{layer}.self_attn.q_proj.weight": (rows, WIDTH),
            f"{layer}.self_attn.k_proj.weight": (LANGUAGE.head_dim, WIDTH),
            f"{layer}.self_attn.v_proj.weight": (LANGUAGE.head_dim, WIDTH),
            f"{layer}.self_attn.o_proj.weight": (WIDTH, rows),
            f"{layer}.mlp.gate_proj.weight": (MLP, WIDTH),
            f"{layer}.mlp.up_proj.weight": (MLP, WIDTH),
            f"{layer}.mlp.down_proj.weight": (WIDTH, MLP),
        }
    heads = {
        "action_in_proj": (WIDTH, dims),
        "state_proj": (WIDTH, dims),
        "action_time_mlp_in": (WIDTH, 2 * WIDTH),
        "action_time_mlp_out": (WIDTH, WIDTH),
        "action_out_proj": (dims, WIDTH),
    }
    for name, shape in heads.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    shapes["paligemma_with_expert.paligemma.lm_head.weight"] = (16, 64)
    return {
        name: torch.randn(shape, generator=generator)
        * (0.2 if len(shape) == 1 else shape[1] ** -0.5)
        for name, shape in shapes.items()
    }


def write_pi0(folder, dims=8, prefix="", **changes):
    tensors = {f"{prefix}{name}": values for name, values in (pi0_tensors(dims) | changes).items()}
    folder.mkdir(exist_ok=True)
    save_file({k: v for k, v in tensors.items() if v is not None}, folder / WEIGHTS)
    return folder


def pi0_velocity(tensors, cache, state, noisy, t):
    """pi0's suffix written out in its own convention: t = 1 is noise; returns noise - data."""
    t_ = {
        name.removeprefix(f"{EXPERT}.model."): values.double() for name, values in tensors.items()
    }

    def linear(x, name):
        bias = t_.get(f"{name}.bias")
        return x @ t_[f"{name}.weight"].T + (0 if bias is None else bias)

    def rms(x, name):
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + t_[f"{name}.weight"])

    def rotary(x, positions):
        half = LANGUAGE.head_dim // 2
        angles = positions.double()[:, None] / 10_000 ** (torch.arange(half).double() / half)
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    periods = 4e-3 * (4.0 / 4e-3) ** torch.linspace(0, 1, WIDTH // 2, dtype=torch.float64)
    angles = 2 * torch.pi * t[:, None] / periods
    time = torch.cat([angles.sin(), angles.cos()], dim=-1)[:, None].expand(-1, noisy.shape[1], -1)
    hidden = torch.cat([linear(noisy.double(), "action_in_proj"), time], dim=-1)
    hidden = linear(F.silu(linear(hidden, "action_time_mlp_in")), "action_time_mlp_out")
    x = torch.cat([linear(state.double(), "state_proj")[:, None], hidden], dim=1)
    count, prefix = x.shape[1], cache.length
    positions = prefix + torch.arange(count)
    seen = torch.ones(count, prefix + count, dtype=torch.bool)
    seen[0, prefix + 1 :] = False  # the state does not see the actions
    for i in range(LANGUAGE.layers):
        h = rms(x, f"layers.{i}.input_layernorm")
        q, k, v = (
            linear(h, f"layers.{i}.self_attn.{part}_proj").unflatten(-1, (-1, LANGUAGE.head_dim))
            for part in "qkv"
        )
        empty = torch.zeros(len(x), 0, LANGUAGE.head_dim)
        kept_k, kept_v = (kept.double() for kept in cache.view(i, empty, empty))
        k = torch.cat([kept_k, rotary(k, positions)[:, :, 0]], dim=1)
        v = torch.cat([kept_v, v[:, :, 0]], dim=1)
        scores = torch.einsum("bshd,btd->bhst", rotary(q, positions), k) / LANGUAGE.head_dim**0.5
        weights = scores.masked_fill(~seen, -2.38e38).softmax(-1)
        mixed = torch.einsum("bhst,btd->bshd", weights, v).flatten(2)
        x = x + linear(mixed, f"layers.{i}.self_attn.o_proj")
        h = rms(x, f"layers.{i}.post_attention_layernorm")
        gate = F.gelu(linear(h, f"layers.{i}.mlp.gate_proj"), approximate="tanh")
        x = x + linear(gate * linear(h, f"layers.{i}.mlp.up_proj"), f"layers.{i}.mlp.down_proj")
    return linear(rms(x, "norm")[:, 1:], "action_out_proj")


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "model."])
def test_our_velocity_at_tau_is_pi0s_at_1_minus_tau_with_the_sign_changed(tmp_path, prefix):
    model = micro()
    filled = load_pi0_expert(model, write_pi0(tmp_path / "pi0", prefix=prefix))
    assert not filled.left
    assert set(filled.taken) == {n for n, _ in model.named_parameters() if n[:7] == "expert."}
    assert len(filled.ignored) == 2  # both lm_heads
    inputs, cache = observation(batch=8), DynamicKVCache(LANGUAGE.layers)
    model.prefill(inputs, cache)
    generator = torch.Generator().manual_seed(7)
    noisy = torch.randn(8, 5, 8, generator=generator)
    tau = torch.cat([torch.arange(4) / 4, torch.rand(4, generator=generator)])
    theirs = pi0_velocity(pi0_tensors(), cache, inputs.state, noisy, 1 - tau.double())
    ours = model.velocity(inputs, noisy, tau)
    assert theirs.std() > 0.5
    assert (ours + theirs).abs().max() <= 5e-5
    unreversed = pi0_velocity(pi0_tensors(), cache, inputs.state, noisy, tau.double())
    assert (ours + unreversed).abs().max() > 0.1


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


def test_heads_of_32_dimensions_stay_as_they_were_and_are_named(tmp_path):
    model = micro()
    before = copies(model)
    filled = load_pi0_expert(model, write_pi0(tmp_path / "pi0", dims=32))
    heads = [f"expert.{head}" for head in ("action_in", "state_in", "action_out")]
    left = {f"{head}.{kind}" for head in heads for kind in ("weight", "bias")}
    assert set(filled.left) == left
    everything = {name for name in before if name.startswith("expert.")}
    assert set(filled.taken) == changed(model, before) == everything - left
    assert {"state_proj.weight", "action_out_proj.bias"} < set(filled.ignored)
    matrices = micro(flow=FlowConfig(rotation="matrix"))  # 13 numbers an action, 8 a state
    filled = load_pi0_expert(matrices, write_pi0(tmp_path / "pi0"))
    assert {name.split(".")[1] for name in filled.left} == {"action_in", "action_out"}


def test_a_spoiled_pi0_is_refused_by_file_and_key_and_changes_nothing(tmp_path):
    model, folder = micro(), tmp_path / "pi0"
    path = folder / WEIGHTS
    key = f"{EXPERT}.model.layers.1.mlp.down_proj.weight"
    for value, words in (
        (None, "has no tensor"),
        (torch.full((WIDTH, MLP), float("inf")), "NaN or infinity"),
        (torch.zeros(WIDTH, WIDTH), "is needed"),
    ):
        write_pi0(folder, **{key: value})
        refused(load_pi0_expert, model, folder, path, key, words)
    for key in ("state_proj.weight", "action_out_proj.bias", "action_time_mlp_in.weight"):
        write_pi0(folder, **{key: None})
        refused(load_pi0_expert, model, folder, path, f"has no tensor '{key}'")
    write_pi0(folder, **{"gripper_head.weight": torch.zeros(2)})
    refused(load_pi0_expert, model, folder, "unknown tensor 'gripper_head.weight'")
    adaptive = {
        f"{EXPERT}.model.norm.weight": None,
        f"{EXPERT}.model.norm.dense.weight": torch.zeros(3 * WIDTH, WIDTH),
    }
    write_pi0(folder, **adaptive)
    refused(load_pi0_expert, model, folder, path, "pi0.5")
    save_file({"a": torch.zeros(1)}, path)
    refused(load_pi0_expert, model, folder, path, f"{EXPERT}.model.norm.weight")
    write_pi0(folder)
    load_pi0_expert(model, path)  # the file itself does as well
    slow = micro(expert=replace(MICRO.expert, time_max_period=8.0))
    with pytest.raises(ValueError, match="time_max_period are 0.004 and 8.0"):
        load_pi0_expert(slow, folder)
    with pytest.raises(ValueError, match="no action expert"):
        load_pi0_expert(micro(expert=None), folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_keeps_its_dtype_when_it_is_filled(tmp_path, dtype):
    model = micro().to(dtype)
    load_pi0_expert(model, write_pi0(tmp_path / "pi0"))
    assert {values.dtype for values in model.parameters()} == {dtype}
    expected = -pi0_tensors()["action_out_proj.weight"].to(dtype)
    assert torch.equal(model.expert.action_out.weight, expected)
