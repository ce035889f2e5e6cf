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
FINAL = "annotations-00000-of-00001.jsonl"
PARTIAL = FINAL + ".partial"


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


def without_seconds(path):
    """Return the lines of a file, but for how long things took."""
    lines = path.read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"\n") for line in lines)
    records = [json.loads(line) for line in lines]
    return [{**record, "seconds": None} for record in records]


def lines_of(path):
    """Count the lines of a file that may not be there."""
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_job_that_is_killed_again_and_again_ends_with_the_same_file(
    nursery, pictures, tmp_path, seed
):
    (tmp_path / "alone").mkdir()
    assert nursery.start(pictures, tmp_path / "alone").finish()[0] == 0
    draws, killed, code = random.Random(seed), 0, None
    partial, final = tmp_path / "out" / PARTIAL, tmp_path / "out" / FINAL
    while code != 0:
        before = lines_of(partial)
        job = nursery.start(pictures, final.parent, seconds=0.02, parallel=draws.choice([1, 3]))
        target = before + draws.randint(0, 3)
        while lines_of(partial) < target and not final.exists():
            time.sleep(0.001)
        time.sleep(draws.uniform(0.0, 0.02))
        job.signal(signal.SIGKILL)
        code = job.finish()[0]
        killed += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL)
    assert killed >= 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == [FINAL]
    records = without_seconds(tmp_path / "out" / FINAL)
    assert [record["id"] for record in records] == [f"{name}.png" for name in NAMES]
    assert records == without_seconds(tmp_path / "alone" / FINAL)


def test_a_second_process_on_the_same_shard_gets_a_sentence_and_harms_nothing(
    nursery, pictures, tmp_path
):
    out = tmp_path / "out"
    first = nursery.start(pictures, out, seconds=0.1)
    first.wait_for_lines(out / PARTIAL, 2)
    code, said = nursery.start(pictures, out).finish()
    assert code == 2
    assert f"another process is at work on {PARTIAL}" in said
    assert first.finish()[0] == 0
    assert len(without_seconds(out / FINAL)) == len(NAMES)


@pytest.mark.parametrize("parallel", [1, 4])
def test_ctrl_c_stops_with_130_and_what_is_done_is_kept(nursery, pictures, tmp_path, parallel):
    out = tmp_path / "out"
    job = nursery.start(pictures, out, seconds=0.1 * parallel, parallel=parallel)
    job.wait_for_lines(out / PARTIAL, 3)
    job.signal(signal.SIGINT)
    code, said = job.finish()
    assert code == 130, said
    assert "Traceback" not in said
    assert ("stopping after the pictures in work" in said) == (parallel > 1)
    done = without_seconds(out / PARTIAL)
    assert 3 <= len(done) < len(NAMES)
    code, said = nursery.start(pictures, out).finish()
    assert code == 0
    assert f"{len(done)} of {len(NAMES)} are there already" in said
    assert len(without_seconds(out / FINAL)) == len(NAMES)


def test_a_second_ctrl_c_does_not_wait_for_a_service_that_is_silent(nursery, pictures, tmp_path):
    out, silent = tmp_path / "out", socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{silent.getsockname()[1]}"
    stages = ["--detector", "gemini", "--segmenter", "given", "--geometry", "depth"]
    words = ["--set", f"gemini.base_url={url}", "--requests", "3", *stages]
    with silent:
        job = nursery.start_command(["--images", str(pictures), "--out", str(out), *words])
        silent.settimeout(60)
        asking = [silent.accept()[0] for _ in range(3)]
        job.signal(signal.SIGINT)
        job.wait_for_lines(job.said, 1)
        job.signal(signal.SIGINT)
        begun = time.monotonic()
        code, said = job.finish()
    assert code == 130, said
    assert time.monotonic() - begun < 20
    assert "stopping after the pictures in work; Ctrl-C again leaves them" in said
    assert "the same command goes on from here" in said
    assert (out / PARTIAL).read_bytes() == b""
    for connection in asking:
        connection.close()


def test_a_disk_that_fills_stops_the_job_and_a_later_run_goes_on(nursery, pictures, tmp_path):
    out = tmp_path / "out"
    code, said = nursery.start(pictures, out, largest_file=20_000).finish()
    assert code == 2
    assert f"{PARTIAL} cannot be written (File too large): make room" in said
    done = without_seconds(out / PARTIAL)
    assert 0 < len(done) < len(NAMES)
    code, said = nursery.start(pictures, out).finish()
    assert code == 0
    assert f"{len(done)} of {len(NAMES)} are there already" in said
    assert len(without_seconds(out / FINAL)) == len(NAMES)


def test_a_real_file_system_that_is_full_loses_nothing(nursery, pictures, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "none", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small file system, and not in every container")
    try:
        code, said = nursery.start(pictures, small).finish()
        assert code == 2
        assert "No space left on device): make room" in said
        done = without_seconds(small / PARTIAL)
        assert 0 < len(done) < len(NAMES)
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        assert nursery.start(pictures, small).finish()[0] == 0
        assert len(without_seconds(small / FINAL)) == len(NAMES)
    finally:
        subprocess.run(["umount", str(small)], check=True)
