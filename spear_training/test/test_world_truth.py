"""Generated pictures and their truth agree to the millimetre, and repeat to the byte."""

import json
from contextlib import contextmanager
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scene_samples import bare_scene, block, object_of, view_from

from spear_training.annotation.accuracy.compare import SceneTruth
from spear_training.annotation.boxes import CORNER_SIDES, edges_of
from spear_training.annotation.depth import DepthGeometry
from spear_training.annotation.detections import KeepUnique
from spear_training.annotation.frame import read_frame
from spear_training.annotation.given import GivenDetector, GivenSegmenter
from spear_training.annotation.records import Item, decode_mask
from spear_training.annotation.synthetic.generate import (
    UNITS_PER_M,
    ComposedScene,
    Recipe,
    part_file,
    truth_of,
    write_scene,
)
from spear_training.annotation.synthetic.meshes import ball, cylinder
from spear_training.annotation.synthetic.objects import stand
from spear_training.annotation.synthetic.rendering import (
    FURTHEST_M,
    MIN_VISIBLE,
    OffscreenRenderer,
    render_view,
)

RECIPE = Recipe(11, "held_out")
NUMBERS = range(4)


@pytest.fixture(scope="module")
def renderer():
    """Return an OpenGL context for this file."""
    renderer = OffscreenRenderer()
    yield renderer
    renderer.close()


@pytest.fixture(scope="module")
def folder(renderer, tmp_path_factory):
    """Write a few scenes; not to be changed."""
    folder = tmp_path_factory.mktemp("scenes")
    for number in NUMBERS:
        write_scene(renderer, RECIPE, number, folder)
    return folder


def all_parts(folder):
    """Return the items and truths of all scenes."""
    lines = [json.loads(part_file(folder, number).read_text()) for number in NUMBERS]
    return [(Item.from_json(one["item"]), SceneTruth.from_json(one["truth"])) for one in lines]


def own_frame(vertices, points):
    """Return points in the frame of a box, in metres from its middle, and its half lengths."""
    edges = edges_of(vertices)
    half = np.linalg.norm(edges, axis=1) / 2
    return (points - vertices.mean(axis=0)) @ (edges / (2 * half[:, None])).T, half


def inner(mask):
    """Return a mask without its rim of two pixels."""
    return cv2.erode(mask.astype(np.uint8), np.ones((5, 5))).astype(bool)


