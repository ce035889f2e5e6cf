"""Depth as bad as a camera's."""

from dataclasses import replace

import numpy as np
import pytest
from ray_scenes import frame_of, render, table_scene

from spear_training.annotation.accuracy.measure import (
    DepthNoise,
    NoisyDepth,
    axial_sigma_m,
    noisy_depth,
)
from spear_training.annotation.stages import StageError

ONLY_AXIAL = DepthNoise(correlation_px=0, edge_px=0, hole_share=0)


@pytest.mark.parametrize("correlation_px", [0.0, 2.0])
@pytest.mark.parametrize("depth_m", [0.5, 1.0, 3.0])
def test_the_noise_has_the_size_that_the_source_gives(depth_m, correlation_px):
    true = np.full((400, 400), depth_m)
    noise = replace(ONLY_AXIAL, correlation_px=correlation_px)
    error = noisy_depth(true, noise) - true
    sigma = 0.0012 + 0.0019 * (depth_m - 0.4) ** 2
    assert axial_sigma_m(depth_m) == pytest.approx(sigma)
    assert error.std() == pytest.approx(sigma, rel=0.02)
    assert abs(error.mean()) < 0.1 * sigma
    beside = np.corrcoef(error[:, :-1].ravel(), error[:, 1:].ravel())[0, 1]
    assert (beside > 0.9) if correlation_px else (abs(beside) < 0.02)


def test_false_points_lie_between_the_surfaces_and_only_at_the_jump():
    true = np.where(np.arange(100)[None, :] < 50, 1.0, 2.0) * np.ones((60, 1))
    noise = DepthNoise(axial_scale=0, hole_share=0, edge_px=2, edge_share=0.5)
    found = noisy_depth(true, noise)
    false = found != true
    assert set(np.nonzero(false)[1]) == {48, 49, 50, 51}
    assert false[:, 48:52].mean() == pytest.approx(0.5, abs=0.1)
    assert ((found[false] > 1.0) & (found[false] < 2.0)).all()
    assert np.std(found[false]) > 0.2


def test_holes_are_as_many_as_told_and_unknown_stays_unknown():
    true = np.ones((300, 300))
    true[:10], true[10:20], true[20:30] = 0.0, np.nan, np.inf
    found = noisy_depth(true, DepthNoise(hole_share=0.05))
    assert (found[:30] == 0).all()
    assert (found[30:] == 0).mean() == pytest.approx(0.05, abs=0.005)
    assert np.isfinite(found).all()


def test_a_hole_is_no_jump():
    true = np.ones((50, 50))
    true[20:30, 20:30] = 0.0
    found = noisy_depth(true, DepthNoise(axial_scale=0, hole_share=0))
    assert np.array_equal(found, true)


def test_seed_and_name_decide():
    true = np.ones((20, 20))
    first = noisy_depth(true, DepthNoise(), "a")
    assert np.array_equal(first, noisy_depth(true, DepthNoise(), "a"))
    assert not np.array_equal(first, noisy_depth(true, DepthNoise(), "b"))
    assert not np.array_equal(first, noisy_depth(true, DepthNoise(seed=1), "a"))


def test_the_stage_moves_points_along_their_rays():
    frame = frame_of([], *render(*table_scene(0)))
    stage = NoisyDepth()
    before, after = frame.points.points_m, stage(frame).points.points_m
    kept = np.isfinite(after).all(axis=-1)
    assert kept.mean() == pytest.approx(0.99, abs=0.005)
    rays = before / before[..., 2:]
    assert np.allclose(after[kept], (rays * after[..., 2:])[kept], atol=1e-5)
    moved = np.abs(after[..., 2] - before[..., 2])[kept]
    assert 0.0005 < np.median(moved) < 0.005
    assert stage.settings["seed"] == 0
    assert np.isnan(after[~kept]).all()


def test_the_stage_needs_points():
    frame = frame_of([], np.ones((630, 840)), np.zeros((630, 840), int))
    with pytest.raises(StageError, match="behind the geometry"):
        NoisyDepth()(replace(frame, points=None))
