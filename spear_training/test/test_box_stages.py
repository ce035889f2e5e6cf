"""The stages from masks and points to stored objects."""

import time
from dataclasses import replace

import numpy as np
import pytest
from ray_scenes import frame_of, render, table_scene, truth_of

from spear_training.annotation.accuracy.compare import box_iou
from spear_training.annotation.accuracy.measure import DepthNoise, NoisyDepth
from spear_training.annotation.boxes import FitBoxes
from spear_training.annotation.clouds import MakeClouds, RemoveOutliers, without_outliers
from spear_training.annotation.records import decode_mask
from spear_training.annotation.stages import JobError, StageError

STAGES = (MakeClouds(), RemoveOutliers(), FitBoxes())


@pytest.fixture(scope="module")
def scene():
    """Return solids of a table scene and the frame that shows them."""
    solids, plane = table_scene(0, tilt_deg=(40, 41))
    depth, shown = render(solids, plane)
    return solids, frame_of(solids, depth, shown), truth_of(solids, shown)


def run(frame, stages=STAGES):
    for stage in stages:
        frame = stage(frame)
    return frame


def boxes_of(frame):
    return {found.label: found.annotated for found in frame.candidates}


def with_points(frame, change):
    points = frame.points.points_m.copy()
    change(points)
    return replace(frame, points=replace(frame.points, points_m=points))


def test_boxes_of_a_scene_are_close_to_the_truth(scene):
    solids, frame, truth = scene
    found = boxes_of(run(frame))
    for there in truth.annotation.objects:
        if there.label.startswith("box"):
            assert box_iou(found[there.label].vertices, there.vertices) > 0.85


def test_noise_and_false_points_at_edges_cost_little(scene):
    solids, frame, truth = scene
    spoilt = NoisyDepth(DepthNoise())(frame)
    found = boxes_of(run(spoilt))
    ious = [
        box_iou(found[there.label].vertices, there.vertices)
        for there in truth.annotation.objects
        if there.label.startswith("box") and there.label in found
    ]
    bare = boxes_of(run(spoilt, (MakeClouds(jump_share=0, part_share=0), FitBoxes())))
    without = [box_iou(bare[o.label].vertices, o.vertices) for o in truth.annotation.objects]
    assert np.median(ious) > 0.7
    assert np.median(without) < 0.4


def test_the_same_picture_gives_the_same_bits_and_another_id_other_points(scene):
    frame = scene[1]
    first, second = boxes_of(run(frame)), boxes_of(run(frame))
    assert first == second
    other = run(replace(frame, item=replace(frame.item, id="table/1")))
    assert boxes_of(other).keys() == first.keys()
    thinned = [found.label for found in frame.candidates if found.mask.sum() > 12_000]
    assert thinned
    assert all(boxes_of(other)[label].sample_m != first[label].sample_m for label in thinned)


def test_a_record_says_what_the_cloud_says(scene):
    frame = run(scene[1])
    for candidate in frame.candidates:
        found, cloud = candidate.annotated, candidate.cloud_m
        distances = np.linalg.norm(cloud, axis=1)
        assert np.linalg.norm(found.closest_m) == distances.min()
        assert np.linalg.norm(found.furthest_m) == distances.max()
        assert found.cloud_size == len(cloud)
        assert len(found.sample_m) == 32
        assert {tuple(point) for point in cloud.tolist()} >= set(found.sample_m)
        assert np.array_equal(decode_mask(found.mask), candidate.mask)
        inside = (cloud - found.vertices[0]) @ np.linalg.inv(
            found.vertices[[4, 2, 1]] - found.vertices[0]
        )
        assert inside.min() > -1e-6
        assert inside.max() < 1 + 1e-6


def test_clouds_are_thinned_to_the_limit(scene):
    thinned = MakeClouds(most_points=500)(scene[1])
    assert {len(found.cloud_m) for found in thinned.candidates} == {500}


def test_objects_that_cannot_be_used_say_why(scene):
    frame = scene[1]
    labels = [found.label for found in frame.candidates]
    masks = {found.label: found.mask for found in frame.candidates}

    def spoil(points):
        points[masks[labels[0]]] = np.nan
        rows, columns = np.nonzero(masks[labels[1]])
        points[rows[20:], columns[20:]] = np.inf

    empty = replace(frame.candidates[2], mask=np.zeros_like(frame.candidates[2].mask))
    frame = replace(frame, candidates=(*frame.candidates[:2], empty, *frame.candidates[3:]))
    done = run(with_points(frame, spoil))
    reasons = {lost.label: lost.reason for lost in done.dropped}
    assert reasons.keys() == set(labels[:3])
    assert reasons[labels[0]] == "no depth inside its mask"
    assert "points, fewer than 50" in reasons[labels[1]]
    assert reasons[labels[2]] == "its mask is empty"
    assert [found.label for found in done.candidates] == labels[3:]


