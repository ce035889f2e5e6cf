"""Fill part of a model from a public checkpoint: everything is checked before anything changes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from spear_policy.model.checkpoints.layouts import Source, read
from spear_policy.model.checkpoints.progress import byte_progress
from spear_policy.model.checkpoints.tensor_files import CheckpointError, check_finite
from spear_policy.model.spear import SpearModel

MEND = "give a checkpoint of the sizes in the model's configuration, or change the configuration"


@dataclass(frozen=True)
class Filled:
    """What a public checkpoint gave to a model.

    Attributes:
        taken: our parameters that have its values now.
        left: our parameters that it has something for which does not fit; they are as they were.
        ignored: its tensors that are known and have no use here.
    """

    taken: tuple[str, ...]
    left: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


@torch.no_grad()
def fill(
    model: SpearModel,
    layout: Mapping[str, Source],
    tensors: Mapping[str, Tensor],
    where: Path,
    *,
    changes: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    progress: bool | None = None,
) -> None:
    """Copy tensors into the model's parameters; reads everything twice, to check and to copy.

    Args:
        model: with values; its dtypes and devices stay.
        layout: what goes where.
        tensors: the checkpoint's.
        where: its file, for messages.
        changes: what to do to the values of some of our parameters on the way.
        progress: draw a bar on stderr, if that is a terminal.

    Raises:
        CheckpointError: a tensor is missing, of a wrong shape or kind, or not finite in the
            model's dtype; the model is as it was.
        ValueError: the model has no values.
    """
    parameters = dict(model.named_parameters())
    total = 2 * sum(parameters[name].nbytes for name in layout)
    with byte_progress(f"reading {where.name}", total, progress) as done:
        for copy in (False, True):
            for name, source in layout.items():
                parameter = parameters[name]
                values = _values(parameter, source, tensors, where)
                if changes and name in changes:
                    values = changes[name](values)
                if copy:
                    parameter.copy_(values)
                else:
                    _check_finite(values.to(parameter.dtype), source, tensors, where)
                done(parameter.nbytes)


def refuse_unknown(
    keys: Iterable[str], layout: Mapping[str, Source], ignored: Iterable[str], where: Path
) -> None:
    """Refuse a checkpoint with tensors that are neither used nor known.

    Raises:
        CheckpointError: names the first one.
    """
    known = {key for source in layout.values() for key in source.keys} | set(ignored)
    unknown = [key for key in keys if key not in known]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise CheckpointError(f"{where} has the unknown tensor {unknown[0]!r}{more}: {MEND}")


def _check_finite(values, source, tensors, where):
    try:
        check_finite(values, source.keys[0], where)
    except CheckpointError:
        for key in source.keys:  # which of them it was
            check_finite(tensors[key], key, where)
        raise


def _values(parameter, source, tensors, where):
    if parameter.is_meta:
        raise ValueError("the model has no values yet: make it by initialisation.build")
    try:
        _check_parts(source, tensors, parameter.shape)
        return read(source, tensors, parameter.shape)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}; {MEND}") from None
    except (RuntimeError, IndexError):  # torch's, for shapes without any likeness
        shape = tuple(tensors[source.keys[0]].shape)
        raise CheckpointError(f"{where}: {source.keys[0]!r} is {shape}; {MEND}") from None


def _check_parts(source, tensors, shape):
    """What putting them together would hide: which one is wrong, and integers among floats."""
    several = len(source.keys) > 1
    rows = source.rows or (shape[0] // len(source.keys),) * len(source.keys)
    for key, count in zip(source.keys, rows, strict=True):
        if key not in tensors:
            continue  # `read` names it
        values, needed = tensors[key], (count, *shape[1:])
        if not values.is_floating_point():
            raise ValueError(f"{key!r} is {values.dtype}, not floating-point")
        if several and tuple(values.shape) != needed:
            raise ValueError(f"{key!r} is {tuple(values.shape)} where {needed} is needed")
