"""The reader of the mixture's rows: motion, sentences and pictures of each row, and bad files."""

import dataclasses
import pickle
from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
import yaml
from hypothesis import assume, given
from oxe_folders import EXTERNAL_RGB, TABLE, WRIST_RGB, confirmed_table, record_of, written
from oxe_layouts import LAYOUTS
from oxe_motions import SENTENCE, STEPS
from oxe_recipes import RECIPES
from oxe_writing import picture, write_folder

from spear_policy.geometry import quaternions as quat
from spear_policy.inference.episode import EpisodeError
from spear_training.data.oxe.inspect_row import main as inspect_row
from spear_training.data.oxe.reader import (
    BridgeReader,
    OxeReader,
    follow_events,
    linear_opening,
    read_gripper,
    read_sentences,
    store_metadata,
    text_from_code_units,
    tidy,
)
from spear_training.data.oxe.table import (
    ConstantGripper,
    GripperEvents,
    Language,
    LinearGripper,
    load_table,
)
from spear_training.data.reader import DataFileError, NotSelectedError


def changed(name, **changes):
    """Return a record of a row with some features changed; in names, __ stands for /."""
    record, _ = record_of(name)
    return record | {key.replace("__", "/"): value for key, value in changes.items()}


def path(text):
    """Return the feature of an episode's path."""
    return {"episode_metadata__file_path": [text.encode()]}


def test_the_real_folder_is_that_of_the_row_bridge(bridge_rlds_dir):
    reader, other = OxeReader(TABLE["bridge"], bridge_rlds_dir), BridgeReader(bridge_rlds_dir)
    assert reader.name == other.name == "bridge_dataset-train"
    one, same = reader.read(7), other.read(7)
    assert np.array_equal(one.poses, same.poses)
    assert one.source == same.source
    assert one.source["row"] == "bridge"


def test_the_kitchen_sink_subset_takes_the_episodes_of_its_environment(bridge_rlds_dir, tmp_path):
    real = OxeReader(TABLE["bridge"], bridge_rlds_dir, subset="single_kitchen_sink")
    assert real.name == "bridge_dataset-single_kitchen_sink-train"
    assert real.subset.expected_share == 0.41
    with pytest.raises(NotSelectedError, match="is '/nfs/.*/toysink2_bww/.*, wanted is a text"):
        real.read(0)
    base = "/nfs/numpy_256"
    taken = [
        f"{base}/bridge_data_v1/berkeley/toykitchen2/close_fridge/train/out.npy",
        f"{base}/bridge_data_v1/berkeley/toykitchen2_room8052/flip_pot/train/out.npy",
        f"{base}/bridge_data_v2/datacol2_toykitchen2/many_skills/19/train/out.npy",
        f"{base}/bridge_data_v2/deepthought_toykitchen2/open_microwave/01/train/out.npy",
        f"{base}/rss/toykitchen2/set_table/00/train/out.npy",
    ]
    left = [
        f"{base}/bridge_data_v1/berkeley/toykitchen1/put_cup_in_toykitchen2/train/out.npy",
        f"{base}/bridge_data_v2/datacol1_toykitchen6/pnp_sweep/00/train/out.npy",
        f"{base}/bridge_data_v1/berkeley/toysink3_bww/put_cup_in_sink/train/out.npy",
    ]
    records = [changed("bridge", **path(text)) for text in taken + left]
    reader = OxeReader(
        TABLE["bridge"], written(tmp_path, "bridge", records), subset="single_kitchen_sink"
    )
    for index in range(len(records)):
        if index < len(taken):
            assert reader.read(index).source["recorded_as"] == taken[index]
        else:
            with pytest.raises(NotSelectedError):
                reader.read(index)


