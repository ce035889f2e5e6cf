"""The journal of a shard: torn ends, foreign content, one writer, and a disk that is full."""

import errno
import os

import pytest

from spear_training.annotation import job as journal_module
from spear_training.annotation.executors import Result
from spear_training.annotation.frame import JobError
from spear_training.annotation.job import Journal, finish_shard, write_lines
from spear_training.annotation.records import Annotation

IDS = ["a", "b", "c", "d"]


def result(name, status="ok", reason=None):
    """Return a short record."""
    return Result.of(Annotation(name, f"{name}.png", status, reason=reason))


@pytest.fixture
def path(tmp_path):
    """Return where the journal is."""
    return tmp_path / "annotations-00000-of-00001.jsonl.partial"


def write(path, *results):
    """Write a journal and return its bytes."""
    with Journal(path, IDS) as journal:
        for done in results:
            journal.append(done)
    return path.read_bytes()


@pytest.mark.parametrize("torn", range(1, 60, 7))
@pytest.mark.parametrize("zeros", [0, 300])
def test_a_torn_end_is_cut_and_what_was_before_it_stays(path, torn, zeros):
    whole = write(path, result("a"), result("b"))
    path.write_bytes(whole + result("c").line[:torn] + bytes(zeros))
    with Journal(path, IDS) as journal:
        assert list(journal.places) == ["a", "b"]
        journal.append(result("c"))
    assert path.read_bytes() == whole + result("c").line + b"\n"


def test_a_line_without_its_end_is_torn_too(path):
    whole = write(path, result("a"))
    path.write_bytes(whole + result("b").line)
    with Journal(path, IDS) as journal:
        assert list(journal.places) == ["a"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"my notes\n", "line 1: no annotation"),
        (b"my notes", "ends with what no annotation is"),
        (result("z").line + b"\n", "'z', which is not in this shard"),
        (2 * (result("a").line + b"\n"), "'a' is there twice"),
        (result("a").line + b"\n\xff\xfe\n" + result("b").line + b"\n", "line 2: no annotation"),
    ],
)
def test_foreign_content_is_refused_and_left_as_it_is(path, content, words):
    path.write_bytes(content)
    with pytest.raises(JobError, match=words):
        Journal(path, IDS)
    assert path.read_bytes() == content


def test_a_record_after_a_failed_one_replaces_it(path):
    write(path, result("a", "failed", "it was late"), result("b"), result("a"))
    with Journal(path, IDS) as journal:
        assert journal.places["a"].status == "ok"
        assert journal.line("a") == result("a").line
        assert not journal.in_order


def test_the_finished_file_is_in_the_order_of_the_list(path, tmp_path):
    final = tmp_path / "final.jsonl"
    with Journal(path, IDS) as journal:
        for name in "cadb":
            journal.append(result(name))
        finish_shard(journal, IDS, final)
    assert final.read_bytes() == b"".join(result(name).line + b"\n" for name in IDS)
    assert not path.exists()


def test_two_writers_do_not_get_the_same_journal(path):
    with Journal(path, IDS) as journal:
        journal.append(result("a"))
        with pytest.raises(JobError, match="another process is at work on annotations-00000"):
            Journal(path, IDS)
    with Journal(path, IDS) as journal:
        assert list(journal.places) == ["a"]


def test_a_journal_that_was_finished_while_it_was_opened_is_not_written_to(path, monkeypatch):
    write(path, result("a"))
    lock = journal_module.fcntl.flock
    left = [path]

    def finished_meanwhile(file, how):
        lock(file, how)
        if left:
            left.pop().unlink()

    monkeypatch.setattr(journal_module.fcntl, "flock", finished_meanwhile)
    with Journal(path, IDS) as journal:
        assert not journal.places
        journal.append(result("b"))
    assert path.read_bytes() == result("b").line + b"\n"


def test_a_file_system_that_cannot_lock_is_refused(path, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(journal_module.fcntl, "flock", refuse)
    with pytest.raises(JobError, match="cannot be locked .*flock"):
        Journal(path, IDS)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_write_that_fails_half_way_is_taken_back(path, monkeypatch, code):
    whole = write(path, result("a"))
    real = os.write

    def half(file, data):
        if len(data) < 10:
            raise OSError(code, os.strerror(code))
        return real(file, data[: len(data) // 2])

    with Journal(path, IDS) as journal:
        monkeypatch.setattr(journal_module.os, "write", half)
        with pytest.raises(JobError, match="cannot be written .*run the same command again"):
            journal.append(result("b"))
        monkeypatch.undo()
    assert path.read_bytes() == whole
    with Journal(path, IDS) as journal:
        assert list(journal.places) == ["a"]


def test_what_the_disk_did_not_take_when_it_was_asked_is_cut_off(path, monkeypatch):
    def refuse(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Journal(path, IDS) as journal:
        journal.append(result("a"))
        journal.sync()
        journal.append(result("b"))
        monkeypatch.setattr(journal_module.os, "fsync", refuse)
        with pytest.raises(JobError, match="make room"):
            journal.sync()
        monkeypatch.undo()
        assert list(journal.places) == ["a"]
    assert path.read_bytes() == result("a").line + b"\n"


def test_an_interrupt_in_the_midst_of_a_line_leaves_no_half_line(path, monkeypatch):
    def interrupted(file, data):
        monkeypatch.undo()
        os.write(file, data[:20])
        raise KeyboardInterrupt

    with Journal(path, IDS) as journal:
        journal.append(result("a"))
        monkeypatch.setattr(journal_module.os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.append(result("b"))
        journal.append(result("c"))
    assert path.read_bytes() == result("a").line + b"\n" + result("c").line + b"\n"


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path):
    path = tmp_path / "final.jsonl"
    path.write_text("old\n")

    def lines():
        yield b"new"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(JobError, match="No space left.*nothing is lost"):
        write_lines(path, lines())
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]
