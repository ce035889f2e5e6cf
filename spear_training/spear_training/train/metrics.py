"""What a training writes down of its steps, and how fast it is.

`metrics.jsonl` in the run's folder is always written, an object a line; TensorBoard and W&B take
the same numbers where their packages are there and a person asks for them.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spear_policy.shared.files import naming_errors, write_lines
from spear_training.train.config import TrainConfig, TrainingError
from spear_training.train.distributed import checkpoint_layers, layers_of
from spear_training.train.optimiser import freeze, parts_of

NAME = "metrics.jsonl"

# Where numbers go --------------------------------------------------------------------------------


class MetricsWriter(Protocol):
    """Something that takes the numbers of a step."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a step; steps ascend."""

    def close(self) -> None:
        """Write what is not written yet."""


class JsonLines:
    """`metrics.jsonl`: {"step": 10, "loss": 2.3, ...}, a line a record, flushed at once."""

    def __init__(self, folder: Path, step: int):
        """Open the file of a run that goes on at `step`: what came after it goes."""
        path = Path(folder) / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            write_lines(
                path, [json.dumps(r).encode() for r in read_metrics(path) if r["step"] <= step]
            )
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write a line. JSON has no NaN: such a value is null. Raises OSError, naming the file."""
        plain = {k: v if math.isfinite(v) else None for k, v in values.items()}
        with naming_errors(self._file.name):
            self._file.write(json.dumps({"step": step, **plain}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict]:
    """The records of a `metrics.jsonl`; a last line that was cut by a kill does not count."""
    found = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            found.append(record)
    return found


def plot_metric(axis, records: Sequence[dict], name: str, colour: str, label: str) -> None:
    """Draw a number over the steps on an axis of matplotlib; nothing where nobody logged it."""
    points = [(each["step"], each[name]) for each in records if each.get(name) is not None]
    if points:
        axis.plot(*zip(*points, strict=True), color=colour, label=label)


class TensorBoard:
    """Event files under `tensorboard/` of the run's folder."""

    def __init__(self, folder: Path, step: int):
        """Open them. Raises TrainingError without the package."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise TrainingError(
                "--log tensorboard needs the Python package tensorboard: pip install tensorboard"
            ) from None
        self._writer = SummaryWriter(str(Path(folder) / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write each number as a scalar."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is not written yet."""
        self._writer.close()


class WeightsAndBiases:
    """A W&B run named like the folder; WANDB_MODE=offline keeps it on this machine."""

    def __init__(self, folder: Path, step: int):
        """Begin it, or go on with it. Raises TrainingError without the package."""
        try:
            import wandb
        except ImportError:
            raise TrainingError(
                "--log wandb needs the Python package wandb: pip install wandb"
            ) from None
        name = Path(folder).resolve().name
        self._run = wandb.init(project="spear", name=name, id=name, resume="allow", dir=str(folder))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of a step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Upload what is left."""
        self._run.finish()


WRITERS: dict[str, Callable[[Path, int], MetricsWriter]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


# Speed -------------------------------------------------------------------------------------------


# Dense bf16 FLOP/s without sparsity and memory in bytes, from NVIDIA's data sheets.
GPUS = {
    "B200": (2.25e15, 180e9),
    "H200": (0.989e15, 141e9),
    "H100": (0.989e15, 80e9),
    "A100": (0.312e15, 80e9),
    "L40S": (0.362e15, 48e9),
    "RTX 6000 Ada": (0.364e15, 48e9),
    "RTX 4090": (0.165e15, 24e9),
}


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 FLOP/s of a GPU whose name is known, else None."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for key, (flops, _) in GPUS.items() if key in name), None)


def sample_cost(
    config: TrainConfig,
    model: nn.Module,
    loss: Callable[[nn.Module], torch.Tensor] | None = None,
) -> tuple[float, float]:
    """FLOPs and bytes of activations that one sample costs, forward and backward.

    Counted on the meta device, where shapes are all there is. FLOPs are the model's: what
    activation checkpointing computes again is not among them.

    Args:
        config: of the training.
        model: on the meta device; it is wrapped where the configuration checkpoints activations.
        loss: of one sample; None: of the first one of step 0, whose data must be there.

    Raises:
        TrainingError: the data is missing.
    """
    if loss is None:
        one = dataclasses.replace(config, batch_size=1, micro_batches=1)
        task = one.task.make(one, torch.device("meta"))
        (part,) = task.split(task.source(0, 1)[0], 1)
        loss = lambda model: task.loss(model, part, 1.0)[0]  # noqa: E731
    freeze(model, parts_of(model, config.trained))

    def backward():
        loss(model).backward()

    with FlopCounterMode(display=False) as counter:
        kept = _saved_bytes(backward)
    if config.checkpoint_activations:
        checkpoint_layers(model)
        layers = [layer for found in layers_of(model) for layer in found]
        outside, inputs = _saved_bytes(backward), _saved_bytes(backward, layers)
        # Beside what layers begin with, the inside of one of them is there at a time.
        kept = inputs + (kept - outside) / max(1, len(layers))
    return float(counter.get_total_flops()), kept * (0.5 if config.precision == "bf16" else 1.0)


def _saved_bytes(work: Callable[[], None], layers: Sequence[nn.Module] = ()) -> float:
    """Bytes of what autograd keeps while `work` runs, and of what `layers` are called with."""
    kept: dict[int, torch.Tensor] = {}  # itself: an id is used again when a tensor goes

    def keep(tensor):
        if not isinstance(tensor, nn.Parameter):
            kept[id(tensor)] = tensor
        return tensor

    def keep_inputs(layer, inputs):
        for each in inputs:
            if isinstance(each, torch.Tensor):
                keep(each)

    hooks = [layer.register_forward_pre_hook(keep_inputs) for layer in layers]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        work()
    for hook in hooks:
        hook.remove()
    return float(sum(tensor.numel() * tensor.element_size() for tensor in kept.values()))


class SpeedMeter:
    """Samples a second, share of the time spent waiting for data, model FLOPs utilisation.

    Args:
        samples: of a step, all processes.
        flops: of a step in this process; None: not known.
        peak_flops: of this process's device; None: not known.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        samples: int,
        flops: float | None = None,
        peak_flops: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.samples, self.flops, self.peak_flops, self._clock = samples, flops, peak_flops, clock
        self._begun_s, self._steps, self._waited_s = clock(), 0, 0.0

    def waited(self, seconds: float) -> None:
        """Count time in which the training waited for a batch."""
        self._waited_s += seconds

    def step(self) -> None:
        """Count a step."""
        self._steps += 1

    def skip(self, seconds: float) -> None:
        """Leave out time that was not spent on steps, such as a validation's."""
        self._begun_s += seconds

    def read(self) -> dict[str, float]:
        """The figures since the last call; utilisation only where it is known."""
        now_s = self._clock()
        spent_s = max(now_s - self._begun_s, 1e-9)
        rate = self._steps / spent_s
        found = {"samples_per_s": rate * self.samples, "data_wait": self._waited_s / spent_s}
        if self.flops and self.peak_flops:
            found["mfu"] = rate * self.flops / self.peak_flops
        self._begun_s, self._steps, self._waited_s = now_s, 0, 0.0
        return found


def speed_words(values: Mapping[str, float]) -> str:
    """Loss and speed for the progress line."""
    words = [
        f"loss {values['loss']:.4g}",
        f"{values['samples_per_s']:.1f} samples/s",
        f"{values['data_wait']:.0%} waiting for data",
    ]
    if "mfu" in values:
        words.append(f"MFU {values['mfu']:.0%}")
    return ", ".join(words)
