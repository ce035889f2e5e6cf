"""The job around the stages: order, failures on record, threads, retries, and when it stops."""

import json
import logging
import shutil
from dataclasses import replace

import pytest
from annotate_stages import Paint, write_pictures
from rich.console import Console

from spear_training.annotation import job as disk
from spear_training.annotation.executors import InTurn, local_executor
from spear_training.annotation.frame import JobError
from spear_training.annotation.job import (
    JobProgress,
    Shard,
    ShardJob,
    finished_shards,
    room_warning,
    run_shard,
)
from spear_training.annotation.pipeline import Pipeline
from spear_training.annotation.run_folder import read_shard

WHOLE = Shard(0, 1)
GOOD = [f"{number:02d}" for number in range(12)]


@pytest.fixture
def job(tmp_path):
    """Return a function that runs a shard on pictures of these names."""
    out = tmp_path / "out"
    out.mkdir()

    def run(names, shard=WHOLE, stages=None, **options):
        items = write_pictures(tmp_path / "pictures", names)
        executor = local_executor(Pipeline(tmp_path / "pictures", stages or [Paint()]))
        with JobProgress(Console(), "shard") as progress:
            return run_shard(ShardJob(out, shard, **options), items, executor, progress)

    run.out = out
    return run


def records(out, shard=WHOLE):
    """Read the records of a shard, without how long they took."""
    return [replace(found, seconds={}) for found in read_shard(shard.file(out))]


@pytest.mark.parametrize("count", [1, 2, 5, 12, 17])
def test_shards_one_after_another_are_the_list(count):
    things = list(range(12))
    parts = [Shard(index, count).part_of(things) for index in range(count)]
    assert [thing for part in parts for thing in part] == things
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("index", "count"), [(3, 3), (-1, 2), (0, 0), (0, 100_000)])
def test_a_shard_that_does_not_exist_is_refused(index, count):
    with pytest.raises(JobError, match="--num-shards|--shard"):
        Shard(index, count)


def test_each_shard_writes_its_own_pictures_in_the_order_of_the_list(job):
    for index in (2, 0, 1):
        job(GOOD, Shard(index, 3))
    assert finished_shards(job.out) == {3: [0, 1, 2]}
    found = [record.id for index in range(3) for record in records(job.out, Shard(index, 3))]
    assert found == GOOD
    assert sorted(path.name for path in job.out.iterdir()) == [
        f"annotations-{index:05d}-of-00003.jsonl" for index in range(3)
    ]


def test_more_shards_than_pictures_leave_empty_files(job):
    assert job(["a"], Shard(0, 2)) == {}
    assert Shard(0, 2).file(job.out).read_bytes() == b""


def test_what_goes_wrong_with_a_picture_is_its_record_and_nothing_more(job, tmp_path, caplog):
    names = ["a", "b unusable", "c broken", "d nobody", "e damaged", "f missing", "g broken too"]
    items = write_pictures(tmp_path / "pictures", names)
    (tmp_path / "pictures" / "e damaged.png").write_bytes(b"\x89PNG, or so")
    (tmp_path / "pictures" / "f missing.png").unlink()
    executor = InTurn(Pipeline(tmp_path / "pictures", [Paint()]))
    with caplog.at_level(logging.ERROR), JobProgress(Console(), "shard") as progress:
        counts = run_shard(ShardJob(job.out, WHOLE), items, executor, progress)
    assert counts == {"ok": 1, "empty": 1, "failed": 5}
    reasons = {record.id: (record.status, record.reason) for record in records(job.out)}
    assert reasons["a"] == ("ok", None)
    assert reasons["b unusable"] == ("failed", "paint: the test does not like it")
    assert reasons["c broken"] == ("failed", "IndexError: list index out of range")
    assert reasons["d nobody"] == ("empty", "nothing was detected")
    assert reasons["e damaged"][1] == "read: e damaged.png is no picture, or it is empty"
    assert "No such file" in reasons["f missing"][1]
    # The traceback is logged, but not once more for the same line of code.
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [IndexError]


def test_a_record_that_cannot_be_stored_is_a_failed_one(job):
    class Wrong(Paint):
        def painted(self, frame):
            frame = super().painted(frame)
            camera = replace(frame.points.intrinsics, fx=float("nan"))
            return replace(frame, points=replace(frame.points, intrinsics=camera))

    assert job(["a"], stages=[Wrong()]) == {"failed": 1}
    assert "not JSON compliant" in records(job.out)[0].reason


def test_a_finished_shard_is_left_alone(job, capsys):
    job(GOOD)
    before = WHOLE.file(job.out).stat()
    paint = Paint()
    assert job(GOOD, stages=[paint]) == {"ok": 12}
    assert paint.calls == 0
    assert WHOLE.file(job.out).stat().st_mtime_ns == before.st_mtime_ns
    assert "finished already" in capsys.readouterr().out


