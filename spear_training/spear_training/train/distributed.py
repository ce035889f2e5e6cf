"""The processes of a training: who is who, sums over all of them, and the sharded model.

One process, several on a machine and several machines have the same command; `torchrun` says in
the environment which case it is. Weights, gradients and optimiser state are sharded (FSDP2); all
processes take the same number of steps and learn of a signal in the same step.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import FSDPModule, fully_shard

from spear_training.train.config import TrainingError

TIMEOUT_S = 600.0  # for a process that does not come to a common operation
_LOST = re.compile(r"gloo|nccl|connection|socket|timed out|timeout|peer", re.IGNORECASE)


@dataclass(frozen=True)
class Processes:
    """The processes of this training, seen from one of them.

    Attributes:
        rank: this one's number, 0 .. ranks - 1.
        ranks: how many there are.
        device: this one's.
    """

    rank: int
    ranks: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sums of the numbers of all processes, in fp64, the same in each of them."""
        if self.ranks == 1:
            return list(values)
        device = self.device if dist.get_backend() == "nccl" else "cpu"
        total = torch.tensor(values, dtype=torch.float64, device=device)
        with naming_lost_processes():
            dist.all_reduce(total)
        return total.tolist()

    def barrier(self) -> None:
        """Wait for all."""
        if self.ranks > 1:
            with naming_lost_processes():
                dist.barrier()


def join_processes(device: str, timeout_s: float = TIMEOUT_S) -> Processes:
    """Take part in the training that `torchrun` has started, or be its only process.

    Args:
        device: "cuda" (each process of a machine takes another one), "cpu", or "auto".
        timeout_s: longest wait for another process in a common operation.

    Raises:
        TrainingError: there is no such device.
    """
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        local, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local >= count:
            raise TrainingError(
                f"process {local} of this machine has no GPU: there are {count}; start as many "
                "processes as GPUs (torchrun --nproc-per-node), or give --device cpu"
            )
        torch.cuda.set_device(local)
        found = torch.device("cuda", local)
    else:
        found = torch.device(device)
    if ranks > 1 and not dist.is_initialized():
        backend = "nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    return Processes(rank, ranks, found)


@contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Turn the failure of a common operation into a sentence. Raises TrainingError."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not dist.is_initialized() or not _LOST.search(text):
            raise
        raise TrainingError(
            "another process of this training has ended or hangs; its own output says why. Start "
            f"the same command again: it goes on from the last checkpoint ({text.splitlines()[0]})"
        ) from None


def leave_processes() -> None:
    """End the part that `join_processes` began; never raises."""
    if dist.is_initialized():
        dist.destroy_process_group()


# The model on its processes ----------------------------------------------------------------------


def layers_of(model: nn.Module) -> list[nn.ModuleList]:
    """The lists of equal layers inside a model: what is sharded and computed again as one."""
    return [part for part in model.modules() if isinstance(part, nn.ModuleList)]


def checkpoint_layers(model: nn.Module) -> None:
    """Have the layers that learn, or that gradients pass, compute again in the backward pass."""
    for layers in layers_of(model):
        for index, layer in enumerate(layers):
            layers[index] = checkpoint_wrapper(layer)


def shard(model: nn.Module, processes: Processes) -> nn.Module:
    """Shard a model over the processes, layer by layer; one process keeps it as it is."""
    if processes.ranks == 1:
        return model
    for layers in layers_of(model):
        for layer in layers:
            fully_shard(layer)
    return fully_shard(model)


def set_last_micro_batch(model: nn.Module, last: bool) -> None:
    """Exchange gradients after the last micro-batch of a step only."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
