"""Texts with tokens as a person reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from question_fixture import WIDE_BINS

from spear_training.annotation.inspection.token_text import TextRun, TokenReader

READER = TokenReader(WIDE_BINS)


def tokens(*lengths_m):
    """Write lengths as 3D tokens."""
    return "".join(f"<coord{number:04d}>" for number in WIDE_BINS.encode(lengths_m))


@pytest.mark.parametrize(
    ("lengths_m", "names"),
    [
        ((0.4,), ["length"]),
        ((0.1, -0.2, 1.5), ["x, y, z"]),
        ((0.5, 0.3, 0.4, 0.0), ["distance", "its x, y, z"]),
        (tuple(0.1 * n for n in range(24)), [str(n) for n in range(8)]),
        (
            tuple(0.01 * n for n in range(27)),
            [*(f"vector {n}" for n in range(8)), "vector of the centres"],
        ),
        ((0.1, 0.2), ["numbers"]),
    ],
)
def test_tokens_are_told_by_their_number(lengths_m, names):
    (part,) = READER.parts(tokens(*lengths_m))
    assert (part.text, part.tokens) == (tokens(*lengths_m), len(lengths_m))
    assert [name for name, _ in part.rows] == names
    told = [number for _, numbers in part.rows for number in numbers]
    assert told == pytest.approx(lengths_m, abs=0.02)


def test_words_and_tokens_alternate_in_a_thought():
    text = f"The mug is {tokens(0.4)} away. answer: the mug"
    pair = READER.pair(
        {"category": "comparison", "question": "Which?", "answer": text, "kind": "thought"}
    )
    assert [part.tokens for part in pair.answer] == [0, 1, 0]
    assert "".join(part.text for part in pair.answer) == text
    assert (pair.question, pair.problem) == ((TextRun("Which?"),), "")


def test_places_are_pixels_of_the_picture_and_points_are_points():
    pair = READER.pair(
        {
            "category": "backprojection",
            "question": f"Where is {tokens(0.1, -0.2, 1.5)} ?",
            "answer": "<loc0000><loc1023>",
            "kind": "pixel",
        }
    )
    # Half a bin from the upper right corner, counted from a pixel's centre.
    half_bin_px = (0.5 * 840 / 1024, 0.5 * 630 / 1024)
    assert pair.pixels_px() == [
        pytest.approx((839.5 - half_bin_px[0], half_bin_px[1] - 0.5), abs=1e-6)
    ]
    assert pair.points_m() == [pytest.approx((0.1, -0.2, 1.5), abs=0.02)]


def test_an_answer_that_is_not_of_its_kind_is_told():
    def problem(answer, kind):
        return READER.pair({"category": "", "question": "", "answer": answer, "kind": kind}).problem

    assert problem(tokens(1, 2, 3), "point") == ""
    assert "expected 3D token 1 of 3" in problem("the mug", "point")
    assert "there is no kind of answer 'cube'" in problem("the mug", "cube")
    assert "expected <coord0000> .. <coord1023>" in problem("<coord1024>", "length")
    assert TokenReader(None).pair(
        {"category": "", "question": "", "answer": "the mug", "kind": "point"}
    ).problem == ""  # fmt: skip


@given(st.lists(st.sampled_from(["<coord0001>", "<loc0002>", "<coord9999>", "a", " ", "<"])))
def test_no_text_is_lost(pieces):
    text = "".join(pieces)
    for reader in (READER, TokenReader(None)):
        assert "".join(part.text for part in reader.parts(text)) == text
