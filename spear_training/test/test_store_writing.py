"""The canonical store as it is written: what is in it, who may write it, and what goes wrong."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from store_fixture import MadeUp, finish_store
from store_writing import BRIDGE, content, write_store

from spear_policy.inference.image_geometry import fit
from spear_training.data.oxe.reader import BridgeReader
from spear_training.data.reader import DataFileError
from spear_training.data.store.format import read_group
from spear_training.data.store.reader import FrameStore
from spear_training.data.store.writer import is_finished


@pytest.fixture(scope="module")
def bridge(bridge_rlds_dir, tmp_path_factory):
    """Return the 25 real episodes and their store, written in groups of 8."""
    reader = BridgeReader(bridge_rlds_dir)
    root = tmp_path_factory.mktemp("stores") / "bridge"
    write_store(root, reader, size=8, metadata=BRIDGE)
    return [reader.read(index) for index in range(len(reader))], FrameStore(root)


def test_real_episodes_come_back_with_the_same_numbers(bridge):
    episodes, store = bridge
    assert len(store.episodes) == 25
    assert len(store) == 250
    for number, episode in enumerate(episodes):
        first = store.episodes.first_frame[number]
        rows = slice(first, first + store.episodes.length[number])
        assert np.array_equal(store.states[rows, :7], episode.poses.astype(np.float32))
        assert np.array_equal(store.states[rows, 7], episode.gripper_openings.astype(np.float32))
        assert np.array_equal(store.actions[rows, :7], store.states[rows, :7])
        assert np.array_equal(store.actions[rows, 7], episode.gripper_commands.astype(np.float32))
        assert np.array_equal(store.stamps_s[rows], episode.stamps_s - episode.stamps_s[0])
        assert np.all(store.episode_of[rows] == number)
        assert store.episodes.sentences(number) == (episode.instruction,)
        assert store.episodes.source_index[number] == number


def test_real_pictures_come_back_unsquashed_and_nearly_as_they_were(bridge):
    episodes, store = bridge
    for number in (0, 13, 24):
        for step in (0, 9):
            frame = store.episodes.first_frame[number] + step
            expected = fit(episodes[number].images["external"][step], 280, 210, native_aspect=4 / 3)
            picture = store.image(frame, "external")
            assert picture.shape == (210, 280, 3)
            error = np.abs(picture.astype(int) - expected)
            assert error.mean() < 2.5
            # Red and blue are not exchanged.
            assert np.abs(picture[..., 0].astype(int) - expected[..., 2]).mean() > 2 * error.mean()
    jpeg = store.jpeg(7, "external")
    sizes = jpeg.index(b"\xff\xc0")  # start of frame: after 11 bytes the sampling of Y, then of Cb
    assert (jpeg[sizes + 11], jpeg[sizes + 14]) == (0x22, 0x11)  # 4:2:0


def test_the_folder_is_what_lerobot_reads(bridge):
    _, store = bridge
    info = json.loads((store.root / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"]) == ("v3.0", 5)
    counts = {key: info[f"total_{key}"] for key in ("episodes", "frames", "tasks")}
    assert counts == {"episodes": 25, "frames": 250, "tasks": 4}
    rows = []
    for number in range(4):
        path = info["data_path"].format(chunk_index=0, file_index=number)
        file = pq.ParquetFile(store.root / path)
        assert file.schema_arrow.names == list(info["features"])
        for group in range(file.num_row_groups):
            part = file.metadata.row_group(group)
            assert part.num_rows <= 32
            chunks = [part.column(column) for column in range(part.num_columns)]
            assert {chunk.compression for chunk in chunks} == {"UNCOMPRESSED"}
            assert not any(chunk.has_dictionary_page for chunk in chunks)
        rows.append(file.read().to_pandas())
    rows = pd.concat(rows, ignore_index=True)
    assert rows["index"].tolist() == list(range(250))
    assert rows["episode_index"].tolist() == np.repeat(range(25), 10).tolist()
    assert rows["frame_index"].tolist() == 25 * list(range(10))
    assert np.allclose(rows["timestamp"], rows["frame_index"] / 5)
    assert rows["timestamp"].dtype == np.float32
    # LeRobot takes row `task_index` of this table, and the sentence from its pandas index.
    tasks = pd.read_parquet(store.root / "meta/tasks.parquet")
    assert tasks["task_index"].tolist() == [0, 1, 2, 3]
    episodes = pd.read_parquet(store.root / "meta/episodes")
    for number, episode in episodes.iterrows():
        here = rows.iloc[episode["dataset_from_index"] : episode["dataset_to_index"]]
        assert set(here["episode_index"]) == {number}
        assert tasks.iloc[here["task_index"].iloc[0]].name == episode["tasks"][0]
        assert episode["data/file_index"] == number // 8
    assert not (store.root / "building").exists()


def test_statistics_are_those_of_all_rows_and_of_each_episode(bridge):
    _, store = bridge
    stats = json.loads((store.root / "meta/stats.json").read_text())
    states = store.states.astype(float)
    assert np.allclose(stats["observation.state"]["mean"], states.mean(axis=0))
    assert np.allclose(stats["observation.state"]["q99"], np.quantile(states, 0.99, axis=0))
    assert stats["action"]["count"] == [250]
    pictures = stats["observation.images.external"]
    assert pictures["count"] == [25 * 8]
    seen = np.mean([store.image(frame, "external") for frame in range(0, 250, 3)], axis=(0, 1, 2))
    assert np.allclose(np.ravel(pictures["mean"]), seen / 255, atol=0.01)
    episodes = pd.read_parquet(store.root / "meta/episodes")
    rows = slice(30, 40)
    column = np.stack(episodes["stats/action/std"])
    assert np.allclose(column[3], store.actions[rows].astype(float).std(axis=0))


def test_true_stamps_are_kept_from_0_on_beside_those_that_lerobot_wants(tmp_path):
    stamps_s = 1700.5 + np.array([0, 0.11, 0.19, 0.3, 0.42])
    reader = MadeUp(episodes=1, length=5, stamps_s=stamps_s)
    write_store(tmp_path / "store", reader)
    store = FrameStore(tmp_path / "store")
    assert np.allclose(store.stamps_s, [0, 0.11, 0.19, 0.3, 0.42], atol=1e-9)
    timestamps = pq.read_table(store.root / "data")["timestamp"].to_numpy()
    assert np.allclose(timestamps, [0, 0.1, 0.2, 0.3, 0.4])


KILLED = """
import sys
sys.path.insert(0, {here!r})
from store_fixture import MadeUp, write_group
from spear_training.data.store.writer import begin_store

