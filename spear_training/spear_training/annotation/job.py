"""A run over many pictures: the shards that are missing are made, here or on a Ray cluster.

The records of a shard are written when all of them are made, whole or not at all. So a job may be
killed at any moment and costs the shards in work; the same command makes those that are missing.
What was paid for is not lost with them: Gemini's answers are kept by themselves.
"""

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from spear_policy.shared.files import disk_space_warning, write_lines
from spear_policy.shared.progress import ProgressDisplay
from spear_training.annotation.pipeline import Pipeline, StoredRecord
from spear_training.annotation.records import STATUSES, Item
from spear_training.annotation.run_folder import Shard, claim
from spear_training.annotation.stages import JobError, PipelineSpec
from spear_training.data.reader import outline

MOST_FAILURES_IN_A_ROW = 25
# Before there are records to measure: 3 kB for the picture and 2 kB for each of ten objects, as in
# the records that test_annotate_command.py makes (6.8 kB with two objects).
GUESSED_RECORD_BYTES = 25_000


@dataclass(frozen=True)
class AnnotationJob:
    """What is to be done.

    Attributes:
        out: folder of the records; its run.json is there.
        items: the whole list.
        num_shards: that it is cut into, as run.json says.
        part: which of the shards are done here.
        retry_failed: annotate again what failed before.
        most_failures_in_a_row: then the job stops; 0: it never does.
    """

    out: Path
    items: Sequence[Item]
    num_shards: int
    part: Shard = Shard(0, 1)
    retry_failed: bool = False
    most_failures_in_a_row: int = MOST_FAILURES_IN_A_ROW


@dataclass(frozen=True)
class ShardWork:
    """A shard that is being made.

    Attributes:
        shard: which one.
        items: that are to be annotated.
        kept: records that stay as they are, by the picture's id: those that have not failed.
        held: keeps other processes away until it is closed.
    """

    shard: Shard
    items: list[Item]
    kept: dict[str, StoredRecord]
    held: ExitStack


OnRecord = Callable[[StoredRecord], None]
# Annotates shards: takes them, one after another, and what is called with each record that is
# made; yields each shard with the records of its items, in their order.
Annotates = Callable[
    [Iterator[ShardWork], OnRecord], Iterator[tuple[ShardWork, list[StoredRecord]]]
]


def run_job(job: AnnotationJob, annotate: Annotates, progress: ProgressDisplay) -> Counter[str]:
    """Make the shards that are missing.

    Args:
        annotate: see `annotate_here` and `annotate_on_ray`.

    Returns:
        How many pictures of this part are ok, empty and failed.

    Raises:
        JobError: it cannot go on, or other processes are at work on the rest; finished shards
            stay.
        KeyboardInterrupt: likewise.
        OSError: the folder cannot be read or written.
    """
    return _Run(job, progress).run(annotate)


def describe(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES)


