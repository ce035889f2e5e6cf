"""What is a box and what is a label, whoever found them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_frames import frame_of, labels, reasons

from spear_policy.model.answers import check_words
from spear_training.annotation.detections import (
    MIN_SIDE_PX,
    OUTSIDE,
    TINY,
    Detection,
    KeepUnique,
    clean_box,
    excerpt,
    normal_label,
    sort_out,
)
from spear_training.annotation.frame import Candidate
from spear_training.annotation.records import Dropped
from spear_training.annotation.stages import ObjectError

WHOLE = np.ones((630, 840), bool)
# A picture held upright has padding on both sides.
UPRIGHT = frame_of(480, 640).visible
side = st.floats(-2000, 2000)


def test_a_good_box_stays_as_it_is():
    assert clean_box((10.5, 20, 100, 200.25), WHOLE) == (10.5, 20.0, 100.0, 200.25)
    assert clean_box((0, 0, 840, 630), WHOLE) == (0, 0, 840, 630)


def test_swapped_sides_are_exchanged():
    assert clean_box((100, 200, 10, 20), WHOLE) == (10, 20, 100, 200)
    assert clean_box((100, 20, 10, 200), WHOLE) == (10, 20, 100, 200)


def test_a_box_ends_where_the_picture_ends():
    assert clean_box((-50, -1, 100, 700), WHOLE) == (0, 0, 100, 630)


def test_a_box_ends_where_the_padding_begins():
    columns = np.flatnonzero(UPRIGHT.any(axis=0))
    assert columns[0] > 100
    found = clean_box((0, 100, 840, 200), UPRIGHT)
    assert found == (columns[0], 100, columns[-1] + 1, 200)
    with pytest.raises(ObjectError, match=OUTSIDE):
        clean_box((0, 100, columns[0], 200), UPRIGHT)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((10, 20, math.nan, 40), "not finite"),
        ((10, 20, math.inf, 40), "not finite"),
        ((10, 20, 30), "3 numbers, not 4"),
        ((840, 20, 900, 40), OUTSIDE),
        ((-30, 20, -10, 40), OUTSIDE),
        ((10, 630, 50, 700), OUTSIDE),
        ((10, -9, 50, 0), OUTSIDE),
        ((10, 20, 11.9, 40), TINY),
        ((838.5, 20, 900, 40), TINY),
        ((100, 50, 100, 50), TINY),
    ],
)
def test_what_is_no_box_is_refused_with_its_reason(box, reason):
    with pytest.raises(ObjectError, match=reason):
        clean_box(box, WHOLE)


@given(st.tuples(side, side, side, side), st.sampled_from([WHOLE, UPRIGHT]))
def test_any_box_comes_out_visible_or_not_at_all(box, visible):
    try:
        left, top, right, bottom = clean_box(box, visible)
    except ObjectError:
        return
    assert right - left >= MIN_SIDE_PX and bottom - top >= MIN_SIDE_PX
    inside = visible[math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)]
    assert inside.all()
    assert left >= min(box[0], box[2]) and right <= max(box[0], box[2])
    assert clean_box((left, top, right, bottom), visible) == (left, top, right, bottom)


@pytest.mark.parametrize(
    ("written", "label"),
    [
        ("Red  Bowl", "red bowl"),
        ("the_cutting_board.", "cutting board"),
        ("  An apple\n", "apple"),
        ('"a mug"', "mug"),
        ("chef's knife", "chef's knife"),
        ("Teller, groß", "teller, groß"),
        ("e\u0301clair", "éclair"),
        ("M8 x 20 bolt", "m8 x 20 bolt"),
    ],
)
def test_a_label_gets_its_normal_form(written, label):
    assert normal_label(written) == label


@pytest.mark.parametrize(
    "written",
    [
        "",
        " \n",
        "the",
        "...",
        "<loc0001>",
        "bowl <coord0001>",
        "bowl <eos>",
        "bowl\x00",
        "bowl \ufffd",
        "bowl \ud800",
        "so the answer: bowl",
        "bowl " * 20,
    ],
)
def test_what_is_no_label_is_refused(written):
    with pytest.raises(ObjectError):
        normal_label(written)


@given(st.text(max_size=40))
def test_any_label_can_be_said_in_an_answer_and_is_normal_already(written):
    try:
        label = normal_label(written)
    except ObjectError:
        return
    check_words(label, "the label")
    assert normal_label(label) == label


@given(st.text(max_size=200))
def test_an_excerpt_is_one_short_line(text):
    found = excerpt(text)
    assert len(found) <= 43 and (found.isprintable() or not found)


def test_detections_are_sorted_out_and_none_is_lost():
    found = [
        Detection("The Mug", (30, 40, 10, 20), 0.5),
        Detection("plate", (900, 0, 950, 50)),
        Detection("<loc0003>", (10, 20, 30, 40)),
    ]
    kept, lost = sort_out(found, WHOLE)
    assert kept == [Candidate("mug", (10, 20, 30, 40), 0.5)]
    assert labels(lost) == ["plate", "<loc0003>"]
    assert lost[0].reason == OUTSIDE


def test_two_of_a_kind_are_both_dropped():
    box = (10.0, 20.0, 30.0, 40.0)
    found = [Candidate(label, box) for label in ("bowl", "mug", "bowl", "fork", "bowl")]
    frame = KeepUnique()(frame_of(candidates=found))
    assert labels(frame.candidates) == ["mug", "fork"]
    assert [lost.label for lost in frame.dropped] == ["bowl"] * 3
    assert reasons(frame) == {"bowl": "3 of its kind"}


def test_an_object_dropped_before_still_counts_unless_nobody_sees_it():
    box = (10.0, 20.0, 30.0, 40.0)
    frame = frame_of(candidates=[Candidate("bowl", box), Candidate("mug", box)])
    before = [Dropped("bowl", "its box has a number that is not finite"), Dropped("mug", OUTSIDE)]
    frame = KeepUnique()(frame.keep(list(frame.candidates), before))
    assert labels(frame.candidates) == ["mug"]
    assert len(frame.dropped) == 3


def test_nothing_detected_is_no_failure():
    assert KeepUnique()(frame_of()).candidates == ()