class Slow(MadeUp):
    def read(self, index):
        if index == 3:
            print("half of group 1 is read", flush=True)
            sys.stdin.read()
        return super().read(index)

reader = Slow(episodes=6)
begin_store({root!r}, reader.metadata())
for group in range(3):
    write_group({root!r}, group, reader, range(2 * group, 2 * group + 2))
"""


def test_a_killed_import_goes_on_and_ends_with_the_same_bytes(tmp_path):
    reader = MadeUp(episodes=6)
    write_store(tmp_path / "whole", reader)
    root = tmp_path / "killed"
    script = KILLED.format(here=os.path.dirname(__file__), root=str(root))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdout.readline().startswith(b"half of group 1")
        process.send_signal(signal.SIGKILL)
    assert not is_finished(root)
    with pytest.raises(DataFileError, match="begun import"):
        FrameStore(root)
    left = [path.name for path in root.rglob(".*.part.*")]
    assert len(left) == 1  # what the killed process was writing
    with pytest.raises(DataFileError, match="group 1 of 3 is not written; run the import again"):
        finish_store(root, 3)
    written = read_group(root, 0)

    class Watched(MadeUp):
        seen = []

        def read(self, index):
            self.seen.append(index)
            return super().read(index)

    write_store(root, Watched(episodes=6))
    assert Watched.seen == [2, 3, 4, 5]
    assert written.episodes[1].length == 21
    assert content(root) == content(tmp_path / "whole")


def test_an_episode_that_lacks_the_wrist_camera_gets_black_and_is_known_to(tmp_path):
    class Half(MadeUp):
        def read(self, index):
            episode = super().read(index)
            if index == 1:
                object.__setattr__(episode, "images", {"external": episode.images["external"]})
            return episode

    metadata = write_store(tmp_path / "store", Half(episodes=3))
    store = FrameStore(tmp_path / "store")
    assert metadata.black_wrist == 1
    assert store.episodes.black_wrist.tolist() == [False, True, False]
    first = store.episodes.first_frame
    assert store.image(first[1], "wrist").max() == 0
    assert store.image(first[2], "wrist").min() > 200
    stats = json.loads((store.root / "meta/stats.json").read_text())
    assert min(np.ravel(stats["observation.images.wrist"]["min"])) > 0.3
