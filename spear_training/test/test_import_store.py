"""Imports to a store: the same for any number of processes, whatever stops them in between."""

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from import_fixture import (
    TryingSource,
    content,
    import_quietly,
    start_import,
    wait_for_groups,
)

from spear_policy.inference.episode import EpisodeError
from spear_training.data.import_episodes import main
from spear_training.data.oxe.reader import BridgeReader
from spear_training.data.oxe.table import load_table
from spear_training.data.reader import DataFileError
from spear_training.data.sources import OxeSource
from spear_training.data.store.reader import FrameStore
from spear_training.data.store.writer import is_finished
from spear_training.data.store_import import WorkerError


@pytest.fixture(scope="module")
def bridge_store(bridge_rlds_dir, tmp_path_factory):
    """Return the store of the real episodes, written by this process alone."""
    root = tmp_path_factory.mktemp("stores") / "bridge"
    source = OxeSource(bridge_rlds_dir, load_table()["bridge"])
    metadata = import_quietly(source, root)
    return metadata, FrameStore(root)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return what is in the store of a `TryingSource` that nothing stopped."""
    root = tmp_path_factory.mktemp("whole") / "store"
    import_quietly(TryingSource(), root)
    return content(root)


def test_real_episodes_become_a_store_with_their_metadata(bridge_store, bridge_rlds_dir):
    metadata, store = bridge_store
    assert (metadata.episodes, metadata.frames, metadata.rejected) == (25, 250, 0)
    assert (metadata.row, metadata.robot, metadata.control_hz) == ("bridge", "WidowX 250", 5)
    assert metadata.cameras[0].native_aspect == pytest.approx(4 / 3)
    episode = BridgeReader(bridge_rlds_dir).read(17)
    first = store.episodes.first_frame[17]
    assert np.array_equal(store.states[first : first + 10, :7], episode.poses.astype(np.float32))
    assert store.episodes.sentences(17) == ("put carrot on plate",)
    # Two episodes a file, so that several processes have something to do.
    assert len(list(store.root.glob("data/*/*.parquet"))) == 13


def test_two_processes_write_the_same_bytes_as_one(bridge_store, bridge_rlds_dir, tmp_path, capsys):
    root = tmp_path / "bridge"
    arguments = ["--to", "store", "--format", "oxe", "--row", "bridge"]
    given = ["--input", str(bridge_rlds_dir), "--output", str(root), "--workers", "2"]
    assert main([*arguments, *given]) == 0, capsys.readouterr()
    said = capsys.readouterr()
    assert "25 episodes, 250 frames, 50 s" in said.out
    assert said.err == ""
    assert (root / "report.html").exists()
    (root / "report.html").unlink()
    assert content(root) == content(bridge_store[1].root)


@pytest.mark.slow  # test_store_writing kills one that writes in one process
@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_import_goes_on_and_ends_with_the_same_bytes(whole, tmp_path, seed):
    root, draws = tmp_path / "store", random.Random(seed)
    with start_import(root, workers=2, seconds=0.15) as process:
        wait_for_groups(root, draws.randint(1, 6), process)
        time.sleep(draws.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
    assert not is_finished(root)
    lines = []
    import_quietly(TryingSource(), root, lines=lines)
    assert "of 40 episodes are there already" in lines[0]
    assert content(root) == whole


def test_ctrl_c_stops_all_processes_with_a_sentence(tmp_path):
    root = tmp_path / "store"
    with start_import(root, workers=2, seconds=0.3) as process:
        wait_for_groups(root, 1, process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        said, errors = process.communicate(timeout=120)
    assert process.returncode == 130, (said, errors)
    assert errors == "\nimport_episodes: interrupted; the same command goes on from here\n"
    assert "Traceback" not in said
    assert not is_finished(root)
    assert not list(root.rglob(".*.part.*"))  # nothing half written is left


@pytest.mark.parametrize(
    "place",
    [
        ("class Held:", "    def __del__(self):", "        ask(self)", "Held()"),
        (
            "import io, zipfile",
            "class Asking(io.BytesIO):",
            "    name = property(ask)",
            "zipfile.ZipFile(Asking(), 'w')",
        ),
    ],
    ids=["a destructor", "a zip file that is made"],
)
def test_ctrl_c_is_neither_dropped_nor_followed_by_complaints(place):
    lines = (
        "import signal, time",
        "from spear_training.data import import_episodes",
        "signal.signal(signal.SIGALRM, import_episodes._interrupt)",
        "signal.signal(signal.SIGINT, import_episodes._interrupt)",
        "ask = lambda self: signal.raise_signal(signal.SIGINT)",
        *place,
        "time.sleep(30.0)",
    )
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], stderr=subprocess.PIPE)
    assert ended.returncode == -signal.SIGINT
    assert b"ignored" not in ended.stderr, ended.stderr


@pytest.mark.slow
def test_a_process_that_dies_is_named_and_the_others_end(whole, tmp_path):
    root = tmp_path / "store"
    with pytest.raises(WorkerError, match=r"signal 9 while episodes \d+ to \d+ were read"):
        import_quietly(TryingSource(deadly=22), root, workers=2)
    assert not is_finished(root)
    import_quietly(TryingSource(), root)
    assert content(root) == whole


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_full_disk_is_one_sentence_and_what_is_whole_stays(whole, tmp_path, workers):
    root, limits = tmp_path / "store", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large: '.*/store/.*'"):
            import_quietly(TryingSource(), root, workers=workers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not is_finished(root)
    import_quietly(TryingSource(), root)
    assert content(root) == whole


def test_the_command_says_that_the_disk_is_full(make_record, write_rlds, tmp_path, capsys):
    folder = write_rlds([[make_record(number) for number in range(3)]])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    arguments = ["--to", "store", "--format", "bridge_rlds", "--input", str(folder)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        assert main([*arguments, "--output", str(tmp_path / "out"), "--workers", "1"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = capsys.readouterr().err
    assert re.search("out/.*: File too large; what is written stays", error)
    assert error.count("\n") == 1


def test_too_small_a_disk_is_said_at_the_beginning(tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10**6, 10**6 - 5000, 5000)
    monkeypatch.setattr("spear_policy.shared.files.shutil.disk_usage", lambda _: usage)
    lines = []
    import_quietly(TryingSource(), tmp_path / "store", lines=lines)
    assert re.search(
        "may become too small: 40 episodes need about .* MB, 0.0 MB are free", lines[0]
    )


def test_rejects_are_named_counted_and_leave_the_others_alone(
    make_record, write_rlds, tmp_path, capsys
):
    silent = make_record(1, **{"steps/language_instruction": [b""] * 4})
    folder = write_rlds([[make_record(0), silent, make_record(2), make_record(3)]])
    shard = folder / "toy-train.tfrecord-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-1])
    root = tmp_path / "store"
    arguments = ["--to", "store", "--format", "bridge_rlds", "--input", str(folder)]
    assert main([*arguments, "--output", str(root), "--workers", "1"]) == 1
    said = capsys.readouterr().out
    assert "episode 1: REJECTED" in said
    assert "rejected: 2, see" in said
    store = FrameStore(root)
    assert store.episodes.source_index.tolist() == [0, 2]
    lines = [json.loads(line) for line in open(root / "meta/rejects.jsonl")]
    assert ["instruction is empty" in lines[0]["reason"], "cut short" in lines[1]["reason"]] == [
        1,
        1,
    ]
    # The same again: nothing is to be done, and the verdict stays.
    assert main([*arguments, "--output", str(root), "--workers", "1"]) == 1
    assert "is finished already" in capsys.readouterr().out


def test_an_error_that_no_reader_expects_costs_one_episode(tmp_path, caplog):
    metadata = import_quietly(TryingSource(episodes=5, odd=2), tmp_path / "store")
    assert (metadata.episodes, metadata.rejected) == (4, 1)
    reason = (tmp_path / "store/meta/rejects.jsonl").read_text()
    assert "please report it (ZeroDivisionError: nobody thought of this)" in reason
    assert "Traceback" in caplog.text


def test_a_fault_of_the_whole_source_is_said_at_once(tmp_path):
    reads = []

    class Upside(TryingSource):
        def open(self):
            reader = super().open()
            reader.read = self.read
            return reader

        def read(self, index):
            reads.append(index)
            raise EpisodeError(
                f"/data/{index}.parquet: pose[{index}] has a quaternion of length 0.5"
            )

    with pytest.raises(DataFileError, match="all 8 of 40 episodes looked at first cannot be used"):
        import_quietly(Upside(), tmp_path / "store")
    assert len(reads) == 8
    assert not (tmp_path / "store").exists()


def test_a_source_that_was_mended_is_read_again(tmp_path):
    root, lines = tmp_path / "store", []
    import_quietly(TryingSource(episodes=5, odd=2), root)
    import_quietly(TryingSource(episodes=5), root, lines=lines)
    assert "finished already; --retry-rejected reads the 1 rejected episodes" in lines[0]
    held = content(root)
    import_quietly(TryingSource(episodes=5, odd=2), root, lines=lines, retry_rejected=True)
    assert "of the 1 rejected episodes none can be used yet" in lines[1]
    assert content(root) == held
    metadata = import_quietly(TryingSource(episodes=5), root, lines=lines, retry_rejected=True)
    assert "episode 2 can be used now: the store is made anew" in lines
    assert (metadata.episodes, metadata.rejected) == (5, 0)
    import_quietly(TryingSource(episodes=5), tmp_path / "fresh")
    assert content(root) == content(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "store"]


def test_a_dry_run_shows_some_episodes(bridge_rlds_dir, tmp_path, capsys):
    arguments = ["--to", "store", "--format", "bridge_rlds", "--input", str(bridge_rlds_dir)]
    output = ["--output", str(tmp_path / "bridge"), "--workers", "1", "--dry-run"]
    assert main([*arguments, *output]) == 0
    said = capsys.readouterr().out
    numbers = re.findall(r"^episode (\d+): 10 frames, 1.8 s, '.+'; measured x 0.", said, re.M)
    assert numbers == ["0", "6", "12", "18", "24"]
    assert (tmp_path / "bridge.dry_run/report.html").exists()
    assert not (tmp_path / "bridge").exists()
    # Again, with other rules perhaps: the last one does not stand in the way.
    assert main([*arguments, *output, "--episodes", "3"]) == 0
    assert "1 episodes, 10 frames" in capsys.readouterr().out


def test_a_robot_that_the_store_is_not_of_is_rejected(tmp_path):
    class Other(TryingSource):
        def metadata(self, reader):
            import dataclasses

            return dataclasses.replace(reader.metadata(), robot="another")

    with pytest.raises(DataFileError, match="its robot is 'tester', the store's 'another'"):
        import_quietly(Other(episodes=2), tmp_path / "store")


def test_only_the_chosen_episodes_are_stored(tmp_path):
    import_quietly(TryingSource(), tmp_path / "store", "9,0,3-5")
    store = FrameStore(tmp_path / "store")
    assert store.episodes.source_index.tolist() == [9, 0, 3, 4, 5]
    with pytest.raises(ValueError, match="'40' is outside 0 to 39"):
        import_quietly(TryingSource(), tmp_path / "other", "40")
    assert not (tmp_path / "other").exists()


def test_what_another_version_has_begun_is_not_gone_on_with(tmp_path):
    root = tmp_path / "store"
    with pytest.raises(OSError):
        import_quietly(TryingSource(unreadable=23), root)
    plan = root / "building/import.json"
    plan.write_text(plan.read_text().replace('"version": 3', '"version": 1'))
    with pytest.raises(DataFileError, match="another version of SPEAR has begun"):
        import_quietly(TryingSource(), root)


def test_a_begun_import_is_gone_on_with_by_the_same_one_only(tmp_path):
    root = tmp_path / "store"
    with pytest.raises(OSError, match="Input/output error: 'nowhere/3'"):
        import_quietly(TryingSource(unreadable=23), root)
    with pytest.raises(DataFileError, match=r"of other episodes \(0-39, not 1-2\)"):
        import_quietly(TryingSource(), root, "1-2")
    with pytest.raises(DataFileError, match=r"of other source \(40 tried, not 41 tried\)"):
        import_quietly(TryingSource(episodes=41), root)
    record = root / "building/group-000000.json"
    before = record.read_text()
    record.write_text(before.replace('"source_indices": [0', '"source_indices": [9'))
    with pytest.raises(DataFileError, match="group 0 holds other episodes"):
        import_quietly(TryingSource(), root)
    record.write_text(before)
    import_quietly(TryingSource(), root)
    with pytest.raises(DataFileError, match="holds a finished dataset"):
        import_quietly(TryingSource(), root, "0-3")


def test_a_second_import_to_the_same_folder_is_kept_out(tmp_path):
    root = tmp_path / "store"

    class Meanwhile(TryingSource):
        def settled(self, reader):
            with pytest.raises(DataFileError, match="another import is at work there"):
                import_quietly(TryingSource(), root)
            return self

    import_quietly(Meanwhile(), root)
    assert len(FrameStore(root).episodes) == 40
