"""What a training goes on from: weights, optimiser state and average of a step.

A checkpoint is a folder `checkpoints/step-00001000`, written beside by all processes
(torch.distributed.checkpoint) and renamed when it is whole. Nothing else has to be remembered:
batches and noise are functions of seed and step. Any number of processes can read it.
"""

import json
import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)

from spear_policy.shared.files import differences, write_atomically
from spear_training.train.config import TrainConfig, TrainingError, as_dict
from spear_training.train.distributed import Processes, naming_lost_processes
from spear_training.train.optimiser import MovingAverage

FORMAT = 1
RECORD = "record.json"
FOLDER = "checkpoints"
_NAME = re.compile(r"step-(\d{8})")
# May differ between the run that wrote a checkpoint and the one that goes on from it: nothing of
# them changes what is learned, but for how long.
FREE = ("machine", "about", "workers", "log_every", "validate_every", "checkpoint_every")
FREE += ("keep_checkpoints", "compile", "checkpoint_activations", "micro_batches", "deterministic")


def record_of(config: TrainConfig, changes: Sequence[str]) -> dict[str, Any]:
    """What is written beside weights: configuration, changes by hand, revision of the code."""
    return {
        "format": FORMAT,
        "recipe": config.name,
        "changes": list(changes),
        "config": json.loads(json.dumps(as_dict(config))),
        "git_revision": git_revision(),
        "torch": str(torch.__version__),
    }


def git_revision() -> str:
    """The revision of this code, with "+" where it was changed; "" outside of a repository."""
    folder = Path(__file__).resolve().parent
    try:
        words = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


class TrainingCheckpoints:
    """The checkpoints of one run.

    Args:
        folder: of the run.
        record: of this run, see `record_of`.
        processes: of the training.
        keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, record: dict[str, Any], processes: Processes, keep: int):
        self.folder, self.record = Path(folder) / FOLDER, record
        self._processes, self._keep = processes, keep

    def steps(self) -> list[int]:
        """The steps of the whole checkpoints that are there, ascending."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        names = (_NAME.fullmatch(path.name) for path in found if (path / RECORD).is_file())
        return sorted(int(match[1]) for match in names if match)

    def path(self, step: int) -> Path:
        """Of the checkpoint of a step."""
        return self.folder / f"step-{step:08d}"

    def save(
        self, step: int, model: nn.Module, optimiser, average: MovingAverage | None = None
    ) -> None:
        """Write the checkpoint of a step; those before stay until it is whole.

        Raises:
            TrainingError: it cannot be written, such as on a full disk; the last one is intact.
        """
        final = self.path(step)
        beside = final.with_name(f".part.{final.name}")
        if self._processes.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob(".part.*"):
                shutil.rmtree(path, ignore_errors=True)
        self._processes.barrier()
        try:
            with _quiet(), naming_lost_processes():
                dcp.save(_state(model, optimiser, average), checkpoint_id=str(beside))
            self._processes.barrier()
            if self._processes.first:
                record = json.dumps({**self.record, "step": step}, indent=1)
                write_atomically(beside / RECORD, record)
                shutil.rmtree(final, ignore_errors=True)
                os.rename(beside, final)
                for old in self.steps()[: -self._keep]:
                    shutil.rmtree(self.path(old), ignore_errors=True)
        except (OSError, dcp.api.CheckpointException, RuntimeError) as error:
            shutil.rmtree(beside, ignore_errors=True)
            last = self.steps()
            kept = f"that of step {last[-1]} is whole" if last else "there is none before it"
            raise TrainingError(
                f"{final}: the checkpoint cannot be written ({_cause(error)}); {kept}. Make room "
                "or mend the disk, then start the same command again"
            ) from None
        self._processes.barrier()

    def resume(self, model: nn.Module, optimiser, average: MovingAverage | None = None) -> int:
        """Take over the newest checkpoint; returns its step, 0 where there is none.

        Raises:
            TrainingError: it is of another recipe, of a newer version, or damaged.
        """
        steps = self.steps() if self._processes.first else []
        # Another machine may not see the newest folder yet.
        (step,) = map(int, self._processes.sums([steps[-1] if steps else 0]))
        if not step:
            return 0
        path = self.path(step)
        self._check(path)
        state = _state(model, optimiser, average)
        try:
            with _quiet():
                dcp.load(state, checkpoint_id=str(path))
        except (OSError, dcp.api.CheckpointException, RuntimeError, ValueError) as error:
            raise TrainingError(
                f"{path} is damaged ({_cause(error)}): remove this folder to go on from the one "
                "before it"
            ) from None
        set_state_dict(
            model,
            optimiser,
            model_state_dict=state["model"],
            optim_state_dict=state["optimiser"],
        )
        return step

    def _check(self, path: Path) -> None:
        try:
            there = json.loads((path / RECORD).read_text())
            version, recipe, config = int(there["format"]), there["recipe"], there["config"]
        except (OSError, ValueError, KeyError, TypeError):
            raise TrainingError(
                f"{path / RECORD} is damaged: remove this folder to go on from the one before it"
            ) from None
        if version > FORMAT:
            raise TrainingError(
                f"{path} was written by a newer version of this suite (format {version}, this one "
                f"reads {FORMAT}): update it"
            )
        mine = self.record["config"]
        if recipe != self.record["recipe"]:
            raise TrainingError(
                f"{path} is of the recipe {recipe} and not of {self.record['recipe']}: give "
                "another --out"
            )
        free = set(FREE)
        if mine["optimiser"]["decay"] == "constant":
            free.add("steps")  # no learning rate depends on it
        found = differences(
            {key: value for key, value in config.items() if key not in free},
            {key: value for key, value in mine.items() if key not in free},
        )
        if found:
            raise TrainingError(
                f"{path} was trained with {'; '.join(found[:3])}: give the same --set, or another "
                "--out"
            )


def whole_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all weights on the CPU by plain names, in the first process; {} in the others."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    found = get_model_state_dict(model, options=options)
    return {name: values.clone() for name, values in found.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """One process is meant, and needs no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _state(model, optimiser, average):
    weights, optimiser_state = get_state_dict(model, optimiser)
    state = {"model": weights, "optimiser": optimiser_state}
    return state if average is None else {**state, "average": average.values}


def _cause(error: BaseException) -> str:
    """The first reason of an error, in a line."""
    failures = getattr(error, "failures", None)
    if failures:
        error = next(iter(failures.values()))
        error = error[0] if isinstance(error, tuple) else error
    text = getattr(error, "strerror", None) or str(error).strip().splitlines()[0:1]
    return text if isinstance(text, str) else (text[0] if text else type(error).__name__)
