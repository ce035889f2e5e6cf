"""Drawn scenes: depth, masks and intrinsics are exact, whatever the size of the picture."""

import numpy as np
import pytest
from scene_samples import bare_scene, block, object_of, rays_of, view_from

from spear_policy.inference.image_geometry import plan_fit
from spear_training.annotation.records import Intrinsics
from spear_training.annotation.synthetic.meshes import SEGMENTS, ball
from spear_training.annotation.synthetic.objects import stand
from spear_training.annotation.synthetic.rendering import (
    BACKDROP,
    SKY,
    OffscreenRenderer,
    count_visible,
    render_view,
)
from spear_training.annotation.synthetic.scenes import SIZES_PX


@pytest.fixture(scope="module")
def renderer():
    """Return an OpenGL context for this file."""
    renderer = OffscreenRenderer()
    yield renderer
    renderer.close()


def drawn(renderer, objects, view, **ground):
    """Return the colours, the objects and the depth of a bare scene."""
    with renderer.load(bare_scene(objects, view, **ground)) as rendering:
        return rendering.colours(view), *rendering.objects_and_depth(view)


@pytest.mark.parametrize("position", [(1.2, -0.8, 0.9), (0.2, -3.0, 1.5), (4.0, 2.0, 3.0)])
def test_depth_of_a_floor_is_exact_to_a_tenth_of_a_millimetre_at_five_metres(renderer, position):
    view = view_from(position, [0, 0, 0])
    _, objects, depth = drawn(renderer, [], view)
    rays = rays_of(view)
    with np.errstate(divide="ignore"):
        true = np.where(rays[..., 2] < 0, -position[2] / rays[..., 2], np.inf)
    on_floor = objects == BACKDROP
    near = on_floor & (true <= 5.0)
    assert near.sum() > 20_000
    assert np.abs(depth - true)[near].max() < 1e-4
    assert np.abs(depth - true)[on_floor & (true <= 12)].max() < 1e-3
    assert np.isnan(depth[objects == SKY]).all()


def test_a_ball_is_where_it_is_and_no_rounder_than_its_triangles(renderer):
    radius, middle = 0.3, np.array([0.0, 0.0, 0.3])
    view = view_from([1.0, -1.5, 1.0], middle)
    _, objects, depth = drawn(
        renderer, [stand(object_of(ball(radius)), middle[:2], 0.0, 0.0)], view
    )
    rays = rays_of(view)
    towards = view.position_m - middle
    a, b = (rays**2).sum(-1), 2 * rays @ towards
    disc = b**2 - 4 * a * (towards @ towards - radius**2)
    true = (-b - np.sqrt(np.maximum(disc, 0))) / (2 * a)
    normals = (view.position_m + true[..., None] * rays - middle) / radius
    facing = -(normals * rays).sum(-1) / np.linalg.norm(rays, axis=-1)
    seen = (disc > 0) & (facing > 0.7)
    assert seen.sum() > 5_000 and (objects[seen] == 0).all()
    # A facet lies at most this much below the sphere; 20 steps from pole to pole are coarsest.
    sunk = radius * (1 - np.cos(np.pi / 20 / 2) * np.cos(np.pi / SEGMENTS))
    error = (depth - true)[seen]
    assert error.min() > -1e-4 and error.max() < sunk / 0.7 + 1e-4


@pytest.mark.parametrize("size_px", [*SIZES_PX, (97, 53)])
def test_corners_appear_where_the_intrinsics_say(renderer, size_px):
    width, height = size_px
    camera = Intrinsics(0.8 * width, 0.83 * width, 0.46 * width, 0.55 * height)
    view = view_from([0.9, -1.1, 1.0], [0, 0, 0.2], size_px, camera)
    placed = block([0.3, 0.2, 0.4], yaw_rad=0.4)
    _, objects, depth = drawn(renderer, [placed], view)
    rows, columns = np.nonzero(objects == 0)
    pixels = view.intrinsics.project(view.in_camera(placed.vertices_m))
    # A pixel is part of a shape if its centre is, so the outermost are within one of the corners.
    for pixel, low, high in zip(
        pixels.T, (columns.min(), rows.min()), (columns.max(), rows.max()), strict=True
    ):
        assert 0 <= low - pixel.min() < 1 and 0 <= pixel.max() - high < 1
    assert depth[objects == 0].min() == pytest.approx(
        view.in_camera(placed.vertices_m)[:, 2].min(), abs=0.01
    )