def test_a_subset_that_does_not_exist_is_refused(bridge_rlds_dir):
    with pytest.raises(DataFileError, match="no subset 'sink'; it has single_kitchen_sink"):
        OxeReader(TABLE["bridge"], bridge_rlds_dir, subset="sink")


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("droid", path("/lab/failure/2023/7.h5"), "wanted is a text with 'success'"),
        ("kuka", {"success": np.array([False])}, "success is 'False', wanted is True"),
        ("roboset_kinesthetic", path("/data/teleoperation/7.h5"), "a text like '/kinesthetic/'"),
        ("roboset_teleoperation", path("/data/kinesthetic/7.h5"), "a text like '/teleoperation/'"),
    ],
)
def test_episodes_that_a_row_does_not_take_are_not_selected(tmp_path, name, changes, text):
    row = confirmed_table(tmp_path, name)[name]
    records = [record_of(name)[0], changed(name, **changes)]
    reader = OxeReader(row, written(tmp_path, name, records))
    assert len(reader.read(0)) == STEPS
    with pytest.raises(NotSelectedError, match=text):
        reader.read(1)


def test_both_parts_of_roboset_have_names_of_their_own(tmp_path):
    names = set()
    for name in ("roboset_kinesthetic", "roboset_teleoperation"):
        row = confirmed_table(tmp_path, name)[name]
        names.add(OxeReader(row, written(tmp_path, name, [record_of(name)[0]])).name)
    assert names == {"robo_set-kinesthetic-train", "robo_set-teleoperation-train"}


def test_another_dataset_or_version_is_refused(tmp_path):
    records, layout = [record_of("viola")[0]], LAYOUTS["viola"]
    other = write_folder(tmp_path / "other", layout, records, "viola_again", "0.1.0")
    with pytest.raises(DataFileError, match="holds the dataset 'viola_again'; the row viola"):
        OxeReader(TABLE["viola"], other)
    newer = write_folder(tmp_path / "newer", layout, records, "viola", "0.2.0")
    with pytest.raises(DataFileError, match="version 0.2.0 of viola; the row viola describes 0.1"):
        OxeReader(TABLE["viola"], newer)
    source = dataclasses.replace(TABLE["viola"].source, versions=("0.2.0",))
    row = dataclasses.replace(TABLE["viola"], source=source)
    assert len(OxeReader(row, newer).read(0)) == STEPS


def test_another_layout_is_refused_by_the_feature_that_it_lacks(tmp_path):
    record, _ = record_of("toto")
    folder = write_folder(tmp_path / "viola", LAYOUTS["toto"], [record], "viola", "0.1.0")
    with pytest.raises(DataFileError, match="has no feature steps/observation/ee_states; it has"):
        OxeReader(TABLE["viola"], folder).read(0)


def test_an_episode_without_its_wrist_camera_has_none_and_without_its_external_is_refused(tmp_path):
    black = [picture(180, 320, 0, 0, 0)] * STEPS
    records = [
        changed("droid", steps__observation__wrist_image_left=black),
        changed("droid", steps__observation__exterior_image_1_left=black),
    ]
    reader = OxeReader(TABLE["droid"], written(tmp_path, "droid", records))
    assert reader.read(0).images.keys() == {"external", "external_1"}
    with pytest.raises(EpisodeError, match="exterior_image_1_left is black in every step"):
        reader.read(1)


def test_a_camera_that_is_black_at_first_is_there(tmp_path):
    late = [picture(180, 320, 0, 0, 0)] * (STEPS - 1) + [picture(180, 320, 9, 99, 9)]
    record = changed("droid", steps__observation__wrist_image_left=late)
    episode = OxeReader(TABLE["droid"], written(tmp_path, "droid", [record])).read(0)
    assert "wrist" in episode.images


