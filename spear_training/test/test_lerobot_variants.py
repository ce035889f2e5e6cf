"""LeRobot folders as other tools leave them: labels, stale lists, depth, holes, odd columns."""

import json

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from import_fixture import import_quietly
from lerobot_writing import (
    EXTERNAL,
    FPS,
    KEYS,
    WRIST,
    change_info,
    open_folder,
    recording,
    write_lines,
    write_v2,
    write_v3,
)
from scipy.spatial.transform import Rotation

from spear_policy.inference.episode import EpisodeError, split_episode
from spear_policy.shared.config import read_dataclass
from spear_training.data.import_run import summary_lines
from spear_training.data.lerobot.reader import LeRobotKeys
from spear_training.data.loader import FrameSampleReader
from spear_training.data.reader import DataFileError
from spear_training.data.sources import LeRobotSource
from spear_training.data.store.reader import FrameStore

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 4711\n" % (b"0" * 64)


def changed(path, **columns):
    """Write a data file again with other columns; a column may be made of the old values."""
    table = pq.read_table(path)
    for name, values in columns.items():
        values = values(table[name].to_pylist()) if callable(values) else values
        values = values if isinstance(values, pa.Array) else pa.array(values)
        position = table.column_names.index(name) if name in table.column_names else None
        if position is None:
            table = table.append_column(name, values)
        else:
            table = table.set_column(position, name, values)
    pq.write_table(table, path)


def data_file(root, number):
    """Return the data file of an episode of a v2 folder."""
    return root / f"data/chunk-000/episode_{number:06d}.parquet"


def with_labels(root, sentence, label):
    """Write a v2.1 folder as GR00T has them: a label stands among the tasks."""
    one = recording(0)
    one.task = sentence
    one.columns["annotation.sentence"] = np.zeros(len(one), np.int64)
    one.columns["annotation.validity"] = np.ones(len(one), np.int64)
    write_v2(root, [one])
    names = enumerate((sentence, label))
    write_lines(root / "meta/tasks.jsonl", [{"task_index": n, "task": text} for n, text in names])
    line = {"episode_index": 0, "tasks": [sentence, label], "length": len(one)}
    write_lines(root / "meta/episodes.jsonl", [line])
    return root


def test_only_what_a_rows_task_names_is_a_sentence(tmp_path):
    root = with_labels(tmp_path / "groot", "open the drawer", "valid")
    episode = open_folder(root).read(0)
    assert (episode.instruction, episode.other_instructions) == ("open the drawer", ())
    chosen = open_folder(root, instruction="annotation.validity").read(0)
    assert chosen.instruction == "valid"
    both = open_folder(root, sentences=["annotation.sentence", "annotation.validity"]).read(0)
    assert both.other_instructions == ("valid",)


def test_a_text_in_place_of_a_list_of_tasks_is_one_sentence(tmp_path):
    root = write_v2(tmp_path / "text", [recording(0)])
    (root / "meta/tasks.jsonl").unlink()
    line = {"episode_index": 0, "tasks": "wipe the table", "length": 6}
    write_lines(root / "meta/episodes.jsonl", [line])
    episode = open_folder(root).read(0)
    assert (episode.instruction, episode.other_instructions) == ("wipe the table", ())


def test_a_set_without_task_index_has_the_sentence_of_its_list(tmp_path):
    root = write_v2(tmp_path / "plain", [recording(0)])
    table = pq.read_table(data_file(root, 0))
    pq.write_table(table.drop_columns(["task_index"]), data_file(root, 0))
    features = json.loads((root / "meta/info.json").read_text())["features"]
    del features["task_index"]
    change_info(root, features=features)
    assert open_folder(root).read(0).instruction == "do task 0"


def test_several_tasks_in_one_episode_become_several(tmp_path):
    recordings = [recording(0), recording(1)]
    root = write_v2(tmp_path / "two_tasks", recordings)
    changed(data_file(root, 0), task_index=[0, 0, 0, 0, 1, 1])
    whole = open_folder(root).read(0)
    assert whole.later_instructions == ((4, "do task 1"),)
    source = LeRobotSource(root, read_dataclass(LeRobotKeys, KEYS, "keys"))
    import_quietly(source, tmp_path / "store")
    store = FrameStore(tmp_path / "store")
    assert store.episodes.length.tolist() == [4, 2, 6]
    assert store.episodes.source_index.tolist() == [0, 0, 1]
    sentences = [store.episodes.sentences(number) for number in range(3)]
    assert sentences == [("do task 0",), ("do task 1",), ("do task 1",)]
    # The arm may come to rest where its task ends.
    assert not store.episodes.continues.any()
    green = [store.image(frame, "external")[..., 1].mean() for frame in range(6)]
    assert green == pytest.approx(20 * np.arange(6), abs=6)