class _Run:
    """A job at work."""

    def __init__(self, job: AnnotationJob, progress: ProgressDisplay):
        self._job, self._progress = job, progress
        self._counts: Counter[str] = Counter()  # of pictures that are done
        self._why_empty: dict[str, list[str]] = {}  # reasons of one kind
        self._failures_in_a_row = 0
        self._claims = ExitStack()
        self._elsewhere: list[Path] = []  # shards that other processes are at work on

    def run(self, annotate: Annotates) -> Counter[str]:
        job, progress = self._job, self._progress
        shards = job.part.part_of([Shard(index, job.num_shards) for index in range(job.num_shards)])
        missing = [shard for shard in shards if not self._is_done(shard)]
        total = sum(len(shard.part_of(job.items)) for shard in shards)
        if warning := _disk_warning(job, shards, total - self._counts.total()):
            progress.print(warning)
        progress.begin(total, self._counts.total(), describe(self._counts))
        with self._claims:
            for work, records in annotate(self._claimed(missing), self._on_record):
                self._finish(work, records)
        if self._why_empty:
            alike = max(self._why_empty.values(), key=len)
            progress.print(
                f"{sum(map(len, self._why_empty.values()))} pictures without objects, most often "
                f"({len(alike)}) because: {alike[0]}"
            )
        if self._elsewhere:
            more = f" and {len(self._elsewhere) - 1} more" if self._elsewhere[1:] else ""
            raise JobError(
                f"another process is at work on {self._elsewhere[0].name}{more}: wait for it; all "
                "else is done"
            )
        return self._counts

    def _is_done(self, shard: Shard) -> bool:
        """Whether nothing is left to do of a shard; its pictures that are done are counted."""
        if not shard.file(self._job.out).is_file():
            return False
        counts = Counter(record.status for record in read_finished(self._job, shard))
        failed = counts.pop("failed", 0) if self._job.retry_failed else 0
        self._counts += counts
        return not failed

    def _claimed(self, missing: list[Shard]) -> Iterator[ShardWork]:
        """Shards that this process may make, each claimed when it is asked for."""
        job = self._job
        for shard in missing:
            path = shard.file(job.out)
            held = claim(path)
            if held is None:
                self._elsewhere.append(path)
                continue
            self._claims.callback(held.close)
            kept = {}
            if path.is_file():  # failed pictures are tried again, or it was finished meanwhile
                kept = {record.id: record for record in read_finished(job, shard)}
            if job.retry_failed:
                kept = {name: record for name, record in kept.items() if record.status != "failed"}
            items = [item for item in shard.part_of(job.items) if item.id not in kept]
            if kept and not items:
                self._counts.update(record.status for record in kept.values())
                self._progress.advance(len(kept), describe(self._counts))
                held.close()
            else:
                yield ShardWork(shard, items, kept, held)

    def _on_record(self, record: StoredRecord) -> None:
        job = self._job
        self._counts[record.status] += 1
        self._progress.advance(detail=describe(self._counts))
        if record.status == "empty":
            self._why_empty.setdefault(outline(record.reason), []).append(record.reason)
        if record.status != "failed":
            self._failures_in_a_row = 0
            return
        self._failures_in_a_row += 1
        self._progress.print(f"{record.id}: failed, {record.reason}")
        if 0 < job.most_failures_in_a_row <= self._failures_in_a_row:
            raise JobError(
                f"{self._failures_in_a_row} pictures in a row failed, the last one ({record.id}): "
                f"{record.reason}; fix it and run the same command with --retry-failed, or go on "
                "past them with --max-failures-in-a-row 0"
            )

    def _finish(self, work: ShardWork, records: list[StoredRecord]) -> None:
        """Write the file of a shard."""
        path = work.shard.file(self._job.out)
        known = work.kept | {record.id: record for record in records}
        try:
            write_lines(path, (known[item.id].line for item in work.shard.part_of(self._job.items)))
        except OSError as error:
            raise JobError(
                f"{path} cannot be written ({error.strerror}): make room and run the same command "
                "again; finished shards stay"
            ) from None
        for ending in (".partial", ".retry"):  # an older version's shard in work
            path.with_name(path.name + ending).unlink(missing_ok=True)
        work.held.close()


def read_finished(job: AnnotationJob, shard: Shard) -> Iterator[StoredRecord]:
    """Read the finished file of a shard, one record at a time.

    Raises:
        JobError: it is damaged, or not of these pictures.
    """
    path, items = shard.file(job.out), shard.part_of(job.items)
    number = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            try:
                values = json.loads(line)
                record = StoredRecord(
                    values["id"], values["status"], values["reason"], line.rstrip(b"\n")
                )
                if record.status not in STATUSES:
                    raise ValueError(f"the status {record.status!r}")
            except (ValueError, TypeError, KeyError) as error:
                raise JobError(
                    f"{where}: no annotation ({error}); remove the file to make it again"
                ) from None
            if number > len(items) or record.id != items[number - 1].id:
                raise JobError(
                    f"{where} is about {record.id!r}: it was made from another list; choose "
                    "another --out"
                )
            yield record
    if number != len(items):
        raise JobError(f"{path} ends after {number} of {len(items)} pictures; remove it")


