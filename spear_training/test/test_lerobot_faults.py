"""What is wrong with a LeRobotDataset folder, or with the keys to it: named, in a sentence."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_writing import (
    EXTERNAL,
    KEYS,
    WRIST,
    change_info,
    open_folder,
    recording,
    write_lines,
    write_v2,
    write_v3,
)

from spear_policy.inference.episode import EpisodeError
from spear_training.data.lerobot import LeRobotReader, load_keys
from spear_training.data.reader import DataFileError


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Return a sound v2.1 folder of three episodes; tests must not change it."""
    recordings = [recording(number) for number in range(3)]
    return write_v2(tmp_path_factory.mktemp("lerobot") / "sound", recordings)


def rewritten(path, change):
    """Write a Parquet file again after `change` of its columns, a dict of lists."""
    table = pq.read_table(path)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    change(columns)
    pq.write_table(pa.table(columns), path)


def one_episode(tmp_path, change=None, **more):
    """Return a v2.1 folder of two episodes and break the second's rows by `change`."""
    root = write_v2(tmp_path / "broken", [recording(0), recording(1)], **more)
    if change:
        rewritten(root / "data/chunk-000/episode_000001.parquet", change)
    return root


def put(name, step, value):
    """Return a change of one row of a column."""

    def change(columns):
        columns[name][step] = value

    return change


STATE = [0.3, 0, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (put("observation.state", 2, [float("nan"), *STATE[1:]]), r"observation.state\[2\] has a"),
        (put("observation.state", 2, [*STATE[:6], 0.5, 1]), r"\[2\] has a quaternion of length"),
        (put("observation.state", 2, [*STATE[:7], 3.0]), r"gripper observation.state\[2\] is 3"),
        (put("timestamp", 3, 0.05), "stamp 3 is not after the one before"),
        (put("timestamp", 3, float("inf")), "stamp 3 is not finite"),
        (put("task_index", 3, 0), "2 different tasks"),
        (put(EXTERNAL, 0, {"bytes": b"no picture", "path": None}), EXTERNAL + ": picture 0"),
    ],
)
def test_an_unusable_episode_is_named_and_leaves_the_others_alone(tmp_path, change, text):
    reader = open_folder(one_episode(tmp_path, change))
    with pytest.raises(EpisodeError, match=text) as caught:
        reader.read(1)
    assert "episode_000001.parquet: episode 1" in str(caught.value)
    assert len(reader.read(0)) == 6


def no_pictures(columns):
    """Leave paths to files in place of pictures."""
    columns[WRIST] = [{"bytes": None, "path": "frame_000000.png"}] * len(columns[WRIST])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda columns: columns.pop("action"), "has no column action"),
        (lambda columns: columns.pop("episode_index"), "has no column episode_index"),
        (put("observation.state", 2, STATE[:5]), "rows of different lengths"),
        (put("timestamp", 2, None), "timestamp has empty places"),
        (put("episode_index", 2, 7), "the rows of episode 1 are not together"),
        (lambda c: c.update(episode_index=[5] * 6), "has no row of episode 1"),
        (lambda c: [column.pop() for column in c.values()], "has 5 rows, the meta files say 6"),
        (no_pictures, "picture 0 of observation.images.hand is not in the file"),
        (lambda c: c.update({WRIST: list(range(6))}), "no encoded pictures"),
    ],
)
def test_a_damaged_file_is_named_and_leaves_the_others_alone(tmp_path, change, text):
    reader = open_folder(one_episode(tmp_path, change))
    with pytest.raises(DataFileError, match=text) as caught:
        reader.read(1)
    assert "episode_000001.parquet" in str(caught.value)
    assert len(reader.read(0)) == 6


def test_truncated_and_missing_files_are_named(tmp_path):
    root = one_episode(tmp_path)
    path = root / "data/chunk-000/episode_000001.parquet"
    path.write_bytes(path.read_bytes()[:-500])
    reader = open_folder(root)
    with pytest.raises(DataFileError, match="episode_000001.parquet: cannot be read"):
        reader.read(1)
    assert len(reader.read(0)) == 6
    path.unlink()
    with pytest.raises(DataFileError, match="episode_000001.parquet: cannot be read"):
        reader.read(1)


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
def test_a_truncated_mp4_is_named_where_it_ends(tmp_path, codec):
    long = recording(1, steps=40)
    # Noise, so that most of the file is pictures.
    long.pictures[EXTERNAL] = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), np.uint8)
    root = write_v2(tmp_path / "cut", [recording(0), long], codec=codec)
    path = root / f"videos/chunk-000/{EXTERNAL}/episode_000001.mp4"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    reader = open_folder(root)
    video = reader.read(1).images["external"]
    assert video[0].shape == (48, 64, 3)
    with pytest.raises(DataFileError, match="1.mp4: (ends before )?step 39 at 3.900 s"):
        video[39]
    for cut in (content[:100], b"", None):
        path.unlink() if cut is None else path.write_bytes(cut)
        with pytest.raises(DataFileError, match="1.mp4: (cannot be opened|has no video)"):
            reader.read(1)
    assert reader.read(0).images["external"][5].shape == (48, 64, 3)