def test_a_hole_in_time_is_bridged_by_nothing(tmp_path):
    one = recording(0, steps=40)
    stamps = np.arange(40) / FPS
    stamps[20:] += 2.0
    one.columns["timestamp"] = stamps.astype(np.float32)
    one.columns["observation.state"][20:, 1] += 0.5
    root = write_v2(tmp_path / "hole", [one])
    first, second = split_episode(open_folder(root).read(0))
    assert (len(first), len(second), first.continues, second.continues) == (20, 20, True, False)
    assert "Nothing was recorded in the 2.100 s after them" in first.notes
    assert first.name == "hole episode 0 part 0"
    source = LeRobotSource(root, read_dataclass(LeRobotKeys, KEYS, "keys"))
    import_quietly(source, tmp_path / "store")
    store = FrameStore(tmp_path / "store")
    samples = FrameSampleReader(store)
    # Steady motion along x, and none along y; the last second before the hole is no sample.
    for frame in range(20):
        translations = samples[frame].translations_m
        assert np.diff(translations[:, 0]) == pytest.approx([0.02] * 4, abs=1e-5)
        assert np.abs(translations[:, 1]).max() < 1e-6
    shades = [samples[frame].images["external"][..., 1].mean() for frame in (10, 11, 19)]
    assert shades == pytest.approx([0, 20, 180], abs=6)


