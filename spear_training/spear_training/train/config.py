"""What one training is: a whole configuration, its changes by hand, and what its task must offer.

A recipe (`spear_training.recipes`) is a function that returns a `TrainConfig`. There is no file of
settings beside it and nothing is inherited: what is printed by `train --dry-run` is all there is.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import yaml

from spear_policy.model.config import ModelConfig
from spear_policy.shared.config import ConfigError, read_dataclass


class TrainingError(ValueError):
    """A training that cannot begin or go on; names the input and the fix."""


# What the loop needs of a task ------------------------------------------------------------------


class TrainingTaskConfig(Protocol):
    """The part of a recipe that says what is learned: a frozen dataclass.

    Attributes:
        kind: its name in records.
    """

    kind: ClassVar[str]

    def empty_model(self, config: "TrainConfig"):
        """The model (torch.nn.Module) on the meta device: names and shapes without values."""

    def longest_loss(self, config: "TrainConfig", model):
        """The loss of a made-up sample, as long as one can be, by a model on the meta device.

        For estimates of time and memory where the data is not.
        """

    def make(self, config: "TrainConfig", device) -> "TrainingTask":
        """Open the data and bind it to a model's configuration and a torch.device.

        Raises:
            TrainingError: the data is missing, damaged, or does not fit the model.
        """


class TrainingTask(Protocol):
    """Data, loss and products of one kind of training; `train.train` drives it.

    A batch is whatever `source` gives and the other functions take.
    """

    def build_model(self):
        """The model (torch.nn.Module) on the CPU in fp32, random or from `config.start`."""

    def source(self, rank: int, ranks: int):
        """Batches by step: a torch Dataset that worker processes may copy.

        `source[step]` is this process's part of the step's batch, a function of seed and step
        alone; the parts of all processes are the batch of one process.
        """

    def split(self, batch, parts: int) -> list:
        """Cut a batch into micro-batches, on the device."""

    def denominator(self, part) -> float:
        """What the loss of a micro-batch is a sum over: samples, or answer tokens."""

    def loss(self, model, part, denominator: float):
        """Loss of a micro-batch.

        Args:
            model: as the loop wrapped it: call it, and nothing inside it.
            part: a micro-batch.
            denominator: sum of `denominator` over the whole step, all processes.

        Returns:
            The micro-batch's share of the step's loss (a scalar tensor), and (sum, count) pairs
            by the names under which their quotients are logged.
        """

    def sample_names(self, part) -> list[str]:
        """What the samples are, for a message about a loss that is no number."""

    def validate(self, model, step: int) -> dict[str, float]:
        """Numbers on data that is not trained on; empty where there is none."""

    def export(self, model, folder: Path, record: Mapping[str, Any]) -> None:
        """Write what the next stage or the policy node loads.

        Args:
            model: with the weights to write, not wrapped, on the CPU.
            folder: to make.
            record: recipe, changes, step, git revision.
        """


# The configuration -------------------------------------------------------------------------------


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW, its learning rate over the steps, and the clipping of gradients.

    Attributes:
        peak_learning_rate: after the warm-up.
        weight_decay: of matrices; vectors (norms, biases) have none.
        clip_norm: largest norm of all gradients together.
        warmup_steps: in which the rate grows from zero, linearly.
        decay: "cosine" down to `final_share` of the peak at the last step, or "constant".
    """

    peak_learning_rate: float
    betas: tuple[float, ...] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    warmup_steps: int = 0
    decay: Literal["cosine", "constant"] = "cosine"
    final_share: float = 0.0

    def __post_init__(self):
        """Refuse what no training can use. Raises ConfigError."""
        _need(0 < self.peak_learning_rate < 1, "peak_learning_rate", "must be in (0, 1)")
        beta_ok = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        _need(beta_ok, "betas", "must be two numbers in [0, 1)")
        _need(0 < self.eps < 1, "eps", "must be in (0, 1)")
        _need(0 <= self.weight_decay < 1, "weight_decay", "must be in [0, 1)")
        _need(self.clip_norm > 0, "clip_norm", "must be above 0")
        _need(self.warmup_steps >= 0, "warmup_steps", "must be 0 or more")
        _need(0 <= self.final_share <= 1, "final_share", "must be in [0, 1]")


