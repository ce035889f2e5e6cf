"""model_info: sizes of a model, the cost of one inference, and how fast it could be.

Example: ros2 run spear_policy model_info --preset spear1
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from spear_policy.model.command_line import whole_number
from spear_policy.model.config import ModelConfig
from spear_policy.model.config_reading import ConfigError
from spear_policy.model.cost import DEVICES, inference_stages, total
from spear_policy.model.presets import PRESETS, preset
from spear_policy.model.sizes import parameter_counts

LABELS = {
    "siglip": "SigLIP",
    "siglip_projector": "SigLIP projector",
    "gemma": "Gemma layers and norm",
    "words": "word table (tied)",
    "paligemma": "= PaliGemma",
    "depth": "depth encoder (MoGe)",
    "depth_projector": "depth projector",
    "point_embedding": "point embedding",
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
