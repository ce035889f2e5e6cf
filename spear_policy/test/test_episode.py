"""Episodes and their files: whole, honest, and refused with one sentence otherwise."""

import resource

import numpy as np
import pytest

from spear_policy.inference.episode import (
    Episode,
    EpisodeError,
    binary_gripper,
    load_episode,
    save_episode,
)

STEPS = 6


def parts(**changes):
    """Return the arguments of a valid episode, some of them replaced."""
    rng = np.random.default_rng(0)
    poses = np.zeros((STEPS, 7))
    poses[:, 0] = 0.01 * np.arange(STEPS)
    poses[:, 3] = 1.0
    arguments = {
        "stamps_s": 0.2 * np.arange(STEPS),
        "poses": poses,
        "gripper_openings": np.linspace(1, 0, STEPS),
        "gripper_commands": np.repeat([1.0, 0.0], STEPS // 2),
        "instruction": "put the crème brûlée on the plate",
        "images": {
            "external": rng.integers(0, 256, (STEPS, 48, 64, 3), np.uint8),
            "wrist": rng.integers(0, 256, (STEPS, 24, 32, 3), np.uint8),
        },
        "robot": "WidowX 250",
        "source": {"dataset": "bridge", "index": "3"},
        "notes": "made up",
    }
    return arguments | changes


def changed(array, place, value):
    """Return a copy of an array with one value changed."""
    array = np.array(array, float)
    array[place] = value
    return array


@pytest.fixture
def saved(tmp_path):
    """Return a saved episode's path."""
    path = tmp_path / "one.npz"
    save_episode(Episode(**parts()), path)
    return path


COMMANDED = {
    "command_poses": parts()["poses"] + [0.01, 0, 0, 0, 0, 0, 0],
    "other_instructions": ("clear the table", "tidy up"),
    "state_known": False,
}


@pytest.mark.parametrize("changes", [{}, {"gripper_commands": None}, {"images": {}}, COMMANDED])
def test_an_episode_comes_back_from_disk_as_it_was(tmp_path, changes):
    episode = Episode(**parts(**changes))
    path = tmp_path / "one.npz"
    save_episode(episode, path)
    again = load_episode(path)
    arrays = ("stamps_s", "poses", "gripper_openings", "gripper_commands", "command_poses")
    for name in arrays:
        assert np.array_equal(getattr(again, name), getattr(episode, name)), name
    words = ("instruction", "other_instructions", "state_known", "robot", "source", "notes", "name")
    for name in words:
        assert getattr(again, name) == getattr(episode, name), name
    assert again.images.keys() == episode.images.keys()
    for name, video in episode.images.items():
        assert again.images[name].dtype == np.uint8
        assert np.array_equal(again.images[name], video)
    assert list(tmp_path.iterdir()) == [path]


class Decoded:
    """A video whose pictures are made when they are asked for."""

    shape, dtype = (STEPS, 4, 5, 3), np.dtype(np.uint8)

    def __len__(self):
        return STEPS

    def __getitem__(self, step):
        if step >= STEPS:
            raise IndexError(step)
        return np.full(self.shape[1:], step, np.uint8)


def test_a_video_may_be_decoded_picture_by_picture(tmp_path):
    save_episode(Episode(**parts(images={"external": Decoded()})), tmp_path / "one.npz")
    video = load_episode(tmp_path / "one.npz").images["external"]
    assert np.array_equal(video[:, 0, 0, 0], np.arange(STEPS))


def test_the_same_episode_makes_the_same_bytes(saved, tmp_path):
    other = tmp_path / "two.npz"
    save_episode(load_episode(saved), other)
    assert other.read_bytes() == saved.read_bytes()


def test_an_episode_cannot_be_changed_by_accident():
    episode = Episode(**parts())
    for array in (episode.stamps_s, episode.poses, episode.images["wrist"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_orientations_keep_their_sign_from_step_to_step():
    poses = parts()["poses"]
    poses[1::2, 3:] *= -1
    assert np.all(np.diff(Episode(**parts(poses=poses)).poses[:, 3:], axis=0) == 0)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"poses": changed(parts()["poses"], (2, 1), np.nan)}, "pose 2 has a number that is not"),
        ({"poses": changed(parts()["poses"], (4, 3), 0.7)}, "pose 4 has no unit quaternion"),
        ({"poses": parts()["poses"][:, :6]}, r"shape \(6, 7\)"),
        ({"stamps_s": changed(parts()["stamps_s"], 3, 0.4)}, "stamp 3 is not after"),
        ({"stamps_s": np.zeros((2, 3))}, "stamps_s must have shape"),
        ({"gripper_openings": np.ones(3)}, r"gripper_openings must have shape \(6,\)"),
        ({"gripper_openings": changed(np.ones(STEPS), 5, np.nan)}, r"gripper_openings\[5\] is nan"),
        ({"gripper_commands": changed(np.ones(STEPS), 1, 1.2)}, r"gripper_commands\[1\] is 1.2"),
        ({"instruction": "  "}, "instruction is empty"),
        ({"other_instructions": ("tidy up", "")}, "instruction is empty"),
        ({"command_poses": np.ones((STEPS, 7))}, "command_poses: pose 0 has no unit"),
        ({"images": {"external": np.zeros((5, 4, 4, 3), np.uint8)}}, "camera 'external' must be"),
        ({"images": {"wrist": np.zeros((6, 4, 4, 3), float)}}, "camera 'wrist' .* float64"),
        ({"images": {"wrist": np.zeros((6, 4, 4), np.uint8)}}, "camera 'wrist'"),
        ({"images": {"wrist": np.zeros((6, 0, 4, 3), np.uint8)}}, "camera 'wrist'"),
    ],
)
def test_a_bad_episode_is_refused_with_its_name_and_the_fault(changes, text):
    with pytest.raises(EpisodeError, match=text) as caught:
        Episode(**parts(**changes))
    assert str(caught.value).startswith("bridge episode 3: ")


