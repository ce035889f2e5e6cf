"""The stages in this process: one picture after another, or several at a time.

Several at a time pay where a stage waits for a service. A stage that gains nothing from company
(its `parallel` is 1: a model on the GPU) is still called by one thread at a time.
"""

import queue
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol

from spear_training.annotation.frame import Frame, Stage
from spear_training.annotation.items import Item
from spear_training.annotation.job.result import Result, annotate_one
from spear_training.annotation.pipeline import Pipeline


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
