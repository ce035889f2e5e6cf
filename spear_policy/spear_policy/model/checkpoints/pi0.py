"""pi0's action expert from openpi's torch port or lerobot, turned to our direction of time.

pi0 feeds t = 1 - tau (its 1 is noise) and predicts noise minus data. Both are absorbed into
weights here, exactly, so the network itself knows one convention:

* A time of one period T enters as s = sin(2 pi t / T) and c = cos(2 pi t / T). With
  w = 2 pi / T, sin(w - w tau) = sin w cos(w tau) - cos w sin(w tau) and cos(w - w tau) =
  cos w cos(w tau) + sin w sin(w tau): each pair is turned by a fixed reflection, so the time half
  of `time_in` is multiplied by it.
* The velocity changes its sign, so `action_out` does.
"""

from pathlib import Path

import torch
from torch import Tensor

from spear_policy.model.action_expert import time_embedding
from spear_policy.model.checkpoints.filling import Filled, fill, refuse_unknown
from spear_policy.model.checkpoints.layouts import pi0_expert
from spear_policy.model.checkpoints.tensor_files import CheckpointError, open_tensors
from spear_policy.model.config import ExpertConfig
from spear_policy.model.spear import SpearModel

PREFIXES = ("", "model.")  # openpi's, lerobot's
EXPERT = "paligemma_with_expert.gemma_expert"
# The vision-language part, the expert's token tables, which nothing looks up, and the statistics
# that lerobot's first port kept among the weights.
UNUSED = (
    "paligemma_with_expert.paligemma.",
    f"{EXPERT}.lm_head.",
    f"{EXPERT}.model.embed_tokens.",
)
STATISTICS = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")
# (name, dimension of the weight that is pi0's padded state or action)
PADDED = (("action_in", 1), ("state_in", 1), ("action_out", 0))
MIN_PERIOD, MAX_PERIOD = 4e-3, 4.0


def load_pi0_expert(model: SpearModel, path: str | Path, *, progress: bool | None = None) -> Filled:
    """Fill the action expert: its layers, time MLP and those heads whose dimensions fit.

    pi0's states and actions are padded to 32 numbers and laid out for its own robots, ours are 8;
    a head of another dimension stays as it was and is named in `left`.

    Args:
        model: with values and with an expert of pi0's size (facts/model.md 2.1).
        path: model.safetensors, or the folder with it or with its shards.
        progress: draw a bar on stderr, if that is a terminal.

    Raises:
        CheckpointError: not a pi0 checkpoint, or something is missing, unknown, of other sizes
            or not finite; names the file and the key. The model is as it was.
        ValueError: the model has no expert or no values, or its time periods are not pi0's.
    """
    expert = model.config.expert
    if expert is None:
        raise ValueError(f"{model.config.name} has no action expert for pi0's weights")
    if (expert.time_min_period, expert.time_max_period) != (MIN_PERIOD, MAX_PERIOD):
        raise ValueError(
            f"expert.time_min_period and time_max_period are {expert.time_min_period} and "
            f"{expert.time_max_period}: pi0's weights need {MIN_PERIOD} and {MAX_PERIOD}"
        )
    files = open_tensors(path)
    prefix = _prefix(files)
    layout = pi0_expert(model.config, prefix)
    left = _left(model, layout, files)
    unused = [layout.pop(name).keys[0] for name in left]
    starts = tuple(f"{prefix}{start}" for start in UNUSED) + STATISTICS
    ignored = tuple(key for key in files if key in unused or key.startswith(starts))
    refuse_unknown(files, layout, ignored, files.where)
    changes = {
        "expert.time_in.weight": lambda weight: reverse_time(weight, expert),
        "expert.action_out.weight": torch.neg,
        "expert.action_out.bias": torch.neg,
    }
    fill(model, layout, files, files.where, changes=changes, progress=progress)
    return Filled(tuple(layout), left=left, ignored=ignored)


def reverse_time(weight: Tensor, expert: ExpertConfig) -> Tensor:
    """Turn a first layer that reads phi(1 - tau) into the one that reads phi(tau).

    Args:
        weight: (width, 2 * width), columns of the action first, then sines, then cosines.

    Returns:
        The same shape, in fp64.
    """
    width = expert.width
    halves = [width, width // 2, width // 2]
    of_action, of_sines, of_cosines = weight.double().split(halves, dim=1)
    whole = torch.ones((), dtype=torch.float64)
    sines, cosines = time_embedding(whole, width, expert).double().chunk(2)
    return torch.cat(
        [
            of_action,
            of_cosines * sines - of_sines * cosines,
            of_sines * sines + of_cosines * cosines,
        ],
        dim=1,
    )


def _prefix(files):
    for prefix in PREFIXES:
        if f"{prefix}{EXPERT}.model.norm.weight" in files:
            return prefix
        if f"{prefix}{EXPERT}.model.norm.dense.weight" in files:
            raise CheckpointError(
                f"{files.where} is a pi0.5 checkpoint (its norms depend on time, "
                f"'{prefix}{EXPERT}.model.norm.dense.weight'): give one of pi0"
            )
    raise CheckpointError(
        f"{files.where} has no tensor '{EXPERT}.model.norm.weight', with or without 'model.': "
        "give a pi0 checkpoint of openpi's torch port or of lerobot"
    )


def _left(model, layout, files):
    """Name our head's weight and bias where the checkpoint's padded dimension is not ours."""
    left = []
    for name, dimension in PADDED:
        weight = f"expert.{name}.weight"
        (key,) = layout[weight].keys
        if key not in files or len(files.entries[key].shape) != 2:
            continue  # reported with the rest
        ours = model.get_parameter(weight).shape[dimension]
        if files.entries[key].shape[dimension] != ours:
            left += [weight, f"expert.{name}.bias"]
    return tuple(left)
