"""The stages in this process: one picture after another, or several at a time.

Several at a time pay where a stage waits for a service. A stage that gains nothing from company
(its `parallel` is 1: a model on the GPU) is still called by one thread at a time.
"""

import inspect
import logging
import math
import os
import queue
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from spear_training.annotation.frame import Frame, JobError, Stage
from spear_training.annotation.pipeline import Pipeline
from spear_training.annotation.records import Annotation, Item

# What became of one picture: its record as it is stored, and what the job must know of it.


LONGEST_REASON = 500  # characters
log = logging.getLogger(__name__)
_logged_places: set[tuple] = set()


class Annotates(Protocol):
    """What makes the record of a picture: `pipeline.Pipeline`."""

    def annotate(self, item: Item) -> Annotation:
        """Make the record of one picture.

        Raises:
            JobError: no picture can be annotated.
        """


@dataclass(frozen=True)
class Result:
    """A record on its way to the disk.

    Attributes:
        id: of the item.
        status: ok, empty or failed.
        reason: in words, unless ok.
        line: the record, UTF-8, without the end of the line.
    """

    id: str
    status: str
    reason: str | None
    line: bytes

    @classmethod
    def of(cls, annotation: Annotation) -> "Result":
        """Make the line of a record.

        Raises:
            ValueError: it has numbers or words that cannot be stored.
        """
        line = annotation.to_json().encode("utf-8")
        return cls(annotation.id, annotation.status, annotation.reason, line)

    @classmethod
    def from_line(cls, line: bytes) -> "Result":
        """Read a stored line.

        Raises:
            RecordError: it is no annotation.
        """
        annotation = Annotation.from_json(line.decode("utf-8", "replace"))
        return cls(annotation.id, annotation.status, annotation.reason, line)


def annotate_one(pipeline: Annotates, item: Item) -> Result:
    """Annotate a picture; whatever goes wrong with it alone becomes a failed record.

    Raises:
        JobError: no picture can be annotated.
    """
    try:
        annotation = pipeline.annotate(item)
        if annotation.id != item.id:
            raise ValueError(f"a stage made it the record of {annotation.id!r}")
        return Result.of(annotation)
    except JobError:
        raise
    except Exception as error:
        _log_once(item, error)
        words = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_REASON]
        reason = words.encode("utf-8", "backslashreplace").decode()
        failed = Annotation(
            item.id, item.image, "failed", native_aspect=item.native_aspect, reason=reason
        )
        return Result.of(failed)


def _log_once(item: Item, error: Exception) -> None:
    """Log the traceback of the first error of its kind; of the others the record says enough."""
    place = (type(error), *traceback.extract_tb(error.__traceback__)[-1][:2])
    if place not in _logged_places:
        _logged_places.add(place)
        log.error("%s: an error that no stage expected", item.id, exc_info=error)


# The stages in this process: one picture after another, or several at a time.


class Executor(Protocol):
    """Something that annotates many pictures, in any order."""

    @property
    def at_work(self) -> bool:
        """Whether there may be pictures in work that `stop` would wait for."""

    def results(self, items: Sequence[Item]) -> Iterator[Result]:
        """Yield each picture's result as soon as it is there.

        Raises:
            JobError: no picture can be annotated; what was in work has been handed out before.
        """

    def stop(self) -> Iterator[Result]:
        """Begin nothing more; wait for what is in work and yield it."""


class InTurn:
    """One picture after another, without threads; Ctrl-C ends the one in work."""

    at_work = False

    def __init__(self, pipeline: Pipeline):
        """Take the pipeline."""
        self._pipeline = pipeline

    def results(self, items: Sequence[Item]) -> Iterator[Result]:
        """See Executor."""
        for item in items:
            yield annotate_one(self._pipeline, item)

    def stop(self) -> Iterator[Result]:
        """Nothing is in work between two results."""
        return iter(())


class InThreads:
    """As many pictures at a time as the pipeline's most patient stage gains from."""

    def __init__(self, pipeline: Pipeline):
        """Take the pipeline."""
        self.threads = pipeline.parallel
        self._pipeline = Pipeline(
            pipeline.root, [_AtMost(stage, stage.parallel) for stage in pipeline.stages]
        )
        self._todo: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()
        self._workers: list[threading.Thread] = []

    def results(self, items: Sequence[Item]) -> Iterator[Result]:
        """See Executor."""
        # Daemons: a second Ctrl-C must not wait for a service.
        self._workers = [
            threading.Thread(target=self._work, daemon=True, name=f"annotate-{number}")
            for number in range(min(self.threads, len(items)))
        ]
        for worker in self._workers:
            worker.start()
        waiting, in_work = iter(items), 0
        for item in islice(waiting, len(self._workers)):
            self._todo.put(item)
            in_work += 1
        stopped_by: BaseException | None = None
        while in_work:
            result = self._done.get()
            in_work -= 1
            if isinstance(result, BaseException):
                stopped_by = stopped_by or result
            else:
                yield result
            if stopped_by is None and (item := next(waiting, None)) is not None:
                self._todo.put(item)
                in_work += 1
        yield from self.stop()
        if stopped_by is not None:
            raise stopped_by

    def stop(self) -> Iterator[Result]:
        """See Executor."""
        while True:
            try:
                self._todo.get_nowait()
            except queue.Empty:
                break
        for _ in self._workers:
            self._todo.put(None)
        for worker in self._workers:
            worker.join()
        self._workers = []
        while not self._done.empty():
            result = self._done.get()
            if isinstance(result, Result):
                yield result

    @property
    def at_work(self) -> bool:
        """See Executor."""
        return any(worker.is_alive() for worker in self._workers)

    def _work(self) -> None:
        while (item := self._todo.get()) is not None:
            try:
                self._done.put(annotate_one(self._pipeline, item))
            except BaseException as error:  # JobError; the main thread raises it
                self._done.put(error)


class _AtMost:
    """A stage that so many threads may be in at once; `seconds` then count the wait as well."""

    def __init__(self, stage: Stage, threads: int):
        self._stage, self._room = stage, threading.Semaphore(threads)
        self.name, self.settings, self.parallel = stage.name, stage.settings, stage.parallel

    def __call__(self, frame: Frame) -> Frame:
        with self._room:
            return self._stage(frame)


def local_executor(pipeline: Pipeline) -> InTurn | InThreads:
    """Choose the one that fits the stages."""
    return InTurn(pipeline) if pipeline.parallel <= 1 else InThreads(pipeline)


# The stages on a Ray cluster: the same records as in this process, from many machines.


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
