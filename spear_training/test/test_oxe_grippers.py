"""Gripper numbers and sentences, from however a dataset writes them."""

from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given

from spear_policy.inference.episode import EpisodeError
from spear_training.data.oxe.reader import (
    follow_events,
    linear_opening,
    read_gripper,
    read_sentences,
    text_from_code_units,
    tidy,
)
from spear_training.data.oxe.table import ConstantGripper, GripperEvents, Language, LinearGripper


def linear(closed_at, open_at, **more):
    """Return a rule for the feature `state`."""
    return LinearGripper(key="state", closed_at=closed_at, open_at=open_at, **more)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=5),
    st.floats(-10, 10),
    st.floats(-10, 10),
)
def test_openings_come_back_from_any_two_numbers(openings, closed_at, open_at):
    assume(abs(open_at - closed_at) > 1e-2)
    written = closed_at + np.array(openings) * (open_at - closed_at)
    assert np.allclose(linear_opening(linear(closed_at, open_at), written, "state"), openings)


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        (linear(0.0, 0.08), [0, 0.04, 0.08, 0.0805], [0, 0.5, 1, 1]),  # a width in m
        (linear(1.0, 0.0), [0, 0.25, 1], [1, 0.75, 0]),  # closedness
        (linear(1.0, -1.0), [-1, 0, 1], [1, 0.5, 0]),  # -1 opens, 1 closes
        (linear(1.0, 0.0, saturate=True), [-1, 0, 1, 1.5], [1, 1, 0, 0]),
    ],
)
def test_each_form_of_a_gripper_s_number(rule, values, expected):
    assert np.allclose(linear_opening(rule, np.array(values), "state"), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, 40.0])
def test_a_number_that_no_gripper_has_names_its_step_and_the_range(value):
    with pytest.raises(EpisodeError, match=r"gripper state\[1\] is .* 0 \(closed\) to 0.08 \(open"):
        linear_opening(linear(0.0, 0.08), np.array([0.0, value]), "state")


def test_a_saturated_number_must_be_finite_too():
    with pytest.raises(EpisodeError, match=r"state\[0\] is inf"):
        linear_opening(linear(1.0, 0.0, saturate=True), np.array([np.inf]), "state")


def events(values, openings=None):
    """Return the commands of some events."""
    rule = GripperEvents(key="action")
    return follow_events(rule, {"action": np.array(values, float)}, openings).tolist()


def test_an_event_holds_until_the_next_one():
    measured = np.array([1.0, 1, 1, 1, 1, 1])
    assert events([0, 1, 0, 0, -1, 0], measured) == [1, 0, 0, 0, 1, 1]
    assert events([0, 0.05, 0.2, -0.05, 0, 0], measured) == [1, 1, 0, 0, 0, 0]


def test_before_the_first_event_the_measured_opening_tells():
    assert events([0, 0, 0], np.array([0.2, 1, 1])) == [0, 0, 0]
    assert events([0, 0, 0], np.array([0.8, 0, 0])) == [1, 1, 1]


def test_without_a_measurement_the_first_event_tells():
    assert events([0, 1, 0]) == [1, 0, 0]
    assert events([0, -1, 0]) == [0, 1, 1]
    assert events([0, 0, 0]) == [1, 1, 1]


def test_an_event_that_is_not_finite_is_named():
    with pytest.raises(EpisodeError, match=r"action\[1\] has a number that is not finite"):
        events([0, np.nan, 0])


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=12))
def test_commands_after_an_event_are_what_it_said(values):
    commands = events(values)
    for step, value in enumerate(values):
        if value:
            assert commands[step] == (value < 0)
        elif step:
            assert commands[step] == commands[step - 1]


def test_what_is_not_recorded_is_taken_from_what_is():
    steps = {"action": np.array([1.0, 0.0]), "state": np.array([[0.4], [0.6]])}
    command = LinearGripper(key="action", closed_at=1.0, open_at=0.0)
    row = SimpleNamespace(gripper_opening="from_command", gripper_command=command)
    openings, commands = read_gripper(row, steps, 2)
    assert openings.tolist() == commands.tolist() == [0, 1]
    row = SimpleNamespace(gripper_opening=linear(0, 1), gripper_command="from_measured")
    openings, commands = read_gripper(row, steps, 2)
    assert openings.tolist() == [0.4, 0.6]
    assert commands is None
    row = SimpleNamespace(
        gripper_opening=ConstantGripper(opening=1.0), gripper_command="from_measured"
    )
    assert read_gripper(row, steps, 2)[0].tolist() == [1, 1]


def test_a_missing_column_is_named():
    row = SimpleNamespace(
        gripper_opening=LinearGripper(key="state", first_column=7, closed_at=0.0, open_at=1.0),
        gripper_command="from_measured",
    )
    with pytest.raises(EpisodeError, match="state has 3 numbers, none in column 7"):
        read_gripper(row, {"state": np.zeros((2, 3))}, 2)


def sentences(rule, **steps):
    """Return the sentences of an episode."""
    return read_sentences(rule, {key: np.array(value) for key, value in steps.items()})


def test_sentences_are_tidied_and_each_is_said_once():
    rule = Language(keys=("a", "b", "c"))
    said = sentences(rule, a=["put_the  cup\ndown "] * 2, b=["", ""], c=["put the cup down", ""])
    assert said == ("put the cup down",)
    assert sentences(rule, a=[""], b=["second"], c=["third"]) == ("second", "third")


def test_an_episode_without_one_sentence_is_refused():
    rule = Language(keys=("a",))
    with pytest.raises(EpisodeError, match="the instruction is empty"):
        sentences(rule, a=["", "  ", "_"])
    with pytest.raises(EpisodeError, match="a: 2 different instructions, not one"):
        sentences(rule, a=["open it", "close it"])


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60))
def test_code_units_come_back(sentence):
    units = np.zeros(512, np.int32)
    units[: len(sentence.encode())] = list(sentence.encode())
    assert text_from_code_units(units) == sentence
    said = tidy(sentence)
    if said:
        rule = Language(keys=("k",), encoding="code_units")
        assert sentences(rule, k=[units, units]) == (said,)


def test_code_units_that_are_no_text_are_refused():
    for units in ([300, 0], [-1, 0], [0xFF, 0xFE, 0]):
        with pytest.raises(EpisodeError, match="k: its numbers are no UTF-8 text"):
            text_from_code_units(np.array(units), "k")
    assert text_from_code_units(np.array([104, 105])) == "hi"
