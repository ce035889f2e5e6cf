"""spear_bench: how long one chunk takes, where the time goes, and how far from the floor that is.

Example: ros2 run spear_policy spear_bench --preset tiny --device cpu --json out/bench.json
         ros2 run spear_policy spear_bench --preset spear1 --device cuda --dtype bfloat16 --graphs
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from spear_policy.inference.chunk_runner import ChunkRunner
from spear_policy.inference.image_geometry import fit
from spear_policy.model.config import PRESETS, STATE_DIM, ModelConfig, preset
from spear_policy.model.model_info import (
    DEVICES,
    Device,
    InferenceCost,
    inference_stages,
    total,
    whole_number,
)
from spear_policy.model.spear import build
from spear_policy.shared.files import write_atomically

CAMERA_PIXELS = (480, 640)  # rows, columns of the pictures that preprocessing begins with


class Clock:
    """Seconds of work on a device: waits for it, and leaves out other processes on a CPU."""

    def __init__(self, device: torch.device):
        """CPU time of this process on a CPU, wall time on a GPU."""
        self._gpu = device.type == "cuda"
        self.kind = "wall time" if self._gpu else "CPU time of the process"

    def time(self, work) -> float:
        """Run `work` and return how long it took."""
        now = time.perf_counter if self._gpu else time.process_time
        self._wait()
        begin = now()
        work()
        self._wait()
        return now() - begin

    def _wait(self):
        if self._gpu:
            torch.cuda.synchronize()


def measure(runner: ChunkRunner, config: ModelConfig, text_tokens: int, repeats: int) -> dict:
    """Time each part of `repeats` chunks, after a warm-up.

    Returns:
        seconds: name -> list, for preprocess, prefix, step (one of them) and total (all parts).
    """
    rng = np.random.default_rng(0)
    pictures = {
        camera.name: rng.integers(0, 256, (*CAMERA_PIXELS, 3), dtype=np.uint8)
        for camera in config.cameras
    }
    ids = [config.vocabulary.bos_id] * text_tokens
    clock, steps = Clock(runner.device), runner.sampler.steps

    def preprocess():
        images = {
            camera.name: torch.from_numpy(
                fit(pictures[camera.name], camera.width, camera.height)
            ).permute(2, 0, 1)
            for camera in config.cameras
        }
        runner.load(images, ids, torch.zeros(STATE_DIM))

    preprocess()
    runner.run()  # compiles and records, and gives the noise that all chunks start from
    seconds: dict[str, list[float]] = {"preprocess": [], "prefix": [], "step": [], "total": []}
    for _ in track(range(repeats), "measuring", console=Console(stderr=True)):
        parts = [clock.time(part) for part in (preprocess, runner.read, runner.denoise)]
        seconds["preprocess"].append(parts[0])
        seconds["prefix"].append(parts[1])
        seconds["step"].append(parts[2] / steps)
        seconds["total"].append(sum(parts))
    return seconds


def report(seconds: dict, stages: list[InferenceCost], gpu: Device | None) -> dict:
    """Percentiles, and what was reached of arithmetic, bandwidth and floor."""
    found = {
        name: {"p50_s": float(np.percentile(each, 50)), "p99_s": float(np.percentile(each, 99))}
        for name, each in seconds.items()
    }
    whole, model_s = total(stages), found["total"]["p50_s"] - found["preprocess"]["p50_s"]
    return {
        "stages": found,
        "flops": whole.flops,
        "bytes_read": whole.bytes_read,
        "reached_flops_per_s": whole.flops / model_s,
        "reached_bytes_per_s": whole.bytes_read / model_s,
        "floor_s": sum(gpu.floor_s(stage) for stage in stages) if gpu else None,
        "floor_of": gpu.name if gpu else None,
    }


def peak_memory_bytes(device: torch.device) -> int:
    """Of the GPU's allocator, or resident memory of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Measure and print; `--json` keeps the figures."""
    arguments = _parse()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    try:
        config = preset(arguments.preset)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is cuda, but torch sees no GPU")
        if arguments.text_tokens > config.max_text_tokens:
            raise ValueError(
                f"{arguments.text_tokens} text tokens: {config.name} reads at most "
                f"{config.max_text_tokens}"
            )
        if config.expert is None:
            raise ValueError(f"{config.name} has no action expert: there is no chunk to time")
        model = build(config, device=device, dtype=getattr(torch, arguments.dtype))
        runner = ChunkRunner(
            model, steps=arguments.steps, compile=arguments.compile, graphs=arguments.graphs
        )
    except ValueError as error:
        sys.exit(f"bench: {error}")
    seconds = measure(runner, config, arguments.text_tokens, arguments.repeats)
    size = model.tokens.words.element_size()
    stages = inference_stages(config, arguments.text_tokens, runner.sampler.steps, size)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    gpu = next((each for each in DEVICES if each.name in name), None)
    found = {
        "preset": config.name,
        "device": name or f"CPU, {torch.get_num_threads()} threads",
        "dtype": arguments.dtype,
        "mode": "+".join(m for m in ("compile", "graphs") if getattr(arguments, m)) or "eager",
        "steps": runner.sampler.steps,
        "text_tokens": arguments.text_tokens,
        "repeats": arguments.repeats,
        "clock": Clock(device).kind,
        "torch": torch.__version__,
        **report(seconds, stages, gpu),
        "peak_memory_bytes": peak_memory_bytes(device),
    }
    show(found, Console())
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(arguments.json, json.dumps(found, indent=2) + "\n")


def show(found: dict, console: Console) -> None:
    """Print the table."""
    title = f"{found['preset']} on {found['device']}, {found['dtype']}, {found['mode']}"
    table = Table("part", title=title, caption=f"{found['clock']}, {found['repeats']} chunks")
    for heading in ("p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for name, each in found["stages"].items():
        label = f"step (of {found['steps']})" if name == "step" else name
        table.add_row(label, f"{1e3 * each['p50_s']:.2f}", f"{1e3 * each['p99_s']:.2f}")
    console.print(table)
    lines = [
        f"arithmetic {found['flops'] / 1e9:,.1f} GFLOP, reached "
        f"{found['reached_flops_per_s'] / 1e9:,.0f} GFLOP/s",
        f"memory read {found['bytes_read'] / 1e6:,.1f} MB, reached "
        f"{found['reached_bytes_per_s'] / 1e9:,.2f} GB/s",
        f"peak memory {found['peak_memory_bytes'] / 1e9:,.2f} GB",
    ]
    if found["floor_s"]:
        times = found["stages"]["total"]["p50_s"] / found["floor_s"]
        lines.append(
            f"floor of {found['floor_of']} {1e3 * found['floor_s']:.1f} ms; this is {times:.1f} "
            "times as long"
        )
    for line in lines:
        console.print(line, highlight=False)


def _parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--preset", required=True, help=f"one of {', '.join(PRESETS)}; random weights"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=whole_number, help="denoising steps, if not the preset's")
    parser.add_argument("--text-tokens", type=whole_number, default=20, help="length of the prompt")
    parser.add_argument("--repeats", type=whole_number, default=100, help="chunks to time")
    parser.add_argument("--threads", type=int, default=0, help="of a CPU; 0 leaves it to torch")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--graphs", action="store_true", help="CUDA graphs")
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
