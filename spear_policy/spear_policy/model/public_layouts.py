"""Where each of our tensors lies in the public checkpoints of PaliGemma, MoGe and pi0.

A layout is a table: the name of our parameter -> where its values come from. Query, key and value
matrices are one tensor here and three there, so a source may be several tensors below each other.
First the layouts, then how they fill a model: everything is checked before anything changes.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from spear_policy.model.checkpoint import CheckpointError, check_finite
from spear_policy.model.config import LanguageConfig, ModelConfig
from spear_policy.model.spear import SpearModel
from spear_policy.shared.progress import byte_progress


@dataclass(frozen=True)
class TensorSource:
    """Values of one parameter: the named tensors below each other, then rows [begin, end).

    Attributes:
        rows: of each tensor, when there are several; equal shares if not given.
    """

    keys: tuple[str, ...]
    begin: int = 0
    end: int | None = None
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class PaligemmaPrefixes:
    """How the keys of PaliGemma's parts begin; the default is transformers' in memory."""

    vision: str = "model.vision_tower"
    projector: str = "model.multi_modal_projector"
    language: str = "model.language_model"


def paligemma(
    config: ModelConfig, prefixes: PaligemmaPrefixes | None = None
) -> dict[str, TensorSource]:
    """The layout of Hugging Face's PaliGemma: all but depth, 3D tokens, expert.

    The word table has rows beyond ours for <image> and padding, which nothing looks up.
    """
    prefixes = prefixes or PaligemmaPrefixes()
    theirs, language = prefixes.vision, config.language
    table = {
        "siglip.positions.table": TensorSource((f"{theirs}.embeddings.position_embedding.weight",)),
        "tokens.words": TensorSource(
            (f"{prefixes.language}.embed_tokens.weight",), 0, config.vocabulary.size
        ),
        "language.norm.weight": TensorSource((f"{prefixes.language}.norm.weight",)),
    }
    table |= _both("siglip.patch", f"{theirs}.embeddings.patch_embedding")
    table |= _both("siglip.norm", f"{theirs}.post_layernorm")
    table |= _both("fusion.siglip_projector", f"{prefixes.projector}.linear")
    for i in range(config.siglip.layers):
        ours, block = f"siglip.blocks.{i}", f"{theirs}.encoder.layers.{i}"
        attention = [f"{block}.self_attn.{part}_proj" for part in "qkv"]
        table |= _both(f"{ours}.norm1", f"{block}.layer_norm1")
        table |= _both(f"{ours}.qkv", *attention)
        table |= _both(f"{ours}.out", f"{block}.self_attn.out_proj")
        table |= _both(f"{ours}.norm2", f"{block}.layer_norm2")
        table |= _both(f"{ours}.fc1", f"{block}.mlp.fc1")
        table |= _both(f"{ours}.fc2", f"{block}.mlp.fc2")
    for i in range(language.layers):
        layer = f"{prefixes.language}.layers.{i}"
        table |= gemma_layer(f"language.layers.{i}", layer, language)
    return table


def pi0_expert(config: ModelConfig, prefix: str = "") -> dict[str, TensorSource]:
    """The layout of pi0's action expert in openpi's torch port; lerobot's prefix is `model.`.

    Names only: what its other convention of time does to the values is in public_weights.py.
    """
    theirs = f"{prefix}paligemma_with_expert.gemma_expert.model"
    table = {"expert.stack.norm.weight": TensorSource((f"{theirs}.norm.weight",))}
    for i in range(config.language.layers):
        ours = f"expert.stack.layers.{i}"
        table |= gemma_layer(ours, f"{theirs}.layers.{i}", config.language)
    heads = {
        "action_in": "action_in_proj",
        "state_in": "state_proj",
        "time_in": "action_time_mlp_in",
        "time_out": "action_time_mlp_out",
        "action_out": "action_out_proj",
    }
    for ours, name in heads.items():
        table |= _both(f"expert.{ours}", f"{prefix}{name}")
    return table


def gemma_layer(ours: str, theirs: str, language: LanguageConfig) -> dict[str, TensorSource]:
    """The layout of one Gemma layer, as transformers (and openpi's torch port) name it."""
    head_dim = language.head_dim
    rows = {"qkv": (language.heads * head_dim, head_dim, head_dim)}
    parts = {
        "norm1": ("input_layernorm",),
        "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "out": ("self_attn.o_proj",),
        "norm2": ("post_attention_layernorm",),
        "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
        "down": ("mlp.down_proj",),
    }
    return {
        f"{ours}.{part}.weight": TensorSource(
            tuple(f"{theirs}.{name}.weight" for name in names), rows=rows.get(part, ())
        )
        for part, names in parts.items()
    }


def moge(config: ModelConfig, prefix: str = "backbone") -> dict[str, TensorSource]:
    """The layout of the encoder in MoGe's `model` dict: v1 `backbone`, v2 `encoder.backbone`."""
    table = {
        "depth.class_token": TensorSource((f"{prefix}.cls_token",)),
        "depth.mask_token": TensorSource((f"{prefix}.mask_token",)),
        # one table there: the class token's row, then the grid
        "depth.class_position": TensorSource((f"{prefix}.pos_embed",), 0, 1),
        "depth.positions.table": TensorSource((f"{prefix}.pos_embed",), 1),
    }
    table |= _both("depth.patch", f"{prefix}.patch_embed.proj")
    table |= _both("depth.norm", f"{prefix}.norm")
    for i in range(config.depth.layers):
        ours, block = f"depth.blocks.{i}", f"{prefix}.blocks.{i}"
        table |= _both(f"{ours}.norm1", f"{block}.norm1")
        table |= _both(f"{ours}.qkv", f"{block}.attn.qkv")
        table |= _both(f"{ours}.out", f"{block}.attn.proj")
        table |= _both(f"{ours}.norm2", f"{block}.norm2")
        table |= _both(f"{ours}.fc1", f"{block}.mlp.fc1")
        table |= _both(f"{ours}.fc2", f"{block}.mlp.fc2")
        for number in (1, 2):
            table[f"{ours}.scale{number}.gamma"] = TensorSource((f"{block}.ls{number}.gamma",))
    return table


def read(source: TensorSource, tensors: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """Put one of our parameters together.

    Args:
        source: a row of a layout.
        tensors: the checkpoint's.
        shape: of our parameter; dimensions of size one may be missing or too many there.

    Raises:
        ValueError: a key is missing, or the shape does not fit; both are named.
    """
    missing = [key for key in source.keys if key not in tensors]
    if missing:
        raise ValueError(f"the checkpoint has no tensor {missing[0]!r}")
    # A leading dimension of one is their batch; the row counts below are without it.
    parts = [tensors[key] for key in source.keys]
    parts = [part.squeeze(0) if part.ndim == 3 and len(part) == 1 else part for part in parts]
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)  # cat copies even one
    values = joined[source.begin : source.end]
    if [n for n in values.shape if n != 1] != [n for n in shape if n != 1]:
        raise ValueError(
            f"{source.keys[0]!r} gives {tuple(values.shape)} where {tuple(shape)} is needed"
        )
    return values.reshape(shape)


def _both(ours, *theirs):
    return {
        f"{ours}.{kind}": TensorSource(tuple(f"{name}.{kind}" for name in theirs))
        for kind in ("weight", "bias")
    }


# Filling a model by a layout ---------------------------------------------------------------------


PEFT = re.compile(r"\.(lora_\w+|base_layer|modules_to_save|original_module)\.")
FIX = "give a checkpoint of the sizes in the model's configuration, or change the configuration"


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
    layout: Mapping[str, TensorSource],
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
    keys: Collection[str], layout: Mapping[str, TensorSource], ignored: Collection[str], where: Path
) -> None:
    """Refuse a checkpoint with tensors that are neither used nor known.

    Raises:
        CheckpointError: names the first one; adapters that are not merged are known as such.
    """
    if adapters := [key for key in keys if PEFT.search(key)]:
        raise CheckpointError(
            f"{where} has PEFT's adapters beside the weights ({adapters[0]!r}): merge them "
            "(merge_and_unload) and save the model again"
        )
    known = {key for source in layout.values() for key in source.keys} | set(ignored)
    unknown = [key for key in keys if key not in known]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise CheckpointError(f"{where} has the unknown tensor {unknown[0]!r}{more}: {FIX}")


def _check_finite(values, source, tensors, where):
    try:
        check_finite(values, source.keys[0], where)
    except CheckpointError:
        for key in source.keys:  # which of them it was
            check_finite(tensors[key], key, where)
        raise


def _values(parameter, source, tensors, where):
    if parameter.is_meta:
        raise ValueError("the model has no values yet: make it by spear.build")
    try:
        _check_parts(source, tensors, parameter.shape)
        return read(source, tensors, parameter.shape)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}; {FIX}") from None
    except (RuntimeError, IndexError):  # torch's, for shapes without any likeness
        shape = tuple(tensors[source.keys[0]].shape)
        raise CheckpointError(f"{where}: {source.keys[0]!r} is {shape}; {FIX}") from None


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
