"""A task for tests of the training loop: a small network learns a fixed function of numbers.

Run as a program it is one process of a training: toy_task.py FOLDER [NAME=VALUE ...]. With
SIGNAL_AT=STEP and SIGNAL=NUMBER in its environment it sends itself a signal in that step.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from rich.console import Console
from torch import nn

from spear_policy.model.config import tiny
from spear_training.train.config import (
    OptimiserConfig,
    TrainConfig,
    TrainingError,
    with_changes,
)
from spear_training.train.distributed import join_processes, leave_processes
from spear_training.train.train import train

WIDTH = 8


class Layered(nn.Module):
    """Layers in a list, as the parts of the real model have."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(2)
        )
        self.head = nn.Linear(WIDTH, 1)
        self.idle = nn.Linear(2, 2)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class Numbers(torch.utils.data.Dataset):
    """Step -> inputs (B, WIDTH), targets (B, 1), weights (B,), numbers of the samples."""

    def __init__(self, config, rank, ranks):
        self.size, self.rank, self.ranks = config.batch_size, rank, ranks
        self.seed, self.nan_at = config.seed, config.task.nan_at

    def __getitem__(self, step):
        if str(step) == os.environ.get("SIGNAL_AT"):
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))
        generator = torch.Generator().manual_seed(1000 * self.seed + step)
        x = torch.randn(self.size, WIDTH, generator=generator)
        y = x[:, :1] * x[:, 1:2]
        weights = torch.randint(1, 4, (self.size,), generator=generator).float()
        if step == self.nan_at:
            x[-1, 0] = float("nan")
        mine = slice(self.rank * self.size // self.ranks, (self.rank + 1) * self.size // self.ranks)
        numbers = torch.arange(step * self.size, (step + 1) * self.size)
        return x[mine], y[mine], weights[mine], numbers[mine]


@dataclass(frozen=True)
class ToyTaskConfig:
    """In step `nan_at` a sample is no number."""

    kind: ClassVar[str] = "toy"
    nan_at: int = -1

    def empty_model(self, config):
        with torch.device("meta"):
            return Layered()

    def longest_loss(self, config, model):
        return model(torch.empty(1, WIDTH, device="meta")).sum()

    def make(self, config, device):
        return ToyTask(config, device)


class ToyTask:
    """Weighted squared error, so that a step's denominator is no number of samples."""

    def __init__(self, config, device):
        self.config, self.device, self.exported = config, device, []

    def build_model(self):
        torch.manual_seed(self.config.seed)
        return Layered()

    def source(self, rank, ranks):
        return Numbers(self.config, rank, ranks)

    def split(self, batch, parts):
        pieces = [tensor.to(self.device).chunk(parts) for tensor in batch]
        return list(zip(*pieces, strict=True))

    def denominator(self, part):
        return float(part[2].sum())

    def loss(self, model, part, denominator):
        x, y, weights, _ = part
        error = (model(x) - y).square().squeeze(-1).float()
        return (weights * error).sum() / denominator, {"error": (error.sum().detach(), len(error))}

    def sample_names(self, part):
        return [f"number {int(number)}" for number in part[3]]

    def validate(self, model, step):
        x = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(-1))
        return {"validation_error": float((model(x) - x[:, :1] * x[:, 1:2]).square().mean())}

    def export(self, model, folder, record):
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"weights": model.state_dict(), "record": record}, folder / "weights.pt")


def toy_config(*changes):
    """A training of 12 steps of 8 samples."""
    config = TrainConfig(
        name="toy",
        about="a toy",
        machine="any",
        model=tiny(),
        task=ToyTaskConfig(),
        trained={"layers": 1.0, "layers.0": 0.5, "head": 1.0, "idle": 0.0},
        optimiser=OptimiserConfig(1e-2, warmup_steps=2, weight_decay=1e-2),
        steps=12,
        batch_size=8,
        precision="fp32",
        ema_decay=0.9,
        workers=0,
        log_every=4,
        checkpoint_every=4,
    )
    return with_changes(config, changes)


def run(folder, *changes, timeout_s=30.0):
    """Train in this process; returns the exit status."""
    processes = join_processes("cpu", timeout_s)
    try:
        quiet = Console(quiet=True)
        return train(toy_config(*changes), Path(folder), processes, changes=changes, console=quiet)
    finally:
        leave_processes()


def weights_of(folder):
    """What a run has exported."""
    return torch.load(Path(folder) / "final" / "weights.pt")["weights"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        sys.exit(run(*sys.argv[1:]))
    except TrainingError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
