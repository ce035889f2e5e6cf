"""Instructions and questions have the form that PaliGemma and pi0 read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_fixture import LIKE_PALIGEMMA, paligemma_document, write_document
from tokenizers import Tokenizer

from spear_policy.model.config import tiny
from spear_policy.model.prompts import bucket, clean, pad, pad_questions, prompt_ids, question_ids
from spear_policy.model.tokenizer import TextTokenizer, train_tokenizer

WORDS = tiny().vocabulary
TOKENIZER = train_tokenizer(WORDS)
NEWLINE = TOKENIZER.encode("\n")


def test_clean_is_pi0s():
    assert clean("  put_the red\ncube \n") == "put the red cube"
    assert clean("_a") == " a"


def test_a_prompt_is_bos_text_newline():
    ids = prompt_ids(" put_the cup\n", TOKENIZER, WORDS, 48)
    assert ids == [2, *TOKENIZER.encode("put the cup"), *NEWLINE]


def test_paligemmas_tokenizer_gives_the_same_layout(tmp_path):
    path = write_document(tmp_path / "tokenizer.json", paligemma_document())
    tokenizer = TextTokenizer.from_file(path, LIKE_PALIGEMMA)
    ids = paligemma_document()["model"]["vocab"]
    prompt = prompt_ids("put the cup", tokenizer, LIKE_PALIGEMMA, 48)
    assert prompt == [2, ids["put"], ids["\u2581the"], ids["\u2581cup"], ids["\n"]]
    # as the published code does it: one string, control tokens spelt out in it
    published = Tokenizer.from_file(str(path)).encode(
        "<bos>put the cup\n", add_special_tokens=False
    )
    assert prompt == published.ids


def test_a_long_prompt_is_cut_with_a_warning_and_keeps_its_newline(caplog):
    text = "put the red cube on the plate " * 20
    length = len(TOKENIZER.encode(clean(text))) + 2
    ids = prompt_ids(text, TOKENIZER, WORDS, 48)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"has {length} tokens and is cut to 48: 'put the red" in record.getMessage()
    assert len(ids) == 48 and ids[0] == 2 and ids[-1:] == NEWLINE
    assert ids[1:-1] == TOKENIZER.encode(clean(text))[:46]


def test_a_prompt_that_just_fits_is_not_cut(caplog):
    words = TOKENIZER.encode("put the red cube on the plate")
    ids = prompt_ids("put the red cube on the plate", TOKENIZER, WORDS, len(words) + 2)
    assert ids[1:-1] == words and not caplog.records


@pytest.mark.parametrize("text", ["", "  ", "\n", "_", "\n_ \n"])
def test_an_empty_prompt_is_refused(text):
    with pytest.raises(ValueError, match="is empty: say what to do"):
        prompt_ids(text, TOKENIZER, WORDS, 48)
    with pytest.raises(ValueError, match="is empty: say what to do"):
        question_ids([(text, "cup")], TOKENIZER, WORDS, 48)


def test_a_limit_without_room_for_a_word_is_refused():
    with pytest.raises(ValueError, match="max_text_tokens is 2: no word fits"):
        prompt_ids("go", TOKENIZER, WORDS, 2)


@settings(deadline=None, max_examples=100)
@given(st.text(min_size=1), st.integers(3, 64))
def test_every_prompt_has_one_bos_one_closing_newline_and_no_control_token(text, limit):
    if not clean(text).strip():
        return
    ids = prompt_ids(text, TOKENIZER, WORDS, limit)
    assert 3 <= len(ids) <= limit
    assert ids[0] == WORDS.bos_id and ids[-1] == NEWLINE[0]
    assert not {WORDS.pad_id, WORDS.eos_id, WORDS.bos_id, WORDS.image_id} & set(ids[1:])


def test_padding_is_on_the_right_and_marked():
    ids, valid = pad([[2, 5, 6], [2]], 4)
    assert ids.tolist() == [[2, 5, 6, 0], [2, 0, 0, 0]] and ids.dtype == np.int64
    assert valid.tolist() == [[True, True, True, False], [True, False, False, False]]
    with pytest.raises(ValueError, match="row 1 has 3 tokens, more than the length 2"):
        pad([[1], [1, 2, 3]], 2)


def test_lengths_come_in_few_sizes():
    assert [bucket(n, 48) for n in (1, 16, 17, 32, 33, 48)] == [16, 16, 32, 32, 48, 48]
    assert [bucket(n, 20) for n in (3, 16, 17, 20)] == [16, 16, 20, 20]
    assert bucket(60, 100) == 100
    with pytest.raises(ValueError, match="49 tokens are more than the model reads"):
        bucket(49, 48)


PAIRS = [("where is the_cup?", "<coord0001><coord0002><coord0003>"), ("what is it?", "a cup")]


def test_questions_with_answers_are_laid_out_for_prefix_training():
    first, second = (TOKENIZER.encode(clean(question)) for question, _ in PAIRS)
    reply = TOKENIZER.encode("a cup")
    row = question_ids(PAIRS, TOKENIZER, WORDS, 200)
    begin = WORDS.coordinate_begin
    expected = [2, *first, *NEWLINE, begin + 1, begin + 2, begin + 3, 1]
    head = len(first) + 2
    assert row.ids.tolist() == [*expected, *second, *NEWLINE, *reply, 1]
    assert row.prefix.tolist() == [True] * head + [False] * (len(row.ids) - head)
    answers = [False] * head + [True] * 4 + [False] * (len(second) + 1) + [True] * (len(reply) + 1)
    assert row.answer.tolist() == answers


def test_a_single_question_begins_like_the_prompt_at_inference():
    row = question_ids(PAIRS[:1], TOKENIZER, WORDS, 200)
    assert row.ids[row.prefix].tolist() == prompt_ids(PAIRS[0][0], TOKENIZER, WORDS, 48)


def test_padded_rows_have_no_prefix_or_answer_in_the_padding():
    rows = [
        question_ids(PAIRS, TOKENIZER, WORDS, 200),
        question_ids(PAIRS[1:], TOKENIZER, WORDS, 99),
    ]
    batch = pad_questions(rows, 64)
    assert (
        batch.ids.shape == batch.valid.shape == batch.prefix.shape == batch.answer.shape == (2, 64)
    )
    assert batch.prefix.dtype == batch.answer.dtype == batch.valid.dtype == bool
    for i, row in enumerate(rows):
        n = len(row.ids)
        assert batch.ids[i, :n].tolist() == row.ids.tolist()
        assert batch.valid[i].sum() == n and not batch.valid[i, n:].any()
        assert batch.prefix[i, :n].tolist() == row.prefix.tolist()
        assert batch.answer[i, :n].tolist() == row.answer.tolist()
        assert not batch.prefix[i, n:].any() and not batch.answer[i, n:].any()


@pytest.mark.parametrize(
    ("pairs", "limit", "message"),
    [
        ([], 100, "there is no question"),
        ([("where?", "")], 100, "the answer to 'where\\?' is empty"),
        (PAIRS, 20, "2 questions with answers have .* tokens, more than 20: ask fewer"),
    ],
)
def test_questions_that_cannot_be_trained_on_are_refused(pairs, limit, message):
    with pytest.raises(ValueError, match=message):
        question_ids(pairs, TOKENIZER, WORDS, limit)
