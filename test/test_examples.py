"""The programs under docs/examples run as they stand and print what they promise."""

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_fixture import trial
from store_fixture import made_store

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs an example with arguments and returns what it printed."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_two_pictures_and_a_sentence_become_five_deltas(run, checkpoint, tmp_path):
    pictures = [tmp_path / "external.jpg", tmp_path / "wrist.jpg"]
    for path, (width, height) in zip(pictures, [(280, 210), (112, 112)], strict=True):
        cv2.imwrite(str(path), np.full((height, width, 3), 128, np.uint8))
    output = run("infer_from_two_pictures.py", checkpoint, *pictures, "put the carrot on the plate")
    assert [line.split()[1] for line in output.splitlines()] == ["0.2", "0.4", "0.6", "0.8", "1.0"]


@pytest.mark.parametrize(
    ("metres", "verdict"), [("0.02", "PASS"), ("0.15", "CLAMPED"), ("3.0", "REJECTED")]
)
def test_the_gate_says_what_it_would_do(run, metres, verdict):
    assert f"{verdict}:" in run("judge_a_chunk.py", metres)


def test_a_bag_becomes_numbers(run, tmp_path):
    trial().write(tmp_path / "bag")
    output = run("read_a_trial.py", tmp_path / "bag")
    assert "the gripper moved 0." in output
    assert "external: first frame at " in output and "wrist: first frame at " in output


def test_a_store_becomes_batches(run, tmp_path):
    store = made_store(tmp_path)
    output = run("batch_from_a_store.py", store.root)
    assert "step 1: {'external': (4, 210, 280, 3), 'wrist': (4, 112, 112, 3)}" in output
    assert "deltas (4, 5, 3)" in output
