"""One shard from beginning to end: what is left to do, doing it, and the finished file.

It may be killed at any moment and started again; see `journal` and `finish` for why nothing is
lost or doubled by that.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from spear_training.annotation.frame import JobError
from spear_training.annotation.items import Item
from spear_training.annotation.job.disk import room_warning
from spear_training.annotation.job.finish import finish_retry, finish_shard, read_finished
from spear_training.annotation.job.journal import Journal
from spear_training.annotation.job.local_executor import Executor
from spear_training.annotation.job.progress import JobProgress
from spear_training.annotation.job.result import Result
from spear_training.annotation.job.shards import Shard

MOST_FAILURES_IN_A_ROW = 25


@dataclass(frozen=True)
class ShardJob:
    """What is to be done with one shard.

    Attributes:
        out: folder of the records.
        shard: the part of the list.
        retry_failed: annotate again what failed before.
        most_failures_in_a_row: then the job stops; 0: it never does.
    """

    out: Path
    shard: Shard
    retry_failed: bool = False
    most_failures_in_a_row: int = MOST_FAILURES_IN_A_ROW


def run_shard(
    job: ShardJob, items: Sequence[Item], executor: Executor, progress: JobProgress
) -> Counter[str]:
    """Bring a shard to its finished file.

    Args:
        items: the whole list.

    Returns:
        How many pictures of the shard are ok, empty and failed.

    Raises:
        JobError: it cannot go on; what is done is kept.
        KeyboardInterrupt: likewise.
        OSError: the folder cannot be written.
    """
    part = job.shard.part_of(items)
    ids = [item.id for item in part]
    final, partial = job.shard.file(job.out), job.shard.journal(job.out)
    if final.is_file():
        partial.unlink(missing_ok=True)  # of a run that was killed between two lines of `finish`
        return _run_finished(job, part, executor, progress)
    with Journal(partial, ids) as journal:
        if final.is_file():  # another process has finished it while we waited for the lock
            partial.unlink(missing_ok=True)
            return _count(final, ids)
        before = {name: place.status for name, place in journal.places.items()}
        left = [
            item
            for item in part
            if item.id not in before or (job.retry_failed and before[item.id] == "failed")
        ]
        _work(job, left, before, len(part), journal, executor, progress)
        finish_shard(journal, ids, final)
        return Counter(place.status for place in journal.places.values())


def _run_finished(
    job: ShardJob, part: Sequence[Item], executor: Executor, progress: JobProgress
) -> Counter[str]:
    ids = [item.id for item in part]
    final, retry = job.shard.file(job.out), job.shard.retry_journal(job.out)
    stored = {result.id: result.status for result in read_finished(final, ids)}
    counts = Counter(stored.values())
    if not counts["failed"]:
        retry.unlink(missing_ok=True)  # likewise
    if not job.retry_failed or not counts["failed"]:
        progress.say(f"{final.name} is finished already")
        return counts
    with Journal(retry, ids) as journal:
        if _is_merged(journal, final, ids):
            journal.restart()
        now = stored | {name: place.status for name, place in journal.places.items()}
        left = [item for item in part if now[item.id] == "failed"]
        _work(job, left, now, len(part), journal, executor, progress)
        finish_retry(journal, final)
    return _count(final, ids)


def _work(
    job: ShardJob,
    left: Sequence[Item],
    before: dict[str, str],
    total: int,
    journal: Journal,
    executor: Executor,
    progress: JobProgress,
) -> None:
    """Annotate what is left into the journal."""
    sizes = [place.size for place in journal.places.values()]
    if warning := room_warning(job.out, len(left), sizes):
        progress.say(warning)
    again = {item.id for item in left}
    progress.begin(total, Counter(status for name, status in before.items() if name not in again))
    failures = 0

    def record(result: Result) -> None:
        nonlocal failures
        journal.append(result)
        progress.add(result.id, result.status, result.reason)
        failures = failures + 1 if result.status == "failed" else 0

    with closing(executor.results(left)) as results:
        try:
            for result in results:
                record(result)
                if 0 < job.most_failures_in_a_row <= failures:
                    raise JobError(
                        f"{failures} pictures in a row failed, the last one ({result.id}): "
                        f"{result.reason}; mend it and run the same command with --retry-failed, "
                        "or go on past them with --max-failures-in-a-row 0"
                    )
        except (JobError, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) and executor.at_work:
                progress.say("stopping after the pictures in work; Ctrl-C again leaves them")
            for result in executor.stop():
                record(result)
            raise


def _is_merged(journal: Journal, final: Path, ids: Sequence[str]) -> bool:
    """Whether a retry journal is one that `finish_retry` was killed before it could remove."""
    return all(
        journal.line(result.id) == result.line
        for result in read_finished(final, ids)
        if result.id in journal.places
    )


def _count(final: Path, ids: Sequence[str]) -> Counter[str]:
    return Counter(result.status for result in read_finished(final, ids))
