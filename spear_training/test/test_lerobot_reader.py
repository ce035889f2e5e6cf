"""LeRobotDataset folders of every layout to episodes, our own store among them."""

import numpy as np
import pytest
from lerobot_writing import (
    FPS,
    Recording,
    open_folder,
    recording,
    shades,
    write_v2,
    write_v3,
)
from scipy.spatial.transform import Rotation
from store_fixture import MadeUp, made_store
from store_writing import BRIDGE, write_store

from spear_policy.inference.episode import EpisodeError
from spear_training.data.lerobot import LeRobotReader, load_keys, store_metadata
from spear_training.data.oxe.reader import BridgeReader
from spear_training.data.reader import NotSelected

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
    with pytest.raises(NotSelected, match="is_episode_successful is 'False'"):
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
