"""Two tables act as one tied embedding; new rows are drawn around the old ones."""

import math

import pytest
import torch
from torch.nn import functional
from transformers.models.gemma.modeling_gemma import GemmaTextScaledWordEmbedding

from spear_policy.model.config import VocabularyConfig, spear_vlm
from spear_policy.model.gemma import (
    TokenEmbedding,
    columns_from_ids,
    ids_from_columns,
    initialise_coordinates,
)

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
    theirs = (hidden + functional.embedding(columns, one) * math.sqrt(WIDTH)) @ one.T
    assert ours.shape == (2, 4, 52)
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-5)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    grad = torch.cat([made.words.grad, made.coordinates.grad])
    assert torch.allclose(grad, one.grad, rtol=1e-4, atol=1e-2)


def test_the_3d_tokens_can_be_trained_alone():
    made = tables()
    made.words.requires_grad_(False)
    functional.cross_entropy(
        made.logits(made.embed(IDS))[0], columns_from_ids(IDS[1], LAYOUT)
    ).backward()
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


def test_a_table_that_was_not_loaded_is_refused():
    with pytest.raises(ValueError, match="not finite: load it before"):
        initialise_coordinates(torch.full((4, 3), float("nan")), 2)
    with pytest.raises(ValueError, match="there are no rows"):
        initialise_coordinates(torch.empty(0, 3), 2)
    with pytest.raises(ValueError, match="scale is -1"):
        initialise_coordinates(torch.ones(4, 3), 2, scale=-1)


def _seeded(seed):
    return torch.Generator().manual_seed(seed)
