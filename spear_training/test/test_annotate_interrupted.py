"""The job killed, interrupted, doubled and on a full disk, in processes of its own."""

import json
import os
import random
import signal
import socket
import subprocess
import time

import pytest
from annotate_process import Nursery
from annotate_stages import write_pictures

NAMES = [f"{number:02d}" for number in range(16)]
SHARDS = 8


@pytest.fixture(scope="module")
def nursery():
    """Return what jobs come from."""
    with Nursery() as made:
        yield made


@pytest.fixture
def pictures(tmp_path):
    """Write the pictures, and a folder for the records."""
    write_pictures(tmp_path / "pictures", NAMES)
    (tmp_path / "out").mkdir()
    return tmp_path / "pictures"


def without_seconds(out):
    """Return the records of a finished run, but for how long things took."""
    paths = sorted(out.iterdir())
    assert [path.name for path in paths] == [
        f"annotations-{index:05d}-of-{SHARDS:05d}.jsonl" for index in range(SHARDS)
    ]
    records = [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]
    return [{**record, "seconds": None} for record in records]


def finished(out):
    """Return the shards that are there, and check that each is whole."""
    paths = sorted(out.glob("annotations-*.jsonl"))
    for path in paths:
        lines = path.read_bytes().splitlines(keepends=True)
        assert len(lines) == len(NAMES) // SHARDS
        assert all(json.loads(line) and line.endswith(b"\n") for line in lines)
    return paths


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_job_that_is_killed_again_and_again_ends_with_the_same_records(
    nursery, pictures, tmp_path, parallel
):
    (tmp_path / "alone").mkdir()
    assert nursery.start(pictures, tmp_path / "alone", SHARDS).finish()[0] == 0
    out, draws = tmp_path / "out", random.Random(parallel)
    for _ in range(3):
        # So slow that it is never done before it is killed, however busy the machine is.
        job = nursery.start(pictures, out, SHARDS, seconds=0.4, parallel=parallel)
        job.wait_for_files(out, len(finished(out)) + draws.randint(0, 2))
        time.sleep(draws.uniform(0.0, 0.1))
        job.signal(signal.SIGKILL)
        assert job.finish()[0] == -signal.SIGKILL
    assert nursery.start(pictures, out, SHARDS, parallel=parallel).finish()[0] == 0
    for path in out.glob(".*"):  # what was being written, and is not taken for a shard
        assert ".part." in path.name
        path.unlink()
    records = without_seconds(out)
    assert [record["id"] for record in records] == [f"{name}.png" for name in NAMES]
    assert records == without_seconds(tmp_path / "alone")


def test_processes_that_do_the_same_at_once_share_the_shards(nursery, pictures, tmp_path):
    out = tmp_path / "out"
    first = nursery.start(pictures, out, SHARDS, seconds=0.1)
    first.wait_for_files(out, 1)
    code, said = nursery.start(pictures, out, SHARDS, seconds=0.1).finish()
    assert code in (0, 2)  # 2: the last shard is in work elsewhere
    assert code == 0 or "another process is at work on annotations-000" in said
    assert first.finish()[0] in (0, 2)
    assert len(without_seconds(out)) == len(NAMES)


@pytest.mark.parametrize("parallel", [1, 4])
def test_ctrl_c_keeps_finished_shards(nursery, pictures, tmp_path, parallel):
    out = tmp_path / "out"
    job = nursery.start(pictures, out, SHARDS, seconds=0.5, parallel=parallel)
    job.wait_for_files(out, 2)
    job.signal(signal.SIGINT)
    code, said = job.finish()
    assert code == 130, said
    assert "Traceback" not in said
    done = 2 * len(finished(out))
    assert 4 <= done < len(NAMES)
    code, said = nursery.start(pictures, out, SHARDS).finish()
    assert code == 0
    assert f"{done} of {len(NAMES)} pictures are there already" in said
    assert len(without_seconds(out)) == len(NAMES)


def test_ctrl_c_does_not_wait_for_a_service_that_is_silent(nursery, pictures, tmp_path):
    out, silent = tmp_path / "out", socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{silent.getsockname()[1]}"
    stages = ["--detector", "gemini", "--segmenter", "given", "--geometry", "depth"]
    words = ["--set", f"gemini.base_url={url}", "--requests", "3", *stages]
    with silent:
        job = nursery.start_command(["--images", str(pictures), "--out", str(out), *words])
        silent.settimeout(60)
        asking = [silent.accept()[0] for _ in range(3)]
        job.signal(signal.SIGINT)
        code, said = job.finish()  # the service would be waited for 60 s, five times
    assert code == 130, said
    assert "finished shards stay, the same command makes the others" in said
    assert "Traceback" not in said
    assert not finished(out)
    for connection in asking:
        connection.close()


def test_a_disk_that_fills_stops_the_job_and_a_later_run_makes_the_rest(
    nursery, pictures, tmp_path
):
    out = tmp_path / "out"
    code, said = nursery.start(pictures, out, SHARDS, largest_file=2_000).finish()
    assert code == 2
    assert "annotations-00000-of-00008.jsonl cannot be written (File too large): make room" in said
    assert not list(out.iterdir())
    assert nursery.start(pictures, out, SHARDS).finish()[0] == 0
    assert len(without_seconds(out)) == len(NAMES)


def test_a_real_file_system_that_is_full_keeps_finished_shards(nursery, pictures, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "none", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small file system, and not in every container")
    try:
        code, said = nursery.start(pictures, small, SHARDS).finish()
        assert code == 2
        assert "No space left on device): make room" in said
        assert 0 < len(finished(small)) < SHARDS
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        assert nursery.start(pictures, small, SHARDS).finish()[0] == 0
        assert len(without_seconds(small)) == len(NAMES)
    finally:
        subprocess.run(["umount", str(small)], check=True)
