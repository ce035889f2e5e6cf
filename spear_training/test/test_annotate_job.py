"""The job around the stages: shards, order, failures on record, threads, retries, stops."""

import json
import logging
import shutil
from dataclasses import replace
from functools import partial

import pytest
from annotate_stages import ColourStage, write_pictures
from rich.console import Console

from spear_policy.shared import files
from spear_policy.shared.progress import ProgressDisplay
from spear_training.annotation.job import AnnotationJob, annotate_here, run_job
from spear_training.annotation.pipeline import Pipeline
from spear_training.annotation.records import Dropped
from spear_training.annotation.run_folder import Shard, claim, read_shard, shards_for
from spear_training.annotation.stages import JobError

GOOD = [f"{number:02d}" for number in range(12)]
WHOLE = Shard(0, 1)


@pytest.fixture
def job(tmp_path):
    """Return a function that runs a job on pictures of these names."""
    out = tmp_path / "out"
    out.mkdir()

    def run(names, stages=None, num_shards=1, **options):
        items = write_pictures(tmp_path / "pictures", names)
        annotate = partial(
            annotate_here, Pipeline(tmp_path / "pictures", stages or [ColourStage()])
        )
        with ProgressDisplay(Console(), "annotate", "pictures") as progress:
            return run_job(AnnotationJob(out, items, num_shards, **options), annotate, progress)

    run.out = out
    return run


def records(out, num_shards=1):
    """Read the records of all shards, without how long they took."""
    shards = [Shard(index, num_shards) for index in range(num_shards)]
    return [replace(found, seconds={}) for shard in shards for found in read_shard(shard.file(out))]


def names_in(out):
    """Return the names of the files in a folder, in order."""
    return sorted(path.name for path in out.iterdir())


@pytest.mark.parametrize("count", [1, 2, 5, 12, 17])
def test_shards_one_after_another_are_the_list(count):
    listed = list(range(12))
    parts = [Shard(index, count).part_of(listed) for index in range(count)]
    assert [number for part in parts for number in part] == listed
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("index", "count"), [(3, 3), (-1, 2), (0, 0), (0, 100_000)])
def test_a_shard_that_does_not_exist_is_refused(index, count):
    with pytest.raises(JobError, match="--num-shards|--shard"):
        Shard(index, count)


@pytest.mark.parametrize(
    ("pictures", "parts", "shards"),
    [(0, 1, 1), (256, 1, 1), (257, 1, 2), (10_000, 1, 40), (10_000, 64, 64), (100_000, 64, 448)],
)
def test_a_list_is_cut_into_shards_of_256_pictures_at_most_as_many_in_each_part(
    pictures, parts, shards
):
    assert shards_for(pictures, parts) == shards
    assert shards % parts == 0


def test_the_shards_of_a_list_hold_its_pictures_in_their_order(job):
    assert job(GOOD, num_shards=3) == {"ok": 12}
    assert [record.id for record in records(job.out, 3)] == GOOD
    assert names_in(job.out) == [f"annotations-{index:05d}-of-00003.jsonl" for index in range(3)]


def test_parts_make_the_shards_that_are_theirs(job):
    assert job(GOOD, num_shards=4, part=Shard(1, 2)) == {"ok": 6}
    assert names_in(job.out) == [f"annotations-0000{index}-of-00004.jsonl" for index in (2, 3)]
    assert job(GOOD, num_shards=4, part=Shard(0, 2)) == {"ok": 6}
    assert [record.id for record in records(job.out, 4)] == GOOD
    # A folder that was cut into fewer shards leaves parts without any.
    assert job(GOOD, num_shards=4, part=Shard(0, 9)) == {}


def test_more_shards_than_pictures_leave_empty_files(job):
    assert job(["a"], num_shards=2) == {"ok": 1}
    assert Shard(0, 2).file(job.out).read_bytes() == b""


