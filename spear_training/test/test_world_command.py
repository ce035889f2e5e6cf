"""`annotate world`: from nothing to an inspected world by one command, each step once."""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from spear_policy.shared.files import MismatchError
from spear_training.annotation.annotate import main
from spear_training.annotation.commands.world import Step, WorldSteps
from spear_training.annotation.records import read_items
from spear_training.annotation.run_folder import read_annotations
from spear_training.annotation.stages import JobError

SCENES = 5


@pytest.mark.timeout(900)  # five processes and more take their time on a busy machine
def test_one_command_goes_from_nothing_to_an_inspected_world(tmp_path, capfd):
    out = tmp_path / "world"
    words = ["world", "--scenes", str(SCENES), "--out", str(out), "--accuracy-scenes", "2"]
    assert main(words) == 0
    items = read_items(out / "scenes/items.jsonl")
    records = list(read_annotations(out / "annotations"))
    assert [record.id for record in records] == [item.id for item in items]
    assert all(record.status == "ok" for record in records)
    assert (out / "annotations/bins.json").is_file()
    questions = (out / "annotations/questions.jsonl").read_text().splitlines()
    assert len(questions) >= SCENES
    measured = json.loads((out / "accuracy/accuracy.json").read_text())
    assert measured["scenes"] == 2
    assert "<html" in (out / "annotations/inspect.html").read_text()[:2000]
    book = json.loads((out / "world.json").read_text())
    steps = ["generate", "annotate", "questions", "accuracy", "inspect"]
    assert list(book["steps"]) == steps
    assert all(entry["done"] and entry["seconds"] > 0 for entry in book["steps"].values())
    shown = capfd.readouterr().out
    assert all(step in shown for step in steps) and "a scene" in shown
    # The same command again has nothing to do.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    # Other numbers are another world.
    assert main([*words, "--seed", "1"]) == 2
    assert "choose another --out" in capfd.readouterr().err


def test_steps_are_done_once_and_their_times_add_up_over_interruptions(tmp_path):
    calls = []

    def do():
        calls.append("first")
        if len(calls) == 1:
            raise KeyboardInterrupt
        return 0

    step = Step("generate", "objects", do)
    book = WorldSteps(tmp_path, 10, 0, "held_out", 2)
    with pytest.raises(KeyboardInterrupt):
        book.do(step)
    entry = _entry(tmp_path, "generate")
    assert not entry["done"] and not book.is_done(step)
    _write_entry(tmp_path, "generate", entry | {"seconds": 100.0})
    book = WorldSteps(tmp_path, 10, 0, "held_out", 1)
    assert book.shards == 2  # of the book
    assert book.do(step) == 0 and book.is_done(step)
    assert _entry(tmp_path, "generate")["seconds"] >= 100.0
    # Done again, it begins anew.
    assert book.do(step) == 0
    assert _entry(tmp_path, "generate")["seconds"] < 10.0


@pytest.mark.parametrize(("status", "done"), [(0, True), (1, True), (2, False), (130, False)])
def test_a_step_with_failed_pictures_is_done_and_one_that_stopped_is_not(tmp_path, status, done):
    step = Step("annotate", "records", lambda: status)
    book = WorldSteps(tmp_path, 10, 0, "held_out", 2)
    assert book.do(step) == status
    assert book.is_done(step) == done


def test_the_table_says_what_is_there(tmp_path):
    book = WorldSteps(tmp_path, 10, 0, "held_out", 2)
    step = Step("generate", "ten scenes", lambda: 0)
    book.do(step)
    _write_entry(tmp_path, "generate", {"seconds": 95.0, "done": True})
    book = WorldSteps(tmp_path, 10, 0, "held_out", 2)
    steps = [step, replace(step, name="annotate", makes="records")]
    console = Console(width=100, record=True, quiet=False, file=(tmp_path / "shown").open("w"))
    console.print(book.table(steps))
    words = console.export_text()
    assert "0:01:35" in words and "9.50 s" in words and "ten scenes" in words
    assert "not begun" in words and "records" not in words


def test_a_folder_keeps_its_numbers_and_a_damaged_book_is_named(tmp_path):
    WorldSteps(tmp_path, 10, 0, "held_out", 2)
    with pytest.raises(MismatchError, match="scenes.*10.*11.*choose another --out"):
        WorldSteps(tmp_path, 11, 0, "held_out", 2)
    book = json.loads((tmp_path / "world.json").read_text())
    (tmp_path / "world.json").write_text(json.dumps(book | {"steps": 3}))
    with pytest.raises(JobError, match="world.json is damaged"):
        WorldSteps(tmp_path, 10, 0, "held_out", 2)


def test_numbers_that_cannot_be_are_refused_in_a_sentence(tmp_path, capfd):
    three = ["--scenes", "3"]
    for words in (["--scenes", "0"], [*three, "--jobs", "0"], [*three, "--accuracy-scenes", "0"]):
        assert main(["world", "--out", str(tmp_path / "world"), *words]) == 2
        assert "it must be at least 1" in capfd.readouterr().err
    assert main(["world", "--out", str(tmp_path / "world"), *three, "--seed", "-1"]) == 2
    assert "--seed is -1; it must not be negative" in capfd.readouterr().err
    assert not (tmp_path / "world").exists()


def _entry(folder, step):
    return json.loads((folder / "world.json").read_text())["steps"][step]


def _write_entry(folder, step, entry):
    book = json.loads((folder / "world.json").read_text())
    book["steps"][step] = entry
    (folder / "world.json").write_text(json.dumps(book))
