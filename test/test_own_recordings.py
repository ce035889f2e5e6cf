"""Own recordings to a policy: trials, a store, statistics, a training, and the robot again."""

import json

import pytest
import yaml
from bag_safety import check_safety
from demo_program import run_demo_program

from spear_training.data.import_episodes import main as import_episodes
from spear_training.data.stats import main as spear_stats
from spear_training.train.command import main as train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all of it lies."""
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def checkpoint(folder):
    """A checkpoint that was trained on two trials of the demo."""
    recorded = run_demo_program("--trials", 2, "--seed", 1, "--out", folder / "demo")
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    given = ["--to", "store", "--format", "bag", "--input", str(folder / "demo")]
    assert import_episodes([*given, "--output", str(folder / "our_lab")]) == 0
    mixture, run = folder / "our_lab.yaml", folder / "run"
    mixture.write_text(yaml.safe_dump({"parts": [{"store": "our_lab", "weight": 1}]}))
    assert spear_stats(["--mixture", str(mixture), "--out", str(folder)]) in (0, 1)
    words = ["--recipe", "tiny_vla", "--out", str(run), "--set", f"task.mixture={mixture}"]
    for change in (
        f"task.statistics={folder / 'statistics.json'}",
        f"task.held_out={mixture}",
        "task.robots.our_lab=franka",
        "optimiser.peak_learning_rate=2e-3",
        "optimiser.warmup_steps=50",
        "steps=300",
        "validate_every=300",
    ):
        words += ["--set", change]
    assert train(words) == 0
    return run / "final"


def test_a_training_on_own_trials_learns_their_motion(checkpoint):
    lines = (checkpoint.parent / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["translation_share_of_hold_still"] < 0.8
    card = json.loads((checkpoint / "card.json").read_text())
    assert card["datasets"] == ["our_lab"]
    assert card["reference_orientations_xyzw"] == {"franka": [1.0, 0.0, 0.0, 0.0]}


def test_the_policy_node_runs_it_and_its_chunks_pass_the_gate(checkpoint, folder):
    out = folder / "again"
    words = ["--engine", "spear", "--checkpoint", checkpoint, "--out", out, "--timeout", 15]
    result = run_demo_program(*words, "--trials", 1, "--seed", 1)
    assert result.returncode == 0, result.stdout + result.stderr
    (trial,) = json.loads((out / "summary.json").read_text())["trials"]
    assert trial["checkpoint_id"] == "tiny_vla-300" and trial["problems"] == []
    verdicts = trial["verdicts"]
    sent = verdicts["PASS"] + verdicts["CLAMPED"]
    assert verdicts["STOPPED"] == 0 and sent > verdicts["REJECTED"], trial["reasons"]
    assert len(check_safety(out / trial["bag"]).commands) > 10
