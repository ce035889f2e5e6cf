"""Where things stand: reachable, apart from each other, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear_bringup.sim.table_top import (
    BOWL,
    CUBES,
    OBJECTS,
    PLATE,
    REACH_X_M,
    REACH_Y_M,
    fixed_layout,
    layout,
    too_close,
)
from spear_policy.geometry.poses import Pose

SEEDS = st.integers(0, 2**31 - 1)


@given(SEEDS)
def test_every_object_is_in_reach_and_stands_on_the_table(seed):
    poses = layout("random", seed)
    assert set(poses) == set(OBJECTS)
    for name, pose in poses.items():
        x, y, z = pose.position_m
        assert REACH_X_M[0] <= x <= REACH_X_M[1] and REACH_Y_M[0] <= y <= REACH_Y_M[1]
        assert z == pytest.approx(OBJECTS[name].height_m / 2)


@given(SEEDS)
def test_fingers_fit_between_any_two_objects(seed):
    assert not too_close(layout("random", seed))


@given(SEEDS)
def test_one_seed_means_one_layout(seed):
    first, second = layout("random", seed), layout("random", seed)
    for name in first:
        assert np.array_equal(first[name].position_m, second[name].position_m)
        assert np.array_equal(first[name].orientation_xyzw, second[name].orientation_xyzw)


def test_a_seed_means_the_same_on_every_machine():
    """Recorded trials name their seed: a change of this number makes them another scene."""
    red = layout("random", 7)["red cube"].position_m
    assert red == pytest.approx([0.3514216, 0.1606142, 0.02], abs=1e-7)


def test_seeds_differ():
    spots = {tuple(layout("random", seed)["red cube"].position_m) for seed in range(20)}
    assert len(spots) == 20


def test_objects_are_spread_over_the_whole_area():
    spots = np.array([layout("random", seed)["red cube"].position_m for seed in range(200)])
    assert np.ptp(spots[:, 0]) > 0.24 and np.ptp(spots[:, 1]) > 0.45


def test_the_fixed_layout_leaves_room_too():
    poses = fixed_layout()
    assert set(poses) == set(OBJECTS) and not too_close(poses)


def test_too_close_names_the_pair():
    poses = fixed_layout()
    x, y, z = poses["red cube"].position_m
    poses["blue cube"] = Pose((x + 0.05, y, z), poses["blue cube"].orientation_xyzw)
    assert ("red cube", "blue cube") in too_close(poses)


def test_a_negative_seed_and_an_unknown_layout_are_refused():
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        layout("random", -1)
    with pytest.raises(ValueError, match="choose one of random, fixed"):
        layout("heap", 0)


def test_a_cube_fits_into_the_bowl_and_onto_the_plate():
    for dish in (PLATE, BOWL):
        assert max(cube.side_m for cube in CUBES) / np.sqrt(2) < dish.floor_radius_m
