"""The training loop: what it learns from, goes on from, refuses, and leaves behind."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from toy_task import Layered, run, toy_config, weights_of

from spear_policy.shared.config import ConfigError
from spear_training.train.config import TrainingError, as_dict
from spear_training.train.metrics import WRITERS, SpeedMeter, read_metrics
from spear_training.train.optimiser import MovingAverage, freeze, learning_rate, parts_of
from spear_training.train.train import INTERRUPTED, START_AGAIN

PROGRAM = Path(__file__).with_name("toy_task.py")


def processes(count, folder, *changes, signals=None):
    """Start `count` processes of one training; `signals` by rank: (step, number)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(count):
        environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        if count > 1:
            environment |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
        if rank in (signals or {}):
            step, number = signals[rank]
            environment |= {"SIGNAL_AT": str(step), "SIGNAL": str(int(number))}
        command = [sys.executable, str(PROGRAM), str(folder), *changes]
        started.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
    return started


def ended(started):
    """(exit status, what was written to stderr) of each process."""
    found = [process.communicate(timeout=100) for process in started]
    return [(p.returncode, err) for p, (_, err) in zip(started, found, strict=True)]


def check_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, atol=tolerance, rtol=0, msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder) == 0
    return folder


def test_a_run_leaves_metrics_checkpoints_and_the_averaged_weights(whole):
    records = read_metrics(whole / "metrics.jsonl")
    assert [record["step"] for record in records] == [4, 8, 12]
    assert {"loss", "error", "gradient_norm", "learning_rate", "data_wait"} <= records[0].keys()
    kept = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert kept == ["step-00000008", "step-00000012"]
    torch.manual_seed(0)
    start, final = Layered().state_dict(), weights_of(whole)
    assert torch.equal(final["idle.weight"], start["idle.weight"])
    dcp_to_torch_save(whole / "checkpoints/step-00000012", whole / "last.pt")
    last = torch.load(whole / "last.pt")
    for name, averaged in last["average"].items():
        assert torch.equal(final[name], averaged)
        assert not torch.equal(last["model"][name], averaged)


def test_a_killed_run_goes_on_to_the_same_bits(whole, tmp_path):
    ((status, _),) = ended(processes(1, tmp_path, signals={0: (6, signal.SIGKILL)}))
    assert status == -signal.SIGKILL
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]
    assert run(tmp_path) == 0
    check_close(weights_of(tmp_path), weights_of(whole), 0.0)
    steps = [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")]
    assert steps == [4, 8, 12]


def test_two_processes_learn_as_one_and_one_goes_on_from_their_checkpoint(whole, tmp_path):
    changes = "micro_batches=2", "keep_checkpoints=3", "checkpoint_activations=true"
    assert ended(processes(2, tmp_path, *changes)) == [(0, ""), (0, "")]
    check_close(weights_of(tmp_path), weights_of(whole), 1e-5)
    for step in (8, 12):
        (tmp_path / f"checkpoints/step-{step:08d}/record.json").unlink()  # as if never whole
    assert run(tmp_path) == 0
    check_close(weights_of(tmp_path), weights_of(whole), 1e-5)


def test_a_dead_process_ends_the_others_with_a_sentence(tmp_path):
    started = processes(2, tmp_path, signals={1: (6, signal.SIGKILL)})
    (status, text), (killed, _) = ended(started)
    assert killed == -signal.SIGKILL and status == 2
    assert "another process of this training has ended or hangs" in text
    assert "Traceback" not in text
    assert (tmp_path / "checkpoints/step-00000004/record.json").exists()


def test_gradients_of_micro_batches_are_those_of_the_batch(whole, tmp_path):
    assert run(tmp_path, "micro_batches=4", "deterministic=true") == 0
    torch.use_deterministic_algorithms(False)
    check_close(weights_of(tmp_path), weights_of(whole), 1e-5)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGTERM, START_AGAIN),
        (signal.SIGUSR1, START_AGAIN),
        (signal.SIGINT, INTERRUPTED),
    ],
)
def test_a_signal_ends_the_run_with_a_checkpoint_of_its_step(
    whole, tmp_path, monkeypatch, number, status
):
    monkeypatch.setenv("SIGNAL_AT", "5")
    monkeypatch.setenv("SIGNAL", str(int(number)))
    assert run(tmp_path) == status
    assert (tmp_path / "checkpoints/step-00000006/record.json").exists()
    assert not (tmp_path / "final").exists()
    monkeypatch.delenv("SIGNAL_AT")
    assert run(tmp_path) == 0
    check_close(weights_of(tmp_path), weights_of(whole), 0.0)


def test_a_loss_that_is_no_number_stops_with_the_names_of_its_samples(tmp_path):
    words = "step 9: the loss is nan, of number 78, number 79; the checkpoint of step 8 is whole"
    with pytest.raises(TrainingError, match=words):
        run(tmp_path, "task.nan_at=9", "micro_batches=4")
    assert (tmp_path / "checkpoints/step-00000008/record.json").exists()
    assert not (tmp_path / "checkpoints/step-00000012").exists()


def test_a_full_disk_leaves_the_last_checkpoint_whole(whole, tmp_path):
    assert run(tmp_path, "steps=4", "optimiser.decay=constant") == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))  # EFBIG, as ENOSPC on a full disk
    try:
        with pytest.raises(TrainingError, match=r"cannot be written .*step 4 is whole. Make room"):
            run(tmp_path, "steps=8", "optimiser.decay=constant")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]
    assert run(tmp_path, "steps=8", "optimiser.decay=constant") == 0


