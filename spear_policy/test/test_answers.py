"""What is written comes back quantised; everything else is refused with its place."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from text_fixture import LIKE_PALIGEMMA, paligemma_document, write_document

from spear_policy.model.answers import (
    KINDS,
    AnswerError,
    AnswerGrammar,
    Box,
    BoxVectors,
    ChainOfThought,
    Distance,
    Length,
    Pixel,
    Point,
    Words,
)
from spear_policy.model.config import small, tiny
from spear_policy.model.coordinate_bins import CoordinateBins
from spear_policy.model.tokenizer import TextTokenizer, train_tokenizer

BINS = CoordinateBins.normal(0.4, 0.5, -0.8, 1.9, 64)
GRAMMAR = AnswerGrammar(train_tokenizer(tiny().vocabulary), BINS)
CONFIG = GRAMMAR.tokenizer.config
EOS = CONFIG.eos_id
FULL_BINS = CoordinateBins.normal(0.4, 0.5, -0.8, 1.9, 1024)
FULL = AnswerGrammar(train_tokenizer(small().vocabulary), FULL_BINS)

metres = st.floats(-3, 3)
triples = st.tuples(metres, metres, metres)
lengths = st.builds(Length, metres)
points = st.builds(Point, triples)
distances = st.builds(Distance, metres, triples)
boxes = st.builds(Box, st.tuples(*[triples] * 8))
box_vectors = st.builds(BoxVectors, st.tuples(*[triples] * 8), triples)
fractions = st.floats(0, 1)
pixels = st.builds(Pixel, fractions, fractions)
numbers = st.one_of(lengths, points, distances, boxes, box_vectors)


def _plain(text):
    """Any Unicode as words with single blanks, without what words may not contain."""
    for forbidden in ("\ufffd", "\n", "<loc", "<coord", "answer:"):
        text = text.replace(forbidden, " ")
    return " ".join(filter(None, text.split(" ")))


plain_words = st.text(max_size=20).map(_plain).filter(bool)


@st.composite
def thoughts(draw):
    steps = [draw(plain_words)] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        steps += [draw(numbers), draw(plain_words)]
    if draw(st.booleans()):
        steps.pop()
    return ChainOfThought(tuple(steps), draw(plain_words))


answers = {
    "length": lengths,
    "point": points,
    "distance": distances,
    "box": boxes,
    "box_vectors": box_vectors,
    "pixel": pixels,
    "words": st.builds(Words, plain_words),
    "thought": thoughts(),
}
kinds_and_answers = st.sampled_from(KINDS).flatmap(
    lambda kind: st.tuples(st.just(kind), answers[kind])
)


def quantised(answer, grammar):
    """The same answer with every number moved to the middle of its bin."""

    def q(values):
        return grammar.bins.decode(grammar.bins.encode(values)).tolist()

    def side(fraction):
        bins = grammar.tokenizer.config.loc_tokens
        return (min(np.floor(fraction * bins), bins - 1) + 0.5) / bins

    if isinstance(answer, Length):
        return Length(q(answer.length_m))
    if isinstance(answer, Point):
        return Point(tuple(q(answer.xyz_m)))
    if isinstance(answer, Distance):
        return Distance(q(answer.distance_m), tuple(q(answer.xyz_m)))
    if isinstance(answer, Box):
        return Box(tuple(tuple(vertex) for vertex in q(answer.vertices_m)))
    if isinstance(answer, BoxVectors):
        vertices = tuple(tuple(vector) for vector in q(answer.vertices_m))
        return BoxVectors(vertices, tuple(q(answer.centre_m)))
    if isinstance(answer, Pixel):
        return Pixel(side(answer.y), side(answer.x))
    if isinstance(answer, ChainOfThought):
        steps = [s if isinstance(s, str) else quantised(s, grammar) for s in answer.steps]
        return ChainOfThought(tuple(steps), answer.choice)
    return answer


@settings(deadline=None, max_examples=300)
@given(kinds_and_answers)
def test_every_answer_comes_back_quantised_from_text_and_ids(kind_and_answer):
    kind, answer = kind_and_answer
    for grammar in (GRAMMAR, FULL):
        expected = quantised(answer, grammar)
        text = grammar.format_answer(answer)
        assert grammar.parse_answer(kind, text) == expected
        ids = grammar.format_ids(answer)
        assert grammar.parse_answer(kind, ids) == expected
        assert grammar.parse_answer(kind, [*ids, 0, 0]) == expected  # padded by a batch
        assert grammar.format_ids(expected) == ids  # an answer has one spelling


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(KINDS),
    st.lists(
        st.one_of(
            st.integers(0, CONFIG.end - 1),
            st.integers(CONFIG.coordinate_begin, CONFIG.end - 1),
            st.integers(CONFIG.loc_begin, CONFIG.size - 1),
            st.sampled_from([EOS, 0, -1, CONFIG.image_id, CONFIG.end, 10**30]),
        ),
        max_size=30,
    ),
    st.booleans(),
)
def test_garbage_ids_are_an_answer_or_an_answer_error(kind, ids, closed):
    ids = ids + [EOS] * closed
    try:
        answer = GRAMMAR.parse_answer(kind, ids)
    except AnswerError as error:
        assert "\n" not in str(error)
        return
    end = ids.index(EOS)
    assert set(ids[end + 1 :]) <= {CONFIG.pad_id}
    # what is accepted says the same again; words may have more than one tokenisation
    assert GRAMMAR.parse_answer(kind, GRAMMAR.format_ids(answer)) == answer


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(KINDS),
    st.lists(
        st.one_of(
            st.text(max_size=5),
            st.sampled_from(
                ["<coord0001>", "<coord0063>", "<coord0064>", "<coord1>", "<loc0001>", "<loc9999>",
                 " ", " answer: ", "<eos>", "<coord", ">", "<coord" + "9" * 5000 + ">"]
            ),
        ),
        max_size=12,
    ).map("".join),
)  # fmt: skip
def test_garbage_text_is_an_answer_or_an_answer_error(kind, text):
    try:
        answer = GRAMMAR.parse_answer(kind, text)
    except AnswerError:
        return
    assert GRAMMAR.format_answer(answer) == text


def coordinates(*bins):
    return [CONFIG.coordinate_begin + each for each in bins]


CUP = GRAMMAR.tokenizer.encode("cup")
LOC = CONFIG.loc_begin


@pytest.mark.parametrize(
    ("kind", "ids", "message"),
    [
        ("point", coordinates(1, 2), "point answer: found no <eos> in 2 tokens.*allow more tokens"),
        ("point", [], "point answer: found no <eos> in 0 tokens"),
        ("point", [EOS], "found the end after 0 3D tokens: expected 3"),
        ("point", [*coordinates(1, 2), EOS], "found the end after 2 3D tokens: expected 3"),
        (
            "point",
            [*coordinates(1, 2, 3, 4), EOS],
            "found <coord0004> at token 3: expected the end after 3 3D tokens",
        ),
        (
            "point",
            [*coordinates(1), LOC + 5, *coordinates(3), EOS],
            "found <loc0005> at token 1: expected 3D token 2 of 3",
        ),
        (
            "point",
            [*CUP, *coordinates(1, 2, 3), EOS],
            "found the words 'cup' at token 0: expected 3D token 1 of 3",
        ),
        (
            "point",
            [*coordinates(1, 2, 3), *CUP, EOS],
            "found the words 'cup' at token 3: expected the end after 3",
        ),
        ("point", [*coordinates(1, 2, 3), EOS, *coordinates(4)], "found <coord0004> at token 4: "),
        ("point", [*coordinates(1, 2, 3), EOS, 0, EOS], "found <eos> at token 5: expected nothing"),
        ("point", [*coordinates(1, 2, 3), EOS, CUP[-1]], "found the words .* at token 4: "),
        ("point", [*coordinates(1, 2), 0, EOS], "found <pad> at token 2: expected 3D token 3 of 3"),
        ("point", [2, *coordinates(1, 2, 3), EOS], "found <bos> at token 0: expected 3D token 1"),
        ("point", [*coordinates(1, 2), CONFIG.end, EOS], r"the id 577 at token 2: .* 0\.\.576"),
        ("point", [*coordinates(1, 2), -4, EOS], "found the id -4 at token 2"),
        ("point", [1.5, EOS], "found 1.5 at token 0: expected one row of ids"),
        ("point", [[*coordinates(1, 2, 3), EOS]], "expected one row of ids"),
        ("point", 7, "found no <eos> in 1 tokens"),
        ("box", [*coordinates(*range(23)), EOS], "found the end after 23 3D tokens: expected 24"),
        ("box", [*coordinates(*range(25)), EOS], "found <coord0024> at token 24: expected the end"),
        ("distance", [*coordinates(1, 2, 3), EOS], "distance answer: found the end after 3 3D"),
        ("length", [*coordinates(1, 2), EOS], "length answer: found <coord0002> at token 1"),
        ("pixel", [LOC, EOS], "pixel answer: found the end after 1 <loc> tokens: expected 2"),
        ("pixel", [LOC, *coordinates(3), EOS], "<coord0003> at token 1: expected <loc> token 2"),
        ("words", [EOS], "words answer: found the end: expected words"),
        ("words", [*CUP, *coordinates(1), EOS], "found <coord0001> at token .*: expected words"),
        ("words", [CONFIG.image_id, EOS], "found <image> at token 0: expected words"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_told_by_what_was_found_where_and_what_was_expected(kind, ids, message):
    with pytest.raises(AnswerError, match=message):
        GRAMMAR.parse_answer(kind, ids)


C = "<coord0001>"


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("point", f"{C}{C}<coord0064>", r"<coord0064> at character 22: expected .*<coord0063>"),
        ("point", f"{C}{C}<coord1>", "found <coord1> at character 22"),
        ("point", f"{C} {C}{C}", "found the words ' ' at character 11: expected 3D token 2 of 3"),
        ("point", f"{C}{C}{C}<eos>", "found the words '<eos>' at character 33: expected the end"),
        ("pixel", "<loc0064><loc0000>", "found <loc0064> at character 0"),
        ("words", "", "found the end: expected words"),
        ("words", " cup", "must have single blanks"),
        ("words", "red  cup", "must have single blanks"),
        ("words", "cup\n", "must have single blanks"),
        ("words", "\ud800", "not UTF-8"),
        ("thought", "", "thought answer: found the end"),
        ("thought", f"it is {C}", "found <coord0001> at character 6: expected words"),
        ("thought", f"it is {C} so it is", "expected 'answer:' and the choice"),
        ("thought", f"it is {C} answer:", "expected one blank"),
        ("thought", f"it is {C} answer: ", "expected one blank"),
        ("thought", f"it is {C}answer: cup", "expected a blank before 'answer:'"),
        ("thought", f"it is{C} answer: cup", "expected one blank between words and numbers"),
        ("thought", f"it is {C}{C} answer: cup", "2 3D tokens in a row from character 6: .* 1, 3"),
        ("thought", f"{C} {C} answer: cup", "step 1 is empty"),
        ("thought", "it is far answer: cup", "the thoughts have no number in them"),
        ("thought", f"at <loc0001> or {C} answer: cup", "found <loc0001> at .*: expected words or"),
        ("thought", f"{C} answer: cup answer: box", "contains 'answer:'"),
    ],
)  # fmt: skip
def test_a_wrong_text_is_told_by_its_character(kind, text, message):
    with pytest.raises(AnswerError, match=message):
        GRAMMAR.parse_answer(kind, text)


def test_choices_limit_words_and_the_choice_after_a_thought():
    choices = ("the cup", "the box")
    assert GRAMMAR.parse_answer("words", "the cup", choices) == Words("the cup")
    with pytest.raises(
        AnswerError, match="found the words 'the pot': expected one of the cup, the"
    ):
        GRAMMAR.parse_answer("words", "the pot", choices)
    text = f"the cup is at {C}{C}{C} answer: the box"
    thought = GRAMMAR.parse_answer("thought", text, choices)
    assert thought.choice == "the box"
    assert thought.steps == ("the cup is at", Point(tuple(BINS.decode([1, 1, 1]))))
    with pytest.raises(AnswerError, match="expected one of the cup"):
        GRAMMAR.parse_answer("thought", text + "es", choices)


def test_the_form_of_each_kind_is_the_one_that_is_documented():
    centres = FULL_BINS.decode([0, 512, 1023])
    corners = tuple(tuple(centres) for _ in range(8))
    xyz = "<coord0000><coord0512><coord1023>"
    assert FULL.format_answer(Point(centres)) == xyz
    assert FULL.format_answer(Distance(centres[1], centres)) == "<coord0512>" + xyz
    assert FULL.format_answer(Box(corners)) == xyz * 8
    assert FULL.format_answer(Length(centres[2])) == "<coord1023>"
    assert FULL.format_answer(Pixel(y=0.25, x=0.75)) == "<loc0256><loc0768>"
    thought = ChainOfThought(("the cup is at", Point(centres), "and far"), "the box")
    assert FULL.format_answer(thought) == f"the cup is at {xyz} and far answer: the box"
    assert len(FULL.format_ids(Box(corners))) == 24 + 1
    assert FULL.format_ids(Point(centres))[-1] == FULL.tokenizer.config.eos_id


def test_a_pixel_is_written_row_first_and_the_far_edge_belongs_to_the_last_bin():
    pixel = Pixel.from_pixels(u=210, v=21, width=280, height=210)
    assert (pixel.y, pixel.x) == (0.1, 0.75)
    assert FULL.format_answer(pixel) == "<loc0102><loc0768>"
    u, v = FULL.parse_answer("pixel", "<loc0102><loc0768>").in_pixels(280, 210)
    assert abs(u - 210) <= 280 / 1024 and abs(v - 21) <= 210 / 1024
    assert FULL.format_answer(Pixel(1.0, 0.0)) == "<loc1023><loc0000>"


def test_numbers_outside_the_bins_go_to_the_outermost_ones():
    assert FULL.format_answer(Point((-50.0, -0.8, 50.0))) == "<coord0000><coord0000><coord1023>"


def test_arrays_and_tensors_are_taken_as_they_come():
    corners = np.random.default_rng(0).normal(0.4, 0.3, (8, 3))
    box = Box(corners)
    assert box == Box(tuple(map(tuple, corners.tolist())))
    ids = GRAMMAR.format_ids(box)
    for given_ids in (np.array(ids), torch.tensor(ids), iter(ids)):
        assert GRAMMAR.parse_answer("box", given_ids) == quantised(box, GRAMMAR)
    with pytest.raises(AnswerError, match="expected one row of ids"):
        GRAMMAR.parse_answer("box", torch.tensor([ids]))


def test_answers_work_with_a_tokenizer_of_paligemmas_form(tmp_path):
    path = write_document(tmp_path / "tokenizer.json", paligemma_document())
    bins = CoordinateBins.normal(0.4, 0.5, -0.8, 1.9, 32)
    grammar = AnswerGrammar(TextTokenizer.from_file(path, LIKE_PALIGEMMA), bins)
    for kind, answer in {
        "point": Point((0.1, 0.2, 1.0)),
        "pixel": Pixel(0.5, 0.25),
        "words": Words("the cup, \u00e9clair"),
        "thought": ChainOfThought(("the cup is at", Point((0, 0, 1)), "so"), "the cup"),
    }.items():
        expected = quantised(answer, grammar)
        assert grammar.parse_answer(kind, grammar.format_ids(answer)) == expected
        assert grammar.parse_answer(kind, grammar.format_answer(answer)) == expected


def test_bytes_that_are_no_utf8_and_spelt_out_tokens_are_refused():
    half = GRAMMAR.tokenizer.encode("\u00e9")[:1]
    with pytest.raises(AnswerError, match="not UTF-8"):
        GRAMMAR.parse_answer("words", [*half, EOS])
    letters = [i for letter in "<coord0001>" for i in GRAMMAR.tokenizer.encode(letter)]
    with pytest.raises(AnswerError, match="spells out the token <coord0001>"):
        GRAMMAR.parse_answer("words", [*letters, EOS])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pixel(1.01, 0.5), "outside the image"),
        (lambda: Pixel(0.5, float("nan")), "outside the image"),
        (lambda: Box(np.zeros((7, 3))), "7 vertices, not 8"),
        (lambda: Box(np.zeros((8, 2))), "a vertex has 2 numbers"),
        (lambda: Point((1.0, 2.0)), "a point has 2 numbers"),
        (lambda: Distance(1.0, (1.0,)), "a distance has 1 numbers"),
        (lambda: Words("two\nlines"), "single blanks"),
        (lambda: Words("at <loc0001>"), "spells out the token <loc0001>"),
        (lambda: ChainOfThought(("far",), "cup"), "no number in them"),
        (lambda: ChainOfThought((Length(1), Length(2)), "cup"), "put words between them"),
        (lambda: ChainOfThought((Length(1), "a", "b"), "cup"), "join them"),
        (lambda: ChainOfThought((Length(1), "answer: a"), "cup"), "contains 'answer:'"),
        (lambda: ChainOfThought((Length(1),), ""), "the choice is empty"),
        (lambda: GRAMMAR.format_answer(Point((0, float("nan"), 0))), "expected finite numbers"),
        (lambda: GRAMMAR.format_ids(Length(float("inf"))), "expected finite numbers"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(make, message):
    with pytest.raises(AnswerError, match=message):
        make()


def test_an_unknown_kind_and_foreign_bins_are_refused():
    with pytest.raises(ValueError, match="no kind of answer 'cube': choose from length, point"):
        GRAMMAR.parse_answer("cube", [EOS])
    with pytest.raises(ValueError, match="1024 bins do not fit 64 3D tokens"):
        AnswerGrammar(GRAMMAR.tokenizer, FULL_BINS)
