"""The program `train`: what it prints, how it ends, and what a batch system reads of it."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from rich.console import Console
from toy_task import ToyTask, toy_config

from spear_training.train import command, train
from spear_training.train.distributed import Processes
from spear_training.train.metrics import JsonLines, read_metrics, sample_cost


@pytest.fixture
def toy(monkeypatch):
    """The recipe "toy" in the place of all others."""
    monkeypatch.setattr(command, "recipes", lambda: {"toy": toy_config})


def run(*arguments):
    return command.main([*map(str, arguments), "--device", "cpu"])


def test_help_does_not_load_torch():
    code = (
        "import sys\nfrom spear_training.train.command import main\n"
        "try: main(['--help'])\nfinally: sys.exit(3 if 'torch' in sys.modules else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0 and "Example:" in ended.stdout


def test_list_names_every_recipe_and_each_is_called_as_it_is_named(capsys):
    found = command.recipes()
    assert all(make().name == name for name, make in found.items())
    assert command.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in found)


def test_a_run_by_command_records_its_changes_and_goes_on(toy, tmp_path, capsys):
    arguments = "--recipe", "toy", "--out", tmp_path, "--set", "optimiser.clip_norm=0.5"
    assert run(*arguments) == 0
    record = json.loads((tmp_path / "checkpoints/step-00000012/record.json").read_text())
    assert record["changes"] == ["optimiser.clip_norm=0.5"]
    assert record["config"]["optimiser"]["clip_norm"] == 0.5
    exported = torch.load(tmp_path / "final/weights.pt")["record"]
    assert exported["changes"] == record["changes"] and exported["step"] == 12
    capsys.readouterr()
    assert run(*arguments[:-2]) == command.CANNOT
    assert "optimiser.clip_norm = 0.5, but it is now 1.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--recipe", "toys"], "there is no recipe 'toys'; there are toy"),
        (["--recipe", "toy", "--set", "stepz=1"], "there is no stepz; it may be name, about"),
        (["--recipe", "toy", "--log", "tensorboard"], "pip install tensorboard"),
        (["--recipe", "toy", "--log", "wandb"], "pip install wandb"),
    ],
)
def test_what_cannot_begin_ends_with_one_sentence(
    toy, tmp_path, capsys, monkeypatch, arguments, words
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert run(*arguments, "--out", tmp_path) == command.CANNOT
    printed = capsys.readouterr().err
    assert printed.startswith("train: ") and words in printed and "Traceback" not in printed


@pytest.mark.parametrize("moment", ["build_model", "split"])
def test_a_notice_of_the_batch_system_leaves_the_file_that_asks_for_another_start(
    toy, tmp_path, monkeypatch, moment
):
    whole = getattr(ToyTask, moment)

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGUSR1)
        return whole(*arguments)

    before = signal.getsignal(signal.SIGUSR1)
    with monkeypatch.context() as patch:
        patch.setattr(ToyTask, moment, interrupted)
        assert run("--recipe", "toy", "--out", tmp_path) == train.START_AGAIN
    assert (tmp_path / "requeue").exists() and signal.getsignal(signal.SIGUSR1) is before
    assert (tmp_path / "checkpoints/step-00000001").exists() == (moment == "split")
    assert run("--recipe", "toy", "--out", tmp_path) == 0
    assert not (tmp_path / "requeue").exists()


def test_utilisation_counts_the_model_and_not_what_checkpointing_computes_again(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(train, "peak_flops", lambda device: 1e12)
    config = toy_config("checkpoint_activations=true", "steps=4")
    flops, kept = sample_cost(config, config.task.empty_model(config))
    # Two layers of 8 x 8 and a head of 8, forward, for weights and for inputs but the first's.
    assert flops == 2 * (3 * (8 * 8 + 8 * 8 + 8) - 8 * 8)
    plain = toy_config("steps=4")
    assert kept < sample_cost(plain, plain.task.empty_model(plain))[1]
    alone = Processes(0, 1, torch.device("cpu"))
    assert train.train(config, tmp_path, alone, console=Console(quiet=True)) == 0
    (record,) = read_metrics(tmp_path / "metrics.jsonl")
    assert record["mfu"] == pytest.approx(record["samples_per_s"] * flops / 1e12)


def test_a_full_disk_under_the_metrics_is_named(toy, tmp_path, capsys, monkeypatch):
    class Full(JsonLines):
        def __init__(self, folder, step):
            super().__init__(folder, step)
            self._file = open("/dev/full", "w")

    monkeypatch.setattr(train, "JsonLines", Full)
    assert run("--recipe", "toy", "--out", tmp_path) == command.CANNOT
    assert "No space left on device: '/dev/full'" in capsys.readouterr().err


def test_a_dry_run_prints_the_configuration_what_learns_and_an_estimate(toy, capsys):
    assert run("--recipe", "toy", "--dry-run", "--set", "steps=77") == 0
    printed = capsys.readouterr().out
    assert "steps: 77" in printed and "kind: toy" in printed
    assert re.search(r"idle +frozen", printed) and re.search(r"layers\.0 +0\.5 x", printed)
    assert "16 x H200" not in printed and "8 x H200" in printed  # 8 samples, 16 GPUs
