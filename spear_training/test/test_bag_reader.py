"""Bags of trials become episodes: synchronised, filtered, and refused with one sentence."""

import gzip
import shutil

import lz4.frame
import numpy as np
import pytest
import zstandard
from bag_fixture import OUTCOME, copy_bag, trial
from rosbags.rosbag2 import StoragePlugin

from spear_policy.inference.episode import EpisodeError, split_episode
from spear_training.data.bags.reader import BagReader, BagRules
from spear_training.data.reader import DataFileError


def read(folder, **rules):
    """Return the only episode below a folder."""
    reader = BagReader(folder, BagRules(**rules))
    assert len(reader) == 1
    return reader.read(0)


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_trial_comes_back_at_the_stamps_of_its_external_pictures(tmp_path, plugin):
    trial().write(tmp_path / "lab" / "bags" / "one", plugin)
    reader = BagReader(tmp_path / "lab")
    episode = reader.read(0)
    steps = np.arange(30)
    assert reader.name == "lab"
    assert episode.stamps_s == pytest.approx(100 + (steps + 0.5) / 15)
    assert episode.poses[:, 0] == pytest.approx(0.1 * (steps + 0.5) / 15, abs=1e-6)
    assert episode.command_poses[:, 0] == pytest.approx(episode.poses[:, 0] + 0.01, abs=1e-6)
    for camera, offset in (("external", 0), ("wrist", 2)):
        shown = [episode.images[camera][step].mean() for step in steps]
        assert shown == pytest.approx(steps * 4 + offset, abs=1.5)
    assert episode.instruction == OUTCOME["instruction"]
    assert episode.robot == "fr3"
    assert episode.source["outcome"] == "SUCCESS" and episode.source["file"] == "one"


def test_the_gripper_is_what_was_last_sent_to_it(tmp_path):
    trial().write(tmp_path / "one")
    episode = read(tmp_path)
    elapsed = episode.stamps_s - 100
    # The command that closes is handed over at 1.1 s, the stamp of a picture; the refused one at
    # 0.15 s does not count.
    assert episode.gripper_commands.tolist() == np.where(elapsed < 1.09, 1.0, 0.0).tolist()
    # Measured, it is still open then.
    assert episode.gripper_openings[(elapsed > 1.09) & (elapsed < 1.18)] == pytest.approx(1.0)


def test_the_wrist_picture_nearest_in_time_is_taken(tmp_path):
    bench = trial()
    bench.rows = [row for row in bench.rows if not row[0].startswith("/wrist")]
    for i in range(60):
        bench.picture("wrist", 100 + i / 30 + 0.004, i)
    bench.write(tmp_path / "one")
    shown = [round(picture.mean()) for picture in read(tmp_path).images["wrist"]]
    assert shown == [1 + 2 * step for step in range(30)]


def test_only_successes_are_used_unless_asked(tmp_path):
    for outcome in ("SUCCESS", "FAILURE"):
        trial(0.5).write(tmp_path / outcome, words=OUTCOME | {"outcome": outcome})
    reader = BagReader(tmp_path)
    with pytest.raises(EpisodeError, match="outcome is FAILURE; only SUCCESS"):
        reader.read(0)
    assert len(reader.read(1)) == 7
    assert len(BagReader(tmp_path, BagRules(outcomes=None)).read(0)) == 7


def test_one_of_two_robots_is_chosen_by_its_namespace(tmp_path):
    bench = trial(1.0)
    bench.rows = [(f"/left{topic}", *rest) for topic, *rest in bench.rows]
    for i in range(51):
        bench.state(100 + i / 50, 5.0, topic="/right/ee_state")
    bench.write(tmp_path / "one")
    with pytest.raises(DataFileError, match="/left/ee_state and /right/ee_state: say which robot"):
        read(tmp_path)
    assert read(tmp_path, namespace="left").poses[-1, 0] < 0.2
    with pytest.raises(EpisodeError, match="no picture of the external camera"):
        read(tmp_path, namespace="right")


