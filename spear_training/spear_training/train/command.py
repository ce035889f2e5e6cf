r"""train: run a recipe, or show what it would do.

Example: ros2 run spear_training train --list
         ros2 run spear_training train --recipe tiny_vlm_align --out out/align --dry-run
         ros2 run spear_training train --recipe tiny_vlm_align --out out/align \
             --set task.folders.world=out/scenes --set steps=2000
         torchrun --nproc-per-node 8 $(ros2 pkg prefix spear_training)/lib/spear_training/train \
             --recipe vlm_3d --out out/vlm --set task.folders.bridge=out/bridge

The same command goes on from the newest checkpoint in --out. Exit status: 0 done, 130 after Ctrl-C,
75 after SIGTERM or SIGUSR1 (a batch system is to start it again), both with a checkpoint; 2 it
cannot begin or go on, and says why.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

CANNOT = 2
NOTICES = (signal.SIGTERM, signal.SIGUSR1)  # of a batch system
REQUEUE = "requeue"  # a file in the run's folder, while a batch system is to start it again
USED_SHARE = 0.4  # of a GPU's peak, for estimates of time


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="name the recipes and end")
    parser.add_argument("--recipe", help="which training; --list names them")
    parser.add_argument("--out", type=Path, help="folder of the run")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a value of it"
    )
    parser.add_argument("--dry-run", action="store_true", help="print everything, train nothing")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--log", action="append", default=[], choices=("tensorboard", "wandb"), help="log there too"
    )
    options = parser.parse_args(arguments)
    if not options.list and (not options.recipe or not (options.out or options.dry_run)):
        parser.error("give --list, or --recipe and --out")
    return _run(options)


def _run(options) -> int:
    # Here, so that --help does not wait for torch.
    from rich.console import Console

    from spear_policy.shared.config import ConfigError
    from spear_training.train import distributed
    from spear_training.train.config import TrainingError, with_changes

    console = Console()
    if options.list:
        _print_list(console, recipes())
        return 0
    rank = os.environ.get("RANK")
    try:
        config = with_changes(recipe(options.recipe), options.set)
        if options.dry_run:
            _print_dry_run(console, config)
            return 0
        return _train(options, config)
    except (TrainingError, ConfigError, OSError) as error:
        print(f"train: {f'process {rank}: ' if rank else ''}{error}", file=sys.stderr)
        return CANNOT
    except KeyboardInterrupt:
        return 130
    finally:
        distributed.leave_processes()


def recipes() -> dict[str, Callable]:
    """All recipes by name: functions that return a whole configuration."""
    from spear_training.recipes import ablations, stage1, stage2, tiny

    modules = (stage1, ablations, stage2, tiny)
    return {make.__name__: make for module in modules for make in module.RECIPES}


def recipe(name: str):
    """The configuration of a recipe. Raises TrainingError for a name that there is not."""
    from spear_training.train.config import TrainingError

    found = recipes()
    if name not in found:
        raise TrainingError(f"there is no recipe {name!r}; there are {', '.join(found)}")
    return found[name]()


def _train(options, config) -> int:
    from spear_training.train.distributed import join_processes, naming_lost_processes
    from spear_training.train.train import START_AGAIN, train

    def end_at_once(number, frame):
        raise SystemExit(START_AGAIN)

    # Until the first step there is nothing to save.
    before = {number: signal.signal(number, end_at_once) for number in NOTICES}
    marker, first = options.out / REQUEUE, False
    try:
        processes = join_processes(options.device)
        if first := processes.first:
            options.out.mkdir(parents=True, exist_ok=True)
            marker.unlink(missing_ok=True)
        loggers = dict.fromkeys(options.log)
        with naming_lost_processes():
            status = train(config, options.out, processes, changes=options.set, loggers=loggers)
    except SystemExit as ended:
        status = ended.code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if first and status == START_AGAIN:
        marker.touch()  # torchrun replaces exit statuses by its own
    return status


def _print_list(console, recipes: dict[str, Callable]) -> None:
    from rich.table import Table

    table = Table("recipe", "what it trains", "on what, how long", box=None, pad_edge=False)
    for make in recipes.values():
        config = make()
        table.add_row(config.name, config.about, config.machine)
    console.print(table)


def _print_dry_run(console, config) -> None:
    import yaml
    from rich.table import Table

    from spear_training.train.config import as_dict
    from spear_training.train.metrics import GPUS, sample_cost
    from spear_training.train.optimiser import parts_of

    console.print(yaml.safe_dump(_plain(as_dict(config)), sort_keys=False), markup=False)
    model = config.task.empty_model(config)
    parts = parts_of(model, config.trained)
    table = Table("part", "learning rate", "parameters", "not used by this training", box=None)
    for part in parts:
        rate = f"{part.scale:g} x" if part.scale else "frozen"
        table.add_row(part.name, rate, f"{part.count:,}", f"{len(part.unused) or ''}")
    console.print(table)
    every = sum(p.numel() for p in model.parameters())
    learn = sum(part.count for part in parts if part.trained)
    # fp32 weights, their gradients and two moments, the average.
    held = 4 * every + 12 * learn + (4 * learn if config.ema_decay else 0)
    console.print(
        f"{learn:,} of {every:,} parameters learn; {held / 1e9:.2f} GB without activations"
    )
    flops, activations = sample_cost(config, model, partial(config.task.longest_loss, config))
    table = Table("GPUs", "memory of each", "time", box=None)
    for name, (peak, memory) in GPUS.items():
        for count in (1, 8, 16):
            if config.batch_size % count:
                continue
            words = _memory_words(config, held, activations, count, memory)
            hours = config.steps * config.batch_size * flops / (USED_SHARE * peak * count) / 3600
            table.add_row(f"{count} x {name}", words, f"{hours:.2f} h")
    console.print(table)
    console.print(
        f"{flops / 1e9:.1f} GFLOP a sample of the longest kind; time at {USED_SHARE:.0%} of the "
        "peak, memory without the allocator's loss: both are estimates"
    )


def _memory_words(config, held: float, activations: float, count: int, memory: float) -> str:
    """How much of a GPU's memory a training needs, with as many micro-batches as that takes.

    Args:
        held: bytes of weights, gradients and optimiser, shared by `count` GPUs.
        activations: bytes a sample.
        memory: bytes of a GPU.
    """
    samples = config.batch_size // count
    for micro in range(config.micro_batches, samples + 1):
        needed = held / count + activations * samples / micro
        if samples % micro == 0 and needed < 0.9 * memory:
            more = f" with micro_batches={micro}" if micro > config.micro_batches else ""
            return f"{needed / 1e9:.1f} GB{more}"
    return "too much"


def _plain(value):
    """Lists in the place of tuples, which YAML would mark."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    sys.exit(main())
