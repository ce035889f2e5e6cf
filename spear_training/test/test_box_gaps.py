"""The shortest way between two oriented boxes."""

import time

import numpy as np
import pytest
from hypothesis import given
from random_boxes import box_vertices, boxes

from spear_training.annotation.boxes import box_gap_m, edges_of


def unit_cube(x=0.0, y=0.0, z=0.0, turn=None):
    return box_vertices([x, y, z], np.eye(3) if turn is None else turn, [1.0, 1.0, 1.0])


def turned_45_about(axis):
    c, s = np.sqrt(0.5), np.sqrt(0.5)
    x, y = [i for i in range(3) if i != axis]
    turn = np.eye(3)
    turn[[x, y, x, y], [x, y, y, x]] = c, c, -s, s
    return turn


@pytest.mark.parametrize(
    ("other", "gap"),
    [
        (unit_cube(x=3.0), (2.0, 0.0, 0.0)),
        (unit_cube(y=-1.5, x=0.4), (0.0, -0.5, 0.0)),  # parallel faces: many closest points
        (unit_cube(x=2.0, y=3.0), (1.0, 2.0, 0.0)),  # parallel edges
        (unit_cube(x=2.0, y=3.0, z=-4.0), (1.0, 2.0, -3.0)),  # corner to corner
        (unit_cube(x=1.0), (0.0, 0.0, 0.0)),  # touching
        (unit_cube(x=1.0, y=1.0, z=1.0), (0.0, 0.0, 0.0)),  # touching with a corner
        (unit_cube(x=0.9), (0.0, 0.0, 0.0)),
        (unit_cube(), (0.0, 0.0, 0.0)),
        (box_vertices([0.1, 0, 0], np.eye(3), [0.1, 0.1, 0.1]), (0.0, 0.0, 0.0)),  # inside
        # An edge along y, turned towards an edge along z: they cross at a right angle.
        (
            unit_cube(x=3.0, turn=turned_45_about(1)),
            (3.0 - 0.5 - np.sqrt(0.5), 0.0, 0.0),
        ),
    ],
)
def test_known_gaps(other, gap):
    assert box_gap_m(unit_cube(), other) == pytest.approx(gap, abs=1e-12)


def test_edges_that_cross_are_closest_between_their_corners():
    a = unit_cube(turn=turned_45_about(2))
    b = unit_cube(x=4.0, turn=turned_45_about(1))
    assert box_gap_m(a, b) == pytest.approx([4.0 - np.sqrt(2), 0, 0], abs=1e-12)


@given(boxes(), boxes())
def test_no_points_are_closer_and_none_can_be(a, b):
    gap = box_gap_m(a, b)
    length = np.linalg.norm(gap)
    scale = np.abs(a).max() + np.abs(b).max()
    if length > 0:
        # All of b lies beyond all of a by this length, in this direction: nothing is closer.
        along = gap / length
        assert (b @ along).min() - (a @ along).max() == pytest.approx(length, abs=1e-9 * scale)
    # And these two boxes do reach over the gap: moved together by it, they touch.
    assert np.linalg.norm(box_gap_m(a, b - gap)) <= 1e-9 * scale


@given(boxes(), boxes())
def test_the_way_back_is_the_same_way(a, b):
    assert box_gap_m(b, a) == pytest.approx(-box_gap_m(a, b), abs=1e-9)


@given(boxes(), boxes())
def test_points_drawn_in_the_boxes_are_never_closer(a, b):
    rng = np.random.default_rng(0)
    inside = [box.mean(axis=0) + rng.uniform(-0.5, 0.5, (200, 3)) @ edges_of(box) for box in (a, b)]
    drawn = np.linalg.norm(inside[0][:, None] - inside[1][None], axis=-1).min()
    assert np.linalg.norm(box_gap_m(a, b)) <= drawn + 1e-9


def test_a_box_that_is_a_point_or_a_plane_has_gaps_too():
    point = np.zeros((8, 3))
    assert box_gap_m(point, point).tolist() == [0, 0, 0]
    assert box_gap_m(point, unit_cube(x=2.0)) == pytest.approx([1.5, 0, 0])
    sheet = box_vertices([0, 0, 0], np.eye(3), [1.0, 1.0, 0.0])
    assert box_gap_m(sheet, unit_cube(z=2.0)) == pytest.approx([0, 0, 1.5])


def test_a_gap_takes_less_than_two_milliseconds():
    rng = np.random.default_rng(0)
    pairs = [rng.normal(size=3) for _ in range(20)]
    spent = []
    for offset in pairs:
        started = time.process_time()
        box_gap_m(unit_cube(), unit_cube(*(4 * offset), turn=turned_45_about(0)))
        spent.append(time.process_time() - started)
    assert np.median(spent) < 2e-3