def test_what_goes_wrong_with_a_picture_is_its_record_and_nothing_more(job, tmp_path, caplog):
    names = ["a", "b unusable", "c broken", "d nobody", "e damaged", "f missing", "g broken too"]
    items = write_pictures(tmp_path / "pictures", names)
    (tmp_path / "pictures" / "e damaged.png").write_bytes(b"\x89PNG, or so")
    (tmp_path / "pictures" / "f missing.png").unlink()
    annotate = partial(annotate_here, Pipeline(tmp_path / "pictures", [ColourStage()]))
    display = ProgressDisplay(Console(), "annotate", "pictures")
    with caplog.at_level(logging.ERROR), display as progress:
        counts = run_job(AnnotationJob(job.out, items, 1), annotate, progress)
    assert counts == {"ok": 1, "empty": 1, "failed": 5}
    reasons = {record.id: (record.status, record.reason) for record in records(job.out)}
    assert reasons["a"] == ("ok", None)
    assert reasons["b unusable"] == ("failed", "colour: the test does not like it")
    assert reasons["c broken"] == ("failed", "IndexError: list index out of range")
    assert reasons["d nobody"] == ("empty", "nothing was detected")
    assert reasons["e damaged"][1] == "read: e damaged.png is no picture, or it is empty"
    assert "No such file" in reasons["f missing"][1]
    # The traceback is logged, but not once more for the same line of code.
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [IndexError]


def test_a_record_that_cannot_be_stored_is_a_failed_one(job):
    class Wrong(ColourStage):
        def with_objects(self, frame):
            frame = super().with_objects(frame)
            camera = replace(frame.points.intrinsics, fx=float("nan"))
            return replace(frame, points=replace(frame.points, intrinsics=camera))

    assert job(["a"], stages=[Wrong()]) == {"failed": 1}
    assert "not JSON compliant" in records(job.out)[0].reason


def test_finished_shards_are_left_alone_and_missing_ones_are_made(job, capsys):
    job(GOOD, num_shards=3)
    first, missing = Shard(0, 3).file(job.out), Shard(1, 3).file(job.out)
    written_ns = first.stat().st_mtime_ns
    missing.unlink()
    capsys.readouterr()
    stage = ColourStage()
    assert job(GOOD, stages=[stage], num_shards=3) == {"ok": 12}
    assert stage.calls == 4
    assert first.stat().st_mtime_ns == written_ns
    assert "annotate: 8 of 12 pictures are there already" in capsys.readouterr().out
    assert [record.id for record in records(job.out, 3)] == GOOD


def test_a_shard_that_was_finished_meanwhile_is_not_made_again(job, tmp_path):
    job(["0", "1"], num_shards=2)
    second = Shard(1, 2).file(job.out)
    hidden = second.rename(tmp_path / "second.jsonl")
    Shard(0, 2).file(job.out).unlink()

    class Meanwhile(ColourStage):
        def with_objects(self, frame):
            if not second.exists():
                shutil.copy(hidden, second)
            return super().with_objects(frame)

    stage = Meanwhile()
    assert job(["0", "1"], stages=[stage], num_shards=2) == {"ok": 2}
    assert stage.calls == 1


def test_a_shard_that_another_process_makes_is_left_to_it(job):
    with claim(Shard(1, 3).file(job.out)):
        with pytest.raises(JobError, match="another process is at work on annotations-00001-of-"):
            job(GOOD, num_shards=3)
    assert [Shard(index, 3).file(job.out).exists() for index in range(3)] == [True, False, True]
    assert job(GOOD, num_shards=3) == {"ok": 12}