def test_a_damaged_picture_is_named_when_it_is_decoded(tmp_path):
    pictures = [picture(180, 320, 9, 99, 9)] * STEPS
    pictures[4] = b"no picture"
    records = [
        record_of("droid")[0],
        changed("droid", steps__observation__wrist_image_left=pictures),
    ]
    folder = written(tmp_path, "droid", records)
    episode = OxeReader(TABLE["droid"], folder).read(1)
    assert episode.images["wrist"][3].shape == (180, 320, 3)
    with pytest.raises(EpisodeError, match=r"picture 4: is damaged \(10 bytes\)"):
        episode.images["wrist"][4]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"steps__observation__cartesian_position": np.full((STEPS, 6), np.nan)}, "not finite"),
        ({"steps__observation__gripper_position": np.full((STEPS, 1), 7.0)}, r"position\[0\] is 7"),
        ({f"steps__language_instruction{end}": [b""] * STEPS for end in ("", "_2", "_3")}, "empty"),
    ],
)
def test_an_unusable_episode_names_row_file_and_record_and_leaves_the_others(
    tmp_path, changes, text
):
    records = [record_of("droid", 0)[0], changed("droid", **changes), record_of("droid", 1)[0]]
    reader = OxeReader(TABLE["droid"], written(tmp_path, "droid", records))
    with pytest.raises(EpisodeError, match=text) as caught:
        reader.read(1)
    assert not isinstance(caught.value, NotSelectedError)
    assert str(caught.value).startswith("row droid: ")
    assert "tfrecord-00000-of-00001: record 1" in str(caught.value)
    assert len(reader.read(0)) == len(reader.read(2)) == STEPS


def test_empty_further_instructions_are_left_out(tmp_path):
    record = changed("droid", steps__language_instruction_2=[b""] * STEPS)
    episode = OxeReader(TABLE["droid"], written(tmp_path, "droid", [record])).read(0)
    assert episode.other_instructions == ("move the cup",)


def test_a_truncated_file_loses_only_what_is_behind_the_cut(tmp_path):
    folder = written(tmp_path, "viola", [record_of("viola", number)[0] for number in range(3)])
    (shard,) = folder.glob("*.tfrecord-*")
    shard.write_bytes(shard.read_bytes()[: int(shard.stat().st_size * 0.9)])
    reader = OxeReader(TABLE["viola"], folder)
    assert len(reader) == 3
    assert len(reader.read(0)) == len(reader.read(1)) == STEPS
    with pytest.raises(DataFileError, match="record 2 at byte .* is cut short"):
        reader.read(2)


def test_a_dataset_whose_orders_its_joints_do_not_tell_is_refused_at_once(tmp_path):
    name = "furniture_bench_dataset"
    record, _ = record_of(name)
    still = {key: value[:1] for key, value in record.items() if key.startswith("steps/")}
    with pytest.raises(DataFileError, match=f"row {name}: pose.order: .* turned too little"):
        OxeReader(TABLE[name], written(tmp_path, name, [record | still]))


def test_one_step_of_commands_that_are_reached_later_is_no_episode(tmp_path):
    name = "ucsd_kitchen_dataset"
    row = confirmed_table(tmp_path, name)[name]
    record, _ = record_of(name)
    short = {key: value[:1] for key, value in record.items() if key.startswith("steps/")}
    reader = OxeReader(row, written(tmp_path, name, [record, record | short]))
    assert len(reader.read(0)) == STEPS - 1
    with pytest.raises(EpisodeError, match="it has no step whose pose is commanded"):
        reader.read(1)


def test_reader_and_episodes_go_to_other_processes(tmp_path):
    folder = written(tmp_path, "droid", [record_of("droid")[0]])
    reader = pickle.loads(pickle.dumps(OxeReader(TABLE["droid"], folder)))
    episode = pickle.loads(pickle.dumps(reader.read(0)))
    assert episode.images["external"][0].shape == (180, 320, 3)


def test_inspect_row_shows_what_confirms_a_row(tmp_path, capsys):
    name = "stanford_hydra_dataset"
    folder = written(tmp_path, name, [record_of(name, number)[0] for number in range(3)])
    assert inspect_row([name, str(folder)]) == 0
    said = capsys.readouterr().out
    assert "unconfirmed: gripper_opening.open_at: " in said
    assert "observation/state[24]  0.0240  " in said
    assert "observation/state[3:7]; the hand's z axis on average read xyzw" in said
    assert "the hand wanders on the flange by [deg]: xyzw" in said
    assert "wxyz 0.0; the true order" in said
    assert "followed a sudden change of action[6] in the same direction 0 times" in said
    assert "in the opposite 6 times" in said
    assert "language_instruction: 'put the cup on the plate'" in said


