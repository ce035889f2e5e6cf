"""Files of truths."""

import json

import pytest
from ray_scenes import render, table_scene, truth_of

from spear_training.annotation.accuracy.compare import SceneTruth, read_truth
from spear_training.annotation.records import RecordError


@pytest.fixture(scope="module")
def truth():
    solids, plane = table_scene(1)
    return truth_of(solids, render(solids, plane)[1], "table/1")


def changed(truth, **changes):
    return json.dumps(json.loads(truth.to_json()) | changes)


def test_what_is_written_is_read(truth, tmp_path):
    (tmp_path / "truth.jsonl").write_text(f"{truth.to_json()}\n\n")
    read = read_truth(tmp_path / "truth.jsonl")["table/1"]
    assert read.to_json() == truth.to_json()
    assert read.axes_of_symmetry["box 0"] is None
    assert read.axes_of_symmetry["ellipsoid 3"] == (0, 0, 0)
    assert len(read.annotation.objects) == len(truth.annotation.objects)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"annotation": {"id": "a"}}, "no annotation"),
        ({"axes_of_symmetry": {"box 0": [1, 1, 0]}}, "'box 0' is no unit vector"),
        ({"axes_of_symmetry": {"box 0": [1, 0]}}, "no truth"),
        ({"axes_of_symmetry": {"moon": None}}, "has no moon"),
        ({"visible_fraction": {"box 0": "much"}}, "no truth"),
        ({"visible_fraction": None}, "no truth"),
    ],
)
def test_what_is_no_truth_says_why(truth, changes, said):
    with pytest.raises(RecordError, match=said):
        SceneTruth.from_json(changed(truth, **changes))


def test_a_file_names_the_line(truth, tmp_path):
    path = tmp_path / "truth.jsonl"
    path.write_text(f"{truth.to_json()}\n[]\n")
    with pytest.raises(RecordError, match=r"truth\.jsonl, line 2: no truth"):
        read_truth(path)
    path.write_text(f"{truth.to_json()}\n{truth.to_json()}\n")
    with pytest.raises(RecordError, match=r"line 2: 'table/1' is there twice"):
        read_truth(path)
