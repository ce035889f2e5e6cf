"""A torn bag keeps its whole messages in a new file, and the old one stays as it was."""

import hashlib
import os
import resource
import sqlite3
import struct
import sys
from collections import Counter

import numpy as np
import pytest
import yaml
from mcap.writer import CompressionType, Writer
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as RosbagWriter
from rosbags.typesys import Stores, get_typestore
from trial_bags import (
    IMAGE,
    counts_by_mcap,
    counts_by_rosbags,
    image,
    information,
    write_trial,
)

from spear_bringup.trials.bag_repair import RepairError, main, repair
from spear_bringup.trials.bag_writer import BagWriter

COUNT = 40
EMPTY_WORDS = b"\0\1\0\0\1\0\0\0\0"  # as CDR


def torn_trial(folder, count=60, cut=0, **options):
    """Write a bag, take its metadata.yaml and its last bytes away; return its file."""
    writer = BagWriter(folder, **options)
    write_trial(writer, count)
    writer.close()
    (folder / "metadata.yaml").unlink()
    path = folder / f"{folder.name}.mcap"
    os.truncate(path, path.stat().st_size - cut)
    return path


def noisy_image(number):
    """Return an image that no compression finds in another one, as CDR."""
    return image(number)[:-50_000] + np.random.default_rng(number).bytes(50_000)


