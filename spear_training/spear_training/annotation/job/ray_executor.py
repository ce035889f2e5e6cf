"""The stages on a Ray cluster: the same records as in this process, from many machines.

Every worker builds the stages for itself, so what the description names (folder of pictures,
checkpoints, answer cache) must have the same path on all machines. This process alone writes.
"""

import inspect
import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from spear_training.annotation.frame import JobError
from spear_training.annotation.items import Item
from spear_training.annotation.job.result import Result, annotate_one
from spear_training.annotation.pipeline import Pipeline

# Pictures that a worker hands back at once: what is lost when the job is killed, at most.
BLOCK = 8
# So often a block is tried again after its worker has died (no memory, a crash in a library).
WORKER_DEATHS = 2


class Builds(Protocol):
    """A description of a pipeline that can be sent to another process: `spec.PipelineSpec`."""

    def build(self) -> Pipeline:
        """Make the stages.

        Raises:
            JobError: something is missing on this machine.
        """


@dataclass(frozen=True)
class RayOptions:
    """How the work is spread.

    Attributes:
        address: of a running cluster; None: one of its own on this machine.
        workers: how many sets of stages there are.
        cpus_per_worker, gpus_per_worker: what each asks of the cluster; a part of a GPU is fine.

    Raises:
        JobError: a number that cannot be.
    """

    address: str | None = None
    workers: int = 1
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0

    def __post_init__(self):
        if self.workers < 1 or self.cpus_per_worker <= 0 or self.gpus_per_worker < 0:
            raise JobError(
                f"--workers is {self.workers}, --cpus-per-worker {self.cpus_per_worker}, "
                f"--gpus-per-worker {self.gpus_per_worker}; they must be at least 1, above 0 "
                "and 0 or more"
            )


class OnRay:
    """Runs a pipeline's description on Ray Data."""

    at_work = False  # what is in work elsewhere is done again by the next run

    def __init__(self, spec: Builds, options: RayOptions):
        """Take what to build, and where."""
        self._spec, self._options = spec, options

    def results(self, items: Sequence[Item]) -> Iterator[Result]:
        """See Executor.

        Raises:
            JobError: also if Ray is not installed, cannot start, or loses its workers.
        """
        if not items:
            return
        ray, started = _start(self._options)
        try:
            _check_room(ray, self._options)
            for row in _rows(ray, self._spec, self._options, items):
                if row["job_error"]:
                    raise JobError(row["job_error"])
                yield Result(row["id"], row["status"], row["reason"] or None, row["line"])
        except ray.exceptions.RayError as error:
            first = str(error).strip().partition("\n")[0]
            raise JobError(
                f"Ray gave up ({type(error).__name__}: {first}). If a worker died, memory or a "
                "library failed it: --executor local shows at which picture. What is done is "
                "kept; the same command goes on from here"
            ) from None
        finally:
            if started:
                ray.shutdown()

    def stop(self) -> Iterator[Result]:
        """Nothing is waited for."""
        return iter(())


class AnnotateRow:
    """What runs in a worker of Ray: rows with an item to rows with its result.

    It never raises: a row that raises ends the whole job of Ray.
    """

    def __init__(self, spec: Builds):
        """Build the stages."""
        self._pipeline, self._job_error = None, ""
        try:
            self._pipeline = spec.build()
        except JobError as error:
            self._job_error = str(error)
        except Exception as error:
            self._job_error = f"a worker cannot build the stages ({type(error).__name__}: {error})"

    def __call__(self, row: dict) -> dict:
        """Annotate one item; a job that cannot go on is told in `job_error`."""
        if not self._job_error:
            try:
                done = annotate_one(self._pipeline, Item.from_json(row["item"]))
                return _row(done.id, done.status, done.reason or "", done.line)
            except JobError as error:
                self._job_error = str(error)
        return _row("", "", "", b"", self._job_error)


def _row(name: str, status: str, reason: str, line: bytes, job_error: str = "") -> dict:
    return {"id": name, "status": status, "reason": reason, "line": line, "job_error": job_error}


def _start(options: RayOptions):
    """Import and start Ray, unless it runs in this process; tells whether it was started."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked to be counted
    try:
        import ray
        import ray.data
        import ray.exceptions
    except ImportError as error:
        raise JobError(
            f'--executor ray needs Ray ({error}): pip install "ray[data]", or use --executor local'
        ) from None
    if ray.is_initialized():
        return ray, False
    where = {"address": options.address} if options.address else _own_cluster(options)
    try:
        ray.init(**where, log_to_driver=True, logging_level="warning")
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        with suppress(Exception):
            ray.shutdown()
        raise JobError(f"Ray cannot start: {error}") from None
    return ray, True


def _check_room(ray, options: RayOptions) -> None:
    """Refuse workers that the cluster has no place for; Ray would wait for it for ever."""
    there = ray.cluster_resources()
    asked = {"CPU": options.cpus_per_worker, "GPU": options.gpus_per_worker}
    for kind, needed in asked.items():
        room = math.inf if needed == 0 else there.get(kind, 0.0) / needed
        if room < options.workers:
            raise JobError(
                f"{options.workers} workers with {needed:g} {kind} each do not fit: the cluster "
                f"has {there.get(kind, 0.0):g}; take fewer, or give each less"
            )


def _own_cluster(options: RayOptions) -> dict:
    return {
        "address": "local",
        "num_cpus": max(1, math.ceil(options.workers * options.cpus_per_worker)),
        "include_dashboard": False,
    }


def _rows(ray, spec: Builds, options: RayOptions, items: Sequence[Item]) -> Iterator[dict]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    blocks = math.ceil(len(items) / BLOCK)
    data = ray.data.from_items(
        [{"item": item.to_json()} for item in items], override_num_blocks=blocks
    )
    done = data.map(
        AnnotateRow,
        fn_constructor_kwargs={"spec": spec},
        compute=ray.data.ActorPoolStrategy(size=min(options.workers, blocks)),
        num_cpus=options.cpus_per_worker,
        num_gpus=options.gpus_per_worker,
        **_limit_of_deaths(data),
    )
    yield from done.iter_rows()


def _limit_of_deaths(data) -> dict:
    """Keep Ray from trying a picture that kills its worker for ever.

    Ray 2.60 warns that the way to do it goes in 2.64, and names no other.
    """
    warnings.filterwarnings("ignore", message=".*ray_remote_args_fn.* is deprecated")
    if "ray_remote_args_fn" not in inspect.signature(data.map).parameters:
        return {}
    return {"ray_remote_args_fn": lambda: {"max_task_retries": WORKER_DEATHS}}
