"""The training loop, from top to bottom; both stages and their small twins run through it.

Weights, batches and noise of a step depend on the configuration alone, so a run that was killed
goes on from its last checkpoint as if nothing had been, and another number of processes sees the
same samples. The rest is a plain loop: batch, loss, gradients, step, and now and then a line of
metrics, a validation, a checkpoint.
"""

import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import nn

from spear_policy.shared.progress import ProgressDisplay
from spear_training.data.loader import batches
from spear_training.train.config import TrainConfig, TrainingError, TrainingTask
from spear_training.train.distributed import (
    Processes,
    checkpoint_layers,
    set_last_micro_batch,
    shard,
)
from spear_training.train.metrics import (
    WRITERS,
    JsonLines,
    SpeedMeter,
    peak_flops,
    sample_cost,
    speed_words,
)
from spear_training.train.optimiser import (
    MovingAverage,
    clip_gradients,
    freeze,
    learning_rate,
    make_optimiser,
    parts_of,
    set_learning_rate,
)
from spear_training.train.training_checkpoint import (
    TrainingCheckpoints,
    record_of,
    whole_weights,
)

# Exit statuses. 75 is "temporary failure" (sysexits.h): a batch system is to start it again.
DONE, INTERRUPTED, START_AGAIN = 0, 130, 75
SHOWN = 10  # numbers of a validation
EXPORT = "final"  # what the next stage loads, in the run's folder


class Signals:
    """Which signal has come, while the training runs; a second Ctrl-C ends it at once."""

    def __init__(self):
        self.status = DONE

    @contextmanager
    def watched(self) -> Iterator["Signals"]:
        """Take SIGTERM and SIGUSR1 (a batch system's notice) and SIGINT (Ctrl-C)."""

        def take(number, frame):
            if number == signal.SIGINT:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            self.status = INTERRUPTED if number == signal.SIGINT else START_AGAIN

        numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
        before = {number: signal.signal(number, take) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def train(
    config: TrainConfig,
    folder: Path,
    processes: Processes,
    *,
    changes: Sequence[str] = (),
    loggers: Sequence[str] = (),
    console: Console | None = None,
) -> int:
    """Train, from the newest checkpoint in `folder` if there is one, and export the weights.

    Args:
        config: what to train.
        folder: of the run: checkpoints, metrics, and `final`, the weights for the next stage.
        processes: of this training.
        changes: by hand, that `config` has already; they are recorded.
        loggers: of `metrics.WRITERS`, beside `metrics.jsonl`.
        console: for progress; None: the terminal.

    Returns:
        0 done; 130 after Ctrl-C and 75 after SIGTERM or SIGUSR1, both with a checkpoint.

    Raises:
        TrainingError: it cannot begin or go on; the last good checkpoint is intact.
    """
    console = console or Console(stderr=True, quiet=not processes.first)
    if config.batch_size % (processes.ranks * config.micro_batches):
        raise TrainingError(
            f"batch_size {config.batch_size} cannot be shared by {processes.ranks} processes with "
            f"{config.micro_batches} micro-batches each: set it to a multiple of "
            f"{processes.ranks * config.micro_batches}"
        )
    make_repeatable(config)

    # The model, its optimiser, and the step to go on from.
    device = processes.device
    task = config.task.make(config, device)
    model = task.build_model().to(device).train()
    parts = parts_of(model, config.trained)
    freeze(model, parts)
    if config.checkpoint_activations:
        checkpoint_layers(model)
    model = shard(model, processes)
    optimiser = make_optimiser(model, parts, config.optimiser)
    average = MovingAverage(model, config.ema_decay) if config.ema_decay else None
    record = record_of(config, changes)
    checkpoints = TrainingCheckpoints(folder, record, processes, config.keep_checkpoints)
    begun = checkpoints.resume(model, optimiser, average)
    called = torch.compile(model) if config.compile else model
    autocast = (
        torch.autocast(device.type, torch.bfloat16) if config.precision == "bf16" else nullcontext()
    )

    source = task.source(processes.rank, processes.ranks)
    coming = batches(source, begun, config.steps, workers=config.workers, pin=device.type == "cuda")
    writers = [JsonLines(folder, begun)] if processes.first else []
    writers += [WRITERS[name](folder, begun) for name in loggers if processes.first]
    speed = SpeedMeter(config.batch_size, peak_flops=peak_flops(device))
    if speed.peak_flops:
        # Model FLOPs: what activation checkpointing computes again is not among them.
        flops = sample_cost(config, config.task.empty_model(config))[0]
        speed.flops = flops * config.batch_size / processes.ranks
    display = ProgressDisplay(console, config.name, "steps")
    saved = shown = step = begun
    logged: dict[str, list[float]] = {}

    def loss_of(part, denominator):
        with autocast:
            return task.loss(called, part, denominator)

    with Signals().watched() as signals, display:
        display.begin(config.steps, begun)
        while step < config.steps:
            waited_s = time.perf_counter()
            batch = next(coming)
            speed.waited(time.perf_counter() - waited_s)

            # Gradients of the whole step: the micro-batches of all processes, as if they were one.
            rate = learning_rate(step, config)
            set_learning_rate(optimiser, rate)
            micro = task.split(batch, config.micro_batches)
            (denominator,) = processes.sums([sum(task.denominator(part) for part in micro)])
            total, sums, losses = 0.0, {}, []
            for index, part in enumerate(micro):
                set_last_micro_batch(model, index == len(micro) - 1)
                loss, values = loss_of(part, denominator)
                # Sharded gradients are means over the processes; the loss is a sum.
                (loss * processes.ranks).backward()
                losses.append(loss.detach())
                total += losses[-1]
                for name, (value, count) in values.items():
                    before = sums.get(name, (0.0, 0.0))
                    sums[name] = before[0] + value, before[1] + count
            norm = clip_gradients(model, config.optimiser.clip_norm)

            # All processes learn the same: the loss, and whether one of them is to end.
            names = sorted(sums)
            mine = [float(total), float(signals.status == INTERRUPTED)]
            mine += [float(signals.status == START_AGAIN)]
            mine += [float(number) for name in names for number in sums[name]]
            total, interrupted, start_again, *rest = processes.sums(mine)
            norm = float(norm)
            if not (math.isfinite(total) and math.isfinite(norm)):
                suspects = list(zip(micro, map(float, losses), strict=True))
                raise TrainingError(
                    _not_finite(step, total, norm, task, suspects, checkpoints.steps())
                )
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            step += 1
            if average is not None:
                average.update(step)
            speed.step()

            for name, value, count in zip(names, rest[::2], rest[1::2], strict=True):
                logged.setdefault(name, []).append(value / max(count, 1e-12))
            logged.setdefault("loss", []).append(total)
            logged.setdefault("gradient_norm", []).append(norm)
            if step % config.log_every == 0 or step == config.steps:
                values = {name: float(np.mean(found)) for name, found in logged.items()}
                values |= {"learning_rate": rate, **speed.read()}
                logged = {}
                for writer in writers:
                    writer.write(step, values)
                display.advance(step - shown, speed_words(values))
                shown = step
            if _due(step, config.validate_every, config.steps):
                paused_s = time.perf_counter()
                found = _validated(task, model, average, processes, step)
                speed.skip(time.perf_counter() - paused_s)
                for writer in writers:
                    writer.write(step, found) if found else None
                if found:  # the first few; metrics.jsonl has them all
                    shown_first = list(found.items())[:SHOWN]
                    words = ", ".join(f"{name} {value:.4g}" for name, value in shown_first)
                    display.print(f"step {step}: {words}")
            ending = interrupted or start_again
            if ending or _due(step, config.checkpoint_every, config.steps):
                paused_s = time.perf_counter()
                checkpoints.save(step, model, optimiser, average)
                speed.skip(time.perf_counter() - paused_s)
                saved = step
            if ending and step < config.steps:
                display.print(f"ended at step {step}: the same command goes on from there")
                return _closed(writers, INTERRUPTED if interrupted else START_AGAIN)

        if saved < step:
            checkpoints.save(step, model, optimiser, average)
        _export(task, model, average, processes, folder, {**record, "step": step})
        display.print(f"{config.name}: {step} steps, weights in {folder / EXPORT}")
    return _closed(writers, DONE)


# Parts of the loop -------------------------------------------------------------------------------


def make_repeatable(config: TrainConfig) -> None:
    """Seed what draws outside of batches, and refuse chance where that is asked for."""
    torch.manual_seed(config.seed)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.deterministic)