def test_a_file_system_without_locks_will_do(job, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert job(GOOD, num_shards=2) == {"ok": 12}
    assert len(names_in(job.out)) == 2


def test_what_an_older_version_left_of_a_shard_in_work_goes_when_it_is_finished(job):
    (job.out / "annotations-00000-of-00001.jsonl.partial").write_bytes(b"half a li")
    assert job(["a"]) == {"ok": 1}
    assert names_in(job.out) == ["annotations-00000-of-00001.jsonl"]


def test_threads_make_the_same_file_and_overlap_only_where_it_helps(job):
    names = [*GOOD, "x unusable", "y broken"]
    job(names)
    alone = records(job.out)
    WHOLE.file(job.out).unlink()
    service, network = ColourStage(seconds=0.05, parallel=4), ColourStage(seconds=0.005)
    network.name = "network"
    assert job(names, stages=[service, network]) == {"ok": 12, "failed": 2}
    assert records(job.out) == alone
    assert 1 < service.most_at_once <= 4
    assert network.most_at_once == 1


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_job_that_cannot_go_on_stops_and_keeps_finished_shards(job, parallel):
    names = ["0", "1", "2", "3 hopeless", "4", "5"]
    with pytest.raises(JobError, match="key is missing"):
        job(names, stages=[ColourStage(seconds=0.01, parallel=parallel)], num_shards=3)
    assert names_in(job.out) == ["annotations-00000-of-00003.jsonl"]


def test_many_failures_in_a_row_stop_the_job_with_the_last_reason(job):
    names = [f"{number} broken" for number in range(5)] + ["8", "9"]
    with pytest.raises(JobError, match=r"3 pictures in a row .*\(2 broken\): IndexError.*retry"):
        job(names, most_failures_in_a_row=3, num_shards=4)
    assert job(names, most_failures_in_a_row=0, num_shards=4) == {"failed": 5, "ok": 2}
    assert [record.id for record in records(job.out, 4)] == names


def test_scattered_failures_do_not_stop_the_job(job):
    names = ["0 broken", "1", "2 broken", "3", "4 broken", "5"]
    assert job(names, most_failures_in_a_row=2) == {"ok": 3, "failed": 3}


def test_failed_pictures_of_finished_shards_are_annotated_again(job, capsys):
    names = ["0", "1 broken", "2", "3 unusable", "4 broken", "5"]
    job(names, num_shards=3)
    before = records(job.out, 3)
    capsys.readouterr()
    fixed = ColourStage(fixed=["broken"])
    assert job(names, stages=[fixed], num_shards=3, retry_failed=True) == {"ok": 5, "failed": 1}
    assert fixed.calls == 3
    assert "annotate: 3 of 6 pictures are there already" in capsys.readouterr().out
    after = records(job.out, 3)
    assert [record.id for record in after] == names
    assert [record.status for record in after] == ["ok", "ok", "ok", "failed", "ok", "ok"]
    assert [after[index] for index in (0, 2, 3, 5)] == [before[index] for index in (0, 2, 3, 5)]
    assert len(names_in(job.out)) == 3


def test_a_retry_that_was_stopped_leaves_the_finished_file_alone(job):
    names = ["0 broken", "1 broken hopeless"]
    job(names, stages=[ColourStage(fixed=["hopeless"])])
    finished = WHOLE.file(job.out).read_bytes()
    with pytest.raises(JobError, match="key is missing"):
        job(names, stages=[ColourStage(fixed=["broken"])], retry_failed=True)
    assert WHOLE.file(job.out).read_bytes() == finished
    assert names_in(job.out) == [WHOLE.file(job.out).name]
    assert job(names, stages=[ColourStage(fixed=["broken", "hopeless"])], retry_failed=True) == {
        "ok": 2
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:2], "ends after 2 of 3 pictures"),
        (lambda lines: [lines[1], lines[0], lines[2]], "line 1 is about '1': .*another list"),
        (lambda lines: [lines[0], lines[1][:40] + b"\n", lines[2]], "line 2: no annotation"),
        (lambda lines: [*lines, lines[2]], "line 4 is about '2'"),
    ],
)
def test_a_finished_file_that_is_not_as_it_was_written_is_named(job, change, words):
    job(["0", "1", "2"])
    path = WHOLE.file(job.out)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(JobError, match=words):
        job(["0", "1", "2"])


def test_a_disk_that_may_become_too_small_is_said_before_the_job_begins(job, monkeypatch, capsys):
    usage = shutil.disk_usage(job.out)._replace(free=100_000)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage)
    job(["0", "1", "2", "3", "4"])
    assert "too small: 5 pictures need about 0.1 MB" in capsys.readouterr().out


def test_records_are_lines_of_json(job):
    job(GOOD, num_shards=2)
    lines = Shard(1, 2).file(job.out).read_bytes().splitlines()
    assert [json.loads(line)["id"] for line in lines] == GOOD[6:]


def test_the_most_frequent_reason_of_pictures_without_objects_is_said(job, capsys):
    class Refuses:
        name, parallel, settings = "refuses", 1, {}

        def __call__(self, frame):
            beside = Dropped("mug", f"its box ends at {ord(frame.item.id[-1])} px, outside")
            return replace(ColourStage()(frame), candidates=(), dropped=(beside,))

    assert job(["a", "b", "c"], stages=[Refuses()]) == {"empty": 3}
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "3 pictures without objects, most often (3) because: no object could be used: its" in said
    )
