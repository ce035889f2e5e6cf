"""The choice of a comparison follows from the scene and from the numbers that its thought shows."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from question_fixture import BOWL, GRAMMAR, MUG, SHELF, WIDE_BINS, picture, pictures, thing

from spear_policy.model.coordinate_bins import CoordinateBins
from spear_training.vqa.asking import RELATIONS, load_phrases
from spear_training.vqa.dataset import make_example
from spear_training.vqa.pairs import QuestionSettings

RELATION_OF = {
    degree: name for name, each in load_phrases().comparisons.items() for degree in each.degrees
}
# which of the numbers shown of an object decides, and whether the smallest or the greatest wins
DECIDES = {
    "closer": (lambda shown: shown[1].length_m, min),
    "further": (lambda shown: shown[1].length_m, max),
    "larger": (lambda shown: shown[0].length_m, max),
    "smaller": (lambda shown: shown[0].length_m, min),
    "nearer": (lambda shown: shown[0].distance_m, min),
    "left": (lambda shown: shown[0].xyz_m[0], min),
    "right": (lambda shown: shown[0].xyz_m[0], max),
    "higher": (lambda shown: shown[0].xyz_m[1], min),
    "lower": (lambda shown: shown[0].xyz_m[1], max),
}


def comparisons(annotation, seeds=300, bins=None, tally=None, **changes):
    """Return (relation, pair) of all comparisons that many seeds draw."""
    settings = QuestionSettings(weights={"comparison": 1.0}, **changes)
    found = [make_example(annotation, seed, settings, bins, tally) for seed in range(seeds)]
    return [(relation_of(pair), pair) for example in found if example for pair in example.pairs]


def relation_of(pair):
    """Return the relation that a question asks for; the pictures' labels have no such words."""
    (question,) = pair.question
    return RELATION_OF[max((word for word in RELATION_OF if word in question), key=len)]


def shown_of(pair, answer):
    """Return the numbers of each choice, in the order of the choices."""
    numbers = [step for step in answer.steps if not isinstance(step, str)]
    each = len(numbers) // len(pair.choices)
    return [numbers[i : i + each] for i in range(0, len(numbers), each)]


def test_every_relation_is_asked_and_answered_by_the_scene():
    winner = {
        "closer": "mug",
        "further": "red cutting board",
        "larger": "red cutting board",
        "smaller": "mug",
        "left": "mug",
        "right": "bowl",
        "lower": "red cutting board",
    }
    asked = Counter()
    for name, pair in comparisons(SHELF):
        asked[name, len(pair.choices)] += 1
        if name == "nearer":
            # by the centres and by the boxes alike
            nearest = "the mug" if pair.subject[1] == "bowl" else "the bowl"
            assert pair.answer.choice == nearest
        elif len(pair.choices) == 3 and name in winner:
            assert pair.answer.choice == f"the {winner[name]}"
    assert {name for name, _ in asked} == set(RELATIONS)
    assert all(asked[name, 3] for name in winner)
    # the third of three objects is the reference
    assert asked["nearer", 2] and not asked["nearer", 3]


def test_a_thought_names_each_choice_with_its_numbers_and_concludes():
    pair = next(
        pair
        for name, pair in comparisons(picture(MUG, BOWL))
        if name == "closer"
        and pair.choices == ("the mug", "the bowl")
        and pair.answer.steps[0] == "the centre of the mug is at"
        and pair.answer.steps[-1].endswith("so the closer one is the mug.")
    )
    words = [step for step in pair.answer.steps if isinstance(step, str)]
    assert words == [
        "the centre of the mug is at",
        "which is",
        "from the camera and the centre of the bowl is at",
        "which is",
        "from the camera so the closer one is the mug.",
    ]
    expected = [-0.3, 0.1, 1.0, 1.1**0.5, 0.4, 0.0, 1.5, 2.41**0.5]
    np.testing.assert_allclose(pair.answer_m(), expected, atol=1e-12)
    assert pair.answer.choice == "the mug"


def test_the_way_to_a_third_object_begins_at_that_object():
    pair = next(pair for name, pair in comparisons(SHELF) if pair.subject[:2] == ("way", "mug"))
    shown = dict(zip(pair.choices, shown_of(pair, pair.answer), strict=True))
    np.testing.assert_allclose(shown["the bowl"][0].xyz_m, (0.7, -0.1, 0.5), atol=1e-12)


