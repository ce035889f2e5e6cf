"""How far annotations are from the truth, and what many comparisons come to."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_boxes import box_vertices, boxes, rotations
from scipy.spatial.transform import Rotation

from spear_training.annotation.accuracy.compare import (
    ObjectAccuracy,
    SceneTruth,
    box_iou,
    compare_scene,
    matching_axes,
    turned_to_agree,
)
from spear_training.annotation.accuracy.measure import kind_of_scene, summarise
from spear_training.annotation.records import AnnotatedObject, Annotation, Dropped

BOX = box_vertices([0, 0, 1], np.eye(3), [0.3, 0.2, 0.1])


def thing(label, vertices):
    triples = tuple(tuple(corner) for corner in vertices.tolist())
    return AnnotatedObject(label, (0, 0, 9, 9), {}, None, 99, (0, 0, 1), (0, 0, 1), triples, ())


def picture(*things, name="room/7", **more):
    return Annotation(name, "a.jpg", "ok", objects=things, **more)


def truth(*things, axes=None, visible=None):
    return SceneTruth(picture(*things), axes or {}, visible or {})


def turned(vertices, degrees, axis="z"):
    middle = vertices.mean(axis=0)
    turn = Rotation.from_euler(axis, degrees, degrees=True)
    return middle + turn.apply(vertices - middle)


def renamed(vertices, order):
    """Return the corners after the axes got another order."""
    return vertices.reshape(2, 2, 2, 3).transpose(*order, 3).reshape(8, 3)


def only(found):
    assert len(found) == 1
    return found[0]


def test_a_moved_and_grown_box_has_the_errors_it_was_given():
    grown = box_vertices([0.03, 0, 1.04], np.eye(3), [0.3, 0.22, 0.1])
    found = only(compare_scene(truth(thing("book", BOX)), picture(thing("book", grown))))
    assert found.centre_error_m == pytest.approx(0.05)
    assert found.centre_error_share == pytest.approx(0.05 / np.sqrt(0.14))
    assert found.extent_error_m == pytest.approx(0.02)
    assert found.iou == pytest.approx(box_iou(BOX, grown))
    assert found.order_kept
    assert found.lost is None


def test_an_order_that_is_not_the_true_one_is_seen():
    other = renamed(BOX, (1, 0, 2))
    found = only(compare_scene(truth(thing("book", BOX)), picture(thing("book", other))))
    assert found.order_kept is False
    assert found.iou == pytest.approx(1.0)
    assert found.extent_error_m == pytest.approx(0.0, abs=1e-12)
    flipped = BOX[::-1]
    assert (
        only(compare_scene(truth(thing("book", BOX)), picture(thing("book", flipped)))).order_kept
        is False
    )


@given(boxes(), st.permutations(range(3)), st.lists(st.booleans(), min_size=3, max_size=3))
def test_matching_names_the_axes_again(vertices, order, flips):
    other = renamed(vertices, order).reshape(2, 2, 2, 3)
    for axis, flip in enumerate(flips):
        if flip:
            other = np.flip(other, axis)
    extents = np.linalg.norm(vertices[[4, 2, 1]] - vertices[0], axis=1)
    other = other.reshape(8, 3)
    other_extents = np.linalg.norm(other[[4, 2, 1]] - other[0], axis=1)
    found, is_first = matching_axes(other, vertices)
    assert other_extents[found] == pytest.approx(extents)
    assert is_first == (list(order) == [0, 1, 2] and not any(flips))


def test_a_round_object_may_be_turned_and_has_no_order():
    can = box_vertices([0, 0, 1], np.eye(3), [0.1, 0.1, 0.2])
    axes = {"can": (0.0, 0.0, 1.0)}
    found = only(
        compare_scene(truth(thing("can", can), axes=axes), picture(thing("can", turned(can, 37))))
    )
    assert found.iou == pytest.approx(1.0, abs=0.01)
    assert found.extent_error_m == pytest.approx(0.0, abs=1e-9)
    assert found.order_kept is None
    assert found.is_round
    boxy = only(compare_scene(truth(thing("can", can)), picture(thing("can", turned(can, 37)))))
    assert boxy.iou < 0.8
    tilted = turned(can, 60, axis="x")
    fallen = compare_scene(truth(thing("can", can), axes=axes), picture(thing("can", tilted)))
    assert only(fallen).iou < 0.6


@settings(max_examples=10)
@given(rotations())
def test_a_ball_may_be_turned_any_way(turn):
    ball = box_vertices([0, 0, 1], np.eye(3), [0.2] * 3)
    found = box_vertices([0, 0, 1], turn, [0.2, 0.2, 0.1])
    agreed = turned_to_agree(ball, (0.0, 0.0, 0.0), found)
    assert box_iou(agreed, found) == pytest.approx(0.5)


def test_a_lost_object_says_why():
    there = truth(thing("cup", BOX), thing("pan", BOX))
    dropped = picture(dropped=(Dropped("cup", "2 of its kind"),))
    cup, pan = compare_scene(there, dropped)
    assert cup.lost == "2 of its kind"
    assert pan.lost == "not found"
    assert cup.iou is None
    assert cup.centre_error_share is None
    failed = Annotation("room/7", "a.jpg", "failed", reason="read: a.jpg is no picture")
    assert "a.jpg is no picture" in compare_scene(there, failed)[0].lost
    assert "no annotation" in compare_scene(there, None)[0].lost


def test_pictures_are_not_mixed_up():
    with pytest.raises(ValueError, match=r"room/8 .* room/7"):
        compare_scene(truth(), picture(name="room/8"))


def entry(scene="room/1", **changes):
    found = ObjectAccuracy(scene, "cup", False, 0.5, 1.0, None, 0.01, 0.02, 0.8, True)
    return replace(found, **changes)


def test_a_summary_counts_what_there_is():
    lost = {"lost": "12 points, fewer than 50", "centre_error_m": None, "iou": None}
    lost |= {"extent_error_m": None, "order_kept": None}
    entries = [
        entry(),
        entry(iou=0.3, centre_error_m=0.03, order_kept=False),
        entry("table_top/4", iou=0.1, centre_error_m=0.02, is_round=True, order_kept=None),
        entry("table_top/5", visible_fraction=0.4, **lost),
        entry("table_top/6", visible_fraction=0.4, **(lost | {"lost": "7 points, fewer than 50"})),
    ]
    groups = summarise(entries)
    everything = groups["all"]
    assert (everything.objects, everything.found, everything.recall) == (5, 3, 0.6)
    assert everything.lost == {"N points, fewer than N": 2}
    assert everything.iou_median == 0.3
    assert everything.iou_over_25 == pytest.approx(2 / 3)
    assert everything.iou_over_50 == pytest.approx(1 / 3)
    assert everything.centre_error_m.median == 0.02
    assert everything.centre_error_m.p90 == pytest.approx(0.028)
    assert everything.centre_error_share.median == 0.04
    assert (everything.ordered, everything.order_kept) == (2, 0.5)
    assert groups["room"].objects == 2
    assert groups["table_top"].found == 1
    assert groups["90% visible"].objects == 3
    assert groups["round"].order_kept is None


def test_groups_without_objects_are_summarised_too():
    empty = summarise([])["all"]
    assert empty.recall is None
    assert empty.iou_median is None
    assert empty.objects == 0


@pytest.mark.parametrize(
    ("scene", "kind"),
    [("room/000012", "room"), ("held_out/table_top/1", "held_out/table_top"), ("17", "all")],
)
def test_kinds_of_scenes_are_read_from_their_ids(scene, kind):
    assert kind_of_scene(scene) == kind
