"""Which parameters learn and how fast: groups, learning rate, clipping, moving average.

Frozen is what has the multiple 0 in `TrainConfig.trained`, and what no training uses
(`SpearModel.unused_parameters`, which asks for no gradient from the start).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spear_policy.model.checkpoint import plain_name
from spear_training.train.config import OptimiserConfig, TrainConfig, TrainingError

# Groups ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartOfModel:
    """Parameters whose names begin with the same key of `TrainConfig.trained`.

    Attributes:
        name: the key.
        scale: multiple of the learning rate; 0: frozen.
        trained, unused: names of its parameters that learn, and of those that no loss reaches.
        count: numbers in `trained`, or in all of them where it is frozen.
    """

    name: str
    scale: float
    trained: tuple[str, ...]
    unused: tuple[str, ...]
    count: int


def parts_of(model: nn.Module, trained: Mapping[str, float]) -> list[PartOfModel]:
    """Sort the parameters of a model that is not wrapped into the parts of a configuration.

    Raises:
        TrainingError: a parameter is in no part, or a part has no parameter.
    """
    names: dict[str, list[str]] = {key: [] for key in trained}
    for name, _ in model.named_parameters():
        fitting = [key for key in trained if name == key or name.startswith(f"{key}.")]
        if not fitting:
            raise TrainingError(
                f"trained has no entry for {name}: add the part that it is in, with 0 to freeze it"
            )
        names[max(fitting, key=len)].append(name)
    if empty := [key for key, found in names.items() if not found]:
        raise TrainingError(f"trained.{empty[0]}: the model has no parameter of that name")
    found = []
    for key, scale in trained.items():
        parameters = {name: model.get_parameter(name) for name in names[key]}
        unused = tuple(name for name, p in parameters.items() if not p.requires_grad)
        learn = tuple(name for name in parameters if scale and name not in unused)
        counted = learn or tuple(parameters)
        count = sum(parameters[name].numel() for name in counted)
        found.append(PartOfModel(key, float(scale), learn, unused, count))
    return found


def freeze(model: nn.Module, parts: list[PartOfModel]) -> None:
    """Ask for no gradient of what does not learn."""
    learn = {name for part in parts for name in part.trained}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learn)


def make_optimiser(model: nn.Module, parts: list[PartOfModel], config: OptimiserConfig):
    """AdamW over what learns, in groups of one multiple and one weight decay.

    Args:
        model: frozen in part, may be wrapped and sharded.
        parts: of the model before that.
        config: of the optimiser.
    """
    scales = {name: part.scale for part in parts for name in part.trained}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((scales[plain_name(name)], decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": found, "scale": scale, "weight_decay": decay}
            for (scale, decay), found in groups.items()
        ],
        lr=config.peak_learning_rate,
        betas=tuple(config.betas),
        eps=config.eps,
    )


# Learning rate -----------------------------------------------------------------------------------


def learning_rate(step: int, config: TrainConfig) -> float:
    """The rate of step `step` (0, 1, ...): warm-up, then decay to the last step."""
    optimiser, peak = config.optimiser, config.optimiser.peak_learning_rate
    if step < optimiser.warmup_steps:
        return peak * (step + 1) / optimiser.warmup_steps
    if optimiser.decay == "constant":
        return peak
    after = (step - optimiser.warmup_steps) / max(1, config.steps - optimiser.warmup_steps)
    share = 0.5 * (1.0 + math.cos(math.pi * min(after, 1.0)))
    return peak * (optimiser.final_share + (1.0 - optimiser.final_share) * share)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its multiple of the rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]


def clip_gradients(model: nn.Module, norm: float) -> Tensor:
    """Scale all gradients together to a norm of at most `norm`; returns the norm before."""
    found = nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], norm)
    return found.full_tensor() if hasattr(found, "full_tensor") else found


# Moving average ----------------------------------------------------------------------------------


class MovingAverage:
    """An exponential moving average of the parameters that learn, in their dtype.

    It begins with the weights themselves, and with a short memory: after n steps the decay is at
    most (1 + n) / (10 + n), or random weights would be in the average of a short training. What
    has been worked out from weights, such as a `Sampler`, is stale inside and after `swapped_in`:
    make it anew.

    Attributes:
        values: the average by the parameters' plain names.
    """

    def __init__(self, model: nn.Module, decay: float):
        """Begin with the weights that the model has now."""
        self.decay = decay
        self._parameters = {
            plain_name(name): p for name, p in model.named_parameters() if p.requires_grad
        }
        self.values = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after `step` steps in."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self._parameters.items():
            self.values[name].lerp_(parameter.detach(), 1.0 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Give the model the average; afterwards it has its own weights again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            own = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(own)
