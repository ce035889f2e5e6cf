"""A store read at random: the right frame, from any process and thread, and what damage does."""

import os
import pickle
import shutil
import threading

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_fixture import MadeUp, finish_store, write_group

from spear_policy.shared.config import ConfigError
from spear_training.data.reader import DataFileError
from spear_training.data.store import bench
from spear_training.data.store import reader as lookup
from spear_training.data.store import reader as open_files
from spear_training.data.store.bench import MadeUpReader
from spear_training.data.store.format import CameraMetadata, StoreMetadata, read_store_metadata
from spear_training.data.store.reader import FrameStore
from spear_training.data.store.writer import (
    begin_store,
    picture_histogram,
    picture_statistics,
    vector_statistics,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return the folder of a store of three data files; tests must not change it."""
    reader = MadeUp(episodes=6, length=30)
    root = tmp_path_factory.mktemp("stores") / "made_up"
    begin_store(root, reader.metadata())
    for group in range(3):
        write_group(root, group, reader, range(2 * group, 2 * group + 2))
    finish_store(root, 3)
    return root


@pytest.fixture
def root(written, tmp_path):
    """Return a copy of that folder to do harm to."""
    return shutil.copytree(written, tmp_path / "store")


def data_file(root, number):
    """Return the path of a data file."""
    return root / f"data/chunk-000/file-{number:03d}.parquet"


def test_any_frame_is_what_parquet_holds_in_that_row(written):
    store = FrameStore(written)
    rows = pq.read_table(written / "data").to_pylist()
    assert len(store) == len(rows) == sum(range(30, 36))
    rng = np.random.default_rng(1)
    for frame in rng.permutation(len(store))[:60].tolist():
        row = rows[frame]
        assert row["index"] == frame
        for camera in ("external", "wrist"):
            assert store.jpeg(frame, camera) == row[f"observation.images.{camera}"]["bytes"]
        assert store.states[frame].tolist() == row["observation.state"]
        assert store.actions[frame].tolist() == row["action"]
        assert store.stamps_s[frame] == row["observation.stamp_s"]
        assert store.episode_of[frame] == row["episode_index"]


def test_a_picture_shows_its_own_frame(written):
    store = FrameStore(written)
    for frame in (0, 29, 30, 64, 100, len(store) - 1):
        episode = store.episode_of[frame]
        shade = 3 * (frame - store.episodes.first_frame[episode]) + 10 * episode
        assert abs(int(np.median(store.image(frame, "external"))) - shade) <= 2
        assert abs(int(np.median(store.image(frame, "wrist"))) - (255 - shade)) <= 2
        assert store.image(frame, "wrist").shape == (112, 112, 3)


def test_numbers_are_mapped_and_cannot_be_changed(written):
    store = FrameStore(written)
    for array in (store.states, store.actions, store.stamps_s, store.episode_of):
        assert type(array) is np.ndarray
        assert not array.flags.writeable
        assert not array.flags.owndata


def test_a_pickled_store_is_the_same_store(written):
    store = FrameStore(written)
    content = pickle.dumps(store)
    assert len(content) < 1000
    again = pickle.loads(content)
    assert again.jpeg(77, "wrist") == store.jpeg(77, "wrist")
    assert again.metadata == store.metadata
    assert again.episodes.sentences(3) == ("do task 3", "perform task 3")


def test_a_child_after_a_fork_reads_what_the_parent_reads(written):
    store = FrameStore(written)
    expected = store.jpeg(5, "external")
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write, b"same" if store.jpeg(5, "external") == expected else b"other")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"same"
    os.close(read), os.close(write)
    assert store.jpeg(5, "external") == expected


def test_many_threads_share_a_store_and_few_open_files(root, monkeypatch):
    few = open_files.OpenFiles(most=1)
    monkeypatch.setattr(open_files, "SHARED", few)
    store = FrameStore(root)
    expected = [store.jpeg(frame, "external") for frame in range(len(store))]
    wrong = []

    def read(seed):
        frames = np.random.default_rng(seed).integers(0, len(store), 300).tolist()
        wrong.extend(f for f in frames if store.jpeg(f, "external") != expected[f])

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    held = [
        os.readlink(f"/proc/self/fd/{number}")
        for number in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{number}")
    ]
    # The episode list is pyarrow's to close, in a thread of its own.
    assert sum(path.startswith(f"{root}/data/") for path in held) <= 1


@pytest.mark.parametrize("frame", [-1, 195, 10**9])
def test_a_frame_that_does_not_exist_is_refused(written, frame):
    store = FrameStore(written)
    with pytest.raises(IndexError, match=f"no frame {frame}, it has 195"):
        store.jpeg(frame, "external")


def test_a_truncated_data_file_is_named_and_the_others_are_read(root):
    path = data_file(root, 1)
    path.write_bytes(path.read_bytes()[:-1000])
    store = FrameStore(root)
    assert store.image(0, "external").shape == (210, 280, 3)
    assert store.image(len(store) - 1, "external").shape == (210, 280, 3)
    with pytest.raises(DataFileError, match="file-001.parquet: has .* bytes, the store says"):
        store.image(70, "external")
    path.unlink()
    with pytest.raises(DataFileError, match=r"file-001.parquet: cannot be read \(No such file"):
        FrameStore(root).image(70, "external")


def test_a_damaged_picture_is_named_with_its_frame(root):
    store = FrameStore(root)
    path = data_file(root, 0)
    content = path.read_bytes()
    jpeg = store.jpeg(3, "external")
    path.write_bytes(content.replace(jpeg, bytes(len(jpeg))))
    with pytest.raises(DataFileError, match="file-000.parquet: the external picture of frame 3"):
        FrameStore(root).image(3, "external")
    assert FrameStore(root).image(4, "external").any()


def test_the_lookup_can_be_made_again_from_the_data_files(root, written, capsys):
    shutil.rmtree(root / "lookup")
    with pytest.raises(DataFileError, match="make_lookup .*store`"):
        FrameStore(root)
    assert lookup.main([str(root)]) == 0
    assert "3 data files, 195 frames" in capsys.readouterr().out
    for path in (written / "lookup").iterdir():
        assert (root / "lookup" / path.name).read_bytes() == path.read_bytes()
    path = data_file(root, 2)
    path.write_bytes(path.read_bytes()[:-1])
    assert lookup.main([str(root)]) == 2
    error = capsys.readouterr().err
    assert "file-002.parquet" in error
    assert error.count("\n") == 1
    with pytest.raises(DataFileError, match=r"files.json: .* make it with"):
        FrameStore(root)  # half a lookup is none


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("meta/info.json", "is no store"),
        ("meta/spear.json", r"spear.json: cannot be read \(No such file"),
        ("meta/episodes/chunk-000/file-000.parquet", "has no episode list"),
        ("lookup/states.npy", "states.npy: cannot be read"),
        ("lookup/length_wrist.npy", "length_wrist.npy: cannot be read"),
    ],
)
def test_a_missing_part_is_named(root, name, text):
    (root / name).unlink()
    with pytest.raises(DataFileError, match=text):
        FrameStore(root)


@pytest.mark.parametrize(
    "name", ["meta/spear.json", "meta/episodes/chunk-000/file-000.parquet", "lookup/actions.npy"]
)
def test_a_part_that_is_cut_short_is_named(root, name):
    path = root / name
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataFileError, match=path.name):
        FrameStore(root)


def test_metadata_survive_their_file(written):
    metadata = read_store_metadata(written / "meta/spear.json")
    assert metadata.camera_names == ("external", "wrist")
    (fitted,) = metadata.cameras[0].fits
    assert (fitted.source_width, fitted.source_height, fitted.mode) == (64, 48, "crop")
    assert (metadata.episodes, metadata.frames, metadata.rejected) == (6, 195, 0)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"version": 2}, "import the data again"),
        ({"name": "a/b"}, "a word for a folder"),
        ({"control_hz": 0}, "must be positive"),
        ({"cameras": ()}, "must be 'external'"),
        ({"cameras": (CameraMetadata("wrist"),)}, "must be 'external'"),
        ({"cameras": (CameraMetadata("external", 40.0),)}, "native_aspect of external is 40"),
    ],
)
def test_metadata_that_no_store_has_are_refused(changes, text):
    valid = {
        "name": "toy",
        "robot": "toy",
        "control_hz": 5,
        "cameras": (CameraMetadata("external"),),
        "action_from": "reached",
        "gripper_from": "measured",
    }
    StoreMetadata(**valid)
    with pytest.raises(ConfigError, match=text):
        StoreMetadata(**(valid | changes))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_statistics_from_histograms_are_those_of_the_pixels(seed, count):
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, rng.integers(1, 257), (count, 9, 7, 3)).astype(np.uint8)
    pictures[..., 2] //= 2
    found = picture_statistics(sum(picture_histogram(p) for p in pictures), count)
    pixels = pictures.reshape(-1, 3) / 255
    assert found["mean"].shape == (3, 1, 1)
    assert found["count"].tolist() == [count]
    for name, function in (("min", np.min), ("max", np.max), ("mean", np.mean), ("std", np.std)):
        assert np.allclose(found[name].ravel(), function(pixels, axis=0)), name
    for name, level in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        expected = np.quantile(pixels, level, axis=0, method="inverted_cdf")
        assert np.allclose(found[name].ravel(), expected), name


def test_statistics_of_vectors_are_numpys():
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    found = vector_statistics(values)
    assert np.allclose(found["std"], values.astype(float).std(axis=0))
    assert np.allclose(found["q10"], np.quantile(values.astype(float), 0.1, axis=0))
    assert found["count"].tolist() == [50]


def test_the_bench_makes_a_store_and_says_what_reading_takes(tmp_path, capsys):
    assert bench.main([str(tmp_path / "made"), "--make", "200", "--samples", "50"]) == 0
    output = capsys.readouterr().out
    assert "random samples/s/core read and decoded (goal 1,000)" in output
    assert "frames/s" in output
    store = FrameStore(tmp_path / "made")
    result = bench.bench_store(store, 20)
    assert 0 < result.read_cpu_s < result.decoded_cpu_s
    assert 15e3 < result.jpeg_bytes / 20 < 30e3  # about as hard as a camera's pictures
    assert bench.main([str(tmp_path)]) == 2
    assert "is no store" in capsys.readouterr().err


def test_made_up_episodes_are_the_same_every_time():
    one, two = MadeUpReader(3).read(2), MadeUpReader(3).read(2)
    assert np.array_equal(one.poses, two.poses)
    assert np.array_equal(one.images["wrist"], two.images["wrist"])
    moved = np.roll(one.images["external"][0], 1, axis=1)
    assert np.array_equal(one.images["external"][1], moved)
    assert cv2.Laplacian(one.images["external"][0], cv2.CV_64F).std() > 10  # no flat picture
