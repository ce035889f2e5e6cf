"""Questions say what the geometry says: each category against numbers worked out by hand."""

from collections import Counter
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from question_fixture import BOARD, BOWL, GRAMMAR, MUG, SHELF, WIDE_BINS, picture, pictures, thing

from spear_policy.model.answers import Box, Pixel, Point
from spear_policy.model.coordinate_bins import CoordinateBins
from spear_policy.model.prompts import question_ids
from spear_training.vqa.asking import load_phrases
from spear_training.vqa.dataset import example_ids, make_example, rendered
from spear_training.vqa.pairs import CATEGORIES, Pair, QuestionSettings, name_of, parse_weights

ALL = QuestionSettings(weights=dict.fromkeys(CATEGORIES, 1.0))


def only(category, **changes):
    """Return settings that ask one category."""
    return QuestionSettings(weights={category: 1.0}, **changes)


def asked(annotation, category, seeds=150, bins=None):
    """Return all pairs of a category that many seeds draw."""
    examples = [make_example(annotation, seed, only(category), bins) for seed in range(seeds)]
    return [pair for example in examples if example for pair in example.pairs]


def words_of(pair):
    """Return the words of a question."""
    return " ".join(part for part in pair.question if isinstance(part, str))


def test_keypoints_are_those_of_the_record_and_the_centre_is_the_boxs():
    answers = {pair.subject: pair.answer for pair in asked(SHELF, "keypoints")}
    assert answers["closest", "mug"] == Point((-0.25, 0.0, 0.95))
    assert answers["furthest", "mug"] == Point((-0.35, 0.2, 1.05))
    np.testing.assert_allclose(answers["centre", "bowl"].xyz_m, (0.4, 0.0, 1.5), atol=1e-12)
    assert len(answers) == 9


def test_a_box_is_all_its_vertices_in_the_records_order():
    answers = {pair.subject: pair.answer for pair in asked(SHELF, "box")}
    assert answers == {(found.label,): Box(found.vertices_m) for found in (MUG, BOWL, BOARD)}


def directions(category, what):
    """Return 1 for each question that goes from the mug to the bowl, -1 for the way back."""
    return {
        template.fill(start=start, end=end): sign
        for template in load_phrases().questions[category][what]
        for sign, (start, end) in {1: ("mug", "bowl"), -1: ("bowl", "mug")}.items()
    }


def test_a_distance_goes_from_start_to_end_with_signs():
    sign_of = directions("object_distance", "centres")
    found = [pair for pair in asked(SHELF, "object_distance") if pair.subject == ("bowl", "mug")]
    assert {sign_of[pair.question] for pair in found} == {1, -1}
    for pair in found:
        expected = sign_of[pair.question] * np.array([0.7, -0.1, 0.5])
        np.testing.assert_allclose(pair.answer.xyz_m, expected, atol=1e-12)
        assert pair.answer.distance_m == pytest.approx(0.75**0.5)


def test_the_way_from_box_to_box_is_told_vertex_by_vertex_and_for_the_centres():
    sign_of = directions("box_distance", "boxes")
    found = [pair for pair in asked(SHELF, "box_distance") if pair.subject == ("bowl", "mug")]
    assert {sign_of[pair.question] for pair in found} == {1, -1}
    way = np.array(BOWL.vertices_m) - np.array(MUG.vertices_m)
    for pair in found:
        sign = sign_of[pair.question]
        np.testing.assert_allclose(pair.answer.vertices_m, sign * way, atol=1e-12)
        np.testing.assert_allclose(pair.answer.centre_m, sign * way.mean(axis=0), atol=1e-12)


def test_backprojection_says_where_the_exact_point_is_seen():
    found = {pair.subject: pair for pair in asked(SHELF, "backprojection", 400)}
    centre = found["mug", "centre"]
    # u = 700 * -0.3 / 1.0 + 419.5 from the centre of the first pixel, so 210 from its edge
    assert (centre.answer.y, centre.answer.x) == pytest.approx((375 / 630, 210 / 840))
    (point,) = (part for part in centre.question if isinstance(part, Point))
    np.testing.assert_allclose(point.xyz_m, (-0.3, 0.1, 1.0), atol=1e-12)
    assert {subject for subject in found if subject[0] == "bowl"} >= {("bowl", 0), ("bowl", 8)}
    assert not any("bowl" in words_of(pair) for pair in found.values())


def test_backprojection_needs_a_camera_and_points_that_it_sees():
    assert asked(replace(SHELF, intrinsics=None), "backprojection", 20) == []
    # 700 * 0.7 / 1.0 + 419.5 is right of the picture; the closest corner is further right
    outside = picture(thing("lamp", (0.7, 0.0, 1.0), (0.1, 0.1, 0.1)))
    assert asked(outside, "backprojection", 20) == []
    assert asked(picture(thing("wall", (0.0, 0.0, -1.0))), "backprojection", 20) == []