def test_the_instruction_topic_speaks_where_the_recorder_did_not(tmp_path):
    bench = trial(1.0)
    bench.add("/instruction", 100.1, bench.make("std_msgs/msg/String", data="wipe the table"))
    bench.write(tmp_path / "one", words=None)
    assert read(tmp_path, outcomes=None).instruction == "wipe the table"
    bench.add("/instruction", 100.6, bench.make("std_msgs/msg/String", data="stop"))
    bench.write(tmp_path / "two", words=None)
    episode = BagReader(tmp_path / "two", BagRules(outcomes=None)).read(0)
    assert [each.instruction for each in split_episode(episode)] == ["wipe the table", "stop"]
    assert episode.later_instructions[0][0] == np.searchsorted(episode.stamps_s, 100.6)


def without(prefix, begin_s=0.0, end_s=1e9):
    """Return a change that takes messages of some topics away."""

    def change(bench):
        bench.rows = [
            row
            for row in bench.rows
            if not (row[0].startswith(prefix) and begin_s < row[1] < end_s)
        ]

    return change


def backwards(bench):
    """Reset the robot's clock while recording."""
    rows = [row for row in bench.rows if row[0] == "/ee_state"]
    rows[40][2].header.stamp = bench.time(99.0)


def damaged_picture(bench):
    """Break the first external picture."""
    next(row for row in bench.rows if row[0].startswith("/external"))[2].data[:40] = 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (without("/ee_state"), "no ee_state: .* --topics .*; it has /command .spear_msgs/msg/EndE"),
        (without("/external"), "no picture of the external camera"),
        (without("/wrist", 101.0), "has no wrist picture within 0.1 s"),
        (backwards, "stamps of ee_state run backwards after message 39"),
        (damaged_picture, "picture 0: external"),
    ],
)
def test_a_bag_that_cannot_be_used_says_why(tmp_path, change, text):
    bench = trial()
    change(bench)
    bench.write(tmp_path / "one")
    with pytest.raises(EpisodeError, match=text) as caught:
        read(tmp_path)
    assert "one" in str(caught.value)


def test_other_bags_are_unharmed_by_a_damaged_one(tmp_path):
    for name in ("a", "b", "c"):
        trial(0.5).write(tmp_path / name)
    mcap = tmp_path / "b" / "b.mcap"
    mcap.write_bytes(mcap.read_bytes()[:3000])
    mcap = tmp_path / "c" / "c.mcap"
    mcap.write_bytes(mcap.read_bytes()[:3000])
    (tmp_path / "c" / "metadata.yaml").unlink()
    reader = BagReader(tmp_path)
    assert len(reader) == 3 and len(reader.read(0)) == 7
    with pytest.raises(DataFileError, match=r"b: .*again, or save .*bag_repair .*/b$"):
        reader.read(1)
    with pytest.raises(DataFileError, match="never closed; fix it with: .*bag_repair") as caught:
        reader.read(2)
    assert str(caught.value).count("/c was") == 1
    compress(tmp_path / "b" / "b.mcap", "gz")
    with pytest.raises(DataFileError, match="or unpack it and save .*bag_repair .*/b$") as caught:
        reader.read(1)
    assert "does not exist" not in str(caught.value)


# Holes, disorder, and files that users moved or compressed ----------------------------------------


@pytest.mark.parametrize("topic", ["/external", "/ee_state"])
def test_a_hole_in_time_splits_an_episode(tmp_path, topic):
    bench = trial(seconds=5.0, camera_hz=10)
    without(topic, 101.99, 103.5)(bench)
    bench.write(tmp_path / "one")
    episode = read(tmp_path)
    first, second = split_episode(episode)
    assert (first.continues, second.continues) == (True, False)
    assert first.stamps_s[-1] < 102.0 and second.stamps_s[0] > 103.49
    assert np.diff(first.stamps_s).max() < 0.11 > np.diff(second.stamps_s).max()
    assert ("15 pictures are left out" in episode.notes) == (topic == "/ee_state")
    assert (first.left_out, second.left_out) == (15 if topic == "/ee_state" else 0, 0)