def _due(step: int, every: int, steps: int) -> bool:
    return bool(every) and (step % every == 0 or step == steps)


def _validated(
    task: TrainingTask,
    model: nn.Module,
    average: MovingAverage | None,
    processes: Processes,
    step: int,
) -> dict[str, float]:
    """Validate with the average where there is one, in the first process."""
    with _plain(task, model, average, processes) as plain:
        found = task.validate(plain, step) if processes.first else {}
    processes.barrier()
    return found


def _export(task, model, average, processes, folder: Path, record) -> None:
    with _plain(task, model, average, processes) as plain:
        if processes.first:
            task.export(plain, folder / EXPORT, record)
    processes.barrier()


@contextmanager
def _plain(task, model, average, processes) -> Iterator[nn.Module | None]:
    """The model as it is built, with the average's weights, where there is one; for no gradient.

    None in all processes but the first, when several have a part of it each.
    """
    with average.swapped_in() if average else nullcontext():
        weights = whole_weights(model)
    with torch.no_grad():
        plain = None
        if processes.first:
            plain = task.build_model()
            plain.load_state_dict(weights)
            plain = plain.to(processes.device).eval()
        yield plain


def _not_finite(step, total, norm, task, suspects, saved) -> str:
    """Which samples made the loss of a step no number: of the micro-batches whose own is none."""
    if math.isfinite(total):
        what, names = f"the gradient's norm is {norm}", "all samples of the step"
    else:
        what = f"the loss is {total}"
        found = [
            name
            for part, loss in suspects
            if not math.isfinite(loss)
            for name in task.sample_names(part)
        ]
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        names = ", ".join(found[:8]) + more if found else "another process, which names them"
    kept = f"the checkpoint of step {saved[-1]} is whole" if saved else "there is no checkpoint yet"
    return (
        f"step {step}: {what}, of {names}; {kept}. Look at these samples, or lower "
        "optimiser.peak_learning_rate or optimiser.clip_norm"
    )


def _closed(writers, status: int) -> int:
    for writer in writers:
        writer.close()
    return status