def outer(mask):
    """Return a mask with a rim of two pixels more."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))).astype(bool)


@contextmanager
def composed_by_hand(renderer, objects):
    """Yield a bare scene with its rendering, and its item."""
    view = view_from([0.4, -1.8, 1.1], [0, 0, 0.1], (720, 540))
    scene = bare_scene(objects, view, ground_half_m=4.0)
    item = Item(id="by hand", image="picture.png")
    with renderer.load(scene) as rendering:
        yield ComposedScene(scene, rendering, view, render_view(rendering, objects, view)), item


def test_the_points_of_a_mask_lie_in_the_true_box(folder):
    checked = 0
    for item, truth in all_parts(folder):
        frame = DepthGeometry(folder)(read_frame(item, folder))
        for found in truth.annotation.objects:
            # Each pixel has the depth of the stored pixel next to it, whose ray passes up to a
            # pixel beside; without the rim that ray still meets the same object.
            points = frame.points.points_m[inner(decode_mask(found.mask))].astype(float)
            local, half = own_frame(found.vertices, points)
            pixel_m = points[:, 2] / truth.annotation.intrinsics.fx
            outside = np.maximum(np.abs(local) - half, 0).max(axis=1, initial=0)
            assert (outside < 1.5e-3 + pixel_m).all(), found.label
            checked += len(points)
    assert checked > 20_000


def test_exact_points_of_a_box_lie_on_its_faces(renderer):
    crate = block([0.3, 0.2, 0.25], "crate", (0.1, 0.2), 0.6)
    with composed_by_hand(renderer, [crate]) as (made, item):
        truth = truth_of(made, item)
        points = made.rendered.points.points_m[made.rendered.objects == 0].astype(float)
    (found,) = truth.annotation.objects
    local, half = own_frame(found.vertices, points)
    to_the_nearest_face = (half - np.abs(local)).min(axis=1)
    assert np.abs(to_the_nearest_face).max() < 1e-4
    assert sorted(2 * half) == pytest.approx([0.2, 0.25, 0.3], abs=2e-5)
    distances = np.linalg.norm(points, axis=1)
    assert found.cloud_size == len(points)
    assert np.linalg.norm(found.closest_m) == pytest.approx(distances.min(), abs=1e-4)
    assert np.linalg.norm(found.furthest_m) == pytest.approx(distances.max(), abs=1e-4)
    assert truth.axes_of_symmetry == {"crate": None}


def test_the_stored_depth_of_a_box_lies_on_its_faces_to_its_last_digit(renderer):
    crate = block([0.3, 0.2, 0.25], "crate", (0.1, 0.2), 0.6)
    with composed_by_hand(renderer, [crate]) as (made, _):
        objects, depth_m = made.rendering.objects_and_depth(made.view)
        view = made.view
    rows, columns = np.nonzero(objects == 0)
    camera, z = view.intrinsics, np.rint(depth_m[rows, columns] * UNITS_PER_M) / UNITS_PER_M
    rays = [(columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy, np.ones(len(z))]
    world = (z * np.array(rays)).T @ view.axes.T + view.position_m
    local, half = (world - crate.box.centre_m) @ crate.box.axes, crate.box.extents_m / 2
    assert np.abs((half - np.abs(local)).min(axis=1)).max() < 2.5e-4


def test_the_projected_box_holds_the_mask(folder):
    for _, truth in all_parts(folder):
        camera = truth.annotation.intrinsics
        for found in truth.annotation.objects:
            x, y, z = found.vertices.T
            pixels = np.column_stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy])
            rows, columns = np.nonzero(decode_mask(found.mask))
            seen = np.column_stack([columns, rows])
            assert (seen >= pixels.min(axis=0) - 0.51).all(), found.label
            assert (seen <= pixels.max(axis=0) + 0.51).all(), found.label


def test_masks_and_depth_reach_the_stages_as_they_are(folder):
    for item, truth in all_parts(folder):
        frame = read_frame(item, folder)
        for stage in (GivenDetector(), KeepUnique(), GivenSegmenter(), DepthGeometry(folder)):
            frame = stage(frame)
        assert [one.label for one in frame.candidates] == [
            one.label for one in truth.annotation.objects
        ]
        camera = truth.annotation.intrinsics
        assert vars(frame.points.intrinsics) == pytest.approx(vars(camera), abs=1e-4)
        for candidate, found in zip(frame.candidates, truth.annotation.objects, strict=True):
            mask, true = candidate.mask, decode_mask(found.mask)
            # Masks of another size agree but for their rims, and for what is thin as a pixel.
            wrong = (mask & ~outer(true)).sum() + (inner(true) & ~mask).sum()
            assert wrong <= 0.01 * true.sum()
        for u, v, *xyz in truth.annotation.pixel_points:
            ray = [(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, 1.0]
            assert xyz == pytest.approx(xyz[2] * np.array(ray), abs=1e-4)


def test_a_shared_label_is_given_to_the_pipeline_and_left_out_of_the_truth(renderer):
    twins = [block([0.1, 0.1, 0.1], "mug", (-0.3, 0)), block([0.1, 0.1, 0.2], "mug", (0.3, 0))]
    objects = [*twins, block([0.1, 0.1, 0.1], "book")]
    with composed_by_hand(renderer, objects) as (made, item):
        assert len(made.rendered.visible) == 3
        truth = truth_of(made, item)
    assert [found.label for found in truth.annotation.objects] == ["book"]
    assert list(truth.visible_fraction) == ["book"]


def test_what_is_hardly_seen_counts_as_not_seen(renderer):
    objects = [block([0.3, 0.05, 0.2], "book"), block([0.6, 0.02, 0.19], "board", (0, -0.2))]
    view = view_from([0, -2.0, 0.3], [0, 0, 0.1])
    with renderer.load(bare_scene(objects, view)) as rendering:
        seen = render_view(rendering, objects, view)
    assert list(seen.visible) == [1] and (seen.objects == 0).any()
    assert MIN_VISIBLE < seen.visible[1] <= 1


def test_axes_of_symmetry_point_along_round_objects(renderer):
    can = replace(object_of(cylinder(0.1, 0, 0.3), "can"), symmetry="axis")
    toy = replace(object_of(ball(0.1), "ball"), symmetry="ball")
    objects = [stand(can, np.array([0.3, 0]), 0.3, 0.0), stand(toy, np.array([-0.3, 0]), 0, 0)]
    with composed_by_hand(renderer, objects) as (made, item):
        truth = truth_of(made, item)
        up = made.view.axes.T @ [0, 0, 1]
    assert truth.axes_of_symmetry["can"] == pytest.approx(up)
    assert truth.axes_of_symmetry["ball"] == (0.0, 0.0, 0.0)


def test_the_vertices_of_the_truth_are_in_the_order_of_all_boxes(folder):
    for _, truth in all_parts(folder):
        for found in truth.annotation.objects:
            edges = edges_of(found.vertices)
            corners = found.centre_m + CORNER_SIDES / 2 @ edges
            assert corners == pytest.approx(found.vertices, abs=3e-5)
            assert np.trace(edges / np.linalg.norm(edges, axis=1, keepdims=True)) > 1.0


def test_the_same_seed_and_number_write_the_same_bytes(renderer, folder, tmp_path):
    # Alone, in a context that has drawn other scenes before.
    write_scene(renderer, RECIPE, 2, tmp_path)
    for name in ("images/000002.jpg", "depth/000002.png", "parts/000002.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_other_seeds_splits_and_numbers_are_other_scenes(renderer, folder, tmp_path):
    pictures = {(folder / f"images/{number:06d}.jpg").read_bytes() for number in NUMBERS}
    for number, recipe in enumerate((Recipe(12, "held_out"), Recipe(11, "train"))):
        write_scene(renderer, recipe, 0, tmp_path / str(number))
        pictures.add((tmp_path / str(number) / "images/000000.jpg").read_bytes())
    assert len(pictures) == len(NUMBERS) + 2


def test_all_that_can_be_drawn_fits_the_depth_picture():
    assert FURTHEST_M * UNITS_PER_M < 2**16 - 1
