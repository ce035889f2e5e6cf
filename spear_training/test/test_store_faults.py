"""What goes wrong while a store is written: rejects, full disks, folders of something else."""

import dataclasses
import json
import resource

import numpy as np
import pyarrow.parquet as pq
import pytest
from store_fixture import MadeUp, finish_store, write_group
from store_writing import content, groups_of, write_store

from spear_policy.inference.episode import EpisodeError
from spear_training.data.reader import DataFileError, EncodedVideo, NotSelectedError
from spear_training.data.store.reader import FrameStore
from spear_training.data.store.writer import begin_store, encode_jpeg, is_finished


def test_a_file_that_was_changed_meanwhile_is_no_part_of_a_store(tmp_path):
    reader = MadeUp(episodes=4)
    root = tmp_path / "changed"
    begin_store(root, reader.metadata())
    for group, part in enumerate(groups_of(4, 2)):
        write_group(root, group, reader, part)
    path = root / "data/chunk-000/file-001.parquet"
    pq.write_table(pq.read_table(path), path)
    with pytest.raises(DataFileError, match="file-001.parquet: is missing or was changed after"):
        finish_store(root, 2)
    path.unlink()
    with pytest.raises(DataFileError, match="file-001.parquet: is missing or was changed after"):
        finish_store(root, 2)


class Faulty(MadeUp):
    """Some of its episodes cannot be used, each for another reason."""

    def read(self, index):
        """Return an episode, or raise."""
        if index == 1:
            raise DataFileError("shard 0: record 1 is cut short")
        if index == 4:
            raise NotSelectedError("not selected: it is another kitchen")
        episode = super().read(index)
        if index == 3:
            # Its first picture is sound, the last one is not: that shows when it is looked at.
            sound = encode_jpeg(np.full((48, 64, 3), 90, np.uint8))
            video = EncodedVideo([sound] * (len(episode) - 1) + [b"no picture"])
            object.__setattr__(episode, "images", {"external": video, "wrist": video})
        return episode


def test_rejected_episodes_leave_no_hole_and_are_named_with_their_reason(tmp_path):
    reader = Faulty(episodes=6)
    metadata = write_store(tmp_path / "store", reader)
    assert (metadata.episodes, metadata.rejected, metadata.not_selected) == (3, 2, 1)
    store = FrameStore(tmp_path / "store")
    assert store.episodes.source_index.tolist() == [0, 2, 5]
    assert store.episodes.first_frame.tolist() == [0, 20, 42]
    assert store.metadata == metadata
    lines = (store.root / "meta/rejects.jsonl").read_text().splitlines()
    rejects = {line["source_index"]: line for line in map(json.loads, lines)}
    assert "cut short" in rejects[1]["reason"]
    assert "camera 'external': picture 22" in rejects[3]["reason"]
    assert [rejects[index]["selected"] for index in (1, 3, 4)] == [True, True, False]
    numbers = pq.read_table(store.root / "data")
    assert numbers["index"].to_pylist() == list(range(len(store)))
    assert sorted(set(numbers["episode_index"].to_pylist())) == [0, 1, 2]


def test_a_group_without_a_usable_episode_is_skipped(tmp_path):
    class Empty(MadeUp):
        def read(self, index):
            if index in (2, 3):
                raise EpisodeError("no")
            return super().read(index)

    write_store(tmp_path / "store", Empty(episodes=6))
    store = FrameStore(tmp_path / "store")
    assert store.episodes.file_number.tolist() == [0, 0, 2, 2]
    assert store.image(len(store) - 1, "wrist").mean() > 0

    class Useless(MadeUp):
        def read(self, index):
            raise EpisodeError("its arm was off")

    with pytest.raises(DataFileError, match="no episode was usable; the first .* arm was off"):
        write_store(tmp_path / "none", Useless(episodes=2))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"command_poses": None}, "it has no commanded poses, but the store's actions are"),
        ({"gripper_commands": None}, "it has no gripper commands"),
        ({"state_known": False}, "its state_known is False"),
        ({"images": {}}, "it has no camera 'external'"),
    ],
)
def test_what_the_store_says_of_all_episodes_holds_for_each(tmp_path, changes, reason):
    begin_store(tmp_path / "store", MadeUp().metadata())
    record = write_group(tmp_path / "store", 0, MadeUp(**changes), [0])
    assert not record.episodes
    assert reason in record.rejects[0].reason


def test_a_full_disk_is_one_sentence_and_harms_nothing_that_is_whole(tmp_path):
    reader = MadeUp(episodes=4, length=100)
    write_store(tmp_path / "whole", reader)
    root = tmp_path / "full"
    begin_store(root, reader.metadata())
    write_group(root, 0, reader, range(2))
    before = content(root)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large: '.*/file-001.parquet'"):
            write_group(root, 1, reader, range(2, 4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert content(root) == before
    write_group(root, 1, reader, range(2, 4))
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large: '.*'"):
            finish_store(root, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not is_finished(root)
    finish_store(root, 2)
    assert content(root) == content(tmp_path / "whole")


def test_a_folder_of_something_else_or_of_other_settings_is_refused(tmp_path):
    reader = MadeUp(episodes=2)
    root = tmp_path / "store"
    metadata = dataclasses.replace(reader.metadata(), source={"outcomes": ("SUCCESS",)})
    begin_store(root, metadata)
    begin_store(root, metadata)
    with pytest.raises(DataFileError, match="control_hz is 10.0, not 5.0"):
        begin_store(root, dataclasses.replace(metadata, control_hz=5.0))
    write_group(root, 0, reader, [0])
    finish_store(root, 1)
    (root / "building").mkdir()
    (root / "building/blueprint.txt").write_text("of the new lab")
    with pytest.raises(DataFileError, match="finished dataset; delete it"):
        begin_store(root, metadata)
    assert (root / "building/blueprint.txt").exists()  # a folder that only bears our name
    (tmp_path / "thesis.pdf").write_text("six years of work")
    with pytest.raises(DataFileError, match="is not empty and holds no begun import"):
        begin_store(tmp_path, reader.metadata())