@dataclass(frozen=True)
class TrainConfig:
    """One training, whole.

    Attributes:
        name: of the recipe.
        about: what it is, in a line, with the table of the paper that it is from.
        machine: on what it runs and for how long, and who says so.
        model: sizes and choices of the model.
        task: what is learned from which data.
        start: where the weights come from: "random", or a folder; the task says which it takes.
        trained: learning rates of the model's parts, as multiples of the optimiser's; 0 freezes.
            A key is the beginning of parameter names; the longest one that fits counts.
        optimiser: see there.
        steps: of the optimiser.
        batch_size: samples of a step, over all processes and micro-batches.
        micro_batches: parts of a process's batch whose gradients are summed, to save memory.
        seed: of the order of samples, of questions and of random weights.
        precision: "bf16": autocast over weights that stay in fp32; or "fp32".
        ema_decay: of the moving average of the weights that is validated and exported; None: none.
        checkpoint_activations: compute layers again in the backward pass, to save memory.
        compile: the model by torch.compile.
        deterministic: refuse operations whose result depends on chance.
        workers: processes that make batches; 0: the training's own.
        log_every, validate_every, checkpoint_every: steps between two of them; 0: never.
        keep_checkpoints: how many are kept to go on from.
    """

    name: str
    about: str
    machine: str
    model: ModelConfig
    task: TrainingTaskConfig
    trained: Mapping[str, float]
    optimiser: OptimiserConfig
    steps: int
    batch_size: int
    start: str = "random"
    micro_batches: int = 1
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"
    ema_decay: float | None = None
    checkpoint_activations: bool = False
    compile: bool = False
    deterministic: bool = False
    workers: int = 2
    log_every: int = 10
    validate_every: int = 0
    checkpoint_every: int = 500
    keep_checkpoints: int = 2

    def __post_init__(self):
        """Refuse what no training can use. Raises ConfigError."""
        for name in ("steps", "batch_size", "micro_batches", "keep_checkpoints", "log_every"):
            _need(getattr(self, name) >= 1, name, "must be at least 1")
        for name in ("seed", "workers", "validate_every", "checkpoint_every"):
            _need(getattr(self, name) >= 0, name, "must be 0 or more")
        parts = self.batch_size % self.micro_batches == 0
        _need(parts, "batch_size", f"must be a multiple of micro_batches ({self.micro_batches})")
        _need(self.ema_decay is None or 0 < self.ema_decay < 1, "ema_decay", "must be in (0, 1)")
        good = all(0 <= scale < math.inf for scale in self.trained.values())
        _need(good and any(self.trained.values()), "trained", "must be multiples, one above 0")


def _need(condition: bool, name: str, text: str) -> None:
    if not condition:
        raise ConfigError(f"{name} {text}")


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """Everything of a configuration as plain values, the kind of its task among them."""
    values = dataclasses.asdict(config)
    values["task"] = {"kind": config.task.kind, **values["task"]}
    return values


# Changes by hand ---------------------------------------------------------------------------------


def with_changes(config: TrainConfig, changes: Sequence[str]) -> TrainConfig:
    """Apply changes such as "optimiser.peak_learning_rate=1e-4", in their order.

    Raises:
        ConfigError: a change has no "=", names no value of the configuration, or one that it
            cannot have.
    """
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals:
            raise ConfigError(f"--set {change}: write NAME=VALUE, such as steps=100")
        config = _changed(config, path.strip().split("."), _plain(text), f"--set {path.strip()}")
    return config


def _plain(text: str):
    """A value as YAML reads it; 1e-4, which YAML takes for a word, is a number too."""
    try:
        return float(text) if "e" in text.lower() else yaml.safe_load(text)
    except ValueError:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _changed(part, path: list[str], value, where: str):
    name, rest = path[0], path[1:]
    if isinstance(part, Mapping):
        key = ".".join(path)  # keys have dots of their own
        if part and key not in part:
            raise ConfigError(f"{where}: there is no {key}; it has {', '.join(part)}")
        if not part or isinstance(part[key], str):  # what may be empty names things by words
            return {**part, key: str(value)}
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{where}: {value!r} must be a number")
        return {**part, key: float(value)}
    names = [each.name for each in dataclasses.fields(part)]
    if name not in names:
        raise ConfigError(f"{where}: there is no {name}; it may be {', '.join(names)}")
    old = getattr(part, name)
    group = dataclasses.is_dataclass(old)
    if rest and (group or isinstance(old, Mapping)):
        return dataclasses.replace(part, **{name: _changed(old, rest, value, where)})
    if group and value is not None:  # null switches off what may be off
        inner = ", ".join(each.name for each in dataclasses.fields(old))
        raise ConfigError(f"{where} names a group: add one of {inner}")
    if rest:
        raise ConfigError(f"{where}: {name} is a value and has no {'.'.join(rest)}")
    others = {each: getattr(part, each) for each in names if each != name}
    return read_dataclass(type(part), {name: value}, where, **others)