def test_sizes_show_the_diagonal_of_the_box():
    pair = next(pair for name, pair in comparisons(picture(MUG, BOWL)) if name == "larger")
    shown = dict(zip(pair.choices, shown_of(pair, pair.answer), strict=True))
    assert shown["the mug"][0].length_m == pytest.approx(0.06**0.5)
    assert shown["the bowl"][0].length_m == pytest.approx(0.22**0.5)


def test_objects_within_the_margin_are_not_compared():
    near = thing("cup", (-0.31, 0.1, 1.02), (0.1, 0.2, 0.1))
    tally = Counter()
    assert comparisons(picture(MUG, near), 100, tally=tally) == []
    assert set(tally) == {
        ("comparison", "the objects are too alike"),
        ("comparison", "there is no third object"),
    }
    found = comparisons(picture(MUG, near), 100, ratio_margin=0.0, place_margin=0.0)
    # of the same height and size
    assert {name for name, _ in found} == {"closer", "further", "left", "right"}


@pytest.mark.parametrize(
    ("things", "relation"),
    [
        # the pole's centre is closer, but the carpet begins before it
        (
            (
                thing("pole", (0.0, 0.0, 2.0), (0.1, 0.1, 0.1)),
                thing("carpet", (0.0, 0.0, 2.5), (0.1, 0.1, 3.0)),
            ),
            "closer",
        ),
        # the rod is longer, but the ball holds more
        ((thing("rod", sides=(1.0, 0.01, 0.01)), thing("ball", sides=(0.3, 0.3, 0.3))), "larger"),
        # further left in metres, further right in the picture
        (
            (
                thing("door", (-0.5, 0.0, 4.0), (0.1, 0.1, 0.1)),
                thing("pen", (-0.25, 0.0, 0.5), (0.1, 0.1, 0.1)),
            ),
            "left",
        ),
    ],
)
def test_what_two_measures_answer_differently_is_not_asked(things, relation):
    tally = Counter()
    found = comparisons(picture(*things), 200, tally=tally, place_margin=0.01)
    assert relation not in {name for name, _ in found}
    assert tally["comparison", "a second measure disagrees"]


def test_what_is_nearer_by_its_centre_and_not_by_its_box_is_not_nearer():
    cup = thing("cup", (0.2, 0.1, 1.0), (0.1, 0.2, 0.1))
    tray = thing("tray", (-0.9, 0.1, 1.0), (0.6, 0.2, 0.1))
    found = [pair for name, pair in comparisons(picture(MUG, cup, tray), 200) if name == "nearer"]
    assert found and all(pair.subject[1] != "mug" for pair in found)


def test_numbers_of_one_token_are_not_compared():
    coarse = CoordinateBins.normal(0.5, 1.5, -6.0, 8.0, 4)
    tally = Counter()
    comparisons(SHELF, 50, bins=coarse, tally=tally)
    assert tally["comparison", "the tokens of the numbers are the same"] > 20


def test_the_place_of_the_answer_among_the_choices_says_nothing():
    places = Counter(
        pair.choices.index(pair.answer.choice)
        for name, pair in comparisons(SHELF, 600)
        if len(pair.choices) == 2
    )
    assert 0.45 < places[0] / places.total() < 0.55


@given(pictures, st.integers(0, 2**32))
def test_the_choice_follows_from_the_tokens_of_the_thought(annotation, seed):
    objects = [replace(each, label=f"thing {n}") for n, each in enumerate(annotation.objects)]
    settings = QuestionSettings(weights={"comparison": 1.0})
    example = make_example(replace(annotation, objects=tuple(objects)), seed, settings, WIDE_BINS)
    for pair in example.pairs if example else ():
        text = GRAMMAR.format_answer(pair.answer)
        answer = GRAMMAR.parse_answer("thought", text, pair.choices)
        number, best = DECIDES[relation_of(pair)]
        numbers = [number(shown) for shown in shown_of(pair, answer)]
        assert numbers.count(best(numbers)) == 1
        assert answer.choice == pair.choices[numbers.index(best(numbers))]
        words = " ".join(step for step in answer.steps if isinstance(step, str))
        places = [words.index(choice) for choice in pair.choices]
        assert places == sorted(places)
