"""The mixture table: what ships is Table 4, and a user's file changes it, or is refused."""

import dataclasses

import pytest
import yaml

from spear_training.data.oxe.table import find_row, load_table, merged, plain
from spear_training.data.reader import DataFileError

# Weight and steps a second of each row, as the paper and the facts have them.
TABLE_4 = {
    "austin_buds_dataset": (0.5, 20),
    "austin_sailor_dataset": (2.0, 20),
    "austin_sirius_dataset": (0.5, 20),
    "berkeley_autolab_ur5": (1.0, 5),
    "berkeley_cable_routing": (0.1, 10),
    "berkeley_fanuc_manipulation": (1.0, 10),
    "bridge": (18.0, 5),
    "dlr_edan_shared_control": (0.1, 5),
    "droid": (35.0, 15),
    "fmb": (1.5, 10),
    "fractal20220817_data": (12.0, 3),
    "furniture_bench_dataset": (1.5, 10),
    "iamlab_cmu_pickup_insert": (0.3, 20),
    "kuka": (4.0, 10),
    "language_table": (1.5, 10),
    "nyu_franka_play_dataset": (0.3, 3),
    "roboset_kinesthetic": (2.0, 5),
    "roboset_teleoperation": (5.0, 5),
    "roboturk": (3.0, 10),
    "stanford_hydra_dataset": (3.0, 10),
    "taco_play": (2.0, 15),
    "toto": (1.5, 30),
    "ucsd_kitchen_dataset": (0.2, 2),
    "utaustin_mutex": (3.0, 20),
    "viola": (1.0, 20),
}


@pytest.fixture
def my_table(tmp_path):
    """Return a function that loads the table with changes given as values or as text."""

    def load(changes):
        path = tmp_path / "my_table.yaml"
        path.write_text(changes if isinstance(changes, str) else yaml.safe_dump(changes))
        return load_table(path)

    return load


def test_the_table_is_table_4():
    rows = load_table()
    assert {name: (row.weight, row.control_hz) for name, row in rows.items()} == TABLE_4
    assert sum(row.weight for row in rows.values()) == pytest.approx(100.0)
    assert len({row.source.name for row in rows.values()}) == 24


def test_wrist_cameras_are_where_the_data_have_them():
    rows = load_table().values()
    wrist = sum(row.weight for row in rows if "wrist" in row.cameras)
    assert wrist == pytest.approx(59.4)
    assert all(row.notes for row in rows)


def test_a_user_confirms_one_key(my_table):
    before = load_table()["austin_buds_dataset"]
    after = my_table({"austin_buds_dataset": {"gripper_opening": {"open_at": 0.08}}})[before.name]
    assert [fact.key for fact in before.unconfirmed] == ["gripper_opening.open_at"]
    assert after.unconfirmed == ()
    after.require_confirmed()
    assert after.gripper_opening.open_at == 0.08
    assert after.gripper_opening.key == "observation/state"
    assert load_table()[before.name] == before


def test_another_encoding_replaces_the_whole_entry(my_table):
    joints = {"encoding": "franka_joints", "key": "observation/joint_pos"}
    row = my_table({"fmb": {"pose": joints}})["fmb"]
    assert row.pose.key == "observation/joint_pos"
    assert type(row.pose).__name__ == "JointPose"


def test_null_takes_an_entry_away(my_table):
    rows = my_table({"droid": {"conditions": None, "cameras": {"external_1": None}}})
    assert rows["droid"].conditions == ()
    assert rows["droid"].cameras.keys() == {"external", "wrist"}


def test_merging_leaves_both_sides_as_they_were():
    old, change = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}}
    assert merged(old, change) == {"a": {"b": 9, "c": 2}, "d": 3}
    assert (old, change) == ({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"droit": {"weight": 1}}, "unknown row 'droit'; the table has austin_buds"),
        ({"droid": {"wait": 1}}, "row droid has the unknown field 'wait'"),
        ({"droid": {"weight": 34}}, "the weights sum to 99, not to 100"),
        ({"droid": {"weight": -1}}, "row droid: weight is -1: it must be positive"),
        ({"droid": {"robot": " "}}, "row droid: robot is ' ': it must be a name"),
        ({"droid": {"control_hz": None}}, "row droid lacks the field 'control_hz'"),
        ({"droid": 3}, "row droid is 3: it must have entries"),
        ({"droid": {"pose": {"encoding": "voxels"}}}, "droid.pose has encoding 'voxels'"),
        ({"droid": {"command": "guessed"}}, "or the word reached"),
        ({"droid": {"pose": {"axes": "xyx"}}}, "axes are 'xyx'"),
        ({"droid": {"pose": {"axes": "detect"}}}, "'detect' needs `joints`"),
        ({"droid": {"pose": {"axis": "xyz"}}}, "unknown field 'axis'"),
        ({"droid": {"pose": {"angle_unit": "turns"}}}, "it may be one of rad, deg"),
        ({"droid": {"cameras": {"external": None}}}, "must name the camera `external`"),
        ({"droid": {"cameras": {"wrist": {"channels": "gbr"}}}}, "may be one of rgb, bgr"),
        ({"droid": {"cameras": {"wrist": {"native_aspect": [4]}}}}, r"must be \[width, height\]"),
        ({"droid": {"gripper_opening": {"open_at": 1.0}}}, "are the same number"),
        (
            {"droid": {"gripper_opening": {"open_at": None}}},
            "row droid: it lacks the field 'gripper_opening.open_at'",
        ),
        ({"droid": {"conditions": [{"key": "k"}]}}, "needs one of equals, contains, matches"),
        ({"droid": {"conditions": [{"key": "k", "matches": "("}]}}, "no regular expression"),
        ({"droid": {"conditions": "all"}}, "it must be a list"),
        ({"droid": {"pose": {"unconfirmed": "x", "key": "y"}}}, "`unconfirmed` stands alone"),
        ("droid: [", "not a YAML file"),
        ("- droid", "must hold rows by name"),
    ],
)
def test_a_table_that_cannot_be_is_refused(my_table, changes, text):
    with pytest.raises(DataFileError, match=text) as caught:
        my_table(changes)
    assert "my_table.yaml" in str(caught.value)


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataFileError, match=r"none.yaml: cannot be read \(No such file"):
        load_table(tmp_path / "none.yaml")


def test_an_unknown_row_is_answered_with_the_known_ones():
    with pytest.raises(DataFileError, match="no row 'bridge_v2' in the mixture table; it has"):
        find_row(load_table(), "bridge_v2")


def test_the_hash_follows_what_decides_an_episode_and_nothing_else(my_table):
    row = load_table()["droid"]
    assert row.hash == load_table()["droid"].hash
    assert len({each.hash for each in load_table().values()}) == 25
    for same in ({"weight": 1.0}, {"notes": ()}, {"source": None}):
        assert dataclasses.replace(row, **same).hash == row.hash
    for other in (
        {"control_hz": 16.0},
        {"conditions": ()},
        {"robot": "UR5"},
        {"command": "reached"},
    ):
        assert dataclasses.replace(row, **other).hash != row.hash
    swapped = my_table({"droid": {"cameras": {"wrist": {"channels": "bgr"}}}})["droid"]
    assert swapped.hash != row.hash


def test_rules_become_plain_values_that_name_their_kind():
    pose = plain(load_table()["bridge"].pose)
    assert (pose["kind"], pose["axes"], len(pose["default_rotation"])) == ("EulerPose", "xyz", 9)