def mcap_of(path, compression, chunk_bytes=1 << 30, topic="/camera"):
    """Write an MCAP file of images as other programs do; return its bytes."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=chunk_bytes, compression=compression)
        writer.start(profile="ros2", library="another")
        definition = IMAGE.definition
        schema = writer.register_schema(definition.msgtype, "ros2msg", definition.text.encode())
        channel = writer.register_channel(topic, "cdr", schema)
        for number in range(COUNT):
            writer.add_message(channel, number * 10**8, noisy_image(number), number * 10**8)
        writer.finish()
    return path.read_bytes()


def repaired(folder):
    """Repair a bag, check that what was there is there still, return the report."""
    before = {path: path.read_bytes() for path in folder.iterdir()}
    report = repair(folder)
    kept = {path.read_bytes() for path in folder.iterdir()}
    assert set(before.values()) <= kept  # under whatever name
    for path, content in before.items():
        assert path.name == "metadata.yaml" or path.read_bytes() == content
    assert counts_by_rosbags(folder) == Counter(report.counts)
    assert report.messages == information(folder)["message_count"] > 0
    return report


@pytest.mark.parametrize("cut", [1, 40, 1000, 61_000, 700_000])
def test_a_bag_cut_at_any_byte_keeps_its_whole_chunks(tmp_path, cut):
    torn_trial(tmp_path / "trial", cut=cut)
    report = repaired(tmp_path / "trial")
    assert counts_by_mcap(tmp_path / "trial") == Counter(report.counts)
    assert report.counts[IMAGE.name] >= (60 if cut < 60_000 else 30)
    assert information(tmp_path / "trial")["relative_file_paths"] == ["trial_repaired.mcap"]
    assert repair(tmp_path / "trial").was_whole


def test_a_whole_file_without_metadata_is_not_copied(tmp_path):
    path = torn_trial(tmp_path / "trial")
    report = repaired(tmp_path / "trial")
    assert report.counts == {IMAGE.name: 60, "/command": 180} and not report.torn
    assert sorted(tmp_path.glob("trial/*")) == [path.parent / "metadata.yaml", path]


def test_the_whole_messages_of_a_torn_chunk_are_kept(tmp_path):
    path = torn_trial(tmp_path / "trial", 20, flush_period_s=600.0)  # one chunk
    os.truncate(path, path.stat().st_size // 2)
    report = repaired(tmp_path / "trial")
    assert 5 <= report.counts[IMAGE.name] < 20


@pytest.mark.parametrize("compression", CompressionType)
@pytest.mark.parametrize("lengths", ["of the whole chunk", "not filled in", "zero"])
def test_an_unfinished_chunk_of_any_writer_gives_its_whole_messages(tmp_path, compression, lengths):
    path = tmp_path / "trial" / "trial_0.mcap"  # as rosbag2 names it
    data = bytearray(mcap_of(path, compression))
    chunk = data.index(b"\x06", 8 + 9 + struct.unpack_from("<Q", data, 9)[0])
    length = struct.unpack_from("<Q", data, chunk + 1)[0]
    if lengths != "of the whole chunk":
        # Writers that do not hold a chunk in memory fill in its lengths at its end.
        unknown = b"\xff" * 8 if lengths == "not filled in" else bytes(8)
        data[chunk + 1 : chunk + 9] = unknown
        letters = struct.unpack_from("<I", data, chunk + 9 + 28)[0]
        data[chunk + 9 + 32 + letters : chunk + 9 + 40 + letters] = unknown
    path.write_bytes(data[: chunk + 9 + int(0.9 * length)])
    report = repaired(tmp_path / "trial")
    assert 0.3 * COUNT < report.counts["/camera"] < COUNT


@pytest.mark.parametrize("compression", CompressionType)
@pytest.mark.parametrize("length", [3000, 90_000])
@pytest.mark.parametrize("closed", [False, True])
def test_reading_goes_on_behind_a_damaged_place(tmp_path, compression, length, closed):
    path = tmp_path / "trial" / "trial.mcap"
    data = bytearray(mcap_of(path, compression, chunk_bytes=100_000))
    middle = len(data) // 2
    data[middle : middle + length] = bytes(length)  # pages that never reached the disk
    path.write_bytes(data if closed else data[:-20])
    report = repaired(tmp_path / "trial")
    assert COUNT - 5 < report.messages < COUNT
    with AnyReader([tmp_path / "trial"]) as reader:
        for _, time_ns, raw in reader.messages():
            assert raw[-50_000:] == noisy_image(time_ns // 10**8)[-50_000:]


def test_messages_whose_topic_is_not_known_are_counted(tmp_path):
    path = tmp_path / "trial" / "trial.mcap"
    with path.parent.mkdir() or path.open("wb") as file:
        writer = Writer(file, compression=CompressionType.NONE)
        writer.start()
        schema = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data\n")
        channel = writer.register_channel("/words", "cdr", schema)
        for number in range(6):
            writer.add_message(channel if number % 2 else channel + 7, number, EMPTY_WORDS, number)
        writer.finish()
    os.truncate(path, path.stat().st_size - 9)
    report = repaired(tmp_path / "trial")
    assert report.counts == {"/words": 3}
    assert "; 3 more have no known topic or a wrong checksum and were not taken" in str(report)


def test_metadata_that_deny_what_the_file_holds_are_made_anew_and_kept(tmp_path):
    path = tmp_path / "trial" / "trial.mcap"
    mcap_of(path, CompressionType.NONE)
    denying = {"version": 9, "storage_identifier": "mcap", "message_count": 0}
    denying |= {"relative_file_paths": ["trial.mcap"], "custom_data": {"operator": "ada"}}
    text = yaml.safe_dump({"rosbag2_bagfile_information": denying})
    (path.parent / "metadata.yaml").write_text(text)
    assert repaired(path.parent).messages == COUNT
    assert information(path.parent)["custom_data"] == {"operator": "ada"}
    assert (path.parent / "metadata.before_repair.yaml").read_text() == text


def test_of_a_split_bag_only_the_torn_file_is_copied(tmp_path):
    for number in (2, 10, 9):
        mcap_of(tmp_path / "b" / f"b_{number}.mcap", CompressionType.NONE, topic=f"/part{number}")
    os.truncate(tmp_path / "b/b_10.mcap", (tmp_path / "b/b_10.mcap").stat().st_size - 30)
    report = repaired(tmp_path / "b")
    assert [path.name for path in report.torn] == ["b_10.mcap"]
    names = information(tmp_path / "b")["relative_file_paths"]
    assert names == ["b_2.mcap", "b_9.mcap", "b_10_repaired.mcap"]
    assert report.messages == 3 * COUNT


def test_a_bag_without_messages_is_no_success(tmp_path, capsys, monkeypatch):
    RosbagWriter(tmp_path / "one", version=9, storage_plugin=StoragePlugin.MCAP).__enter__().close()
    before = {path: path.read_bytes() for path in tmp_path.glob("one/*")}
    assert len(before) == 2
    monkeypatch.setattr(sys, "argv", ["bag_repair", str(tmp_path / "one")])
    assert main() == 1
    assert "one is whole and holds no message" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.glob("one/*")} == before


def test_repair_says_when_there_is_nothing_to_repair(tmp_path):
    cases = {
        "empty": (None, b"", "nothing was recorded"),
        "started": ("started.mcap", b"\x89MCAP0\r\n", "has no whole message; it is left as it is"),
        "other": ("other.mcap", b"something else", "does not begin like an MCAP file"),
        "nothing": ("nothing.db3", b"", "does not begin like an SQLite file"),
        "words": ("words.db3", b"something else" * 9, "does not begin like an SQLite file"),
        "packed": ("a_0.mcap.zstd", b"", "holds a_0.mcap.zstd: unpack it first, as with `zstd -d`"),
        "zst": ("b_0.db3.zst", b"", "holds b_0.db3.zst: unpack it first"),
        "gz": ("c_0.mcap.gz", b"", "holds c_0.mcap.gz: unpack it first"),
        "lz4": ("d_0.mcap.lz4", b"", "holds d_0.mcap.lz4: unpack it first"),
    }
    for folder, (name, content, said) in cases.items():
        (tmp_path / folder).mkdir()
        if name:
            (tmp_path / folder / name).write_bytes(content)
        with pytest.raises(RepairError, match=said):
            repair(tmp_path / folder)
        assert [path.name for path in (tmp_path / folder).iterdir()] == ([name] if name else [])


def test_a_copy_that_has_no_room_leaves_the_torn_bag_as_it_is(tmp_path):
    path = torn_trial(tmp_path / "trial", cut=40)
    torn = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(torn) // 2, before[1]))
    try:
        with pytest.raises(OSError, match="File too large: .*trial_repaired.mcap"):
            repair(tmp_path / "trial")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == torn and list(path.parent.iterdir()) == [path]
    assert repair(tmp_path / "trial").counts[IMAGE.name] == 60


@pytest.mark.parametrize("storage", StoragePlugin)
@pytest.mark.parametrize("cut", [0, 50_000])
def test_messages_that_are_compressed_one_by_one_stay_readable(tmp_path, storage, cut):
    store = get_typestore(Stores.ROS2_JAZZY)
    writer = RosbagWriter(tmp_path / "b", version=9, storage_plugin=storage)
    writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection(IMAGE.name, IMAGE.definition.msgtype, typestore=store)
        for number in range(20):
            writer.write(connection, number * 10**8, noisy_image(number))
    (tmp_path / "b" / "metadata.yaml").unlink()
    path = next((tmp_path / "b").glob("b.*"))
    os.truncate(path, path.stat().st_size - cut)
    assert 15 < repaired(tmp_path / "b").messages <= 20


# SQLite -------------------------------------------------------------------------------------------


def db3_of(folder, count=400):
    """Write a bag of images in SQLite, without metadata.yaml; return its file."""
    store = get_typestore(Stores.ROS2_JAZZY)
    with RosbagWriter(folder, version=9) as writer:
        connection = writer.add_connection(IMAGE.name, IMAGE.definition.msgtype, typestore=store)
        for number in range(count):
            writer.write(connection, number * 10**8, image(number)[: 3000 + number])
    (folder / "metadata.yaml").unlink()
    return folder / f"{folder.name}.db3"


def raw_messages(path):
    """Return the hashes of the messages of an SQLite file."""
    with sqlite3.connect(path) as there:
        rows = there.execute("SELECT timestamp, data FROM messages").fetchall()
    return {time_ns: hashlib.sha256(data).digest() for time_ns, data in rows}


@pytest.mark.parametrize("kept", [1.0, 0.999, 0.5])
def test_a_torn_sqlite_bag_keeps_the_messages_before_the_tear(tmp_path, kept):
    path = db3_of(tmp_path / "b")
    whole = raw_messages(path)
    os.truncate(path, int(kept * path.stat().st_size))
    before = path.read_bytes()
    report = repair(tmp_path / "b")
    assert path.read_bytes() == before
    assert 0.9 * kept * 400 < report.messages <= 400 and bool(report.torn) == (kept < 1)
    found = raw_messages(tmp_path / "b" / report.files[0].name)
    assert len(found) == report.messages and found.items() <= whole.items()
    assert information(tmp_path / "b")["storage_identifier"] == "sqlite3"
    assert repair(tmp_path / "b").was_whole


def test_what_the_journal_of_a_killed_writer_holds_is_taken(tmp_path):
    path = db3_of(tmp_path / "b", 20)
    there = sqlite3.connect(path)
    there.execute("PRAGMA journal_mode = WAL")
    with there:
        there.executemany(
            "INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)",
            [(10**11 + number, b"late") for number in range(30)],
        )
    files = {name: (tmp_path / "b" / name).read_bytes() for name in ("b.db3", "b.db3-wal")}
    there.close()
    for name, content in files.items():
        (tmp_path / "b" / name).write_bytes(content)
    report = repair(tmp_path / "b")
    assert report.messages == 50
    assert {name: (tmp_path / "b" / name).read_bytes() for name in files} == files
