"""BridgeData's conventions, proven on its real episodes where they are, and on made-up ones."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spear_policy.geometry import quaternions as quat
from spear_policy.inference.episode import EpisodeError
from spear_training.data.oxe.poses import from_euler
from spear_training.data.oxe.reader import BridgeReader
from spear_training.data.oxe.table import load_table
from spear_training.data.reader import DataFileError
from spear_training.data.rlds import RldsFolder

BRIDGE_POSE = load_table()["bridge"].pose
TASKS = {
    "flip pot upright which is in sink",
    "put carrot on plate",
    "put cup from counter or drying rack into sink",
    "turn lever vertical to front",
}


@pytest.fixture(scope="module")
def episodes(bridge_rlds_dir):
    """Return the 25 real episodes."""
    reader = BridgeReader(bridge_rlds_dir)
    return [reader.read(index) for index in range(len(reader))]


def test_the_25_real_episodes_are_read_whole(episodes):
    assert len(episodes) == 25
    assert {len(episode) for episode in episodes} == {10}
    assert {episode.instruction for episode in episodes} == TASKS
    for index, episode in enumerate(episodes):
        assert np.allclose(np.diff(episode.stamps_s), 0.2)
        assert episode.source["index"] == str(index)
        assert episode.robot == "WidowX 250"


def test_real_poses_are_where_a_widowx_can_be_and_speeds_are_plausible(episodes):
    for episode in episodes:
        positions, orientations = episode.poses[:, :3], episode.poses[:, 3:]
        assert np.allclose(np.linalg.norm(orientations, axis=1), 1.0)
        assert np.all(np.abs(positions - [0.25, 0.0, 0.15]) < [0.15, 0.2, 0.15])
        speeds_m_s = np.linalg.norm(np.diff(positions, axis=0), axis=1) / 0.2
        turns = quat.angle(orientations[:-1], orientations[1:])
        assert 0.04 < speeds_m_s.max() < 0.2
        assert np.degrees(turns).max() < 14
        # The hand's x axis points out of the gripper: down, more or less.
        assert np.all(Rotation.from_quat(orientations).apply([1, 0, 0])[:, 2] < -0.6)


def test_real_pictures_show_something_and_change(episodes):
    for episode in episodes:
        assert episode.images.keys() == {"external", "external_1", "external_2"}
        for video in map(np.stack, episode.images.values()):
            assert video.shape == (10, 64, 64, 3)
            assert 60 < video.mean() < 200
            assert np.all(video.std(axis=(1, 2, 3)) > 20)
            assert np.any(video[0] != video[-1])


def test_the_real_carrot_is_orange(episodes):
    carrot = [episode for episode in episodes if "carrot" in episode.instruction]
    video = np.concatenate([np.stack(episode.images["external"]) for episode in carrot]).astype(int)
    red, green, blue = np.moveaxis(video, -1, 0)
    assert np.mean((red - blue > 80) & (red - green > 40)) > 0.005
    assert not np.any((blue - red > 80) & (blue - green > 40))  # what BGR would make of it


def test_real_grippers_start_open_and_19_of_them_are_told_to_close(episodes):
    closing = 0
    for episode in episodes:
        assert episode.gripper_openings[0] > 0.9
        assert np.all((episode.gripper_commands >= 0) & (episode.gripper_commands <= 1))
        closing += episode.gripper_commands[-1] < 0.5
    assert closing == 19


def action_correlation(folder, order, axes):
    """Return how well recorded rotation actions match the rotations between the states.

    The states' Euler angles are read in `order`, the difference taken in "base" or "hand" axes.
    """
    recorded, measured = [], []
    for index in range(len(folder)):
        steps = folder.read(index, ["steps/action", "steps/observation/state"]).steps
        hands = Rotation.from_euler(order, steps["observation/state"][:, 3:6].astype(float))
        before, after = hands[:-1], hands[1:]
        turns = after * before.inv() if axes == "base" else before.inv() * after
        # The first action is zero, and a state answers an action one step late on average.
        measured.append(turns.as_rotvec()[2:])
        actions = Rotation.from_euler("xyz", steps["action"][1:-2, 3:6].astype(float))
        recorded.append(actions.as_rotvec())
    return np.corrcoef(np.concatenate(recorded).ravel(), np.concatenate(measured).ravel())[0, 1]


def test_recorded_actions_prove_the_order_of_the_euler_angles_and_the_axes(bridge_rlds_dir):
    folder = RldsFolder(bridge_rlds_dir)
    ours = action_correlation(folder, "xyz", "base")
    assert ours > 0.9
    orders = ("XYZ", "zyx", "ZYX", "yxz", "zxy", "xzy", "yzx")
    others = {order: action_correlation(folder, order, "base") for order in orders}
    assert ours > max(others.values()) + 0.05, others
    assert ours > action_correlation(folder, "xyz", "hand") + 0.04


def test_recorded_actions_and_positions_agree(bridge_rlds_dir):
    folder = RldsFolder(bridge_rlds_dir)
    recorded, measured = [], []
    for index in range(len(folder)):
        steps = folder.read(index, ["steps/action", "steps/observation/state"]).steps
        recorded.append(steps["action"][1:-2, :3])
        measured.append(np.diff(steps["observation/state"][:, :3], axis=0)[2:])
    recorded, measured = np.concatenate(recorded), np.concatenate(measured)
    for axis in range(3):
        assert np.corrcoef(recorded[:, axis], measured[:, axis])[0, 1] > 0.85


def test_a_state_of_zero_angles_is_the_default_rotation():
    (pose,) = from_euler(BRIDGE_POSE, [[0.3, 0.1, 0.2, 0.0, 0.0, 0.0]])
    assert np.allclose(pose[:3], [0.3, 0.1, 0.2])
    expected = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    assert np.allclose(Rotation.from_quat(pose[3:]).as_matrix(), expected)


def test_angles_turn_about_fixed_axes_x_then_y_then_z():
    angles = np.array([0.3, -0.5, 1.1])
    (pose,) = from_euler(BRIDGE_POSE, [[0, 0, 0, *angles]])
    (level,) = from_euler(BRIDGE_POSE, [[0, 0, 0, 0, 0, 0]])
    turns = [Rotation.from_euler(axis, angle) for axis, angle in zip("xyz", angles, strict=True)]
    expected = turns[2] * turns[1] * turns[0] * Rotation.from_quat(level[3:])
    assert np.allclose(Rotation.from_quat(pose[3:]).as_matrix(), expected.as_matrix())


def test_cameras_that_an_episode_lacks_are_left_out(write_rlds, make_record, make_picture):
    second = {"steps/observation/image_2": [make_picture(9, 200, 9)] * 4}
    reader = BridgeReader(write_rlds([[make_record(), make_record(1, **second)]]))
    assert reader.name == "toy-train"
    assert reader.read(0).images.keys() == {"external"}
    assert reader.read(1).images.keys() == {"external", "external_2"}


def state(**columns):
    """Return a record's state with some columns replaced, such as c6=1.5."""
    values = np.tile(np.array([0.2, 0, 0.1, 0, 0, 0, 1], np.float32), (4, 1))
    for column, value in columns.items():
        values[2, int(column[1])] = value
    return {"steps/observation/state": values}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (state(c1=np.nan), "a number that is not finite"),
        (state(c6=1.5), r"gripper state\[2\] is 1.500"),
        (state(c6=np.nan), r"gripper state\[2\] is nan"),
        ({"steps/language_instruction": [b""] * 4}, "instruction is empty"),
        ({"steps/language_instruction": [b"a", b"a", b"b", b"b"]}, "2 different instructions"),
    ],
)
def test_an_unusable_episode_is_named_and_leaves_the_others_alone(
    write_rlds, make_record, changes, text
):
    reader = BridgeReader(write_rlds([[make_record(), make_record(1, **changes), make_record(2)]]))
    with pytest.raises(EpisodeError, match=text) as caught:
        reader.read(1)
    assert "tfrecord-00000-of-00001: record 1" in str(caught.value)
    assert len(reader.read(0)) == len(reader.read(2)) == 4


def test_an_episode_without_its_main_camera_is_refused(write_rlds, make_record, make_picture):
    black = make_record(**{"steps/observation/image_0": [make_picture(0, 0, 0)] * 4})
    with pytest.raises(EpisodeError, match="image_0 is black in every step"):
        BridgeReader(write_rlds([[black]])).read(0)


def test_a_gripper_a_little_over_open_counts_as_open(write_rlds, make_record):
    episode = BridgeReader(write_rlds([[make_record(**state(c6=1.007))]])).read(0)
    assert episode.gripper_openings.max() == 1.0


def test_a_dataset_of_another_layout_is_refused(write_rlds, make_record, make_features):
    features = make_features()
    observation = features["featuresDict"]["features"]["steps"]["sequence"]["feature"][
        "featuresDict"
    ]["features"]["observation"]["featuresDict"]["features"]
    del observation["state"]
    with pytest.raises(DataFileError, match="no feature steps/observation/state"):
        BridgeReader(write_rlds([[make_record()]], features)).read(0)
