"""The pipeline measured in a world of known truth, from files to the page."""

import json

import cv2
import numpy as np
import pytest
from ray_scenes import CAMERA, render, table_scene, truth_of
from rgbd_list import write_items
from rich.console import Console

from spear_training.annotation.accuracy.compare import read_truth
from spear_training.annotation.accuracy.measure import compare_run, measure_world
from spear_training.annotation.accuracy.report import terminal_tables, write_report
from spear_training.annotation.annotate import main
from spear_training.annotation.records import Annotation, GivenDepth, GivenObject, Item
from spear_training.annotation.stages import JobError


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Write a world of three scenes, in the format of `annotate world`."""
    folder = tmp_path_factory.mktemp("world")
    items, truths = [], []
    for number, kind in enumerate(("table", "table", "room")):
        solids, plane = table_scene(number, count=3)
        depth, shown = render(solids, plane)
        name = f"{kind}/{number:06d}"
        truth = truth_of(solids, shown, name)
        cv2.imwrite(str(folder / f"{number}.png"), (depth * 5000).round().astype(np.uint16))
        cv2.imwrite(str(folder / f"{number}.jpg"), np.full((630, 840, 3), 127, np.uint8))
        items.append(
            Item(
                id=name,
                image=f"{number}.jpg",
                objects=tuple(
                    GivenObject(found.label, mask=found.mask) for found in truth.annotation.objects
                ),
                depth=GivenDepth(f"{number}.png", 5000),
                intrinsics=CAMERA,
            )
        )
        truths.append(truth.to_json())
    write_items(folder / "items.jsonl", items)
    (folder / "truth.jsonl").write_text("\n".join(truths))
    return folder


@pytest.fixture(scope="module")
def report(world):
    said = []
    found = measure_world(world, progress=lambda done, all_: said.append((done, all_)))
    assert said[0] == (0, 3)
    assert said[-1] == (3, 3)
    return found


def test_true_depth_gives_close_boxes_and_noise_costs_something(report):
    true, noisy, again = (condition.summaries() for condition in report.conditions)
    assert true["not round"].recall == 1
    assert true["not round"].iou_median > 0.95
    assert true["not round"].order_kept == 1
    assert true["not round"].centre_error_m.median < 0.002
    assert 0.5 < noisy["not round"].iou_median < true["not round"].iou_median
    assert {"all", "table", "room"} < set(true)
    # Two annotations of one picture differ by their noise alone.
    assert again["not round"].objects == noisy["not round"].found >= 4
    assert again["not round"].iou_median > noisy["not round"].iou_median


def test_settings_of_all_stages_are_kept(report):
    true, noisy, _ = report.conditions
    assert [stage["stage"] for stage in noisy.settings].count("noise") == 1
    assert "noise" not in [stage["stage"] for stage in true.settings]


def test_the_page_and_the_tables_show_what_was_measured(report, tmp_path):
    page = write_report(report, tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    assert stored["scenes"] == 3
    median = stored["conditions"][0]["summaries"]["all"]["iou_median"]
    text = page.read_text()
    assert f"{median:.2f}" in text
    assert "data:image/svg+xml" in text
    assert "noisy depth, against other noise" in text
    console = Console(width=80, record=True)
    for table in terminal_tables(report):
        console.print(table)
    shown = console.export_text()
    assert "true depth" in shown
    assert "not round" in shown
    assert f"{median:.2f}" in shown
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "accuracy.html",
        "accuracy.json",
    }


def test_a_run_of_other_stages_is_compared_too(world):
    truths = read_truth(world / "truth.jsonl")
    empty = [Annotation(name, "a.jpg", "empty", reason="nothing was detected") for name in truths]
    found = compare_run("a blind detector", empty[:2], truths)
    lost = found.summaries()["all"].lost
    assert set(lost) == {"not found", "its picture has no annotation"}
    assert found.summaries()["all"].recall == 0


def test_a_folder_that_is_no_world_says_what_is_missing(world, tmp_path):
    with pytest.raises(JobError, match=r"no items\.jsonl"):
        measure_world(tmp_path)
    (tmp_path / "items.jsonl").write_bytes((world / "items.jsonl").read_bytes())
    with pytest.raises(JobError, match=r"no truth\.jsonl"):
        measure_world(tmp_path)
    first = (world / "truth.jsonl").read_text().splitlines()[0]
    (tmp_path / "truth.jsonl").write_text(first)
    with pytest.raises(JobError, match=r"lacks 2 of the pictures .* table/000001"):
        measure_world(tmp_path)
    (tmp_path / "truth.jsonl").write_text("{}")
    with pytest.raises(JobError, match="line 1: no truth"):
        measure_world(tmp_path)


def test_the_command_measures_a_world_and_a_run_over_it(world, tmp_path, capsys):
    out, run = tmp_path / "accuracy", tmp_path / "run"
    words = ["--detector", "given", "--segmenter", "given", "--geometry", "depth"]
    assert main(["run", "--items", str(world / "items.jsonl"), "--out", str(run), *words]) == 0
    words = ["--out", str(out), "--scenes", "1", "--run", str(run)]
    assert main(["accuracy", str(world), *words]) == 0
    true, _, _, of_run = json.loads((out / "accuracy.json").read_text())["conditions"]
    assert of_run["name"] == str(run)
    stored, made = of_run["summaries"]["all"], true["summaries"]["all"]
    assert stored["found"] == made["found"] == 3
    # Records are rounded to a hundredth of a millimetre.
    assert stored["iou_median"] == pytest.approx(made["iou_median"], abs=1e-3)
    assert "noisy depth" in capsys.readouterr().out


def test_the_command_refuses_what_it_cannot_measure(tmp_path, capsys):
    assert main(["accuracy", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "has no items.jsonl" in capsys.readouterr().err
    words = [str(tmp_path), "--out", str(tmp_path / "out"), "--scenes", "0"]
    assert main(["accuracy", *words]) == 2
    assert "at least 1" in capsys.readouterr().err
