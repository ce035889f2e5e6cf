"""What the detector makes of Gemini's words, without asking anybody."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_frames import labels

from spear_training.annotation.gemini import parse_answer
from spear_training.annotation.stages import StageError

BOWL = {"box_2d": [100, 200, 300, 400], "label": "bowl"}
MUG = {"box_2d": [0, 0, 1000, 1000], "label": "mug"}


def test_a_list_of_objects_is_read_into_pixels_with_y_first():
    found, lost = parse_answer(json.dumps([BOWL, MUG]))
    assert labels(found) == ["bowl", "mug"]
    assert found[0].box_xyxy_px == pytest.approx((168, 63, 336, 189))
    assert found[1].box_xyxy_px == pytest.approx((0, 0, 840, 630))
    assert lost == []


def test_an_empty_list_is_an_answer():
    assert parse_answer("[]") == ([], [])


@pytest.mark.parametrize(
    "text",
    [
        "```json\n{}\n```",
        "```\n{}\n```",
        "Here they are:\n```JSON\n{}\n```\nAsk me for more!",
        "```json\n{}",
        "\n  {}\n",
    ],
)
def test_fences_are_taken_off(text):
    found, _ = parse_answer(text.replace("{}", json.dumps([BOWL])))
    assert labels(found) == ["bowl"]


@pytest.mark.parametrize("kept", [1, 5, 30, 60, 90, -1])
def test_an_answer_that_was_cut_off_is_refused_whole(kept):
    with pytest.raises(StageError, match="cut off"):
        parse_answer(json.dumps([BOWL, MUG, {**MUG, "label": 'a "[" sign'}])[:kept])
    with pytest.raises(StageError, match="cut off"):
        parse_answer("```json\n" + json.dumps([BOWL, MUG])[:kept])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("I see a bowl and a mug.", "no JSON: 'I see a bowl"),
        ("", "empty"),
        ("```json\n```", "empty"),
        ("[bowl]", "no JSON"),
        ("[1,]]", "no JSON"),
        ('{"box_2d": [1, 2, 3, 4], "label": "bowl"}', "no list"),
        ("null", "no list"),
        ("[" * 100_000, "cut off"),
        ("[" * 100_000 + "]" * 100_000, "no JSON"),
        ("[" + "1" * 5000 + "]", "no JSON"),
    ],
)
def test_what_is_no_list_in_json_is_refused_with_its_beginning(text, said):
    with pytest.raises(StageError, match=said) as refused:
        parse_answer(text)
    assert len(str(refused.value)) < 120


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"label": "fork"}, "its box_2d is 'None'"),
        ({"label": "fork", "box_2d": [1, 2, 3]}, "not four numbers"),
        ({"label": "fork", "box_2d": [1, 2, 3, 4, 5]}, "not four numbers"),
        ({"label": "fork", "box_2d": "1 2 3 4"}, "not four numbers"),
        ({"label": "fork", "box_2d": [1, 2, 3, "4"]}, "not four numbers"),
        ({"label": "fork", "box_2d": [1, 2, 3, True]}, "not four numbers"),
        ({"label": "fork", "box_2d": [1, 2, 3, 1200]}, "has 1200, outside 0..1000"),
        ({"label": "fork", "box_2d": [-1, 2, 3, 4]}, "has -1, outside 0..1000"),
        ({"label": "fork", "box_2d": [1, 2, 3, float("nan")]}, "has nan, outside"),
        ({"box_2d": [1, 2, 3, 4]}, "has no label"),
        ({"box_2d": [1, 2, 3, 4], "label": None}, "has no label"),
        ("fork", "the entry is no object: 'fork'"),
    ],
)
def test_a_bad_entry_is_dropped_with_its_reason_and_the_good_ones_stay(entry, reason):
    found, lost = parse_answer(json.dumps([BOWL, entry, MUG]))
    assert labels(found) == ["bowl", "mug"]
    assert len(lost) == 1 and reason in lost[0].reason
    assert lost[0].label in ("fork", "?")


@given(st.text(max_size=60) | st.text('[]{}",:`\\ 01abel', max_size=60))
def test_any_text_is_an_answer_or_is_refused_with_a_reason(text):
    try:
        found, lost = parse_answer(text)
    except StageError as error:
        assert str(error).startswith("the answer ")
    else:
        assert all(lost.reason for lost in lost) and all(len(f.box_xyxy_px) == 4 for f in found)


@given(st.lists(st.sampled_from([BOWL, MUG, {"label": "x"}, 3])), st.data())
def test_a_list_that_is_cut_anywhere_is_never_read_as_a_shorter_one(entries, data):
    text = json.dumps(entries)
    kept = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(StageError, match="cut off|empty"):
        parse_answer(text[:kept])
