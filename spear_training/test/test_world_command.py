"""`annotate world`: from nothing to an inspected world by one command, each step once."""

import json

import pytest

from spear_training.annotation.annotate import main
from spear_training.annotation.commands import world
from spear_training.annotation.records import read_items
from spear_training.annotation.run_folder import read_annotations
from spear_training.vqa.dataset import VqaSet

SCENES = 5


@pytest.mark.timeout(900)  # five processes and more take their time on a busy machine
def test_one_command_goes_from_nothing_to_an_inspected_world(tmp_path, capfd):
    out = tmp_path / "world"
    words = ["world", "--scenes", str(SCENES), "--out", str(out), "--jobs", "1"]
    words += ["--accuracy-scenes", "2"]
    assert main(words) == 0
    items = read_items(out / "scenes/items.jsonl")
    records = list(read_annotations(out / "annotations"))
    assert [record.id for record in records] == [item.id for item in items]
    assert all(record.status == "ok" for record in records)
    truth = list(read_annotations(out / "truth"))
    assert [record.id for record in truth] == [item.id for item in items]
    assert len(VqaSet(out / "truth")) == SCENES
    assert (out / "annotations/bins.json").is_file()
    questions = (out / "annotations/questions.jsonl").read_text().splitlines()
    assert len(questions) >= SCENES
    measured = json.loads((out / "accuracy/accuracy.json").read_text())
    assert measured["scenes"] == 2
    assert "<html" in (out / "annotations/inspect.html").read_text()[:2000]
    assert capfd.readouterr().out.count(" s a scene") == 6
    # The same command again has nothing to do.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main(words) == 0
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert after.items() <= before.items()
    assert "accuracy.html: is there; `--only accuracy` makes it again" in capfd.readouterr().out
    # Another seed is another world.
    assert main([*words, "--seed", "1"]) == 2
    assert "choose another --out" in capfd.readouterr().err


@pytest.mark.parametrize(("status", "later"), [(0, True), (1, True), (2, False)])
def test_failed_pictures_stop_nothing_and_a_step_that_cannot_go_on_does(
    tmp_path, monkeypatch, status, later
):
    done = []
    monkeypatch.setattr(world, "_generate", lambda *_: done.append("generate") or 0)
    monkeypatch.setattr(world, "_write_truth", lambda *_: done.append("truth") or 0)
    monkeypatch.setattr(world, "_annotate", lambda *_: done.append("annotate") or status)
    monkeypatch.setattr(world, "main", lambda words: done.append(words[0]) or 0)
    assert main(["world", "--scenes", "3", "--out", str(tmp_path)]) == status
    steps = ["generate", "truth", "annotate"]
    assert done == [*steps, *(later * ["questions", "accuracy", "inspect"])]


def test_numbers_that_cannot_be_are_refused_in_a_sentence(tmp_path, capfd):
    three = ["--scenes", "3"]
    for words in (["--scenes", "0"], [*three, "--jobs", "0"], [*three, "--accuracy-scenes", "0"]):
        assert main(["world", "--out", str(tmp_path / "world"), *words]) == 2
        assert "it must be at least 1" in capfd.readouterr().err
    assert main(["world", "--out", str(tmp_path / "world"), *three, "--seed", "-1"]) == 2
    assert "--seed is -1; it must not be negative" in capfd.readouterr().err
    assert not (tmp_path / "world").exists()
