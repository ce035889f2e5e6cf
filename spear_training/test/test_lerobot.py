"""LeRobotDataset folders of every layout to episodes, and what is said of damaged ones."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_writing import (
    EXTERNAL,
    FPS,
    KEYS,
    WRIST,
    Recording,
    change_info,
    open_folder,
    recording,
    shades,
    write_lines,
    write_v2,
    write_v3,
)
from scipy.spatial.transform import Rotation
from store_fixture import MadeUp, made_store
from store_writing import BRIDGE, write_store

from spear_policy.inference.episode import EpisodeError
from spear_training.data.lerobot.reader import LeRobotReader, load_keys, store_metadata
from spear_training.data.oxe.reader import BridgeReader
from spear_training.data.reader import DataFileError, NotSelectedError

# Episodes -------------------------------------------------------------------------------------

RECORDINGS = [recording(number, steps) for number, steps in enumerate((6, 4, 5))]
LAYOUTS = {
    "v2.0 pictures": lambda root: write_v2(root, RECORDINGS, "v2.0"),
    "v2.1 pictures": lambda root: write_v2(root, RECORDINGS),
    "v2.1 h264": lambda root: write_v2(root, RECORDINGS, codec="libx264"),
    "v3.0 pictures": lambda root: write_v3(root, RECORDINGS),
    "v3.0 h264": lambda root: write_v3(root, RECORDINGS, codec="libx264"),
    "v3.0 av1": lambda root: write_v3(root, RECORDINGS, codec="libsvtav1"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a function that gives a folder of a layout; tests must not change it."""
    made = {}

    def folder(layout):
        if layout not in made:
            root = tmp_path_factory.mktemp("lerobot") / layout.replace(" ", "_")
            made[layout] = LAYOUTS[layout](root)
        return made[layout]

    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_episodes_of_every_layout_are_the_same(folders, layout):
    reader = open_folder(folders(layout))
    assert len(reader) == 3
    assert reader.name == layout.replace(" ", "_")
    assert (reader.keys.action_from, reader.keys.gripper_from) == ("commanded", "commanded")
    assert reader.folder.fps == FPS
    for number in (1, 0, 2):
        episode, made = reader.read(number), RECORDINGS[number]
        steps = len(made)
        state, action = made.columns["observation.state"], made.columns["action"]
        assert np.array_equal(episode.stamps_s, np.arange(steps) / FPS)
        assert np.allclose(episode.poses, state[:, :7])
        assert np.allclose(episode.gripper_openings, state[:, 7])
        assert np.allclose(episode.command_poses[:, :3], action[:, :3])
        turned = Rotation.from_euler("xyz", action[:, 3:6]).as_quat()
        assert np.allclose(episode.command_poses[:, 3:], turned)
        assert np.allclose(episode.gripper_commands, 1 - action[:, 6])
        assert episode.instruction == f"do task {number % 2}"
        assert episode.robot == "so100"
        assert episode.name == f"{reader.name} episode {number}"
        assert episode.images.keys() == {"external", "wrist"}
        for camera, expected in (("external", shades(number, steps)), ("wrist", None)):
            video = episode.images[camera]
            assert video.shape == (steps, 48, 64, 3)
            expected = shades(number, steps)[::-1] if expected is None else expected
            # Out of order first: a video is searched then.
            for step in (steps - 1, 0, 2, *range(steps)):
                red, green, blue = np.median(video[step], axis=(0, 1)).astype(int)
                assert abs(green - expected[step]) <= 5, (layout, camera, step)
                assert abs(blue - expected[step]) <= 5
                assert abs(red - expected[step] - 40) <= 5
    with pytest.raises(IndexError, match="no episode 3, it has 3"):
        reader.read(3)


def test_a_video_is_decoded_in_one_pass_when_pictures_are_asked_for_in_order(folders):
    video = open_folder(folders("v3.0 h264")).read(1).images["external"]
    sought = []
    seek = video._seek
    video._seek = lambda wanted_s: sought.append(wanted_s) or seek(wanted_s)
    pictures = list(video)
    assert len(pictures) == len(video) == 4
    assert np.allclose(sought, [0.6])  # where episode 1 begins in the file


def test_a_store_of_our_own_gives_back_the_real_episodes(bridge_rlds_dir, tmp_path):
    original = BridgeReader(bridge_rlds_dir)
    root = tmp_path / "store"
    write_store(root, original, size=9, metadata=BRIDGE)
    reader = LeRobotReader(root)
    assert (reader.name, len(reader), reader.keys.action_from) == ("bridge", 25, "reached")
    for index in range(25):
        before, after = original.read(index), reader.read(index)
        assert np.abs(after.poses - before.poses).max() < 1e-7
        assert np.array_equal(after.stamps_s, before.stamps_s)
        assert np.allclose(after.gripper_openings, before.gripper_openings, atol=1e-7)
        assert np.allclose(after.gripper_commands, before.gripper_commands, atol=1e-7)
        assert after.command_poses is None
        for name in ("instruction", "source", "notes", "robot", "state_known"):
            assert getattr(after, name) == getattr(before, name)
    assert after.images["external"].shape == (10, 210, 280, 3)


