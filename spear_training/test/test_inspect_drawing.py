"""Drawings on pictures: everything is where the camera sees it, and nothing is too odd to draw."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from random_boxes import boxes

from spear_training.annotation.boxes import CORNER_SIDES, edges_of
from spear_training.annotation.inspection.overlays import (
    AXIS_COLOURS,
    EDGES,
    colour_of,
    draw_box_2d,
    draw_box_3d,
    draw_mark,
    draw_names,
    drawn_on,
    in_front,
    project,
    tinted,
    visible_faces,
)
from spear_training.annotation.records import Intrinsics

WIDTH, HEIGHT = 840, 630
CAMERA = Intrinsics(fx=700.0, fy=600.0, cx=419.5, cy=314.5)
GREY = np.full((HEIGHT, WIDTH, 3), 127, np.uint8)
YELLOW = "#f0e442"


def has(pixels, colour):
    """Tell which pixels have nearly a colour."""
    return np.abs(pixels - 255 * np.array(to_rgb(colour))).max(axis=-1) < 12


def box_drawn(corners):
    """Return the grey picture with a box."""
    return drawn_on(GREY, lambda axes: draw_box_3d(axes, np.array(corners), CAMERA, YELLOW))


def names_drawn(*names, image=GREY):
    """Return a picture with names."""
    return drawn_on(image, lambda axes: draw_names(axes, names))


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


def test_what_is_not_drawn_on_stays_as_it_is():
    noise = np.random.default_rng(0).integers(0, 256, GREY.shape, np.uint8)
    assert (drawn_on(noise, lambda axes: None) == noise).all()


def test_a_point_is_drawn_at_its_pixel_and_nowhere_else():
    def drawn(point_m, mark):
        pixel = project(point_m, CAMERA)
        return drawn_on(GREY, lambda axes: draw_mark(axes, pixel, YELLOW, mark))

    disc = drawn((0.5, -0.2, 2.0), "disc")
    changed = np.argwhere((disc != 127).any(axis=-1))
    assert has(disc[254:256, 594:596], YELLOW).all()
    assert np.abs(changed - (254.5, 594.5)).max() < 9
    for mark in ("ring", "cross"):
        assert (drawn((0.5, -0.2, 2.0), mark) != 127).any()
    for unseen in ((0.5, -0.2, -2.0), (5.0, 0.0, 1.0)):
        assert (drawn(unseen, "disc") == 127).all()


def test_edges_join_corners_whose_numbers_differ_in_one_bit():
    found = {(start, end): axis for start, end, axis in EDGES}
    wanted = {}
    for start in range(8):
        for axis, bit in enumerate((4, 2, 1)):
            if not start & bit:
                wanted[start, start + bit] = axis
    assert found == wanted and len(found) == 12


def test_the_edges_at_corner_0_are_drawn_as_axes_and_hidden_ones_are_dashed():
    # To the right and below the camera's axis, so the left and the upper side are seen.
    corners = cuboid((0.5, 0.4, 2.0), (0.4, 0.3, 0.6))
    drawn = box_drawn(corners)
    for start, end, axis in EDGES:
        ends = project(corners[[start, end]], CAMERA)
        along = np.rint(np.linspace(*ends, 200)[20:-20]).astype(int)
        pixels = drawn[along[:, 1], along[:, 0]]
        if {start, end} in ({3, 7}, {5, 7}, {6, 7}):
            assert 0.1 < (pixels == 127).all(axis=-1).mean() < 0.8
        else:
            assert has(pixels, AXIS_COLOURS[axis] if start == 0 else YELLOW).mean() > 0.9


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
def test_a_line_is_cut_to_what_lies_before_the_camera(corners):
    for start, end, _ in EDGES:
        ends = np.array(corners)[[start, end]]
        part = in_front(ends)
        share = np.linspace(0, 1, 101)[:, None]
        depths = ((1 - share) * ends[0] + share * ends[1])[:, 2]
        if part is None:
            assert (depths <= 1.1e-3 * np.abs(ends).max()).all()
            continue
        assert (part[:, 2] > 0).all() and np.isfinite(project(part, CAMERA)).all()
        assert part[:, 2].max() == pytest.approx(depths.max())
        assert (part >= ends.min(axis=0) - 1e-9).all() and (part <= ends.max(axis=0) + 1e-9).all()


@settings(max_examples=10)
@given(_corners)
def test_any_box_can_be_drawn(corners):
    box_drawn(corners)


def test_a_box_around_or_behind_the_camera_is_no_trouble():
    assert (box_drawn(cuboid((0.0, 0.0, 0.5), (2.0, 1.0, 4.0))) != 127).any()
    assert (box_drawn(cuboid((0.0, 0.0, -2.0), (1.0, 1.0, 1.0))) == 127).all()
    assert (box_drawn(cuboid((0.0, 0.0, 2.0), (1.0, 1.0, 0.0))) != 127).any()


def test_corners_of_large_boxes_are_numbered():
    for size_m, wanted in ((0.4, "01234567"), (0.02, "")):
        texts = []

        def draw(axes, size_m=size_m, texts=texts):
            draw_box_3d(axes, cuboid((0.0, 0.0, 2.0), (size_m,) * 3), CAMERA, YELLOW)
            texts += [text.get_text() for text in axes.texts]

        drawn_on(GREY, draw)
        assert "".join(texts) == wanted


def test_masks_are_tinted_and_the_picture_given_stays_as_it_is():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[100:200, 300:500] = True
    picture = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    drawn = tinted(picture, mask, "#c80064", share=0.5)
    assert (picture == 100).all()
    assert drawn[150, 400].tolist() == [150, 50, 100]
    assert drawn[100, 400].tolist() == [200, 0, 100]  # the outline
    assert (drawn[~mask] == 100).all()
    with pytest.raises(ValueError, match="a mask is 840x629, the picture 840x630"):
        tinted(picture, mask[1:], YELLOW)


def test_boxes_run_along_the_edges_and_are_cut_at_the_picture():
    drawn = drawn_on(GREY, lambda axes: draw_box_2d(axes, (100.0, 50.0, 200.0, 150.0), YELLOW))
    rows, columns = np.nonzero(has(drawn, YELLOW))
    assert (columns.min(), columns.max()) == pytest.approx((99.5, 199.5), abs=1.5)
    assert (rows.min(), rows.max()) == pytest.approx((49.5, 149.5), abs=1.5)
    assert (drawn[60:140, 110:190] == 127).all()
    outside = drawn_on(GREY, lambda axes: draw_box_2d(axes, (-1e9, 600.0, 900.0, 1e9), YELLOW))
    assert (outside[595:605, [0, -1]] != 127).any()


def test_names_do_not_cover_each_other_and_stay_in_the_picture():
    names = [(f"mug {n}", (800.0, 0.0, 840.0, 40.0), YELLOW) for n in range(2)]
    plates = has(names_drawn(*names), YELLOW)
    assert plates[:, -6].any() and not plates[:, -120].any()
    one = has(names_drawn(names[0]), YELLOW).sum()
    assert plates.sum() == pytest.approx(2 * one, rel=0.1)


@pytest.mark.filterwarnings("error")
@settings(max_examples=30)
@given(st.text(max_size=60), st.tuples(st.floats(-900, 900), st.floats(-900, 900)))
def test_any_name_can_be_written_anywhere(text, place):
    names_drawn((text, (*place, 90.0, 90.0), YELLOW), image=GREY[:60, :80])


def test_neighbouring_objects_have_different_colours():
    assert len({colour_of(number) for number in range(10)}) == 10
    assert colour_of(10) == colour_of(0)
    assert not {colour_of(number) for number in range(10)} & set(AXIS_COLOURS)
