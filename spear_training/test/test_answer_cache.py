"""Answers that were paid for are kept, whole, and found again."""

import json
import threading

import pytest

from spear_training.annotation.gemini import AnswerCache, answer_key
from spear_training.annotation.stages import JobError

KEY = answer_key(b"picture", {"model": "m", "prompt": "p", "temperature": 0.5})


def file_of(cache):
    (path,) = [path for path in cache.folder.rglob("*") if path.is_file()]
    return path


def test_an_answer_is_found_again(tmp_path):
    cache = AnswerCache(tmp_path / "answers")
    assert cache.get(KEY) is None
    cache.put(KEY, "naïve \ud83e\udd63".encode("utf-16", "surrogatepass").decode("utf-16"))
    assert AnswerCache(tmp_path / "answers").get(KEY) == "naïve 🥣"


@pytest.mark.parametrize(
    ("image", "asked"),
    [
        (b"picturf", {"model": "m", "prompt": "p", "temperature": 0.5}),
        (b"picture", {"model": "n", "prompt": "p", "temperature": 0.5}),
        (b"picture", {"model": "m", "prompt": "q", "temperature": 0.5}),
        (b"picture", {"model": "m", "prompt": "p", "temperature": 0.6}),
    ],
)
def test_whatever_changes_the_answer_changes_its_name(image, asked):
    assert answer_key(image, asked) != KEY


def test_the_order_of_what_was_asked_does_not_change_the_name():
    assert answer_key(b"picture", {"temperature": 0.5, "prompt": "p", "model": "m"}) == KEY


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-5],
        lambda data: data.replace(b"bowl", b"bowk"),
        lambda data: b"null",
        lambda data: b"[1]",
        lambda data: b"\xff\xfe\x00",
        lambda data: json.dumps({"sha256": 1, "answer": 2}).encode(),
    ],
)
def test_a_damaged_file_is_a_miss_and_is_mended(tmp_path, damage):
    cache = AnswerCache(tmp_path)
    cache.put(KEY, "a bowl")
    path = file_of(cache)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(KEY) is None
    cache.put(KEY, "a bowl")
    assert cache.get(KEY) == "a bowl"


def test_many_writers_of_one_answer_leave_one_whole_file(tmp_path):
    cache = AnswerCache(tmp_path)
    texts = [str(number) * 20_000 for number in range(8)]
    threads = [threading.Thread(target=cache.put, args=(KEY, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get(KEY) in texts
    assert file_of(cache).suffix == ".json"


def test_a_folder_that_cannot_be_written_stops_the_job_and_leaves_nothing(tmp_path):
    (tmp_path / "answers").write_text("a file where the folder should be")
    with pytest.raises(JobError, match="answers cannot be kept in .*answers.*make room"):
        AnswerCache(tmp_path / "answers").put(KEY, "a bowl")


def test_a_full_disk_stops_the_job_and_leaves_nothing(tmp_path, monkeypatch):
    cache = AnswerCache(tmp_path)
    # The disk that fills up is played: /dev/full exists for a single file only.
    monkeypatch.setattr("os.replace", _no_space)
    with pytest.raises(JobError, match="No space left"):
        cache.put(KEY, "a bowl")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def _no_space(source, target):
    raise OSError(28, "No space left on device")
