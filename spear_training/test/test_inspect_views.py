"""The views from above and from the side: to scale, and everything is inside."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from question_fixture import CAMERA, thing, things

from spear_training.annotation.inspection.overlays import (
    HEIGHT_PX,
    WIDTH_PX,
    nice_step,
    view_from_above,
    view_from_the_side,
)

MUG = thing("mug", (0.0, 0.5, 2.0), (0.2, 0.1, 0.4))
POT = thing("pot", (1.0, -0.5, 2.0), (0.2, 0.1, 0.4))


def test_from_above_right_is_right_and_far_is_up():
    view = view_from_above([MUG, POT, thing("bowl", (0.0, 0.5, 2.5))], CAMERA)
    mug, pot, bowl = (np.array(shape.label_at) for shape in view.shapes)
    assert pot - mug == pytest.approx((view.px_per_unit, 0), abs=0.2)
    assert bowl - mug == pytest.approx((0, -0.5 * view.px_per_unit), abs=0.2)
    across, up = np.ptp(np.array(view.shapes[0].outline), axis=0)
    assert (across, up) == pytest.approx((0.2 * view.px_per_unit, 0.4 * view.px_per_unit), abs=0.3)


def test_from_the_side_far_is_right_and_low_is_low():
    view = view_from_the_side([MUG, POT], CAMERA)
    mug, pot = (np.array(shape.label_at) for shape in view.shapes)
    assert mug - pot == pytest.approx((0, view.px_per_unit), abs=0.2)
    across, down = np.ptp(np.array(view.shapes[0].outline), axis=0)
    assert (across, down) == pytest.approx(
        (0.4 * view.px_per_unit, 0.1 * view.px_per_unit), abs=0.3
    )


@pytest.mark.parametrize("make", [view_from_above, view_from_the_side])
def test_the_grid_says_where_things_are(make):
    view = make([MUG, POT], CAMERA)
    axes = {"x": 0, "y": 1, "z": 2}
    for name, ticks, side in (
        (view.across_name, view.across_ticks, 0),
        (view.up_name, view.up_ticks, 1),
    ):
        assert len(ticks) >= 2
        at, told = np.array([(tick.at_px, float(tick.text)) for tick in ticks]).T
        for shape, found in zip(view.shapes, (MUG, POT), strict=True):
            here = np.polyval(np.polyfit(at, told, 1), shape.label_at[side])
            assert here == pytest.approx(found.centre_m[axes[name]], abs=0.01)


def test_the_camera_and_what_it_sees_are_in_the_view_if_it_is_near():
    near = view_from_above([thing("mug", (0.0, 0.0, 0.5), (0.4, 0.1, 0.6))], CAMERA)
    assert near.camera is not None
    left, right = near.sight
    assert left[:2] == right[:2] == near.camera
    # The picture's left edge lies 420 of 700 pixels to the left.
    assert (left[0] - left[2]) / (left[1] - left[3]) == pytest.approx(420 / 700, rel=1e-3)
    far = view_from_above([thing("mug", (0.0, 0.0, 9.0), (0.1, 0.1, 0.1))], CAMERA)
    assert far.camera is None and far.px_per_unit > 1000
    assert view_from_above([MUG], None).sight == ()
    assert view_from_above([], CAMERA) is None


@given(st.lists(things, min_size=1, max_size=5))
def test_all_objects_are_inside_the_view(objects):
    for view in (view_from_above(objects, CAMERA), view_from_the_side(objects, CAMERA)):
        places = [place for shape in view.shapes for place in (*shape.outline, *shape.points)]
        places += [line[i : i + 2] for shape in view.shapes for line in shape.lines for i in (0, 2)]
        places = np.array(places)
        assert (places > 0).all() and (places < (WIDTH_PX, HEIGHT_PX)).all()
        assert all(len(shape.lines) == 12 for shape in view.shapes)
        for ticks in (view.across_ticks, view.up_ticks):
            assert 2 <= len(ticks) <= 11 and len({tick.text for tick in ticks}) == len(ticks)


@given(st.floats(1e-6, 1e6), st.integers(2, 10))
def test_steps_of_the_grid_are_round_and_few(span, most):
    step = nice_step(span, most)
    assert span <= most * step * (1 + 1e-6) < 2.6 * span + 1e-12
    assert float(f"{step:.0e}") == pytest.approx(step)
    assert f"{step:.0e}"[0] in "125"
