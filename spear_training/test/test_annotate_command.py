"""The command: real stages from a list to records, what it refuses, and how quick its help is."""

import json
import subprocess
import sys
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from annotate_stages import write_pictures
from rgbd_list import write_list

from spear_training.annotation import annotate as annotate_program
from spear_training.annotation.annotate import main
from spear_training.annotation.commands import run as run_command
from spear_training.annotation.commands.run import stage_settings
from spear_training.annotation.run_folder import read_annotations
from spear_training.annotation.stages import STAGES, JobError, PipelineSpec

GIVEN = ["--detector", "given", "--segmenter", "given", "--geometry", "depth"]
NETWORKS = ["--detector", "gemini", "--segmenter", "sam2", "--geometry", "moge"]


@pytest.fixture
def annotate(tmp_path):
    """Return a function that annotates a list into OUT and returns the exit code."""

    def run(path, *more, stages=GIVEN):
        return main(["--items", str(path), "--out", str(tmp_path / "out"), *stages, *more])

    return run


def records(out):
    """Read all records, without how long they took."""
    return [replace(record, seconds={}) for record in read_annotations(out)]


def test_a_list_becomes_records_whose_boxes_have_the_objects_sizes(annotate, tmp_path, capsys):
    assert annotate(write_list(tmp_path / "list", 2)) == 0
    assert "2 ok, 0 empty, 0 failed" in capsys.readouterr().out
    found = records(tmp_path / "out")
    assert [record.id for record in found] == ["000", "001"]
    for record in found:
        assert [thing.label for thing in record.objects] == ["red dome", "blue dome"]
        for thing in record.objects:
            edges_m = np.linalg.norm(thing.vertices[[4, 2, 1]] - thing.vertices[0], axis=1)
            # A dome of 20 cm, 25 pixels wide to each side in 1.2 m and 0.8 times as wide as high.
            assert np.sort(edges_m) == pytest.approx([0.2, 0.43, 0.54], rel=0.1)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [stage["stage"] for stage in run["settings"]] == [
        "given",
        "unique",
        "given",
        "depth",
        "clouds",
        "outliers",
        "boxes",
    ]


def test_shards_make_the_records_of_one_run(annotate, tmp_path):
    path = write_list(tmp_path / "list", 3)
    assert annotate(path) == 0
    whole = records(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "whole")
    for shard in "201":
        assert annotate(path, "--shard", shard, "--num-shards", "3") == 0
    assert records(tmp_path / "out") == whole


def test_failed_pictures_make_exit_code_1_and_go_away_with_a_retry(annotate, tmp_path, capsys):
    path = write_list(tmp_path / "list", 3)
    hidden = tmp_path / "list" / "depth" / "001.png"
    hidden.rename(tmp_path / "001.png")
    assert annotate(path) == 1
    assert "001: failed, depth: " in capsys.readouterr().out
    (tmp_path / "001.png").rename(hidden)
    assert annotate(path) == 1
    assert annotate(path, "--retry-failed") == 0
    assert [record.status for record in records(tmp_path / "out")] == ["ok"] * 3


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--num-shards", "2"], "--num-shards 2 needs --shard"),
        (["--shard", "2", "--num-shards", "2"], "it must be 0 to 1"),
        (["--phrases", "mug"], "--phrases is for grounding_dino, which was not chosen"),
        (["--answers", "x"], "--answers is for gemini"),
        (["--set", "depth"], "write it as STAGE.NAME=VALUE"),
        (
            ["--set", "sam2.model=x"],
            "no setting for sam2: the stages are given, unique, depth, clouds",
        ),
        (["--set", "depth.range=1"], "depth has no setting range; it has max_range_m"),
        (["--set", "depth.max_range_m=-1"], "max_range_m is -1"),
        (["--set", "boxes.sample_points=0"], "sample_points is 0"),
        (["--set", "boxes.sample_points=many"], "sample_points is 'many'; it must be a number"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(annotate, tmp_path, more, words, capsys):
    assert annotate(write_list(tmp_path / "list", 1), *more) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_settings_or_pictures_into_the_same_folder_are_refused(annotate, tmp_path, capsys):
    path = write_list(tmp_path / "list", 2)
    assert annotate(path) == 0
    assert annotate(path, "--set", "depth.max_range_m=3") == 2
    assert "depth.max_range_m = nothing, but it is now 3" in capsys.readouterr().err
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    assert annotate(path) == 2
    assert "items.count = 2, but it is now 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "has no items"), ("{}\n", "line 1: no item"), ('{"id": "\udcff', "line 1: 'utf-8'")],
)
def test_a_list_that_cannot_be_used_is_named(annotate, tmp_path, content, words, capsys):
    path = tmp_path / "items.jsonl"
    path.write_text(content, errors="surrogateescape")
    assert annotate(path) == 2
    assert words in capsys.readouterr().err
    path.unlink()
    assert annotate(path) == 2
    assert "items.jsonl: No such file or directory" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    path = write_list(tmp_path / "list", 1)
    (tmp_path / "file").touch()
    assert main(["--items", str(path), "--out", str(tmp_path / "file" / "out"), *GIVEN]) == 2
    assert "file/out: Not a directory" in capsys.readouterr().err


