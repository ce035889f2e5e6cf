"""Drawings on pictures: everything is where the camera sees it, and nothing is too odd to draw."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from random_boxes import boxes

from spear_training.annotation.boxes import CORNER_SIDES, edges_of
from spear_training.annotation.inspection.overlays import (
    AXIS_COLOURS,
    EDGES,
    box_edges,
    colour_of,
    draw_box_3d,
    draw_boxes_2d,
    draw_mark,
    draw_mask,
    draw_tags,
    is_shown,
    label_tag,
    project,
    visible_faces,
)
from spear_training.annotation.records import Intrinsics

WIDTH, HEIGHT = 840, 630
CAMERA = Intrinsics(fx=700.0, fy=600.0, cx=419.5, cy=314.5)
GREY = np.full((HEIGHT, WIDTH, 3), 127, np.uint8)
YELLOW = (240, 228, 66)


def cuboid(centre, sides):
    """Return corners of a box along the camera's axes."""
    return np.array(centre) + CORNER_SIDES * np.array(sides) / 2


def test_a_point_appears_where_a_pinhole_camera_puts_it():
    assert project((0.5, -0.2, 2.0), CAMERA) == pytest.approx((419.5 + 175, 314.5 - 60))
    assert project([(0.0, 0.0, 1.0), (1.0, 1.0, 1.0)], CAMERA).tolist() == [
        [419.5, 314.5],
        [1119.5, 914.5],
    ]
    assert np.isnan(project([(0.5, 0.2, 0.0), (0.5, 0.2, -1.0)], CAMERA)).all()


def draw_point(image, point_m, mark):
    """Draw a mark where the camera sees a point."""
    return draw_mark(image, project(point_m, CAMERA), YELLOW, mark)


def test_a_point_is_drawn_at_its_pixel_and_nowhere_else():
    drawn = draw_point(GREY, (0.5, -0.2, 2.0), "disc")
    changed = np.argwhere((drawn != 127).any(axis=-1))
    assert tuple(drawn[254, 594]) == YELLOW
    assert np.abs(changed - (254.5, 594.5)).max() < 9
    for mark in ("ring", "cross"):
        assert (draw_point(GREY, (0.5, -0.2, 2.0), mark) != 127).any()
    for unseen in ((0.5, -0.2, -2.0), (5.0, 0.0, 1.0)):
        assert (draw_point(GREY, unseen, "disc") == 127).all()


def test_edges_join_corners_whose_numbers_differ_in_one_bit():
    found = {(start, end): axis for start, end, axis in EDGES}
    wanted = {}
    for start in range(8):
        for axis, bit in enumerate((4, 2, 1)):
            if not start & bit:
                wanted[start, start + bit] = axis
    assert found == wanted and len(found) == 12


def test_the_edges_at_corner_0_are_drawn_as_axes_and_the_others_in_the_colour():
    # To the right and below the camera's axis, so the left and the upper side are seen.
    corners = cuboid((0.5, 0.4, 2.0), (0.4, 0.3, 0.6))
    drawn = draw_box_3d(GREY, corners, CAMERA, YELLOW)
    found = box_edges(corners, CAMERA, WIDTH, HEIGHT)
    assert len(found) == 12
    for edge in found:
        middle = edge.ends_px.mean(axis=0)
        column, row = np.rint(middle).astype(int)
        around = drawn[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3).tolist()
        wanted = AXIS_COLOURS[edge.axis] if edge.corners[0] == 0 else YELLOW
        assert edge.hidden or list(wanted) in around, edge
    assert {edge.corners for edge in found if edge.hidden} == {(3, 7), (5, 7), (6, 7)}


def test_hidden_edges_are_thin():
    corners = cuboid((0.5, 0.4, 2.0), (0.4, 0.3, 0.6))
    drawn = draw_box_3d(GREY, corners, CAMERA, YELLOW)
    widths = {}
    for edge in box_edges(corners, CAMERA, WIDTH, HEIGHT):
        if edge.axis == 1:  # upright in the picture
            column, row = np.rint(edge.ends_px.mean(axis=0)).astype(int)
            touched = (drawn[row, column - 6 : column + 7] != 127).any(axis=-1).sum()
            widths.setdefault(edge.hidden, []).append(touched)
    assert max(widths[True]) < min(widths[False])


@given(boxes())
def test_an_edge_is_hidden_if_the_box_is_before_it(corners):
    centre, sides = corners.mean(axis=0), edges_of(corners)
    to_box = sides.T / (sides**2).sum(axis=1)  # the box is +-0.5 there
    camera = -centre @ to_box
    assume((np.abs(np.abs(camera) - 0.5) > 1e-3).all())
    inside = (np.abs(camera) < 0.5).all()
    faces = visible_faces(corners)
    for start, end, axis in EDGES:
        sides_beside = [(i, bool(start & bit)) for i, bit in enumerate((4, 2, 1)) if i != axis]
        hidden = not faces & set(sides_beside)
        way = (corners[[start, end]].mean(axis=0) - centre) @ to_box - camera
        points = camera + np.linspace(0, 1, 402)[1:-1, None] * way
        before = (np.abs(points) < 0.5 - 1e-9).all(axis=1).any()
        # What is not hidden is never behind the box; what is hidden may be so by less than a step.
        assert before <= hidden
        assert hidden or not inside