@pytest.fixture
def another(tmp_path):
    """A function that begins a run and changes what its checkpoint says of itself."""

    def make(**values):
        assert run(tmp_path, "steps=4") == 0
        record = tmp_path / "checkpoints/step-00000004/record.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), **values}))
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"recipe": "vlm_3d"}, "is of the recipe vlm_3d and not of toy: give another --out"),
        ({"format": 99}, "was written by a newer version of this suite .format 99"),
        ({"format": None}, "is damaged: remove this folder"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(another, values, words):
    folder = another(**values)
    with pytest.raises(TrainingError, match=words):
        run(folder, "steps=4")


def test_another_setting_is_refused_by_name_and_a_longer_log_is_not(another):
    folder = another()
    with pytest.raises(TrainingError, match=r"optimiser.clip_norm = 1.0, but it is now 2.0"):
        run(folder, "steps=4", "optimiser.clip_norm=2.0")
    assert run(folder, "steps=4", "log_every=1") == 0


def test_a_damaged_checkpoint_names_the_folder_to_remove(another):
    folder = another()
    for path in (folder / "checkpoints/step-00000004").glob("*.distcp"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TrainingError, match="step-00000004 is damaged .*remove this folder"):
        run(folder, "steps=4")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("optimiser.rate=1", "there is no rate; it may be peak_learning_rate"),
        ("optimiser=1", "names a group: add one of peak_learning_rate"),
        ("steps=many", "it must be int"),
        ("steps", "write NAME=VALUE"),
        ("steps.more=1", "steps is a value and has no more"),
        ("trained.tail=1", "there is no tail; it has layers"),
        ("trained.head=fast", "must be a number"),
        ("precision=fp8", "it may be one of bf16, fp32"),
        ("batch_size=0", "batch_size must be at least 1"),
        ("micro_batches=3", "batch_size must be a multiple of micro_batches"),
        ("optimiser.betas=[0.9]", "betas must be two numbers"),
        ("ema_decay=1", "ema_decay must be in"),
    ],
)
def test_a_change_that_cannot_be_made_is_named(change, words):
    with pytest.raises(ConfigError, match=words):
        toy_config(change)


def test_changes_reach_every_depth_and_are_written_as_they_are():
    config = toy_config(
        "optimiser.peak_learning_rate=1e-4", "trained.layers.0=0", "ema_decay=null", "task.nan_at=3"
    )
    assert config.optimiser.peak_learning_rate == 1e-4 and config.ema_decay is None
    assert config.trained["layers.0"] == 0.0 and config.trained["layers"] == 1.0
    assert as_dict(config)["task"] == {"kind": "toy", "nan_at": 3}


def test_every_parameter_is_in_one_part_and_only_those_above_0_learn():
    model = Layered()
    parts = parts_of(model, toy_config().trained)
    assert {part.name: part.count for part in parts if part.trained} == {
        "layers": 72,
        "layers.0": 72,
        "head": 9,
    }
    freeze(model, parts)
    assert not model.idle.weight.requires_grad and model.layers[0][0].weight.requires_grad
    with pytest.raises(TrainingError, match=r"no entry for idle\.weight"):
        parts_of(model, {"layers": 1.0, "head": 1.0})
    with pytest.raises(TrainingError, match=r"trained\.tail: the model has no parameter"):
        parts_of(model, {**toy_config().trained, "tail": 1.0})


def test_the_learning_rate_warms_up_and_decays_to_its_share():
    config = toy_config("steps=102", "optimiser.final_share=0.1")
    rates = [learning_rate(step, config) for step in range(103)]
    assert rates[0] == pytest.approx(0.005) and max(rates) == rates[2] == pytest.approx(0.01)
    assert rates[52] == pytest.approx(0.0055) and rates[102] == pytest.approx(0.001)
    constant = toy_config("optimiser.decay=constant")
    assert learning_rate(11, constant) == 0.01


def test_the_average_is_swapped_in_and_out_without_a_trace():
    model = Layered()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    average = MovingAverage(model, 0.75)
    with torch.no_grad():
        model.head.weight.add_(4.0)
    average.update(1000)
    with average.swapped_in():
        torch.testing.assert_close(model.head.weight, before["head.weight"] + 1.0)
    torch.testing.assert_close(model.head.weight, before["head.weight"] + 4.0)
    torch.testing.assert_close(average.values["head.weight"], before["head.weight"] + 1.0)
    # After a few steps it is nearly what the weights are now.
    early = MovingAverage(model, 0.999)
    with torch.no_grad():
        model.head.weight.add_(1.0)
    early.update(1)
    torch.testing.assert_close(early.values["head.weight"], model.head.weight - 2 / 11)


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")]
)
def test_a_logger_without_its_package_says_how_to_get_it(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TrainingError, match=f"--log {name} needs .*pip install {name}"):
        WRITERS[name](tmp_path, 0)


def test_speed_counts_steps_and_waiting_and_leaves_out_pauses():
    now = [0.0]
    meter = SpeedMeter(32, flops=1e12, peak_flops=1e13, clock=lambda: now[0])
    for _ in range(4):
        now[0] += 0.5
        meter.waited(0.1)
        meter.step()
    now[0] += 10.0
    meter.skip(10.0)
    read = meter.read()
    assert read == pytest.approx({"samples_per_s": 64.0, "data_wait": 0.2, "mfu": 0.2})