def test_inspect_row_tells_the_share_of_a_subset(bridge_rlds_dir, tmp_path, capsys):
    assert inspect_row(["bridge", str(bridge_rlds_dir)]) == 0
    assert "single_kitchen_sink takes 0 of these episodes (0%)" in capsys.readouterr().out
    records = [record_of("droid")[0], changed("droid", **path("/lab/failure/7.h5"))]
    assert inspect_row(["droid", str(written(tmp_path, "droid", records))]) == 0
    assert "the row takes 1 of these episodes (50%)" in capsys.readouterr().out


def test_inspect_row_says_what_it_cannot_do(tmp_path, capsys):
    assert inspect_row(["viola", str(tmp_path)]) == 2
    assert "dataset_info.json: cannot be read" in capsys.readouterr().err
    assert inspect_row(["violin", str(tmp_path)]) == 2
    assert "no row 'violin'" in capsys.readouterr().err


def test_a_folder_that_calls_itself_otherwise_is_taken_if_the_table_knows_it(tmp_path):
    records = [record_of("droid")[0]]
    for name in ("droid_101", "r2d2_faceblur"):
        folder = write_folder(tmp_path / name, LAYOUTS["droid"], records, name, "1.0.1")
        assert len(OxeReader(TABLE["droid"], folder).read(0)) == STEPS
    folder = write_folder(tmp_path / "other", LAYOUTS["droid"], records, "other", "1.0.1")
    with pytest.raises(DataFileError, match="holds the dataset 'other'.*also_called"):
        OxeReader(TABLE["droid"], folder)


# Each of the 25 rows reads a motion that was written in its own dataset's layout --------------

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


# Gripper numbers and sentences, from however a dataset writes them ----------------------------


def linear(closed_at, open_at, **more):
    """Return a rule for the feature `state`."""
    return LinearGripper(key="state", closed_at=closed_at, open_at=open_at, **more)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=5),
    st.floats(-10, 10),
    st.floats(-10, 10),
)
def test_openings_come_back_from_any_two_numbers(openings, closed_at, open_at):
    assume(abs(open_at - closed_at) > 1e-2)
    written = closed_at + np.array(openings) * (open_at - closed_at)
    assert np.allclose(linear_opening(linear(closed_at, open_at), written, "state"), openings)


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        (linear(0.0, 0.08), [0, 0.04, 0.08, 0.0805], [0, 0.5, 1, 1]),  # a width in m
        (linear(1.0, 0.0), [0, 0.25, 1], [1, 0.75, 0]),  # closedness
        (linear(1.0, -1.0), [-1, 0, 1], [1, 0.5, 0]),  # -1 opens, 1 closes
        (linear(1.0, 0.0, saturate=True), [-1, 0, 1, 1.5], [1, 1, 0, 0]),
    ],
)
def test_each_form_of_a_gripper_s_number(rule, values, expected):
    assert np.allclose(linear_opening(rule, np.array(values), "state"), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, 40.0])
def test_a_number_that_no_gripper_has_names_its_step_and_the_range(value):
    with pytest.raises(EpisodeError, match=r"gripper state\[1\] is .* 0 \(closed\) to 0.08 \(open"):
        linear_opening(linear(0.0, 0.08), np.array([0.0, value]), "state")


def test_a_saturated_number_must_be_finite_too():
    with pytest.raises(EpisodeError, match=r"state\[0\] is inf"):
        linear_opening(linear(1.0, 0.0, saturate=True), np.array([np.inf]), "state")


def events(values, openings=None):
    """Return the commands of some events."""
    rule = GripperEvents(key="action")
    return follow_events(rule, {"action": np.array(values, float)}, openings).tolist()