_number = st.floats(-3, 3)
_corners = st.lists(st.tuples(_number, _number, _number), min_size=8, max_size=8)


@given(_corners)
def test_an_edge_is_cut_to_what_the_picture_shows(corners):
    corners = np.array(corners)
    lines = {edge.corners: edge for edge in box_edges(corners, CAMERA, WIDTH, HEIGHT)}
    for start, end, _ in EDGES:
        share = np.linspace(0, 1, 101)[:, None]
        points = (1 - share) * corners[start] + share * corners[end]
        # Nearer than a hair to the camera's plane nothing is drawn.
        points = points[points[:, 2] > 1e-5 * np.abs(corners).max()]
        pixels = project(points, CAMERA)
        seen = pixels[is_shown(pixels, WIDTH, HEIGHT)]
        line = lines.get((start, end))
        if line is None:
            assert len(seen) <= 1  # touched in a corner of the picture
            continue
        ends = line.ends_px
        assert np.isfinite(ends).all()
        assert (ends >= -0.501).all() and (ends <= (WIDTH - 0.499, HEIGHT - 0.499)).all()
        if len(seen):
            low, high = ends.min(axis=0), ends.max(axis=0)
            assert (seen >= low - 1e-3).all() and (seen <= high + 1e-3).all()
    draw_box_3d(GREY, corners, CAMERA, YELLOW)


def test_a_box_around_or_behind_the_camera_is_no_trouble():
    around = draw_box_3d(GREY, cuboid((0.0, 0.0, 0.5), (2.0, 1.0, 4.0)), CAMERA, YELLOW)
    assert (around != 127).any()
    behind = draw_box_3d(GREY, cuboid((0.0, 0.0, -2.0), (1.0, 1.0, 1.0)), CAMERA, YELLOW)
    assert (behind == 127).all()
    flat = draw_box_3d(GREY, cuboid((0.0, 0.0, 2.0), (1.0, 1.0, 0.0)), CAMERA, YELLOW)
    assert (flat != 127).any()


def test_masks_are_tinted_and_the_picture_given_stays_as_it_is():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[100:200, 300:500] = True
    picture = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    drawn = draw_mask(picture, mask, (200, 0, 100), share=0.5)
    assert (picture == 100).all()
    assert drawn[150, 400].tolist() == [150, 50, 100]
    assert drawn[100, 400].tolist() == [200, 0, 100]  # the outline
    assert (drawn[~mask] == 100).all()
    with pytest.raises(ValueError, match="a mask is 840x629, the picture 840x630"):
        draw_mask(picture, mask[1:], YELLOW)


def test_boxes_run_along_the_edges_and_are_cut_at_the_picture():
    drawn = draw_boxes_2d(GREY, [(100.0, 50.0, 200.0, 150.0)], [YELLOW])
    rows, columns = np.nonzero((drawn == YELLOW).all(axis=-1))
    assert (columns.min(), columns.max()) == pytest.approx((99.5, 199.5), abs=1.5)
    assert (rows.min(), rows.max()) == pytest.approx((49.5, 149.5), abs=1.5)
    assert (drawn[60:140, 110:190] == 127).all()
    outside = draw_boxes_2d(GREY, [(-1e9, 600.0, 900.0, 1e9)], [YELLOW])
    assert (outside[620, [0, -1]] != 127).any()


def test_labels_do_not_cover_each_other_and_stay_in_the_picture():
    tags = [label_tag(f"mug {n}", (800.0, 0.0, 840.0, 40.0), YELLOW) for n in range(2)]
    plates = (draw_tags(GREY, tags) == YELLOW).all(axis=-1)
    assert plates[:, -2].any() and not plates[:, -60].any()
    one = (draw_tags(GREY, tags[:1]) == YELLOW).all(axis=-1).sum()
    assert plates.sum() == pytest.approx(2 * one, rel=0.05)


@given(st.text(max_size=60), st.tuples(st.floats(-900, 900), st.floats(-900, 900)))
def test_any_label_can_be_written_anywhere(text, place):
    draw_tags(GREY[:60, :80], [label_tag(text, (*place, 90.0, 90.0), YELLOW)])


def test_neighbouring_objects_have_different_colours():
    assert len({colour_of(number) for number in range(10)}) == 10
    assert colour_of(10) == colour_of(0)
    assert not {colour_of(number) for number in range(10)} & set(AXIS_COLOURS)
