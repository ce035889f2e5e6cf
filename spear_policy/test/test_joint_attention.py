"""Two stacks over one memory are pi0's joint attention, computed here in the dense form."""

import pytest
import torch
import torch.nn.functional as F
from toy_models import MICRO, micro, observation

from spear_policy.model.gemma import rotary_tables, rotate

# images and text: p, padding: -, state: s, actions: a. Rows may see columns marked x.
SEEN = """
   p p - s a a
p  x x . . . .
p  x x . . . .
-  x x . . . .
s  x x . x . .
a  x x . x x x
a  x x . x x x
"""


def written_out(prefix_valid, actions):
    """The mask table for each batch row, from the picture above."""
    lines = [line.split() for line in SEEN.strip().splitlines()]
    seen = {
        (row[0], name): cell == "x"
        for row in lines[1:]
        for name, cell in zip(lines[0], row[1:], strict=True)
    }
    names = [
        ["p" if valid else "-" for valid in row] + ["s"] + ["a"] * actions
        for row in prefix_valid.tolist()
    ]
    return torch.tensor([[[seen[q, k] for k in row] for q in row] for row in names])


def rms(x, norm):
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + norm.weight)


def dense_joint(model, prefix, prefix_valid, suffix):
    """All tokens at once in every layer: q, k, v by each token's own expert, one softmax."""
    language = model.config.language
    streams = [prefix, suffix]
    valid = F.pad(prefix_valid, (0, suffix.shape[1]), value=True)
    positions = valid.long().cumsum(-1) - 1
    mask = written_out(prefix_valid, suffix.shape[1] - 1)
    tables = rotary_tables(positions, language.head_dim, language.rope_base)
    for layers in zip(model.language.layers, model.expert.stack.layers, strict=True):
        parts = []
        for x, layer in zip(streams, layers, strict=True):
            parts.append(
                (rms(x, layer.norm1) @ layer.qkv.weight.T).unflatten(-1, (-1, language.head_dim))
            )
        q, k, v = torch.cat(parts, dim=1).split([language.heads, 1, 1], dim=2)
        q, k = rotate(q, tables), rotate(k, tables)
        scores = torch.einsum("bshd,btd->bhst", q, k[:, :, 0]) / language.head_dim**0.5
        scores = scores.masked_fill(~mask.unsqueeze(1), -2.38e38)
        seen = torch.einsum("bhst,btd->bshd", scores.softmax(-1), v[:, :, 0]).flatten(2)
        outputs = seen.split([x.shape[1] for x in streams], dim=1)
        for i, (x, layer, attended) in enumerate(zip(streams, layers, outputs, strict=True)):
            x = x + attended @ layer.out.weight.T
            gate, up = (rms(x, layer.norm2) @ layer.gate_up.weight.T).chunk(2, dim=-1)
            streams[i] = x + (F.gelu(gate, approximate="tanh") * up) @ layer.down.weight.T
    hidden = rms(streams[1], model.expert.stack.norm)[:, 1:]
    return hidden @ model.expert.action_out.weight.T + model.expert.action_out.bias


@pytest.fixture(scope="module")
def model():
    return micro()


def noisy_actions(seed=3, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 5, 8, generator=generator), torch.rand(batch, generator=generator)


PADDED = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)


@torch.no_grad()
@pytest.mark.parametrize("text_valid", [None, PADDED])
def test_the_velocity_equals_a_dense_reference_with_the_mask_written_out(model, text_valid):
    inputs = observation(text_valid=text_valid)
    actions, tau = noisy_actions()
    prefix, valid = model.prefix(inputs)
    expert = model.expert
    suffix = torch.cat(
        [expert.embed_state(inputs.state), expert.embed_actions(actions, tau)], dim=1
    )
    expected = dense_joint(model, prefix, valid, suffix)
    torch.testing.assert_close(model.velocity(inputs, actions, tau), expected, atol=2e-5, rtol=1e-4)


def test_nothing_in_the_prefix_or_the_state_depends_on_the_actions(model):
    inputs = observation()
    actions, tau = noisy_actions()
    seen = {}
    stack = model.expert.stack

    def record(name):
        return lambda module, arguments, output: seen.setdefault(name, []).append(output.detach())

    hooks = [
        model.language.layers[-1].norm1.register_forward_hook(record("prefix")),
        stack.layers[-1].register_forward_hook(record("expert")),
    ]
    with torch.no_grad():
        model.velocity(inputs, actions, tau)
        model.velocity(inputs, 5.0 - actions, 1 - tau)
    for hook in hooks:
        hook.remove()
    assert torch.equal(*seen["prefix"])
    before, after = seen["expert"]
    assert torch.equal(before[:, 0], after[:, 0])  # the state's token
    assert (before[:, 1:] - after[:, 1:]).abs().max() > 1e-2


@torch.no_grad()
def test_padding_of_the_text_changes_nothing(model):
    actions, tau = noisy_actions()
    short = observation(words=4)
    padding = torch.full((2, 7), 77)
    valid = torch.ones(2, 11, dtype=torch.bool)
    valid[:, 4:] = False
    longer = observation(
        words=4, text_ids=torch.cat([short.text_ids, padding], dim=1), text_valid=valid
    )
    torch.testing.assert_close(
        model.velocity(longer, actions, tau),
        model.velocity(short, actions, tau),
        atol=1e-5,
        rtol=1e-5,
    )


@torch.no_grad()
def test_a_missing_camera_is_attended_to_unless_the_configuration_masks_it():
    actions, tau = noisy_actions()
    present = torch.tensor([[True, False], [True, True]])
    black = observation()
    images = (black.images[0], torch.zeros_like(black.images[1]))
    black = observation(images=images, present=present)
    other = observation(images=(images[0], images[1] + 0.5), present=present)
    for masked in (False, True):
        model = micro(mask_missing_camera=masked)
        change = (model.velocity(black, actions, tau) - model.velocity(other, actions, tau)).abs()
        assert (change[0].max() == 0) == masked
        assert change[1].max() > 1e-5


def test_every_part_that_stage_two_uses_gets_a_gradient(model):
    actions, tau = noisy_actions()
    model.zero_grad()
    model.velocity(observation(), actions, tau).pow(2).sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    model.zero_grad()
    last = f"language.layers.{MICRO.language.layers - 1}"
    dead = {f"{last}.{part}.weight" for part in ("out", "norm2", "gate_up", "down")}
    dead |= {"language.norm.weight", "tokens.coordinates", "depth.mask_token"}
    assert without == dead