def test_an_event_holds_until_the_next_one():
    measured = np.array([1.0, 1, 1, 1, 1, 1])
    assert events([0, 1, 0, 0, -1, 0], measured) == [1, 0, 0, 0, 1, 1]
    assert events([0, 0.05, 0.2, -0.05, 0, 0], measured) == [1, 1, 0, 0, 0, 0]


def test_before_the_first_event_the_measured_opening_tells():
    assert events([0, 0, 0], np.array([0.2, 1, 1])) == [0, 0, 0]
    assert events([0, 0, 0], np.array([0.8, 0, 0])) == [1, 1, 1]


def test_without_a_measurement_the_first_event_tells():
    assert events([0, 1, 0]) == [1, 0, 0]
    assert events([0, -1, 0]) == [0, 1, 1]
    assert events([0, 0, 0]) == [1, 1, 1]


def test_an_event_that_is_not_finite_is_named():
    with pytest.raises(EpisodeError, match=r"action\[1\] has a number that is not finite"):
        events([0, np.nan, 0])


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=12))
def test_commands_after_an_event_are_what_it_said(values):
    commands = events(values)
    for step, value in enumerate(values):
        if value:
            assert commands[step] == (value < 0)
        elif step:
            assert commands[step] == commands[step - 1]


def test_what_is_not_recorded_is_taken_from_what_is():
    steps = {"action": np.array([1.0, 0.0]), "state": np.array([[0.4], [0.6]])}
    command = LinearGripper(key="action", closed_at=1.0, open_at=0.0)
    row = SimpleNamespace(gripper_opening="from_command", gripper_command=command)
    openings, commands = read_gripper(row, steps, 2)
    assert openings.tolist() == commands.tolist() == [0, 1]
    row = SimpleNamespace(gripper_opening=linear(0, 1), gripper_command="from_measured")
    openings, commands = read_gripper(row, steps, 2)
    assert openings.tolist() == [0.4, 0.6]
    assert commands is None
    row = SimpleNamespace(
        gripper_opening=ConstantGripper(opening=1.0), gripper_command="from_measured"
    )
    assert read_gripper(row, steps, 2)[0].tolist() == [1, 1]


def test_a_missing_column_is_named():
    row = SimpleNamespace(
        gripper_opening=LinearGripper(key="state", first_column=7, closed_at=0.0, open_at=1.0),
        gripper_command="from_measured",
    )
    with pytest.raises(EpisodeError, match="state has 3 numbers, none in column 7"):
        read_gripper(row, {"state": np.zeros((2, 3))}, 2)


def sentences(rule, **steps):
    """Return the sentences of an episode."""
    return read_sentences(rule, {key: np.array(value) for key, value in steps.items()})


def test_sentences_are_tidied_and_each_is_said_once():
    rule = Language(keys=("a", "b", "c"))
    said = sentences(rule, a=["put_the  cup\ndown "] * 2, b=["", ""], c=["put the cup down", ""])
    assert said == ("put the cup down",)
    assert sentences(rule, a=[""], b=["second"], c=["third"]) == ("second", "third")


def test_an_episode_without_one_sentence_is_refused():
    rule = Language(keys=("a",))
    with pytest.raises(EpisodeError, match="the instruction is empty"):
        sentences(rule, a=["", "  ", "_"])
    with pytest.raises(EpisodeError, match="a: 2 different instructions, not one"):
        sentences(rule, a=["open it", "close it"])


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60))
def test_code_units_come_back(sentence):
    units = np.zeros(512, np.int32)
    units[: len(sentence.encode())] = list(sentence.encode())
    assert text_from_code_units(units) == sentence
    said = tidy(sentence)
    if said:
        rule = Language(keys=("k",), encoding="code_units")
        assert sentences(rule, k=[units, units]) == (said,)


def test_code_units_that_are_no_text_are_refused():
    for units in ([300, 0], [-1, 0], [0xFF, 0xFE, 0]):
        with pytest.raises(EpisodeError, match="k: its numbers are no UTF-8 text"):
            text_from_code_units(np.array(units), "k")
    assert text_from_code_units(np.array([104, 105])) == "hi"