def test_pieces_too_short_for_a_chunk_before_a_hole_are_left_out(tmp_path):
    one = recording(0, steps=8)
    one.columns["timestamp"] = (np.arange(8) / FPS + 3.0 * (np.arange(8) // 2)).astype(np.float32)
    root = write_v2(tmp_path / "pairs", [one])
    (last,) = split_episode(open_folder(root).read(0))
    assert (last.notes, last.left_out) == ("Steps 6 to 7 of 8.", 6)
    import_quietly(
        LeRobotSource(root, read_dataclass(LeRobotKeys, KEYS, "keys")), tmp_path / "store"
    )
    metadata = FrameStore(tmp_path / "store").metadata
    said = list(summary_lines(tmp_path / "store", metadata, tmp_path))
    assert any(line.startswith("left out: 6 steps, single ones, in holes or") for line in said)
    changed(data_file(root, 0), timestamp=[100.0 * step for step in range(8)])
    with pytest.raises(
        EpisodeError, match="100.000 s .its steps are 100 s apart: are the stamps in"
    ):
        split_episode(open_folder(root).read(0))


# Where the list of episodes is wrong -------------------------------------------------------------


def test_an_episode_that_another_data_file_holds_is_found(tmp_path):
    root = write_v3(tmp_path / "stale", [recording(number) for number in range(4)])
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    # As lerobot's converter leaves it: what a new file begins with is said to be in the one before.
    changed(path, **{"data/file_index": lambda files: [0, 0, 0, files[3]]})
    reader = open_folder(root)
    assert [reader.read(number).poses[0, 1] for number in range(4)] == pytest.approx(
        [0, 0.1, 0.2, 0.3]
    )


@pytest.mark.parametrize("episodes", [3, 4])
def test_an_episode_that_begins_the_next_mp4_is_found(tmp_path, episodes):
    recordings = [recording(number, steps=4 + number) for number in range(episodes)]
    root = write_v3(tmp_path / "stale", recordings, codec="libx264")
    changes = {"data/file_index": lambda files: [0, 0, 0, 1][:episodes]}
    for key in (EXTERNAL, WRIST):
        changes[f"videos/{key}/file_index"] = lambda files: [0, 0, 0, 1][:episodes]
        changes[f"videos/{key}/from_timestamp"] = lambda begins: [0.0, 0.4, 0.9, 0.6][:episodes]
    changed(root / "meta/episodes/chunk-000/file-000.parquet", **changes)
    reader = open_folder(root)
    for number, one in enumerate(recordings):
        video = reader.read(number).images["external"]
        greens = [int(np.median(picture[..., 1])) for picture in video]
        assert greens == pytest.approx(one.pictures[EXTERNAL][:, 0, 0, 1], abs=5)


def test_an_episode_over_two_data_files_is_put_together(tmp_path):
    root = write_v3(tmp_path / "over", [recording(0), recording(1)], per_file=1)
    first, second = (root / f"data/chunk-000/file-{number:03d}.parquet" for number in range(2))
    rows = pq.read_table(second)
    pq.write_table(pa.concat_tables([pq.read_table(first), rows.slice(0, 2)]), first)
    pq.write_table(rows.slice(2), second)
    assert open_folder(root).read(1).poses[:, 0] == pytest.approx(0.3 + 0.01 * np.arange(6))


def test_a_data_file_elsewhere_is_found_and_a_lost_one_is_named(tmp_path):
    root = write_v2(tmp_path / "moved", [recording(0), recording(1)])
    (root / "data/chunk-001").mkdir()
    data_file(root, 1).rename(root / "data/chunk-001/episode_000001.parquet")
    assert len(open_folder(root).read(1)) == 6
    (root / "data/chunk-001/episode_000001.parquet").unlink()
    with pytest.raises(DataFileError, match="No such file.*; no other data file has rows of"):
        open_folder(root).read(1)
    changed(data_file(root, 0), episode_index=[5] * 6)
    with pytest.raises(DataFileError, match="has no row of episode 0, nor has another") as caught:
        open_folder(root).read(0)
    assert "copy it again" not in str(caught.value)


def test_an_mp4_elsewhere_is_found(tmp_path):
    root = write_v2(tmp_path / "moved", [recording(0)], codec="libx264")
    (root / "videos/chunk-000").rename(root / "videos/chunk-001")
    assert open_folder(root).read(0).images["wrist"][0].shape == (48, 64, 3)


def test_a_lost_row_is_laid_to_the_data_file_that_cannot_be_read(tmp_path):
    root = write_v2(tmp_path / "half", [recording(number) for number in range(2)])
    data_file(root, 0).unlink()
    data_file(root, 1).write_bytes(POINTER)
    with pytest.raises(DataFileError, match="episode_000001.parquet: is a pointer of Git LFS"):
        open_folder(root).read(0)


def test_a_version_without_its_letter_is_read(tmp_path):
    root = write_v2(tmp_path / "bare", [recording(0)])
    change_info(root, codebase_version="2.1")
    assert open_folder(root).folder.version == "v2.1"


def test_several_listed_sentences_without_task_index_need_a_key(tmp_path):
    root = write_v2(tmp_path / "two", [recording(0)])
    table = pq.read_table(data_file(root, 0))
    pq.write_table(table.drop_columns("task_index"), data_file(root, 0))
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features.pop("task_index")
    change_info(root, features=features)
    write_lines(
        root / "meta/episodes.jsonl",
        [{"episode_index": 0, "length": len(table), "tasks": ["wipe", "valid"]}],
    )
    with pytest.raises(EpisodeError, match="'valid'.*no column task_index.*`instruction: NAME` in"):
        open_folder(root).read(0)


def test_rows_out_of_order_are_sorted(tmp_path):
    root = write_v2(tmp_path / "odd", [recording(0)])
    table = pq.read_table(data_file(root, 0))
    pq.write_table(table.take([0, 1, 3, 2, 4, 5]), data_file(root, 0))
    assert open_folder(root).read(0).poses[:, 0] == pytest.approx(0.3 + 0.01 * np.arange(6))


@pytest.mark.parametrize("name", ["meta/info.json", "data", "videos"])
def test_a_pointer_of_git_lfs_is_called_that(tmp_path, name):
    root = write_v2(tmp_path / "lfs", [recording(0)], codec="libx264")
    path = next(root.glob(name)) if name.startswith("meta") else None
    path = path or next(p for p in sorted((root / name).rglob("*")) if p.is_file())
    path.write_bytes(POINTER)
    with pytest.raises(DataFileError, match="is a pointer of Git LFS.*git lfs pull") as caught:
        open_folder(root).read(0)
    assert str(caught.value).count(str(path)) == 1


def test_a_fault_names_its_file_once(tmp_path):
    root = write_v2(tmp_path / "faults", [recording(0)])
    changed(data_file(root, 0), timestamp=[0.0, 0.1, 0.05, 0.3, 0.4, 0.5])
    with pytest.raises(EpisodeError, match="stamp 2 is not after") as caught:
        open_folder(root).read(0)
    assert str(caught.value).count("faults") == 1
    data_file(root, 0).write_bytes(b"PAR1 and no more")
    with pytest.raises(DataFileError) as caught:
        open_folder(root).read(0)
    assert str(caught.value).count("episode_000000.parquet") == 1


def test_fewer_episodes_in_the_list_than_said_are_remarked(tmp_path):
    root = write_v2(tmp_path / "fewer", [recording(0), recording(1)])
    (line, _) = (root / "meta/episodes.jsonl").read_text().splitlines()
    (root / "meta/episodes.jsonl").write_text(line + "\n")
    lines = []
    source = LeRobotSource(root, read_dataclass(LeRobotKeys, KEYS, "keys"))
    import_quietly(source, tmp_path / "store", lines=lines)
    assert lines[0] == "info.json says 2 episodes, the list of episodes has 1: those are read"


# Pictures and columns ----------------------------------------------------------------------------


def png(pixels):
    """Return a cell of an image column."""
    return {"bytes": cv2.imencode(".png", pixels)[1].tobytes(), "path": None}


@pytest.mark.parametrize(
    ("pixels", "text"),
    [
        (np.full((48, 64), 700, np.uint16), "16 bits a channel, so it is a depth image"),
        (np.full((48, 64, 4), 100, np.uint8), "transparent in places"),
    ],
)
def test_what_is_no_colour_picture_is_refused(tmp_path, pixels, text):
    root = write_v2(tmp_path / "depth", [recording(0)])
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    changed(data_file(root, 0), **{EXTERNAL: pa.array([png(pixels)] * 6, kind)})
    with pytest.raises(EpisodeError, match=text):
        open_folder(root).read(0)


def test_pictures_of_one_channel_and_opaque_ones_are_read(tmp_path):
    root = write_v2(tmp_path / "grey", [recording(0)])
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    opaque = np.dstack([np.full((48, 64, 3), (10, 20, 30), np.uint8), np.full((48, 64), 255)])
    pictures = {EXTERNAL: np.full((48, 64), 99, np.uint8), WRIST: opaque.astype(np.uint8)}
    cells = {key: pa.array([png(pixels)] * 6, kind) for key, pixels in pictures.items()}
    changed(data_file(root, 0), **cells)
    images = open_folder(root).read(0).images
    assert images["external"][0][0, 0].tolist() == [99, 99, 99]
    assert images["wrist"][0][0, 0].tolist() == [30, 20, 10]


def test_a_feature_that_says_it_is_depth_is_refused_at_once(tmp_path):
    root = write_v2(tmp_path / "depth", [recording(0)], codec="libx264")
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features[EXTERNAL]["info"] = {"video.is_depth_map": True}
    change_info(root, features=features)
    with pytest.raises(DataFileError, match="camera 'external', is depth"):
        open_folder(root)


def test_numbers_in_lists_of_one_are_numbers(tmp_path):
    root = write_v2(tmp_path / "lists", [recording(0)])
    lists = {
        name: lambda values: [[value] for value in values]
        for name in ("timestamp", "frame_index", "task_index", "episode_index")
    }
    changed(data_file(root, 0), **lists)
    episode = open_folder(root).read(0)
    assert episode.stamps_s == pytest.approx(np.arange(6) / FPS)
    assert episode.instruction == "do task 0"


def libero(root, rotation):
    """Write positions, rotations and fingers in columns of their own."""
    one = recording(0)
    state = one.columns.pop("observation.state")
    one.columns |= {"ee_pos": state[:, :3], "ee_rot": rotation.astype(np.float32)}
    one.columns["fingers"] = np.column_stack([0.04 * state[:, 7], -0.04 * state[:, 7]])
    one.columns["x_mm"] = state[:, 0] * 1000
    return write_v2(root, [one])


TURNS = Rotation.from_euler("xyz", [[3.0, 0.1 * step, 0.2] for step in range(6)])


@pytest.mark.parametrize(
    ("numbers", "rule"),
    [
        (TURNS.as_rotvec(), {"encoding": "axis_angle"}),
        (
            TURNS.as_matrix()[:, :, :2].transpose(0, 2, 1).reshape(6, 6),
            {"encoding": "rotation_6d", "vectors": "columns"},
        ),
        (TURNS.as_matrix()[:, :2].reshape(6, 6), {"encoding": "rotation_6d", "vectors": "rows"}),
    ],
)
def test_poses_in_separate_columns_are_joined(tmp_path, numbers, rule):
    fingers = {"encoding": "linear", "key": "fingers", "closed_at": 0.0, "open_at": 0.04}
    changes = {
        "joined": {"pose": ["ee_pos[0:2]", "ee_pos[2]", "ee_rot"]},
        "pose": {"key": "pose", **rule},
        "command": "reached",
        "gripper_opening": fingers,
    }
    reader = open_folder(libero(tmp_path / "libero", numbers), **changes)
    episode = reader.read(0)
    assert episode.poses[:, 0] == pytest.approx(0.3 + 0.01 * np.arange(6))
    turned = Rotation.from_quat(episode.poses[:, 3:]) * TURNS.inv()
    assert turned.magnitude().max() < 1e-5
    assert episode.gripper_openings == pytest.approx(np.linspace(1, 0, 6), abs=1e-6)
    changes["joined"] = {"pose": ["ee_pos", "ee_rot[3:9]"]}
    with pytest.raises(EpisodeError, match=r"joined has ee_rot\[3:9\]: ee_rot has"):
        open_folder(tmp_path / "libero", **changes).read(0)
    changes["joined"] = {"pose": ["ee_pos", "elsewhere"]}
    with pytest.raises(DataFileError, match="no feature elsewhere; it has"):
        open_folder(tmp_path / "libero", **changes)
