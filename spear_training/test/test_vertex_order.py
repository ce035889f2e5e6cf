"""The canonical order of a box's corners."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_boxes import rotations
from scipy.spatial.transform import Rotation

from spear_training.annotation.boxes import OrientedBox, edges_of, ordered_vertices

CENTRE, EXTENTS = np.array([0.1, -0.2, 0.9]), np.array([0.3, 0.2, 0.1])


def test_corners_go_from_left_upper_near_to_right_lower_far():
    found = ordered_vertices(OrientedBox(np.zeros(3), np.eye(3), 2 * np.array([3.0, 2.0, 1.0])))
    assert found.tolist() == [
        [-3, -2, -1],
        [-3, -2, 1],
        [-3, 2, -1],
        [-3, 2, 1],
        [3, -2, -1],
        [3, -2, 1],
        [3, 2, -1],
        [3, 2, 1],
    ]


@given(rotations(), st.integers(0, 5), st.tuples(*[st.sampled_from((-1.0, 1.0))] * 3))
def test_no_name_or_sign_of_the_axes_changes_the_order(rotation, renaming, signs):
    order = list(permutations(range(3)))[renaming]
    box = OrientedBox(CENTRE, rotation, EXTENTS)
    renamed = OrientedBox(CENTRE, (rotation * signs)[:, order], EXTENTS[list(order)])
    assert np.array_equal(ordered_vertices(box), ordered_vertices(renamed))


@given(rotations())
def test_the_corners_are_those_of_the_box(rotation):
    found = ordered_vertices(OrientedBox(CENTRE, rotation, EXTENTS))
    seen = (found - CENTRE) @ rotation / (EXTENTS / 2)
    assert np.abs(seen) == pytest.approx(1.0)
    assert {tuple(corner) for corner in np.sign(seen).tolist()} == set(
        product((-1.0, 1.0), repeat=3)
    )


@given(rotations())
def test_each_edge_points_along_the_camera_axis_of_its_number(rotation):
    edges = edges_of(ordered_vertices(OrientedBox(CENTRE, rotation, EXTENTS)))
    directions = edges / np.linalg.norm(edges, axis=1, keepdims=True)
    cosines = np.abs(rotation)
    best = max(sum(cosines[i, order[i]] for i in range(3)) for order in permutations(range(3)))
    assert np.trace(directions) == pytest.approx(best, abs=1e-9)
    assert (np.diagonal(directions) > -1e-9).all()


@given(rotations(), st.tuples(*[st.floats(-1, 1)] * 3))
def test_a_small_turn_moves_no_corner_far_unless_two_axes_fit_equally(rotation, turn):
    cosines = np.abs(rotation)
    fits = sorted(sum(cosines[i, order[i]] for i in range(3)) for order in permutations(range(3)))
    clear = fits[-1] - fits[-2] > 0.05
    before = ordered_vertices(OrientedBox(CENTRE, rotation, EXTENTS))
    turned = Rotation.from_rotvec(1e-3 * np.array(turn)).as_matrix() @ rotation
    after = ordered_vertices(OrientedBox(CENTRE, turned, EXTENTS))
    signs_clear = (np.diagonal(edges_of(before)) > 0.01).all()
    if clear and signs_clear:
        assert np.linalg.norm(after - before, axis=1).max() < 1e-3


def test_the_jump_is_at_45_degrees():
    def order_at(yaw_deg):
        turn = Rotation.from_euler("z", yaw_deg, degrees=True).as_matrix()
        edges = edges_of(ordered_vertices(OrientedBox(CENTRE, turn, EXTENTS)))
        return np.linalg.norm(edges, axis=1).round(6).tolist()

    assert order_at(44.9) == [0.3, 0.2, 0.1]
    assert order_at(45.1) == [0.2, 0.3, 0.1]
    assert order_at(134.9) == [0.2, 0.3, 0.1]
    assert order_at(135.1) == [0.3, 0.2, 0.1]
