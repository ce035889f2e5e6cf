"""The objects of generated scenes: closed, of honest size, at rest, apart from one another."""

from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scene_samples import GREY, object_of, open_edges, volume_m3, winding

from spear_training.annotation.synthetic.furniture import (
    ALONG_WALLS,
    FREE,
    ON_FURNITURE,
)
from spear_training.annotation.synthetic.meshes import (
    Footprint,
    ball,
    box,
    cylinder,
    round_body,
    turn,
)
from spear_training.annotation.synthetic.objects import (
    ON_TABLES,
    Body,
    Part,
    PlacedObject,
    make_object,
)
from spear_training.annotation.synthetic.scenes import (
    LevelPlane,
    draw_objects,
    levels_on,
    room,
    table_top,
)
from spear_training.annotation.synthetic.textures import COLOURS

ALL_KINDS = tuple(dict.fromkeys((*ON_TABLES, *FREE, *ALONG_WALLS, *ON_FURNITURE)))
numbers = st.integers(0, 2**32)


@cache
def scene_of(family, seed):
    """Return a scene, made once."""
    return family(np.random.default_rng(seed))


def made(kind, seed):
    """Return one of a kind."""
    rng = np.random.default_rng(seed)
    name = str(rng.choice(kind.colours or list(COLOURS)))
    return make_object(rng, kind, name, True)


@pytest.mark.parametrize("kind", ALL_KINDS, ids=lambda kind: kind.word)
def test_every_kind_is_closed_faces_outward_and_has_an_honest_size(kind):
    for seed in range(2):
        object_ = made(kind, seed)
        for part in object_.body.parts:
            assert open_edges(part.surface) == 0
            assert volume_m3(part.surface) > 0
            assert np.isfinite(part.surface.texture_uv).all()
        longest = np.ptp(object_.vertices_m, axis=0).max()
        low, high = (0.03, 0.45) if kind in ON_TABLES else (0.15, 2.5)
        assert low < longest < high


@pytest.mark.parametrize("kind", ALL_KINDS, ids=lambda kind: kind.word)
def test_every_kind_lies_on_more_than_one_side_of_its_middle(kind):
    object_ = made(kind, 5)
    rested = object_.vertices_m @ object_.rest.T
    low, high = object_.resting_box_m
    touching = rested[rested[:, 2] < low[2] + 1e-3]
    middle = (low + high)[0] / 2
    # A ball touches in one point, below its middle.
    assert touching[:, 0].min() <= middle + 0.01 and touching[:, 0].max() >= middle - 0.01


def test_labels_name_a_colour_only_where_the_thing_has_one():
    objects = draw_objects(np.random.default_rng(0), ALL_KINDS, 40, twins=0.5)
    uncoloured = {kind.word for kind in ALL_KINDS if not kind.colours}
    words = {kind.word for kind in ALL_KINDS}
    for object_ in objects:
        name, _, rest = object_.label.partition(" ")
        assert object_.label in words or (name in COLOURS and rest in words - uncoloured)


def test_some_scenes_hold_two_of_a_kind_and_others_none():
    scenes = [[one.object.label for one in scene_of(table_top, seed).objects] for seed in range(12)]
    twins = sum(len(set(labels)) < len(labels) for labels in scenes)
    assert 0 < twins < len(scenes)


@pytest.mark.parametrize("family", [table_top, room])
def test_nothing_in_a_scene_goes_through_anything_else(family):
    for seed in range(6):
        scene = scene_of(family, seed)
        for one, other in combinations(scene.objects, 2):
            assert not _inside(one, other) and not _inside(other, one), (
                f"{one.object.label} and {other.object.label} of seed {seed}"
            )


def test_what_goes_through_something_is_noticed():
    low, high = object_of(box([1, 1, 1])), object_of(ball(0.2))
    there = PlacedObject(low, np.zeros(3), 0.3)
    assert _inside(PlacedObject(high, np.array([0.4, 0, 0]), 0.0), there)
    assert not _inside(PlacedObject(high, np.array([0.9, 0, 0]), 0.0), there)


@pytest.mark.parametrize("family", [table_top, room])
def test_everything_rests_on_something(family):
    for seed in range(4):
        scene = scene_of(family, seed)
        levels = [0.0]
        levels += [level.middle_m[2] for placed in scene.objects for level in levels_on(placed)]
        for placed in scene.objects:
            assert np.abs(np.array(levels) - placed.vertices_m[:, 2].min()).min() < 1e-9


def test_the_same_numbers_make_the_same_scene():
    for family in (table_top, room):
        first, second = scene_of(family, 1), family(np.random.default_rng(1))
        assert [one.object.label for one in first.objects] == [
            one.object.label for one in second.objects
        ]
        for one, other in zip(first.objects, second.objects, strict=True):
            assert (one.vertices_m == other.vertices_m).all()