def test_messages_that_overtook_each_other_are_sorted(tmp_path):
    bench = trial(seconds=1.0)
    straight = bench.write(tmp_path / "straight")
    for topic in ("/external/image_raw/compressed", "/ee_state"):
        a, b = [i for i, row in enumerate(bench.rows) if row[0] == topic][3:5]
        (_, first_s, first), (_, second_s, second) = bench.rows[a], bench.rows[b]
        bench.rows[a], bench.rows[b] = (topic, first_s, second), (topic, second_s, first)
    bench.write(tmp_path / "crossed")
    one, other = read(straight), read(tmp_path / "crossed")
    assert np.array_equal(one.stamps_s, other.stamps_s)
    assert np.array_equal(one.poses, other.poses)
    shades = [[picture.mean() for picture in each.images["external"]] for each in (one, other)]
    assert shades[0] == shades[1]


def compress(path, kind):
    """Compress a file as a user does: another file in its place."""
    content = path.read_bytes()
    packed = {"zstd": zstandard.compress, "gz": gzip.compress, "lz4": lz4.frame.compress}
    path.with_name(f"{path.name}.{kind}").write_bytes(packed[kind](content))
    path.unlink()


@pytest.mark.parametrize("kind", ["zstd", "gz", "lz4"])
@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_bags_that_users_compressed_are_read(tmp_path, plugin, kind):
    trial(0.5).write(tmp_path / "one", plugin)
    compress(next(path for path in (tmp_path / "one").iterdir() if path.stem == "one"), kind)
    assert len(read(tmp_path)) == 7


@pytest.mark.parametrize("mode", ["file", "message"])
def test_bags_that_their_recorder_compressed_are_read(tmp_path, mode):
    trial(0.5).write(tmp_path / "plain")
    copy_bag(tmp_path / "plain", tmp_path / "packed" / "one", "zstd", mode)
    assert len(read(tmp_path / "packed", outcomes=None, instruction="wipe")) == 7


def test_renamed_files_and_an_empty_storage_identifier_are_no_hindrance(tmp_path):
    folder = trial(0.5).write(tmp_path / "one")
    (folder / "one.mcap").rename(folder / "monday.mcap")
    assert len(read(tmp_path)) == 7
    metadata = folder / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace(": mcap", ": ''"))
    assert len(read(tmp_path)) == 7


def test_data_files_without_metadata_are_bags_of_their_own(tmp_path):
    for name in ("a", "b"):
        folder = trial(0.5).write(tmp_path / name)
        (folder / f"{name}.mcap").rename(tmp_path / f"{name}.mcap")
        shutil.rmtree(folder)
    reader = BagReader(tmp_path, BagRules(outcomes=None, instruction="wipe"))
    assert [reader.read(number).source["file"] for number in range(2)] == ["a.mcap", "b.mcap"]
    assert reader.read(0).instruction == "wipe"
    alone = BagReader(tmp_path / "a.mcap", BagRules(outcomes=None, instruction="wipe"))
    assert (alone.name, len(alone)) == ("a", 1)
    with pytest.raises(EpisodeError, match="it has no instruction: give one with --instruction"):
        BagReader(tmp_path, BagRules(outcomes=None)).read(0)


def test_what_is_not_read_is_named(tmp_path):
    (tmp_path / "monday.zip").touch()
    for root in (tmp_path, tmp_path / "monday.zip"):
        with pytest.raises(DataFileError, match="no bag there .there are monday.zip, which are"):
            BagReader(root)
    trial(0.5).write(tmp_path / "one")
    assert BagReader(tmp_path).left_out == ["monday.zip"]


def test_a_bag_that_lists_no_message_may_be_torn(tmp_path):
    bench = trial(0.5)
    bench.rows = []
    bench.write(tmp_path / "one")
    with pytest.raises(EpisodeError, match="lists no message; if it was torn.*bag_repair .*/one"):
        read(tmp_path)


def test_a_pointer_of_git_lfs_is_called_that(tmp_path):
    folder = trial(0.5).write(tmp_path / "one")
    (folder / "one.mcap").write_text("version https://git-lfs.github.com/spec/v1\noid 0\n")
    with pytest.raises(DataFileError, match="one.mcap: is a pointer of Git LFS"):
        read(tmp_path)


def test_a_folder_without_bags_is_refused(tmp_path):
    with pytest.raises(DataFileError, match="no bag there"):
        BagReader(tmp_path)
    shutil.rmtree(tmp_path)
    with pytest.raises(DataFileError, match="no bag there"):
        BagReader(tmp_path)
