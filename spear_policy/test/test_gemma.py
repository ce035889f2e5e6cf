"""Two stacks over one KV cache against pi0's joint attention, computed here in the dense form.

Then the embedding of words and 3D tokens.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from toy_models import MICRO, micro, observation
from transformers.models.gemma.modeling_gemma import GemmaTextScaledWordEmbedding

from spear_policy.model.config import VocabularyConfig, spear_vlm
from spear_policy.model.gemma import (
    TokenEmbedding,
    columns_from_ids,
    ids_from_columns,
    initialise_coordinates,
    ordered_coordinates,
    rotary_tables,
    rotate,
)

# Embeddings of words and 3D tokens ---------------------------------------------------------------


LAYOUT = VocabularyConfig(size=40, loc_begin=30, loc_tokens=8, coordinate_tokens=12)
WIDTH = 24
IDS = torch.tensor([[0, 2, 39, 41], [52, 5, 41, 30]])


def tables(layout=LAYOUT, width=WIDTH, dtype=torch.float32):
    torch.manual_seed(0)
    made = TokenEmbedding(layout, width)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made.to(dtype)


def test_the_full_tables_have_the_sizes_of_the_paper():
    with torch.device("meta"):
        full = TokenEmbedding(spear_vlm().vocabulary, 2048)
    assert full.words.numel() == 526_647_296
    assert full.coordinates.numel() == 2_097_152


def test_a_look_up_is_the_row_times_the_root_of_the_width():
    made = tables()
    rows = torch.stack([made.words[i] for i in (0, 2, 39)] + [made.coordinates[0]])
    assert torch.equal(made.embed(IDS)[0], rows * math.sqrt(WIDTH))
    rows = torch.stack([made.coordinates[11], made.words[5], made.coordinates[0], made.words[30]])
    assert torch.equal(made.embed(IDS)[1], rows * math.sqrt(WIDTH))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_word_look_ups_equal_transformers(dtype):
    made = tables(width=2048, dtype=dtype)
    theirs = GemmaTextScaledWordEmbedding(40, 2048, 0, embed_scale=2048**0.5).to(dtype)
    theirs.weight.data = made.words.data
    ids = torch.arange(40)
    assert torch.equal(made.embed(ids), theirs(ids))
    if dtype == torch.bfloat16:
        assert torch.equal(made.embed(ids), made.words * 45.25)


def test_look_ups_and_logits_are_those_of_one_tied_table():
    made = tables()
    one = torch.cat([made.words, made.coordinates]).detach().requires_grad_()
    columns = columns_from_ids(IDS, LAYOUT)
    hidden = torch.randn(2, 4, WIDTH)
    ours = made.logits(hidden + made.embed(IDS))
    theirs = (hidden + F.embedding(columns, one) * math.sqrt(WIDTH)) @ one.T
    assert ours.shape == (2, 4, 52)
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-5)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    grad = torch.cat([made.words.grad, made.coordinates.grad])
    assert torch.allclose(grad, one.grad, rtol=1e-4, atol=1e-2)


def test_the_3d_tokens_can_be_trained_alone():
    made = tables()
    made.words.requires_grad_(False)
    F.cross_entropy(made.logits(made.embed(IDS))[0], columns_from_ids(IDS[1], LAYOUT)).backward()
    assert made.words.grad is None and made.coordinates.grad.abs().sum() > 0


def test_columns_skip_the_image_token():
    columns = torch.arange(52)
    ids = ids_from_columns(columns, LAYOUT)
    assert LAYOUT.image_id not in ids.tolist()
    assert ids.tolist() == [*range(40), *range(41, 53)]
    assert torch.equal(columns_from_ids(ids, LAYOUT), columns)


def test_the_image_token_and_ignored_targets_count_for_nothing_in_the_loss():
    targets = columns_from_ids(torch.tensor([3, LAYOUT.image_id, -100, 41]), LAYOUT)
    assert targets.tolist() == [3, -100, -100, 40]


def test_a_layout_without_3d_tokens_works():
    layout = VocabularyConfig(size=40, loc_begin=30, loc_tokens=8, coordinate_tokens=0)
    made = tables(layout)
    assert made.embed(torch.tensor([[1, 39]])).shape == (1, 2, WIDTH)
    assert made.logits(torch.randn(3, WIDTH)).shape == (3, 40)


def test_look_up_and_logits_can_be_exported_as_one_graph():
    made = tables()
    program = torch.export.export(_Both(made), (IDS,))
    assert torch.equal(program.module()(IDS), made.logits(made.embed(IDS)))


class _Both(torch.nn.Module):
    def __init__(self, made):
        super().__init__()
        self.made = made

    def forward(self, ids):
        return self.made.logits(self.made.embed(ids))


def test_new_rows_have_the_mean_and_the_scaled_covariance_of_the_old_ones():
    torch.manual_seed(1)
    words = torch.randn(400, 6) @ torch.randn(6, 6) + torch.randn(6)
    drawn = initialise_coordinates(words, 60_000, scale=0.25, generator=_seeded(2))
    assert torch.allclose(drawn.mean(0), words.mean(0), atol=0.05)
    expected = torch.cov(words.T, correction=0) * 0.25
    assert torch.allclose(torch.cov(drawn.T), expected, atol=0.03 * float(expected.diag().max()))


def test_the_default_scale_puts_new_rows_close_to_the_mean():
    words = torch.randn(300, 64, generator=_seeded(3)) + 2.0
    drawn = initialise_coordinates(words, 500, generator=_seeded(4))
    ratio = (drawn - words.mean(0)).std() / (words - words.mean(0)).std()
    assert torch.isclose(ratio, torch.tensor(math.sqrt(1e-5)), rtol=0.05)
    assert len(torch.unique(drawn, dim=0)) == 500


def test_fewer_rows_than_their_width_are_enough():
    words = torch.randn(5, 32, generator=_seeded(5))
    drawn = initialise_coordinates(words, 40, scale=1.0, generator=_seeded(6))
    centred = drawn - words.mean(0)
    assert int(torch.linalg.matrix_rank(centred, rtol=1e-4)) == 4  # the span of 5 centred rows
    same = initialise_coordinates(words[:1], 3)
    assert torch.equal(same, words[:1].expand(3, -1))


def test_more_rows_than_are_read_at_once_give_the_right_spread(monkeypatch):
    monkeypatch.setattr("spear_policy.model.gemma.ROWS_AT_ONCE", 7)
    words = torch.randn(100, 8, generator=_seeded(7))
    drawn = initialise_coordinates(words, 20_000, scale=1.0, generator=_seeded(8))
    assert torch.allclose(drawn.std(0), words.std(0, correction=0), rtol=0.03)


def test_new_rows_are_fp32_and_repeatable_for_bf16_words():
    words = torch.randn(50, 16, generator=_seeded(9)).bfloat16()
    drawn = initialise_coordinates(words, 8, generator=_seeded(10))
    assert drawn.dtype == torch.float32 and not drawn.requires_grad
    assert torch.equal(drawn, initialise_coordinates(words, 8, generator=_seeded(10)))
    assert not torch.equal(drawn, drawn.bfloat16().float())  # finer than bf16 could hold


def test_rows_of_bins_are_the_more_alike_the_nearer_the_bins_are():
    rows = ordered_coordinates(256, 128, _seeded(11))
    assert rows.shape == (256, 128)
    assert rows.norm(dim=1).mean() == pytest.approx(1.0, abs=0.05)
    alike = [float((rows[:-step] * rows[step:]).sum(1).mean()) for step in (1, 4, 16, 64, 160)]
    assert alike[0] > 0.9 and alike == sorted(alike, reverse=True) and abs(alike[-1]) < 0.3
    # And every bin is itself: none is as like another as itself.
    nearest = (rows @ rows.T).argmax(dim=1)
    assert (nearest - torch.arange(256)).abs().max() <= 1
    assert torch.equal(rows, ordered_coordinates(256, 128, _seeded(11)))
    assert ordered_coordinates(0, 8).shape == (0, 8)


def test_a_table_that_was_not_loaded_is_refused():
    with pytest.raises(ValueError, match="not finite: load it before"):
        initialise_coordinates(torch.full((4, 3), float("nan")), 2)
    with pytest.raises(ValueError, match="there are no rows"):
        initialise_coordinates(torch.empty(0, 3), 2)
    with pytest.raises(ValueError, match="scale is -1"):
        initialise_coordinates(torch.ones(4, 3), 2, scale=-1)


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


# Joint attention ---------------------------------------------------------------------------------


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
        return lambda module, inputs, output: seen.setdefault(name, []).append(output[0].detach())

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
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    model.zero_grad()
    last = f"language.layers.{MICRO.language.layers - 1}"
    dead = {f"{last}.{part}.weight" for part in ("out", "norm2", "gate_up", "down")}
    dead |= {"language.norm.weight", "tokens.coordinates", "depth.mask_token"}
    assert without == frozen == set(model.unused_parameters()) == dead