def test_an_mp4_with_too_few_pictures_or_another_rate_is_refused(tmp_path):
    root = write_v2(tmp_path / "short", [recording(0, steps=6)], codec="libx264")
    shorter = write_v2(tmp_path / "shorter", [recording(0, steps=4)], codec="libx264")
    name = f"videos/chunk-000/{EXTERNAL}/episode_000000.mp4"
    (root / name).write_bytes((shorter / name).read_bytes())
    video = open_folder(root).read(0).images["external"]
    assert len([video[step] for step in range(4)]) == 4
    with pytest.raises(DataFileError, match="mp4: ends before step 4 at 0.400 s"):
        video[4]
    assert video[0].shape == (48, 64, 3)  # the rest can still be read
    # Rows at 30 Hz, pictures at 10.
    change_info(root, fps=30)
    stamps = [step / 30 for step in range(6)]
    path = root / "data/chunk-000/episode_000000.parquet"
    rewritten(path, lambda columns: columns.update(timestamp=stamps))
    video = open_folder(root).read(0).images["wrist"]
    with pytest.raises(DataFileError, match="has no picture at 0.033 s .*, the next is at 0.100 s"):
        video[1]
    assert video[3].shape == (48, 64, 3)


def test_a_missing_camera_is_named_with_those_that_are_there(sound):
    with pytest.raises(DataFileError, match="no feature observation.images.top; it has observat"):
        open_folder(sound, cameras={"external": "observation.images.top"})
    with pytest.raises(DataFileError, match="action, camera 'external', is no picture"):
        open_folder(sound, cameras={"external": "action"})


@pytest.mark.parametrize("version", ["v1.6", "v3.1", "v4.0", "unknown"])
def test_another_version_is_refused(tmp_path, version):
    root = one_episode(tmp_path)
    change_info(root, codebase_version=version)
    with pytest.raises(DataFileError, match=f"is a LeRobotDataset {version}; v2.0, v2.1, v3.0 are"):
        open_folder(root)


def test_missing_lists_of_tasks_are_borne_or_refused_by_episode(tmp_path):
    root = one_episode(tmp_path)
    (root / "meta/tasks.jsonl").unlink()
    assert open_folder(root).read(1).instruction == "do task 1"  # episodes.jsonl has it too
    lines = [{"episode_index": number, "length": 6} for number in range(2)]
    write_lines(root / "meta/episodes.jsonl", lines)
    with pytest.raises(EpisodeError, match="task 1 is missing in the list of tasks"):
        open_folder(root).read(1)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("meta/info.json", None, "give the folder that holds meta/ and data/"),
        ("meta/info.json", "{", "info.json: damaged"),
        ("meta/info.json", "{}", "info.json: damaged or not LeRobot's"),
        ("meta/info.json", "[]", "info.json: damaged or not LeRobot's"),
        ("meta/episodes.jsonl", None, "episodes.jsonl: cannot be read"),
        ("meta/episodes.jsonl", '{"episode_index": 0\n', "episodes.jsonl: line 1 is damaged"),
        ("meta/episodes.jsonl", '{"episode_index": 0}\n', "lacks a part"),
        ("meta/tasks.jsonl", "[1]\n", "lacks a part"),
    ],
)
def test_a_damaged_meta_file_is_named(tmp_path, name, content, text):
    root = one_episode(tmp_path)
    (root / name).unlink() if content is None else (root / name).write_text(content)
    with pytest.raises(DataFileError, match=text):
        open_folder(root)


def test_a_damaged_list_of_episodes_of_v3_is_named(tmp_path):
    root = write_v3(tmp_path / "v3", [recording(0), recording(1)])
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    with pytest.raises(DataFileError, match="file-000.parquet: cannot be read"):
        open_folder(root)
    path.unlink()
    with pytest.raises(DataFileError, match="holds no episode list"):
        open_folder(root)


def test_a_folder_of_others_needs_keys(sound):
    with pytest.raises(DataFileError, match="say which columns hold what .* observation.state"):
        LeRobotReader(sound)


def changed_keys(**changes):
    """Return KEYS with changes; None takes an entry away."""
    return {key: value for key, value in (KEYS | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ("pose", "keys is 'pose'"),
        (changed_keys(pose=None), "keys: it lacks the field 'pose'"),
        (changed_keys(cameras={"wrist": WRIST}), "name the feature of 'external'"),
        (changed_keys(pose={"key": "a"}), "pose has encoding None; it may be quaternion"),
        (changed_keys(pose={"encoding": "euler", "key": "a"}), "lacks the field 'pose.axes'"),
        (changed_keys(command="guessed"), "command has encoding 'guessed'.*reached"),
        (changed_keys(command=KEYS["pose"] | {"timing": "next"}), "only 'same' is read here"),
        (
            changed_keys(gripper_opening={"encoding": "linear", "key": "a"}),
            "'gripper_opening.closed_at'",
        ),
        (changed_keys(colour="red"), "unknown field 'colour'"),
        (changed_keys(native_aspects={"external": 1.33}), "external is 1.33: it must be a list"),
        (changed_keys(native_aspects={"external": [4]}), "must be width and height"),
        (changed_keys(native_aspects={"top": [4, 3]}), "has 'top', which is no camera"),
    ],
)
def test_keys_that_say_nothing_are_refused(tmp_path, values, text):
    path = tmp_path / "keys.yaml"
    path.write_text(json.dumps(values))  # which is YAML too
    with pytest.raises(DataFileError, match=text) as caught:
        load_keys(path)
    assert str(path) in str(caught.value)


def test_keys_of_no_file_name_the_presets(tmp_path):
    with pytest.raises(DataFileError, match="a preset: droid"):
        load_keys(tmp_path / "nowhere.yaml")
