"""Each of the 25 rows reads a motion that was written in its own dataset's layout."""

import numpy as np
import pytest
import yaml
from oxe_folders import EXTERNAL_RGB, TABLE, WRIST_RGB, confirmed_table, record_of, written
from oxe_layouts import LAYOUTS
from oxe_motions import SENTENCE, STEPS
from oxe_recipes import RECIPES

from spear_policy.geometry import quaternions as quat
from spear_training.data.oxe.reader import OxeReader, store_metadata
from spear_training.data.oxe.table import load_table
from spear_training.data.reader import DataFileError

UNCONFIRMED = [name for name, row in TABLE.items() if row.unconfirmed]
SEVERAL = [name for name, row in TABLE.items() if len(row.unconfirmed) > 1]


@pytest.mark.parametrize("name", TABLE)
def test_a_motion_comes_back_from_its_dataset_s_own_layout(tmp_path, name):
    recipe, row = RECIPES[name], confirmed_table(tmp_path, name)[name]
    records, motions = zip(*(record_of(name, number) for number in range(2)), strict=True)
    reader = OxeReader(row, written(tmp_path, name, records))
    assert len(reader) == 2
    for index, motion in enumerate(motions):
        episode = reader.read(index)
        assert_poses(episode.poses, recipe.poses(motion))
        assert np.allclose(episode.gripper_openings, recipe.openings, atol=1e-5)
        assert_same(episode.gripper_commands, recipe.commands)
        commanded = recipe.commanded(motion)
        if commanded is None:
            assert episode.command_poses is None
        else:
            assert_poses(episode.command_poses, commanded)
        assert (episode.instruction, *episode.other_instructions) == (SENTENCE, *recipe.others)
        assert np.allclose(np.diff(episode.stamps_s), 1 / row.control_hz)
        assert episode.state_known == (name != "roboturk")
        assert episode.robot == row.robot
        assert episode.source["index"] == str(index)
        assert episode.images.keys() == row.cameras.keys()
        for camera, video in episode.images.items():
            colour = WRIST_RGB if camera.startswith("wrist") else EXTERNAL_RGB
            assert len(video) == STEPS - recipe.dropped
            assert np.abs(video[0].mean(axis=(0, 1)) - colour).max() < 4, camera


def assert_poses(got, expected):
    """Compare poses (T, 7) to the precision of float32."""
    assert got.shape == expected.shape
    assert np.abs(got[:, :3] - expected[:, :3]).max() < 1e-5
    assert quat.angle(got[:, 3:], expected[:, 3:]).max() < 1e-4


def assert_same(got, expected):
    """Compare values that may be missing."""
    if expected is None:
        assert got is None
    else:
        assert np.allclose(got, expected)


@pytest.mark.parametrize("name", UNCONFIRMED)
def test_a_row_with_unconfirmed_facts_refuses_and_says_what_to_check(tmp_path, name):
    folder = written(tmp_path, name, [record_of(name)[0]])
    row = TABLE[name]
    with pytest.raises(DataFileError) as caught:
        OxeReader(row, folder)
    said = str(caught.value)
    assert said.startswith(f"row {name} cannot be read until")
    for fact in row.unconfirmed:
        assert fact.key in said
        assert len(fact.check) > 20
        assert fact.check in said
    assert "--table" in said


@pytest.mark.parametrize("name", SEVERAL)
def test_one_fact_left_unconfirmed_still_refuses(tmp_path, name):
    keys = [fact.key.split(".") for fact in TABLE[name].unconfirmed]
    confirmed = RECIPES[name].confirmed
    first = keys[0]
    without = {
        entry: {k: v for k, v in values.items() if [entry, k] != first}
        for entry, values in confirmed.items()
    }
    path = tmp_path / "my_table.yaml"
    path.write_text(yaml.safe_dump({name: without}))
    with pytest.raises(DataFileError, match=".".join(first)):
        load_table(path)[name].require_confirmed()


def test_every_row_has_a_recipe_and_only_what_is_unconfirmed_is_confirmed():
    assert RECIPES.keys() == LAYOUTS.keys() == TABLE.keys()
    for name, recipe in RECIPES.items():
        assert bool(recipe.confirmed) == (name in UNCONFIRMED), name


@pytest.mark.parametrize("name", ["droid", "roboturk", "berkeley_cable_routing"])
def test_a_store_s_metadata_tell_where_numbers_are_from(tmp_path, name):
    row = confirmed_table(tmp_path, name)[name]
    metadata = store_metadata(OxeReader(row, written(tmp_path, name, [record_of(name)[0]])))
    assert metadata.action_from == ("commanded" if name == "droid" else "reached")
    assert metadata.gripper_from == ("measured" if "cable" in name else "commanded")
    assert metadata.state_known == (name != "roboturk")
    assert metadata.camera_names == (("external",) if name == "roboturk" else ("external", "wrist"))
    assert (metadata.row, metadata.row_hash) == (name, row.hash)
    assert metadata.source["dataset"] == row.source.name
