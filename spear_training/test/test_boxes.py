"""Oriented boxes of clouds: the smallest one, its turn, and the order of its corners."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_boxes import rotations
from scipy.spatial.transform import Rotation

from spear_training.annotation.accuracy.compare import box_iou
from spear_training.annotation.boxes import (
    FLAT,
    OrientedBox,
    edges_of,
    minimal_box,
    ordered_vertices,
)
from spear_training.annotation.stages import ObjectError

CENTRE = np.array([0.1, -0.2, 0.9])
TURN = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()


def faces_of(extents, faces, points=2000, seed=0):
    """Return points on some of the faces (axis, side) of a box around the origin."""
    rng = np.random.default_rng(seed)
    found = []
    for axis, side in faces:
        drawn = rng.uniform(-0.5, 0.5, (points, 3))
        drawn[:, axis] = side * 0.5
        found.append(drawn * extents)
    return np.vstack(found)


def iou_with_truth(cloud, extents, turn=TURN):
    found = minimal_box(CENTRE + cloud @ turn.T)
    return box_iou(
        ordered_vertices(found), ordered_vertices(OrientedBox(CENTRE, turn, np.array(extents)))
    )


@settings(max_examples=40)
@given(rotations(), st.tuples(*[st.floats(0.02, 1.0)] * 3), st.integers(0, 1000))
def test_three_faces_give_the_whole_box_however_it_lies(turn, extents, seed):
    cloud = faces_of(extents, [(0, 1), (1, 1), (2, -1)], seed=seed)
    assert iou_with_truth(cloud, extents, turn) > 0.95


@pytest.mark.parametrize("extents", [(0.2, 0.12, 0.06), (0.1, 0.1, 0.1), (0.5, 0.02, 0.02)])
def test_it_is_no_box_along_principal_axes(extents):
    cloud = faces_of(extents, [(0, 1), (1, 1), (2, -1)])
    noise = np.random.default_rng(0).normal(0, 0.0002, cloud.shape)
    assert iou_with_truth(cloud + noise, extents) > 0.8


@pytest.mark.parametrize("seed", range(10))
def test_of_two_boxes_of_equal_size_that_on_whose_faces_the_points_lie_is_taken(seed):
    # Two faces: the box flush with the plane from rim to rim is just as large.
    rng = np.random.default_rng(seed)
    cloud = faces_of((0.15, 0.2, 0.1), [(0, 1), (2, -1)], seed=seed)
    assert iou_with_truth(cloud + rng.normal(0, 0.0002, cloud.shape), (0.15, 0.2, 0.1)) > 0.9


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(4, 300))
def test_all_points_are_inside_and_the_axes_are_right_handed(seed, count):
    rng = np.random.default_rng(seed)
    cloud = rng.normal(size=(count, 3)) * rng.uniform(0.01, 1, 3)
    box = minimal_box(cloud)
    inside = np.abs((cloud - box.centre_m) @ box.axes) <= box.extents_m / 2 * (1 + 1e-9)
    assert inside.all()
    assert box.axes.T @ box.axes == pytest.approx(np.eye(3), abs=1e-9)
    assert np.linalg.det(box.axes) == pytest.approx(1.0)


def test_a_ball_takes_no_longer_than_a_box():
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(10_000, 3))
    ball *= 0.1 / np.linalg.norm(ball, axis=1, keepdims=True)  # every point is on the hull
    assert minimal_box(ball).extents_m == pytest.approx([0.2] * 3, abs=0.002)


@pytest.mark.parametrize("thickness", [0.0, 1e-9, 0.5 * FLAT * 0.297])
def test_a_sheet_of_paper_gets_a_thin_box(thickness):
    rng = np.random.default_rng(0)
    cloud = rng.uniform(-0.5, 0.5, (500, 3)) * [0.297, 0.21, thickness]
    cloud = np.vstack(
        [cloud, np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) @ [[0.1485, 0, 0], [0, 0.105, 0]]]
    )
    box = minimal_box(CENTRE + cloud @ TURN.T)
    long, wide, thin = np.sort(box.extents_m)[::-1]
    assert [long, wide] == pytest.approx([0.297, 0.21], rel=1e-3)
    assert thin == pytest.approx(FLAT * 0.297, rel=0.3)
    assert box.centre_m == pytest.approx(CENTRE, abs=1e-3)
    assert np.abs(box.axes[:, box.extents_m.argmin()] @ TURN[:, 2]) == pytest.approx(1, abs=1e-4)


def test_a_tilted_sheet_is_told_from_its_hull_whatever_its_corner_count():
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    disc = np.column_stack([0.1 * np.cos(angles), 0.1 * np.sin(angles), np.zeros(60)])
    assert np.sort(minimal_box(CENTRE + disc @ TURN.T).extents_m)[1:] == pytest.approx(
        [0.2, 0.2], rel=0.01
    )


@pytest.mark.parametrize(
    ("cloud", "reason"),
    [
        (np.zeros((0, 3)), "0 points"),
        (np.eye(3), "3 points"),
        (np.full((100, 3), np.nan), "0 points"),
        (np.full((100, 3), 0.7), "one place"),
        (np.full((100, 3), 1e9) + 1e-6, "one place"),
        (np.linspace(0, 1, 100)[:, None] * [[0.1, 0.2, 0.3]], "on a line"),
        (np.repeat([[0.0, 0.0, 1.0], [0.0, 0.1, 1.0]], 50, axis=0), "on a line"),
    ],
)
def test_a_cloud_without_a_box_says_why(cloud, reason):
    with pytest.raises(ObjectError, match=reason):
        minimal_box(cloud)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.floats(1e-12, 1e-2), st.floats(1e-12, 1e-2))
def test_thin_clouds_of_any_thickness_have_a_box_or_a_reason(seed, width, thickness):
    rng = np.random.default_rng(seed)
    cloud = CENTRE + rng.uniform(-0.5, 0.5, (200, 3)) * [1.0, width, thickness] @ TURN.T
    try:
        box = minimal_box(cloud)
    except ObjectError as error:
        assert "line" in str(error)
    else:
        assert np.isfinite(box.extents_m).all()
        assert box.extents_m.min() > 0


def test_points_that_are_not_finite_do_not_count():
    cloud = CENTRE + faces_of((0.2, 0.1, 0.3), [(0, 1), (1, 1), (2, -1)]) @ TURN.T
    spoilt = np.vstack([cloud, [[np.nan, 0, 0], [0, np.inf, 0], [0, 0, -np.inf]]])
    assert np.array_equal(minimal_box(spoilt).extents_m, minimal_box(cloud).extents_m)


def test_the_same_cloud_gives_the_same_box_to_the_last_bit():
    cloud = np.random.default_rng(3).normal(size=(5000, 3))
    first, second = minimal_box(cloud), minimal_box(cloud.copy())
    for name in ("centre_m", "axes", "extents_m"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_a_micrometre_of_noise_moves_no_corner_by_a_millimetre():
    cloud = CENTRE + faces_of((0.2, 0.1, 0.3), [(0, 1), (1, 1), (2, -1)]) @ TURN.T
    noise = np.random.default_rng(0).normal(0, 1e-6, cloud.shape)
    moved = ordered_vertices(minimal_box(cloud + noise)) - ordered_vertices(minimal_box(cloud))
    assert np.linalg.norm(moved, axis=1).max() < 1e-3


# The order of corners -----------------------------------------------------------------------------


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
