"""The demo with engine spear on random weights: at its rate, judged, and harmless."""

import json

import numpy as np
import pytest
from bag_safety import check_safety
from demo_program import run_demo_program

from spear_bringup.nodes.demo import make_untrained, parse
from spear_bringup.trials.bag_reader import read_trial
from spear_bringup.trials.metrics import path_length_m

TIMEOUT_S = 5.0  # simulated; random weights use all of it


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(finished process, output folder) of one short trial with POLICY=spear."""
    folder = tmp_path_factory.mktemp("spear")
    result = run_demo_program(
        "--trials", 1, "--out", folder, "--timeout", TIMEOUT_S, POLICY="spear"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result, folder


@pytest.fixture(scope="module")
def trial(demo):
    """The trial's entry in summary.json."""
    (trial,) = json.loads((demo[1] / "summary.json").read_text())["trials"]
    return trial


@pytest.mark.timeout(900)  # the demo runs in the first test
def test_random_weights_run_in_the_whole_graph_and_their_failure_is_no_error(demo, trial):
    result, folder = demo
    assert "all 4 nodes are active" in result.stdout
    assert "0 of 1 trials succeeded" in result.stdout
    assert trial["outcome"] == "FAILURE" and trial["problems"] == []
    assert trial["checkpoint_id"] == "tiny-untrained-0"
    assert (folder / trial["video"]).stat().st_size > 10_000


def test_the_verdicts_and_their_reasons_are_in_table_summary_and_page(demo, trial):
    result, folder = demo
    verdicts = trial["verdicts"]
    assert set(verdicts) == {"PASS", "CLAMPED", "HELD", "REJECTED", "STOPPED"}
    assert verdicts["REJECTED"] > 0 and verdicts["STOPPED"] == 0
    # The model's random rotations are far larger than a step may be.
    assert next(iter(trial["reasons"]["REJECTED"])) == "JUMP"
    assert f"{verdicts['REJECTED']} rejected" in result.stdout
    page = (folder / "report.html").read_text()
    assert f"<tr><td>rejected</td><td>{verdicts['REJECTED']}</td>" in page
    assert f"{trial['reasons']['REJECTED']['JUMP']} jump" in page


def test_every_chunk_is_judged_and_what_is_refused_moves_nothing(demo, trial):
    bag = demo[1] / trial["bag"]
    messages = check_safety(bag)
    assert len(messages.commands) > 10
    if not any(command.knots for command in messages.commands):
        states = read_trial(bag).states
        assert path_length_m(states) < 0.01
        assert np.ptp(states.measured[:, :3], axis=0).max() < 0.002


def test_chunks_come_at_5_hz_of_simulated_time_and_say_what_they_are(demo, trial):
    bag, card = demo[1] / trial["bag"], json.loads((demo[1] / "checkpoint/card.json").read_text())
    chunks = [chunk for chunk in check_safety(bag).chunks if chunk.steps]
    # Never more; a busy machine infers late and leaves some out.
    assert 2 * TIMEOUT_S <= len(chunks) <= 5 * TIMEOUT_S + 1
    stamps = [chunk.header.stamp.sec + chunk.header.stamp.nanosec * 1e-9 for chunk in chunks]
    assert np.all(np.diff(stamps) > 0)
    assert len({chunk.chunk_id for chunk in chunks}) == len(chunks)
    for chunk in chunks:
        assert len(chunk.steps) == card["chunk_length"]
        assert chunk.statistics_hash == card["statistics_hash"]
        assert chunk.anchor_kind == chunk.ANCHOR_MEASURED
        assert chunk.inference_time.sec + chunk.inference_time.nanosec > 0


def test_an_untrained_checkpoint_gets_less_time_than_a_trained_one(tmp_path):
    def timeout_s(recipe, *arguments):
        (tmp_path / "card.json").write_text(json.dumps({"recipe": recipe}))
        return parse(["--engine", "spear", *arguments]).timeout_s

    given = ("--checkpoint", str(tmp_path))
    assert timeout_s("") == timeout_s("untrained", *given) == 15.0
    assert timeout_s("vla_bridge", *given) == parse(["--engine", "scripted"]).timeout_s == 60.0
    assert timeout_s("untrained", *given, "--timeout", "3") == 3.0


def test_a_trained_checkpoint_is_never_overwritten(tmp_path):
    (tmp_path / "card.json").write_text('{"recipe": "vla_bridge"}')
    with pytest.raises(ValueError, match="holds a trained checkpoint; run it with --checkpoint"):
        make_untrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]