def test_threads_make_the_same_file_and_overlap_only_where_it_helps(job, tmp_path):
    names = [*GOOD, "x unusable", "y broken"]
    job(names)
    alone = records(job.out)
    WHOLE.file(job.out).unlink()
    service, network = Paint(seconds=0.05, parallel=4), Paint(seconds=0.005)
    network.name = "network"
    assert job(names, stages=[service, network]) == {"ok": 12, "failed": 2}
    assert records(job.out) == alone
    assert 1 < service.most_at_once <= 4
    assert network.most_at_once == 1


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_job_that_cannot_go_on_stops_and_keeps_what_is_done(job, parallel):
    names = ["0", "1", "2", "3 hopeless", "4", "5", "6", "7", "8", "9"]
    with pytest.raises(JobError, match="key is missing"):
        job(names, stages=[Paint(seconds=0.01, parallel=parallel)])
    journal = WHOLE.journal(job.out)
    done = [json.loads(line)["id"] for line in journal.read_bytes().splitlines()]
    assert {"0", "1", "2"} <= set(done) <= set(names[:6]) - {"3 hopeless"}
    assert not WHOLE.file(job.out).exists()


def test_many_failures_in_a_row_stop_the_job_with_the_last_reason(job):
    names = [f"{number} broken" for number in range(5)] + ["8", "9"]
    with pytest.raises(JobError, match=r"3 pictures in a row .*\(2 broken\): IndexError.*retry"):
        job(names, most_failures_in_a_row=3)
    # The next run goes on behind them; with 0 nothing stops it.
    assert job(names, most_failures_in_a_row=0) == {"failed": 5, "ok": 2}
    assert [record.id for record in records(job.out)] == names


def test_scattered_failures_do_not_stop_the_job(job):
    names = ["0 broken", "1", "2 broken", "3", "4 broken", "5"]
    assert job(names, most_failures_in_a_row=2) == {"ok": 3, "failed": 3}


def test_failed_pictures_of_a_finished_shard_are_annotated_again(job, capsys):
    names = ["0", "1 broken", "2", "3 unusable", "4 broken"]
    job(names)
    before = records(job.out)
    mended = Paint(mended=["broken"])
    assert job(names, stages=[mended], retry_failed=True) == {"ok": 4, "failed": 1}
    assert mended.calls == 3
    assert "shard: 2 of 5 are there already" in capsys.readouterr().out
    after = records(job.out)
    assert [record.id for record in after] == names
    assert [record.status for record in after] == ["ok", "ok", "ok", "failed", "ok"]
    assert [after[index] for index in (0, 2, 3)] == [before[index] for index in (0, 2, 3)]
    assert [path.name for path in job.out.iterdir()] == [WHOLE.file(job.out).name]


def test_a_retry_that_was_stopped_goes_on_and_leaves_the_finished_file_alone_until_then(job):
    names = ["0 broken", "1 broken", "2 broken hopeless", "3 broken"]
    job(names, stages=[Paint(mended=["hopeless"])])
    finished = WHOLE.file(job.out).read_bytes()
    with pytest.raises(JobError, match="key is missing"):
        job(names, stages=[Paint(mended=["broken"])], retry_failed=True)
    assert WHOLE.file(job.out).read_bytes() == finished
    second = Paint(mended=["broken", "hopeless"])
    assert job(names, stages=[second], retry_failed=True) == {"ok": 4}
    assert second.calls == 2  # the two that went well the time before are not done again
    assert [record.status for record in records(job.out)] == ["ok"] * 4


def test_a_retry_that_was_killed_after_its_end_leaves_nothing_behind(job):
    names = ["0", "1 broken"]
    job(names)
    job(names, stages=[Paint()], retry_failed=True)
    ended = WHOLE.file(job.out).read_bytes()
    WHOLE.retry_journal(job.out).write_bytes(ended.splitlines(keepends=True)[1])
    again = Paint(mended=["broken"])
    assert job(names, stages=[again], retry_failed=True) == {"ok": 2}
    assert again.calls == 1  # so the journal of the retry before did not count
    WHOLE.retry_journal(job.out).write_bytes(b"")
    job(names)
    assert [path.name for path in job.out.iterdir()] == [WHOLE.file(job.out).name]


def test_failed_pictures_of_a_shard_in_work_are_annotated_again_on_request(job):
    names = ["0", "1 broken", "2 hopeless"]
    with pytest.raises(JobError):
        job(names)
    mended = Paint(mended=["broken", "hopeless"])
    assert job(names, stages=[mended], retry_failed=True) == {"ok": 3}
    assert mended.calls == 2
    assert [record.id for record in records(job.out)] == names


def test_a_disk_that_may_become_too_small_is_said_before_the_job_begins(job, monkeypatch, capsys):
    usage = shutil.disk_usage(job.out)._replace(free=100_000)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    job(["0", "1", "2", "3", "4"])
    assert "too small: 5 pictures need about 0.1 MB" in capsys.readouterr().out


def test_the_room_that_is_needed_is_estimated_from_records_that_are_there(tmp_path):
    assert room_warning(tmp_path, 10, []) is None
    assert "may become too small: 1000000 pictures need about" in room_warning(
        tmp_path, 10**6, [10**9] * 20
    )