def test_a_random_pixel_shows_its_point():
    found = {pair.subject: pair for pair in asked(SHELF, "pixel_points", 50)}
    (pixel,) = (part for part in found[0,].question if isinstance(part, Pixel))
    assert pixel.in_pixels(840, 630) == pytest.approx((99.5, 199.5))
    assert found[0,].answer == Point((-0.5, -0.2, 1.1))
    assert set(found) == {(0,), (1,)}


def test_pictures_without_objects_are_asked_for_pixels_only():
    empty = picture()
    assert make_example(empty, 0) is None
    assert {pair.category for pair in make_example(empty, 0, ALL).pairs} == {"pixel_points"}
    failed = replace(empty, status="failed", pixel_points=(), reason="segmenter: no mask")
    assert make_example(failed, 0, ALL) is None


def test_one_object_is_asked_about_alone():
    found = {
        pair.category
        for seed in range(100)
        for pair in make_example(picture(MUG), seed, QuestionSettings()).pairs
    }
    assert found == {"keypoints", "box", "backprojection"}


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("coffee_mug", "coffee mug"),
        ("  The  red\ncup ", "red cup"),
        ("a spoon", "spoon"),
        ("<coord0001>", None),
        ("cup <loc0003>", None),
        ("answer: mug", None),
        ("the ", "the"),
        (" ", None),
        ("x" * 61, None),
        ("\udc80", None),
    ],
)
def test_a_label_becomes_a_name_that_questions_can_hold(label, name):
    assert name_of(label) == name


def test_objects_whose_names_fall_together_are_not_asked_about():
    alike = picture(replace(MUG, label="coffee_mug"), replace(BOWL, label="the coffee mug"), BOARD)
    for seed in range(50):
        for pair in make_example(alike, seed).pairs:
            assert "mug" not in words_of(pair)


def test_the_same_seed_gives_the_same_example_and_another_seed_another():
    examples = [make_example(SHELF, seed, ALL) for seed in range(40)]
    assert examples == [make_example(SHELF, seed, ALL) for seed in range(40)]
    assert len(set(examples)) > 35
    other_name = replace(SHELF, id="shelf/2")
    assert [make_example(other_name, seed, ALL).pairs for seed in range(40)] != [
        example.pairs for example in examples
    ]


def test_an_example_has_each_number_of_pairs_as_often_and_none_twice():
    counts = Counter()
    for seed in range(2000):
        example = make_example(SHELF, seed, QuestionSettings(pairs_max=4))
        subjects = [(pair.category, pair.subject) for pair in example.pairs]
        assert len(set(subjects)) == len(subjects)
        counts[len(subjects)] += 1
    # chi-square with 3 degrees of freedom: 16.3 is passed once in a thousand seeds
    assert sum((counts[n] - 500) ** 2 / 500 for n in (1, 2, 3, 4)) < 16.3


def test_categories_come_by_their_weights():
    weights = {"keypoints": 4.0, "box_distance": 2.0, "backprojection": 1.0, "pixel_points": 1.0}
    settings = QuestionSettings(weights=weights, pairs_max=1)
    counts = Counter(make_example(SHELF, seed, settings).pairs[0].category for seed in range(4000))
    assert set(counts) == set(weights)
    expected = {name: weight / 8 * 4000 for name, weight in weights.items()}
    assert sum((counts[name] - n) ** 2 / n for name, n in expected.items()) < 16.3


def test_every_template_is_used():
    four = picture(MUG, BOWL, BOARD, thing("jar", (0.2, -0.3, 1.2), (0.1, 0.1, 0.1)))
    names = [found.label for found in four.objects]
    seen = {words_of(pair) for category in CATEGORIES for pair in asked(four, category, 700)}
    phrases = load_phrases()
    for whats in phrases.questions.values():
        for template in (each for templates in whats.values() for each in templates):
            filled = {
                words_of(replace(ANY_PAIR, question=template.fill(**gaps, **TOKENS)))
                for start, end in permutations(names, 2)
                for gaps in [{"object": start, "start": start, "end": end}]
            }
            assert filled & seen, template.text
    for relation in phrases.comparisons.values():
        for template, (count, degree) in product(
            relation.questions, enumerate(relation.degrees, 2)
        ):
            filled = {
                template.text.format(
                    degree=degree,
                    reference=reference,
                    choices=", ".join(f"the {name}" for name in before) + f" or the {last}",
                )
                for reference, *before, last in permutations(names, count + 1)
            }
            assert filled & seen, (template.text, degree)


