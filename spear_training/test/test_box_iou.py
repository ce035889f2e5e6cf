"""Intersection over union of oriented boxes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_boxes import box_vertices, boxes, rotations
from scipy.spatial.transform import Rotation

from spear_training.annotation.accuracy.compare import box_iou, box_volume_m3
from spear_training.annotation.boxes import edges_of


def cube(x=0.0, y=0.0, z=0.0, side=1.0):
    return box_vertices([x, y, z], np.eye(3), [side] * 3)


@pytest.mark.parametrize(
    ("other", "iou"),
    [
        (cube(), 1.0),
        (cube(x=0.5), 0.5 / 1.5),
        (cube(x=0.5, y=0.5), 0.25 / 1.75),
        (cube(x=0.5, y=-0.5, z=0.5), 0.125 / 1.875),
        (cube(x=1.0), 0.0),  # touching
        (cube(x=1.0, y=1.0, z=1.0), 0.0),
        (cube(z=3.0), 0.0),
        (cube(side=0.5), 0.125),  # contained
        (cube(x=0.25, side=0.5), 0.125),  # contained, with a face in common
        (cube(side=2.0), 0.125),  # containing
    ],
)
def test_known_values(other, iou):
    assert box_iou(cube(), other) == pytest.approx(iou, abs=1e-7)


def test_a_cube_turned_by_45_degrees_has_a_regular_octagon_in_common():
    turn = Rotation.from_euler("z", 45, degrees=True).as_matrix()
    octagon = 2 * (np.sqrt(2) - 1)
    assert box_iou(cube(), box_vertices([0, 0, 0], turn, [1, 1, 1])) == pytest.approx(
        octagon / (2 - octagon)
    )


@given(boxes())
def test_a_box_is_like_itself(vertices):
    assert box_iou(vertices, vertices) == pytest.approx(1.0, abs=1e-7)


@settings(max_examples=50)
@given(boxes(), boxes())
def test_it_is_symmetric_and_between_0_and_1(a, b):
    iou = box_iou(a, b)
    assert 0 <= iou <= 1
    assert box_iou(b, a) == pytest.approx(iou, abs=1e-7)


@settings(max_examples=50)
@given(boxes(), boxes(), rotations(), st.floats(0.01, 100))
def test_it_depends_on_no_frame_and_no_unit(a, b, turn, unit):
    moved = [unit * (box @ turn.T + [1.0, -2.0, 3.0]) for box in (a, b)]
    assert box_iou(*moved) == pytest.approx(box_iou(a, b), abs=1e-6)


@settings(max_examples=25)
@given(boxes(reach_m=0.3), boxes(reach_m=0.3))
def test_points_drawn_at_random_agree(a, b):
    rng = np.random.default_rng(0)
    drawn = a.mean(axis=0) + rng.uniform(-0.5, 0.5, (20_000, 3)) @ edges_of(a)
    in_b = np.abs(np.linalg.solve(edges_of(b).T, (drawn - b.mean(axis=0)).T)).max(axis=0) <= 0.5
    common = in_b.mean() * box_volume_m3(a)
    union = box_volume_m3(a) + box_volume_m3(b) - common
    smaller = box_volume_m3(a) / union
    assert box_iou(a, b) == pytest.approx(common / union, abs=0.02 * smaller + 1e-3)


def test_a_box_without_volume_is_refused():
    flat = box_vertices([0, 0, 0], np.eye(3), [1.0, 1.0, 0.0])
    with pytest.raises(ValueError, match="without volume"):
        box_iou(cube(), flat)