def test_photographs_that_nobody_has_looked_at_fail_with_the_reason(tmp_path, capsys):
    write_pictures(tmp_path / "photos", ["a", "b"])
    words = ["run", "--images", str(tmp_path / "photos"), "--out", str(tmp_path / "photos" / "out")]
    assert main([*words, *GIVEN]) == 1
    assert "a.png: failed, given: the item has no objects" in capsys.readouterr().out
    assert main([*words, *GIVEN]) == 1  # OUT lies in the folder, but is not part of the list


def test_gemini_without_a_key_stops_the_job_before_the_first_record(tmp_path, capsys, monkeypatch):
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    write_pictures(tmp_path / "photos", ["a", "b"])
    words = ["--images", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]
    assert main([*words, *NETWORKS]) == 2
    assert "GEMINI_API_KEY" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run.json"]


def options_of(*words):
    """Parse options of `annotate run`."""
    parser = ArgumentParser()
    run_command.add_arguments(parser)
    return parser.parse_args(["--images", "x", "--out", "y", *words])


def test_options_reach_the_stage_they_are_for(tmp_path):
    words = ["--detector-model", "gemini-x", "--requests", "3", "--device", "cpu"]
    more = [
        "--moge-version",
        "v2",
        "--set",
        "gemini.temperature=0.2",
        "--set",
        "sam2.dtype=float16",
    ]
    found = stage_settings(options_of(*NETWORKS, *words, *more))
    assert found == {
        "gemini": {"model": "gemini-x", "requests_at_once": 3, "temperature": 0.2},
        "sam2": {"device": "cpu", "dtype": "float16"},
        "moge": {"device": "cpu", "version": "v2"},
    }
    pipeline = PipelineSpec(tmp_path, "gemini", "sam2", "moge", tmp_path / "a", found).build()
    assert pipeline.parallel == 3
    settings = {stage["stage"]: stage for stage in pipeline.settings}
    assert settings["gemini"]["temperature"] == 0.2
    assert settings["moge"]["version"] == "v2"


def test_the_page_about_annotation_names_every_stage():
    page = (Path(__file__).parents[2] / "docs" / "annotation.md").read_text()
    assert [stage.name for stage in STAGES if f"`{stage.name}`" not in page] == []


def test_phrases_come_from_words_or_a_file(tmp_path):
    dino = ["--detector", "grounding_dino", *NETWORKS[2:]]
    (tmp_path / "phrases.txt").write_text("red mug\n\ncutting board\n")
    for words in ("red mug, cutting board", f"@{tmp_path / 'phrases.txt'}"):
        found = stage_settings(options_of(*dino, "--phrases", words))
        assert found["grounding_dino"]["phrases"] == ("red mug", "cutting board")
    with pytest.raises(JobError, match="needs --phrases"):
        stage_settings(options_of(*dino))


@pytest.mark.parametrize(
    "words",
    [[], ["import", "egoexo4d"], *([name] for name in annotate_program.COMMANDS)],
)
def test_help_is_quick_and_ends_with_an_example(words):
    command = [sys.executable, "-X", "importtime", "-m", "spear_training.annotation.annotate"]
    done = subprocess.run([*command, *words, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "example" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("  ")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"numpy", "torch", "transformers", "pyarrow", "ray", "rich", "cv2"}


def test_a_word_that_is_no_command_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["anotate"])
    assert ended.value.code == 2
    assert "choose from run, import, world" in capsys.readouterr().err