def _disk_warning(job: AnnotationJob, shards: Sequence[Shard], left: int) -> str | None:
    """Say so if the records that are still to be made may not fit on the disk."""
    finished = [shard for shard in shards if shard.file(job.out).is_file()]
    stored_bytes = sum(shard.file(job.out).stat().st_size for shard in finished)
    records = sum(len(shard.part_of(job.items)) for shard in finished)
    mean_bytes = stored_bytes / records if records else GUESSED_RECORD_BYTES
    return disk_space_warning(job.out, left * mean_bytes, f"{left} pictures")


def annotate_here(
    pipeline: Pipeline, work: Iterator[ShardWork], on_record: OnRecord
) -> Iterator[tuple[ShardWork, list[StoredRecord]]]:
    """Annotate one shard after another in this process."""
    for one in work:
        yield one, pipeline.stored_records(one.items, on_record)


# On a Ray cluster: a shard is a task of an actor that has built the stages -----------------------

# So often a shard is tried again after its worker has died (no memory, a crash in a library).
WORKER_DEATHS = 2


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


def annotate_on_ray(
    spec: PipelineSpec, options: RayOptions, work: Iterator[ShardWork], on_record: OnRecord
) -> Iterator[tuple[ShardWork, list[StoredRecord]]]:
    """Annotate as many shards at a time as there are workers; files are written here.

    Raises:
        JobError: no picture can be annotated, or Ray is not installed, cannot start, or loses its
            workers.
    """
    ray, started = _start(options)
    try:
        _check_room(ray, options)
        make_worker = ray.remote(ShardWorker).options(
            num_cpus=options.cpus_per_worker,
            num_gpus=options.gpus_per_worker,
            max_restarts=WORKER_DEATHS,
            max_task_retries=WORKER_DEATHS,
        )
        workers, idle, running = [], [], {}
        while True:
            while len(running) < options.workers and (one := next(work, None)):
                if not idle:
                    workers.append(make_worker.remote(spec))
                    idle.append(workers[-1])
                worker = idle.pop()
                running[worker.annotate.remote(one.items)] = worker, one
            if not running:
                return
            done = ray.wait(list(running))[0][0]
            worker, one = running.pop(done)
            records, job_error = ray.get(done)
            if job_error:
                raise JobError(job_error)
            idle.append(worker)
            for record in records:
                on_record(record)
            yield one, records
    except ray.exceptions.RayError as error:
        first = str(error).strip().partition("\n")[0]
        raise JobError(
            f"Ray gave up ({type(error).__name__}: {first}). If a worker died, memory or a "
            "library failed it: --executor local shows at which picture. Finished shards stay; "
            "the same command makes the others"
        ) from None
    finally:
        if started:
            ray.shutdown()


class ShardWorker:
    """What runs in a worker of Ray; it writes no records, only the job's own process does.

    It builds the stages for itself, so what the spec names (folder of pictures, checkpoints, folder
    of answers) must have the same path on all machines.
    """

    def __init__(self, spec: PipelineSpec):
        self._pipeline, self._job_error = None, ""
        try:
            self._pipeline = spec.build()
        except JobError as error:
            self._job_error = str(error)
        except Exception as error:
            self._job_error = f"a worker cannot build the stages ({type(error).__name__}: {error})"

    def annotate(self, items: list[Item]) -> tuple[list[StoredRecord], str]:
        """The records of pictures, and why the job cannot go on, if so."""
        if self._pipeline is None:
            return [], self._job_error
        try:
            return self._pipeline.stored_records(items, lambda record: None), ""
        except JobError as error:
            return [], str(error)


def _start(options: RayOptions):
    """Import and start Ray, unless it runs in this process; also whether it was started."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked to be counted
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise JobError(
            f"--executor ray needs Ray ({error}): pip install ray, or use --executor local"
        ) from None
    if ray.is_initialized():
        return ray, False
    own_cluster = {
        "address": "local",
        "num_cpus": max(1, math.ceil(options.workers * options.cpus_per_worker)),
        "include_dashboard": False,
    }
    where = {"address": options.address} if options.address else own_cluster
    try:
        ray.init(**where, log_to_driver=True, logging_level=logging.WARNING)
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