@given(numbers)
def test_footprints_that_are_apart_share_no_point(seed):
    rng = np.random.default_rng(seed)
    one, other = (
        Footprint(rng.uniform(-1, 1, 2), rng.uniform(0.05, 1, 2), rng.uniform(-3, 3))
        for _ in range(2)
    )
    apart = one.apart_from(other, 0.0)
    assert apart == other.apart_from(one, 0.0)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 41)] * 2), axis=-1).reshape(-1, 2)
    points = one.centre_m + grid * one.half_m @ turn(one.yaw_rad).T
    within = np.abs((points - other.centre_m) @ turn(other.yaw_rad)) <= other.half_m
    if apart:
        assert not within.all(axis=1).any()
    elif within.all(axis=1).any():
        assert not one.apart_from(other, 0.0)


@settings(max_examples=20)
@given(numbers, st.floats(-3, 3))
def test_a_level_takes_only_what_fits_and_is_free(seed, yaw_rad):
    rng = np.random.default_rng(seed)
    level = LevelPlane(np.array([1.0, 2.0, 0.5]), (0.4, 0.3), yaw_rad, clearance_m=0.2)
    assert level.place(rng, object_of(box([0.1, 0.1, 0.3]))) is None  # too high
    assert level.place(rng, object_of(box([0.9, 0.1, 0.1]))) is None  # too long
    found = [level.place(rng, object_of(box([0.2, 0.1, 0.1]))) for _ in range(12)]
    found = [placed for placed in found if placed is not None]
    assert found
    for placed in found:
        local = (placed.vertices_m[:, :2] - level.middle_m[:2]) @ turn(yaw_rad)
        assert (np.abs(local) <= np.array(level.half_m) + 1e-9).all()
        assert placed.vertices_m[:, 2].min() == pytest.approx(0.5)
    for one, other in combinations(found, 2):
        assert one.footprint.apart_from(other.footprint, 0.0)


def test_shapes_have_their_volumes():
    assert volume_m3(box([1, 2, 3])) == pytest.approx(6)
    assert volume_m3(ball(1.0)) == pytest.approx(4 / 3 * np.pi, rel=0.02)
    assert volume_m3(cylinder(1.0, 0.5, 2.5)) == pytest.approx(2 * np.pi, rel=0.01)
    flat = round_body([[1, 0], [2, 0], [2, 1], [1, 1], [1, 0]])
    assert volume_m3(flat) == pytest.approx(3 * np.pi, rel=0.01)
    assert open_edges(flat) == 0
    assert winding(np.array([[1.5, 0, 0.5], [0, 0, 0.5]]), flat) == pytest.approx([1, 0])


def test_the_box_of_a_turned_thing_is_tight_along_its_own_axes():
    object_ = object_of(box([0.3, 0.2, 0.1]))
    placed = PlacedObject(object_, np.array([1.0, 2.0, 3.0]), 0.7)
    assert placed.box.extents_m == pytest.approx([0.3, 0.2, 0.1])
    local = (placed.vertices_m - placed.box.centre_m) @ placed.box.axes
    assert np.abs(local).max(axis=0) == pytest.approx(placed.box.extents_m / 2)


def test_normals_are_smooth_on_round_walls_and_sharp_at_edges():
    can = cylinder(1.0, 0.0, 1.0)
    normals = can.normals
    flat = np.abs(normals[:, 2]) > 0.999
    assert (flat | (np.abs(normals[:, 2]) < 1e-9)).all() and flat.any() and not flat.all()
    wall = can.vertices_m[~flat]
    assert (normals[~flat][:, :2] * wall[:, :2]).sum(axis=1) == pytest.approx(1, abs=1e-3)
    assert Body([Part(can, GREY)]).supports == ()


def _inside(one, other):
    """Whether a vertex of `one` is within a part of `other`; what rests on it is lifted 0.1 mm."""
    points = one.vertices_m
    if one.vertices_m[:, 2].min() > other.vertices_m[:, 2].min():
        points = points + [0, 0, 1e-4]
    elif one.vertices_m[:, 2].min() < other.vertices_m[:, 2].min():
        points = points - [0, 0, 1e-4]
    for part in other.object.body.parts:
        surface = part.surface.moved(other.position_m, other.axes)
        low, high = surface.vertices_m.min(axis=0), surface.vertices_m.max(axis=0)
        near = points[((points > low) & (points < high)).all(axis=1)]
        if len(near) and (winding(near, surface) > 0.6).any():
            return True
    return False