def test_every_pixel_shows_the_face_that_its_ray_meets_first(renderer):
    boxes = [block([0.3, 0.2, 0.4]), block([0.2, 0.2, 0.2], "other", (0.35, 0.1), 0.0)]
    view = view_from([1.1, -1.3, 0.8], [0.1, 0, 0.2])
    _, objects, depth = drawn(renderer, boxes, view)
    rays = rays_of(view)
    true = np.where(rays[..., 2] < 0, -view.position_m[2] / rays[..., 2], np.inf)
    owner = np.full(true.shape, BACKDROP)
    for index, placed in enumerate(boxes):
        low, high = placed.vertices_m.min(axis=0), placed.vertices_m.max(axis=0)
        sides = np.sort([(low - view.position_m) / rays, (high - view.position_m) / rays], axis=0)
        enter, leave = sides[0].max(axis=-1), sides[1].min(axis=-1)
        hit = (enter < leave) & (enter < true)
        true, owner = np.where(hit, enter, true), np.where(hit, index, owner)
    seen = objects >= 0
    assert (objects != owner)[true < 9].mean() < 1e-4
    assert np.abs(depth - true)[seen & (objects == owner)].max() < 1e-4


def test_pictures_have_their_colours_and_are_upright(renderer):
    view = view_from([0, -3.0, 1.0], [0, 0, 1.0])
    colours, objects, _ = drawn(renderer, [], view)
    assert colours.shape == (480, 640, 3) and colours.dtype == np.uint8
    assert (objects[0] == SKY).all() and (objects[-1] == BACKDROP).all()
    red, _, blue = colours[5].mean(axis=0)
    assert blue > red + 20  # the sky; the floor is grey
    assert np.ptp(colours[-5].mean(axis=0)) < 3


def test_the_share_that_is_seen_counts_what_is_hidden_and_what_is_outside(renderer):
    view = view_from([0, -2.0, 0.2], [0, 0, 0.2], (640, 480), Intrinsics(600, 600, 319.5, 239.5))
    back = block([0.4, 0.02, 0.4], "back")
    whole = _visible(renderer, [back], view)
    assert whole[0] == 1.0
    # A board in front hides its left half.
    front = block([0.4, 0.01, 0.6], "front", (-0.18, -0.4))
    half = _visible(renderer, [back, front], view)
    assert half[0] == pytest.approx(1 - _overlap(view, back, front), abs=0.01)
    # The edge of the picture cuts it where its middle is.
    aside = view_from([0, -2.0, 0.2], [0, 0, 0.2], (640, 480), Intrinsics(600, 600, -0.5, 239.5))
    assert _visible(renderer, [back], aside)[0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("size_px", [(720, 960), (1280, 720), (640, 480), (600, 600)])
def test_what_is_cropped_away_or_padding_is_not_seen(renderer, size_px):
    view = view_from([0, -1.5, 1.0], [0, 0, 0.2], size_px)
    boxes = [block([0.3, 0.3, 0.3])]
    with renderer.load(bare_scene(boxes, view)) as rendering:
        found = render_view(rendering, boxes, view)
    fit = plan_fit(*size_px, 840, 630)
    assert found.objects.shape == (630, 840)
    padding = np.ones((630, 840), bool)
    rows = slice(fit.pad_top, fit.pad_top + fit.resized_height)
    padding[rows, fit.pad_left : fit.pad_left + fit.resized_width] = False
    assert (found.objects[padding] == SKY).all()
    assert np.isnan(found.points.points_m[padding]).all()
    # Points are exact: on the floor of the world, the height is 0.
    floor = found.objects == BACKDROP
    world = found.points.points_m[floor] @ view.axes.T + view.position_m
    assert np.abs(world[:, 2]).max() < 1e-3
    assert found.visible[0] == 1.0


def test_objects_behind_the_camera_are_not_seen_in_truth(renderer):
    view = view_from([0, -0.5, 0.6], [0, 1.0, 0])
    plank = block([0.2, 4.0, 0.05])
    with renderer.load(bare_scene([plank], view)) as rendering:
        found = render_view(rendering, [plank], view)
    assert (found.objects == 0).any() and found.visible == {}


def test_a_camera_with_something_before_it_is_no_good(renderer):
    view = view_from([0, -1.0, 0.3], [0, 0, 0.3])
    near, far = block([0.2, 0.02, 0.6], "near", (0, -0.9)), block([0.2, 0.2, 0.4], "far")
    for objects, wanted in (([far], 1), ([near, far], -1)):
        with renderer.load(bare_scene(objects, view)) as rendering:
            assert count_visible(rendering, view, 0.2) == wanted


def _visible(renderer, objects, view):
    with renderer.load(bare_scene(objects, view)) as rendering:
        return render_view(rendering, objects, view).visible


def _overlap(view, back, front):
    """Share of the width of `back` that `front` covers, both seen square on."""
    spans = [view.intrinsics.project(view.in_camera(one.vertices_m))[:, 0] for one in (back, front)]
    # The near faces count: of `back` the one at the least y.
    left, right = spans[0].min(), spans[0].max()
    return (min(right, spans[1].max()) - max(left, spans[1].min())) / (right - left)
