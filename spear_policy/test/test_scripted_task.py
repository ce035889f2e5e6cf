"""Sentences that the scripted expert understands, and what it answers to the others."""

import pytest

from spear_policy.inference.scripted_rules import PickAndPlace, find, parse


@pytest.mark.parametrize(
    ("sentence", "item", "place", "inside"),
    [
        ("put the red cube on the plate", "red cube", "plate", False),
        ("  Put the RED cube   in the bowl. ", "red cube", "bowl", True),
        ("please place a green cube onto the plate", "green cube", "plate", False),
        ("stack the blue cube on top of the red cube", "blue cube", "red cube", False),
        ("drop the yellow cube into the bowl please", "yellow cube", "bowl", True),
        ("move plate on bowl", "plate", "bowl", False),
    ],
)
def test_a_sentence_becomes_an_item_and_a_place(sentence, item, place, inside):
    assert parse(sentence) == PickAndPlace(item, place, inside)


@pytest.mark.parametrize("sentence", ["dance", "", "put the red cube", "pick up the plate"])
def test_a_sentence_of_another_form_is_answered_with_an_example(sentence):
    with pytest.raises(ValueError, match="use a form like 'put the red cube on the plate'"):
        parse(sentence)


def test_an_object_cannot_be_put_on_itself():
    with pytest.raises(ValueError, match="twice"):
        parse("put the bowl in the bowl")


def test_an_unknown_object_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="no 'spoon' in the scene; it has bowl, plate"):
        find({"plate": None, "bowl": None}, "spoon")