TOKENS = {"point": Point((0.0, 0.0, 0.0)), "pixel": Pixel(0.0, 0.0)}
ANY_PAIR = Pair("box", (), (), Point((0.0, 0.0, 0.0)))


@given(pictures, st.integers(0, 2**32))
def test_any_annotation_gives_pairs_that_are_read_back(annotation, seed):
    example = make_example(annotation, seed, ALL, WIDE_BINS)
    if example is None:
        assert not annotation.pixel_points
        return
    names = {name_of(found.label) for found in annotation.objects} - {None}
    texts = rendered(example, GRAMMAR)
    assert 1 <= len(texts) == len(example.pairs) <= 4
    ids = question_ids(texts, GRAMMAR.tokenizer, GRAMMAR.tokenizer.config, 10**6)
    assert GRAMMAR.tokenizer.decode(ids.ids[1:]) == "".join(
        f"{question}\n{answer}<eos>" for question, answer in texts
    )
    for pair, (question, answer) in zip(example.pairs, texts, strict=True):
        _same_answer(pair, answer)
        _same_answer(pair, GRAMMAR.format_ids(pair.answer))
        if pair.category not in ("backprojection", "pixel_points"):
            assert any(name in question for name in names)


def _same_answer(pair, text):
    found = GRAMMAR.parse_answer(pair.kind, text, pair.choices or None)
    if pair.kind == "pixel":
        assert abs(found.y - pair.answer.y) <= 0.5 / 1024 + 1e-12
        assert abs(found.x - pair.answer.x) <= 0.5 / 1024 + 1e-12
        return
    read = replace(pair, answer=found).answer_m()
    exact = np.array(pair.answer_m())
    edges = np.array(WIDE_BINS.edges_m)
    width = np.diff(edges)[WIDE_BINS.encode(exact)]
    outside = (exact < edges[0]) | (exact > edges[-1])
    assert (np.abs(read - exact) <= np.where(outside, 1.5, 0.5) * width * (1 + 1e-9)).all()
    if pair.kind == "thought":
        assert found.choice == pair.answer.choice
        is_words = [isinstance(step, str) for step in found.steps]
        assert is_words == [isinstance(step, str) for step in pair.answer.steps]


def test_what_the_bins_cannot_say_is_not_asked():
    narrow = CoordinateBins.normal(0.5, 0.6, -0.5, 1.7, 1024)
    outer = narrow.edges_m[-1] - narrow.edges_m[-2]
    tally = Counter()
    for seed in range(300):
        example = make_example(SHELF, seed, ALL, narrow, tally)
        for pair in example.pairs:
            assert all(-0.5 <= number <= 1.7 for number in pair.question_m())
            assert all(-0.5 - outer <= number <= 1.7 + outer for number in pair.answer_m())
            if pair.category in ("box", "keypoints"):
                assert "red cutting board" not in pair.subject
    assert tally["box", "a number lies outside the bins"] > 0
    assert tally["box", "asked"] > 0


def test_an_example_for_other_bins_is_not_written():
    narrow = CoordinateBins.normal(0.5, 0.6, -0.5, 1.7, 1024)
    example = make_example(picture(BOARD), 0, only("box"), WIDE_BINS)
    grammar = type(GRAMMAR)(GRAMMAR.tokenizer, narrow)
    with pytest.raises(ValueError, match="box question about .*outside the bins; give"):
        rendered(example, grammar)


def test_an_example_that_is_too_long_loses_its_last_pairs():
    example = next(
        example
        for example in (make_example(SHELF, seed, ALL) for seed in range(99))
        if len(example.pairs) == 4
    )
    whole, count = example_ids(example, GRAMMAR, 1000)
    assert count == 4
    part, fewer = example_ids(example, GRAMMAR, len(whole.ids) - 1)
    assert fewer == 3 and len(part.ids) < len(whole.ids)
    assert (part.ids == whole.ids[: len(part.ids)]).all()
    assert example_ids(example, GRAMMAR, 3) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": {"boxes": 1.0}}, "no category boxes: choose from keypoints"),
        ({"weights": {"box": -1.0}}, "the weight of box is -1.0"),
        ({"weights": {"box": float("nan")}}, "the weight of box is nan"),
        ({"weights": {"box": 0.0}}, "all weights are 0"),
        ({"pairs_max": 0}, "pairs_max is 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"ratio_margin": -0.1}, "ratio_margin is -0.1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        QuestionSettings(**changes)


def test_weights_are_read_from_words():
    weights = parse_weights("keypoints=2, box=0.5")
    assert {name: weight for name, weight in weights.items() if weight} == {
        "keypoints": 2.0,
        "box": 0.5,
    }
    for text in ("keypoints", "keypoints=many", "key=1", "", "box=-1", "box=0"):
        with pytest.raises(ValueError):
            parse_weights(text)