def test_a_file_that_is_cut_short_anywhere_is_refused_by_name(saved):
    whole = saved.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        with pytest.raises(EpisodeError, match=f"{saved}: .*copy or import it again"):
            load_episode(saved)


def test_a_flipped_byte_is_noticed(saved):
    whole = bytearray(saved.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    saved.write_bytes(whole)
    with pytest.raises(EpisodeError, match="damaged"):
        load_episode(saved)


def test_foreign_files_are_refused_with_what_they_are(tmp_path):
    path = tmp_path / "foreign.npz"
    path.write_text("stamps,x,y,z\n")
    with pytest.raises(EpisodeError, match="cut short or not an episode"):
        load_episode(path)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(EpisodeError, match="cut short or not an episode"):
        load_episode(path)
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(EpisodeError, match=r"not an episode \(it holds weights\)"):
        load_episode(path)
    with pytest.raises(EpisodeError, match="no such file"):
        load_episode(tmp_path / "nothing.npz")


def test_a_file_with_pickled_objects_is_never_opened(tmp_path):
    path = tmp_path / "pickle.npz"
    np.savez(path, format=np.array("spear-episode"), words=np.array([{"a": 1}], dtype=object))
    with pytest.raises(EpisodeError, match="damaged"):
        load_episode(path)


def test_a_file_of_a_later_format_or_with_parts_missing_is_refused(saved):
    with np.load(saved) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(saved, **(arrays | {"format_version": np.array(2)}))
    with pytest.raises(EpisodeError, match="format 2; this SPEAR reads format 1"):
        load_episode(saved)
    for name in ("format_version", "words", "poses"):
        np.savez(saved, **{key: array for key, array in arrays.items() if key != name})
        with pytest.raises(EpisodeError, match=f"'{name}'"):
            load_episode(saved)
    np.savez(saved, **(arrays | {"words": np.array("{")}))
    with pytest.raises(EpisodeError, match=str(saved)):
        load_episode(saved)


def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(saved):
    before = saved.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_episode(Episode(**parts(instruction="another")), saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 1, 0.6, 0], [1, 1, 0, 0]),  # on its way to closed
        ([0, 0.2, 0.8, 1], [0, 1, 1, 1]),  # on its way to open
        ([0.96, 0.94, 0.97, 0.04], [1, 1, 1, 0]),
        ([1, 0.89], [1, 1]),  # nothing is reached after it: the nearer one
        ([1, 0.11], [1, 0]),
        ([], []),
    ],
)
def test_gripper_commands_become_open_or_closed_by_where_they_lead(values, expected):
    assert binary_gripper(values).tolist() == expected