def test_all_that_a_store_holds_of_an_episode_survives(tmp_path):
    made = MadeUp(episodes=2, state_known=False, notes="sums of deltas")
    store = made_store(tmp_path, episodes=2, state_known=False, notes="sums of deltas")
    episode, before = LeRobotReader(store.root).read(1), made.read(1)
    assert episode.other_instructions == before.other_instructions
    assert np.allclose(episode.command_poses, before.command_poses)
    assert (episode.state_known, episode.notes) == (False, "sums of deltas")
    assert episode.images.keys() == {"external", "wrist"}


def test_a_black_wrist_camera_of_a_store_is_none(tmp_path):
    class Blind(MadeUp):
        def read(self, index):
            episode = super().read(index)
            object.__setattr__(episode, "images", {"external": episode.images["external"]})
            return episode

    write_store(tmp_path / "store", Blind(episodes=1))
    assert LeRobotReader(tmp_path / "store").read(0).images.keys() == {"external"}


def droid_recording(sentences, success=True, steps=4):
    """Return an episode in the columns of lerobot's port of DROID."""
    pose = np.tile(np.array([0.4, 0, 0.3, np.pi, 0.1, 0.2], np.float32), (steps, 1))
    pose[:, 0] += 0.01 * np.arange(steps, dtype=np.float32)
    columns = {
        "observation.state.cartesian_position": pose,
        "observation.state.gripper_position": np.linspace(0, 1, steps, dtype=np.float32),
        "observation.state": np.zeros((steps, 8), np.float32),
        "action.cartesian_position": pose + np.float32(0.001),
        "action.gripper_position": np.ones(steps, np.float32),
        "is_episode_successful": np.full(steps, success),
    }
    for number, sentence in enumerate(sentences):
        name = "language_instruction" + (f"_{number + 1}" if number else "")
        columns[name] = np.array([sentence] * steps)
    picture = np.full((steps, 18, 32, 3), 77, np.uint8)
    cameras = ("exterior_1_left", "exterior_2_left", "wrist_left")
    pictures = {f"observation.images.{camera}": picture for camera in cameras}
    return Recording(sentences[0], columns, pictures)


def test_the_port_of_droid_is_read_by_its_preset(tmp_path):
    recordings = [
        droid_recording(["put the cup away", "", "move the cup"]),
        droid_recording(["drop the cup", "", ""], success=False),
        droid_recording(["", "take it", ""]),
        droid_recording(["", "", ""]),
    ]
    reader = LeRobotReader(write_v3(tmp_path / "droid", recordings), load_keys("droid"))
    episode = reader.read(0)
    assert episode.instruction == "put the cup away"
    assert episode.other_instructions == ("move the cup",)
    assert np.allclose(episode.gripper_openings, [1, 2 / 3, 1 / 3, 0], atol=1e-6)
    assert not episode.gripper_commands.any()
    turn = Rotation.from_euler("xyz", [np.pi, 0.1, 0.2])
    difference = Rotation.from_quat(episode.poses[0, 3:]) * turn.inv()
    assert difference.magnitude() < 1e-6
    assert episode.images.keys() == {"external", "external_1", "wrist"}
    assert episode.robot == "Franka Panda"
    with pytest.raises(NotSelectedError, match="is_episode_successful is 'False'"):
        reader.read(1)
    assert reader.read(2).instruction == "take it"
    with pytest.raises(EpisodeError, match="a policy needs a sentence"):
        reader.read(3)


def test_stamps_that_the_data_have_are_kept(tmp_path):
    odd = np.array([0, 0.11, 0.19, 0.3, 0.42, 0.5])
    one = recording(0)
    one.columns |= {"timestamp": odd.astype(np.float32), "clock": 5.0 + odd}
    root = write_v2(tmp_path / "odd", [one])
    assert np.allclose(open_folder(root).read(0).stamps_s, odd)
    assert np.allclose(open_folder(root, stamps="clock").read(0).stamps_s, 5.0 + odd, atol=1e-12)


def test_what_the_keys_say_goes_into_the_metadata_of_a_store(folders):
    reader = open_folder(folders("v2.1 pictures"), native_aspects={"external": [4, 3]})
    metadata = store_metadata(reader)
    assert [(camera.name, camera.native_aspect) for camera in metadata.cameras] == [
        ("external", 4 / 3),
        ("wrist", None),
    ]
    assert (metadata.name, metadata.robot, metadata.control_hz) == ("v2.1_pictures", "so100", FPS)
    assert (metadata.action_from, metadata.gripper_from) == ("commanded", "commanded")


# What is wrong with a folder, or with the keys to it: named, in a sentence --------------------


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
        (put("task_index", 3, 7), "task_index is 7 in step 3, which is no task in the list"),
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
        (put("episode_index", 2, 7), "has 5 rows in all data files, the list of episodes says 6"),
        (lambda c: c.update(episode_index=[5] * 6), "has no row of episode 1"),
        (lambda c: [column.pop() for column in c.values()], "has 5 rows in all data files"),
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
        with pytest.raises(DataFileError, match="1.mp4: (cannot be read|has no video)"):
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
    with pytest.raises(EpisodeError, match="task_index is 1 in step 0, which is no task"):
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