def test_a_cloud_on_a_line_is_dropped_with_that_reason(scene):
    frame = MakeClouds()(scene[1])
    line = np.linspace(0.5, 1.0, 200)[:, None] * [[0.1, 0.2, 1.0]]
    frame = replace(frame, candidates=(replace(frame.candidates[0], cloud_m=line),))
    done = FitBoxes()(frame)
    assert not done.candidates
    assert done.dropped[-1].reason == "its points lie on a line"


def test_an_object_that_is_larger_than_a_room_is_dropped_where_lengths_are_metres(scene):
    frame = run(scene[1], STAGES[:-1])
    large = [replace(found, cloud_m=found.cloud_m * 1000) for found in frame.candidates]
    frame = replace(frame, candidates=tuple(large))
    dropped = FitBoxes()(frame).dropped
    assert len(dropped) == len(large)
    assert all("m long, over boxes.largest_m (10): check units_per_m" in d.reason for d in dropped)
    unit_less = replace(frame, points=replace(frame.points, metric=False))
    assert len(FitBoxes()(unit_less).candidates) == len(FitBoxes(1, 1e5)(frame).candidates) > 0


def test_points_of_the_background_inside_the_mask_do_not_count(scene):
    solids, frame, truth = scene
    wide = []
    for found in frame.candidates:
        mask = found.mask.copy()
        for shift in ((2, 0), (-2, 0), (2, 1), (-2, 1)):
            mask |= np.roll(found.mask, *shift)
        wide.append(replace(found, mask=mask))
    exact = boxes_of(run(frame))
    rough = boxes_of(run(replace(frame, candidates=tuple(wide))))
    ious = [box_iou(exact[label].vertices, rough[label].vertices) for label in exact]
    assert np.median(ious) > 0.6


def test_a_point_far_from_all_others_is_an_outlier():
    rng = np.random.default_rng(0)
    cloud = rng.uniform(0, 0.1, (500, 3))
    cleaned = without_outliers(np.vstack([cloud, [[0.5, 0.5, 0.5]]]), 20, 2.0)
    assert len(cleaned) >= 450
    assert cleaned.max() <= 0.1
    few = cloud[:10]
    assert np.array_equal(without_outliers(few, 20, 2.0), few)


def test_too_few_points_left_drop_the_object(scene):
    frame = MakeClouds()(scene[1])
    done = RemoveOutliers(min_points=9_990)(frame)
    assert all("without outliers, fewer than 9990" in lost.reason for lost in done.dropped)
    assert done.dropped


def test_stages_in_the_wrong_order_say_so(scene):
    frame = scene[1]
    bare = replace(frame, candidates=(replace(frame.candidates[0], mask=None),))
    for stage, wrong, said in (
        (MakeClouds(), replace(frame, points=None), "geometry stage before"),
        (MakeClouds(), bare, "segmenter before"),
        (RemoveOutliers(), frame, "clouds before outliers"),
        (FitBoxes(), frame, "clouds before boxes"),
    ):
        with pytest.raises(StageError, match=said):
            stage(wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MakeClouds(jump_share=-1),
        lambda: MakeClouds(min_points=3),
        lambda: MakeClouds(most_points=10, min_points=50),
        lambda: MakeClouds(part_share=2),
        lambda: RemoveOutliers(neighbours=0),
        lambda: RemoveOutliers(sigmas=0),
        lambda: FitBoxes(sample_points=0),
    ],
)
def test_settings_that_cannot_work_stop_the_job(make):
    with pytest.raises(JobError):
        make()


def test_each_stage_says_what_its_result_depends_on():
    assert [stage.name for stage in STAGES] == ["clouds", "outliers", "boxes"]
    assert all(stage.parallel == 1 and stage.settings for stage in STAGES)


def test_a_large_object_takes_well_under_a_second(scene):
    frame = scene[1]
    largest = max(frame.candidates, key=lambda found: found.mask.sum())
    started = time.process_time()
    run(replace(frame, candidates=(largest,)))
    assert time.process_time() - started < 1.0
