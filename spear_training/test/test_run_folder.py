"""run.json: written once by whoever is first, and binding for every later run."""

import json
import re

import pytest

from spear_policy.shared.files import MismatchError
from spear_training.annotation.records import Annotation, Item
from spear_training.annotation.run_folder import (
    RUN_FILE,
    Shard,
    agree_on_run,
    images_root,
    read_annotations,
    read_run,
    shards_of,
)
from spear_training.annotation.stages import JobError

SETTINGS = [{"stage": "given"}, {"stage": "sam2", "model": "a", "box_margin": 0.1}]
ITEMS = [Item("a", "a.png"), Item("b", "b.png")]


@pytest.fixture
def root(tmp_path):
    """Return a folder of pictures."""
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


@pytest.fixture
def out(tmp_path):
    """Return a folder for records."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def begin(out, root, settings=SETTINGS, items=ITEMS, num_shards=2):
    """Begin a run."""
    return agree_on_run(out, settings, items, root, num_shards, "pictures")


def test_the_same_run_may_begin_again(out, root):
    first = begin(out, root)
    before = (out / RUN_FILE).read_bytes()
    assert begin(out, root) == first
    assert (out / RUN_FILE).read_bytes() == before
    assert first["versions"]["numpy"]
    assert [path.name for path in out.iterdir()] == [RUN_FILE]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"items": ITEMS[:1]}, "items.count = 2, but it is now 1"),
        ({"items": [Item("a", "a.png"), Item("b", "c.png")]}, "items.sha256 = "),
        ({"items": [ITEMS[0], Item("b", "b.png", native_aspect=1.5)]}, "items.sha256 = "),
        (
            {"settings": [SETTINGS[0], SETTINGS[1] | {"box_margin": 0.2}]},
            "sam2.box_margin = 0.1, but it is now 0.2",
        ),
        (
            {"settings": [{"stage": "gemini", "model": "x"}, SETTINGS[1]]},
            "stage 1 = 'given', but it is now 'gemini'",
        ),
        ({"settings": [*SETTINGS, {"stage": "moge"}]}, "stage 3 = nothing, but it is now 'moge'"),
    ],
)
def test_another_run_into_the_same_folder_is_refused_with_the_difference(out, root, change, words):
    begin(out, root)
    with pytest.raises(MismatchError, match=f"{re.escape(words)}.*another --out"):
        begin(out, root, **change)


def test_a_folder_keeps_the_shards_that_it_was_cut_into(out, root):
    begin(out, root)
    assert begin(out, root, num_shards=3)["num_shards"] == 2


def test_another_version_of_a_library_is_said_and_goes_on(out, root, caplog):
    begin(out, root)
    run = json.loads((out / RUN_FILE).read_text())
    run["versions"]["numpy"] = "0.1"
    (out / RUN_FILE).write_text(json.dumps(run))
    begin(out, root)
    assert "numpy = '0.1', but it is now" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_run_file_is_named(out, root, content, monkeypatch):
    monkeypatch.setattr("spear_policy.shared.files._WAIT_S", 0.1)
    (out / RUN_FILE).write_text(content)
    with pytest.raises(MismatchError, match="run.json is damaged"):
        begin(out, root)


def test_the_pictures_are_found_again_after_both_folders_have_moved(out, root, tmp_path):
    begin(out, root)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    root.rename(moved / "pictures")
    out.rename(moved / "out")
    out = moved / "out"
    assert images_root(out, read_run(out)) == moved / "pictures"
    (moved / "pictures").rmdir()
    with pytest.raises(JobError, match='"images" of .*run.json'):
        images_root(out, read_run(out))


def test_records_are_read_back_in_order_and_missing_shards_are_told(out, root):
    begin(out, root, num_shards=3)
    for index, name in ((2, "c"), (0, "a")):
        line = Annotation(name, f"{name}.png", "empty", reason="nothing").to_json()
        Shard(index, 3).file(out).write_text(line + "\n")
    finished, missing = shards_of(out)
    assert [shard.index for shard in finished] == [0, 2]
    assert [shard.index for shard in missing] == [1]
    assert [record.id for record in read_annotations(out)] == ["a", "c"]
    Shard(1, 3).file(out).write_text("half a li")
    with pytest.raises(JobError, match="annotations-00001-of-00003.jsonl, line 1: no annotation"):
        list(read_annotations(out))


def test_a_folder_of_something_else_is_no_run(tmp_path):
    with pytest.raises(JobError, match="must be a folder that `annotate run` wrote"):
        shards_of(tmp_path)
