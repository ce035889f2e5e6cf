"""model_info: sizes of a model, the cost of one inference, and how fast it could be.

Example: ros2 run spear_policy model_info --preset spear1
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from spear_policy.model.config import PRESETS, STATE_DIM, ModelConfig, preset
from spear_policy.model.spear import SpearModel
from spear_policy.shared.config import ConfigError

# Parameters of each part -------------------------------------------------------------------------


def parameter_counts(config: ModelConfig) -> dict[str, int]:
    """Count by part, without memory for the values.

    Returns:
        siglip, siglip_projector, gemma, words, depth, depth_projector,
        coordinates, expert, heads; the parts that the model lacks count 0. Then the sums
        paligemma, spear_vlm and total. The heads are those for actions, state and time.
    """
    with torch.device("meta"):
        model = SpearModel(config)
    fusion, expert = model.fusion, model.expert
    parts = {
        "siglip": _count(model.siglip),
        "siglip_projector": _count(fusion.siglip_projector),
        "gemma": _count(model.language),
        "words": model.tokens.words.numel(),
        "depth": _count(model.depth),
        "depth_projector": _count(fusion.depth_projector),
        "coordinates": model.tokens.coordinates.numel(),
        "expert": _count(expert and expert.stack),
    }
    parts["heads"] = _count(expert) - parts["expert"]
    names = list(parts)
    sums = {
        "paligemma": sum(parts[name] for name in names[:4]),
        "spear_vlm": sum(parts[name] for name in names[:7]),
        "total": _count(model),
    }
    return parts | sums


def _count(module):
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


# Arithmetic and memory traffic of one inference --------------------------------------------------


@dataclass(frozen=True)
class InferenceCost:
    """One part of an inference.

    Attributes:
        flops: floating-point operations.
        bytes_read: weights, and keys and values where they are read again.
    """

    name: str
    flops: float
    bytes_read: float

    def times(self, count: int) -> "InferenceCost":
        """The same, `count` times over."""
        return InferenceCost(f"{count} x {self.name}", count * self.flops, count * self.bytes_read)


@dataclass(frozen=True)
class Device:
    """Dense bf16 arithmetic and memory bandwidth of a GPU.

    The H200's are measured sustained figures, the others data-sheet ones.
    """

    name: str
    flops_per_s: float
    bytes_per_s: float

    def floor_s(self, stage: InferenceCost) -> float:
        """No implementation can be faster: the larger of arithmetic and memory time."""
        return max(stage.flops / self.flops_per_s, stage.bytes_read / self.bytes_per_s)


DEVICES = (
    Device("H200", 790e12, 4.3e12),
    Device("RTX 4090", 165e12, 1.008e12),
    Device("Jetson Thor", 250e12, 273e9),
    Device("Jetson Orin 64 GB", 42.6e12, 205e9),
)


def inference_stages(
    config: ModelConfig, text_tokens: int = 20, steps: int | None = None, bytes_per_value: int = 2
) -> list[InferenceCost]:
    """Cost of one chunk, batch 1: the encoders, the prefix and all denoising steps.

    Counted are the multiply-adds of matrix products and attention, two operations each; norms,
    activations and biases are left out (below one percent).
    Dead work is not counted: of the prefix's last layer only keys and values are needed.

    Args:
        config: with or without an expert (then without denoising steps).
        text_tokens: of the prompt.
        steps: denoising steps; the configuration's when not given.
        bytes_per_value: 2 for bf16.
    """
    images = sum(config.image_tokens)
    prefix = images + text_tokens
    stages = [_encoder("SigLIP", config, config.siglip, class_tokens=0)]
    if config.depth:
        stages.append(_encoder("depth encoder", config, config.depth, class_tokens=1))
    stages.append(_projectors(config, images))
    stages.append(_language_prefix(config, prefix))
    stages = [InferenceCost(s.name, s.flops, s.bytes_read * bytes_per_value) for s in stages]
    if config.expert:
        step = _denoising_step(config, prefix)
        step = InferenceCost(step.name, step.flops, step.bytes_read * bytes_per_value)
        stages.append(step.times(config.flow.steps if steps is None else steps))
    return stages


def total(stages: list[InferenceCost], name: str = "total") -> InferenceCost:
    """Add stages up."""
    return InferenceCost(name, sum(s.flops for s in stages), sum(s.bytes_read for s in stages))


def _encoder(name, config, encoder, class_tokens):
    lengths = [count + class_tokens for count in config.image_tokens]
    layer = 4 * encoder.width**2 + 2 * encoder.width * encoder.mlp_width
    patch = 3 * config.patch_size**2 * encoder.width
    attention = 4 * encoder.width * sum(n * n for n in lengths)
    flops = 2 * (patch * sum(config.image_tokens) + encoder.layers * layer * sum(lengths))
    return InferenceCost(name, flops + encoder.layers * attention, patch + encoder.layers * layer)


def _projectors(config, tokens):
    inputs = config.siglip.width + (config.depth.output_width if config.depth else 0)
    weights = inputs * config.language.width
    return InferenceCost("projectors", 2 * weights * tokens, weights)


def _gemma_layer(language, width, mlp_width):
    """Weights of one layer, and those that only make keys and values."""
    keys_values = 2 * width * language.head_dim
    attention = 2 * width * language.heads * language.head_dim + keys_values
    return attention + 3 * width * mlp_width, keys_values


def _language_prefix(config, tokens):
    language = config.language
    layer, keys_values = _gemma_layer(language, language.width, language.mlp_width)
    full = language.layers - 1
    weights = full * layer + keys_values
    attention = full * 4 * tokens**2 * language.heads * language.head_dim
    return InferenceCost("language prefix", 2 * weights * tokens + attention, weights)


def _denoising_step(config, prefix):
    language, expert = config.language, config.expert
    layer, _ = _gemma_layer(language, expert.width, expert.mlp_width)
    actions, seen = config.chunk_length, prefix + 1 + config.chunk_length
    weights = language.layers * layer
    attention = language.layers * 4 * actions * seen * language.heads * language.head_dim
    heads = expert.width * (2 * config.flow.action_dim + STATE_DIM + 3 * expert.width)
    memory = language.layers * 2 * seen * language.head_dim
    return InferenceCost(
        "denoising step", 2 * weights * actions + attention, weights + heads + memory
    )


# The program -------------------------------------------------------------------------------------

LABELS = {
    "siglip": "SigLIP",
    "siglip_projector": "SigLIP projector",
    "gemma": "Gemma layers and norm",
    "words": "word table (tied)",
    "paligemma": "= PaliGemma",
    "depth": "depth encoder (MoGe)",
    "depth_projector": "depth projector",
    "coordinates": "3D token table (tied)",
    "spear_vlm": "= vision-language model",
    "expert": "action expert",
    "heads": "action, state, time heads",
    "total": "= model",
}


def describe(config: ModelConfig, text_tokens: int, steps: int | None) -> dict:
    """Everything that is printed, as plain values (parameters, FLOP, bytes, seconds)."""
    stages = inference_stages(config, text_tokens, steps)
    return {
        "name": config.name,
        "parameters": parameter_counts(config),
        "text_tokens": text_tokens,
        "steps": config.flow.steps if steps is None else steps,
        "stages": [
            {"name": s.name, "flops": s.flops, "bytes_read": s.bytes_read}
            for s in [*stages, total(stages)]
        ],
        "floor_s": {d.name: sum(d.floor_s(stage) for stage in stages) for d in DEVICES},
    }


def show(found: dict, console: Console) -> None:
    """Print three tables."""
    sizes = Table("part", title=f"{found['name']}: parameters")
    sizes.add_column("parameters", justify="right")
    for name, label in LABELS.items():
        if found["parameters"][name]:
            style = "bold" if label.startswith("=") else ""
            sizes.add_row(label, f"{found['parameters'][name]:,}", style=style)
    cost = Table("stage", title=f"one inference: batch 1, bf16, {found['text_tokens']} text tokens")
    cost.add_column("GFLOP", justify="right")
    cost.add_column("MB read", justify="right")
    for stage in found["stages"]:
        style = "bold" if stage["name"] == "total" else ""
        figures = f"{stage['flops'] / 1e9:,.1f}", f"{stage['bytes_read'] / 1e6:,.1f}"
        cost.add_row(stage["name"], *figures, style=style)
    floors = Table("GPU", title="latency floor: arithmetic or memory, whichever is longer")
    for heading in ("TFLOP/s", "GB/s", "ms"):
        floors.add_column(heading, justify="right")
    for device in DEVICES:
        floor_ms = f"{found['floor_s'][device.name] * 1e3:.1f}"
        rates = f"{device.flops_per_s / 1e12:g}", f"{device.bytes_per_s / 1e9:g}"
        floors.add_row(device.name, *rates, floor_ms)
    for table in (sizes, cost, floors):
        console.print(table)


def whole_number(text: str) -> int:
    """A count from 1 on, for argparse.

    Raises:
        ArgumentTypeError: the text is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def main() -> None:
    """Answer on the terminal, or with --json as one object for other programs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--preset", default="spear1", help=f"one of {', '.join(PRESETS)}")
    which.add_argument("--config", type=Path, help="config.json of a checkpoint")
    parser.add_argument("--text-tokens", type=whole_number, default=20, help="length of the prompt")
    parser.add_argument(
        "--steps", type=whole_number, help="denoising steps, if not the model's own"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    try:
        config = _read(arguments.config) if arguments.config else preset(arguments.preset)
    except (ConfigError, OSError, json.JSONDecodeError) as error:
        sys.exit(f"model_info: {error}")
    found = describe(config, arguments.text_tokens, arguments.steps)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(found, Console())


def _read(path):
    return ModelConfig.from_dict(json.loads(path.read_text()))


if __name__ == "__main__":
    main()
