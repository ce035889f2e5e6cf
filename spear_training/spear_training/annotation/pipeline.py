"""The stages in their order: from one picture to its record, and from many to theirs.

Many are annotated several at a time where a stage waits for a service. A stage that gains nothing
from company (its `parallel` is 1: a model on the GPU) is still called by one thread at a time.
"""

import logging
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spear_policy.shared.seeds import generator
from spear_training.annotation.frame import Frame, PointMap, Stage, read_frame
from spear_training.annotation.records import Annotation, Item
from spear_training.annotation.stages import JobError, StageError

PIXEL_POINTS = 64
LONGEST_REASON = 500  # characters
log = logging.getLogger(__name__)
_logged_places: set[tuple] = set()


@dataclass(frozen=True)
class StoredRecord:
    """A record as it is stored, and what a job must know of it.

    Attributes:
        id: of the picture.
        status: ok, empty or failed.
        reason: in words, unless ok.
        line: the record, UTF-8, without the end of the line.
    """

    id: str
    status: str
    reason: str | None
    line: bytes

    @classmethod
    def of(cls, annotation: Annotation) -> "StoredRecord":
        """Make the line of a record.

        Raises:
            ValueError: it has numbers or words that cannot be stored.
        """
        line = annotation.to_json().encode("utf-8")
        return cls(annotation.id, annotation.status, annotation.reason, line)


class Pipeline:
    """Annotates pictures. What goes wrong with one picture ends that picture, not the job."""

    def __init__(self, root: Path, stages: Sequence[Stage]):
        """Take the folder that the items' paths are relative to, and the stages in order."""
        self.root, self.stages = Path(root), tuple(stages)
        self._turns = [threading.Semaphore(stage.parallel) for stage in self.stages]

    @property
    def settings(self) -> list[dict]:
        """Name and settings of every stage: what the records depend on."""
        return [{"stage": stage.name, **stage.settings} for stage in self.stages]

    @property
    def parallel(self) -> int:
        """Pictures that the most patient stage wants to work on at once."""
        return max((stage.parallel for stage in self.stages), default=1)

    def annotate(self, item: Item) -> Annotation:
        """Make the record of one picture; a picture that cannot be used says why in it.

        Raises:
            JobError: no picture can be annotated until somebody fixes what the text names.
        """
        known = {"id": item.id, "image": item.image, "native_aspect": item.native_aspect}
        seconds: dict[str, float] = {}
        name = "read"
        try:
            started = time.perf_counter()
            frame = read_frame(item, self.root)
            seconds["read"] = time.perf_counter() - started
            for stage, turn in zip(self.stages, self._turns, strict=True):
                name = stage.name
                with turn:
                    started = time.perf_counter()
                    frame = stage(frame)
                    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
        except StageError as error:
            return Annotation(**known, status="failed", reason=f"{name}: {error}", seconds=seconds)
        return replace(_record(frame), seconds=seconds)

    def stored_record(self, item: Item) -> StoredRecord:
        """Make the record of one picture; an error that no stage expected is its failure too.

        Raises:
            JobError: no picture can be annotated.
        """
        try:
            annotation = self.annotate(item)
            if annotation.id != item.id:
                raise ValueError(f"a stage made it the record of {annotation.id!r}")
            return StoredRecord.of(annotation)
        except JobError:
            raise
        except Exception as error:
            _log_once(item, error)
            words = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_REASON]
            reason = words.encode("utf-8", "backslashreplace").decode()
            failed = Annotation(
                item.id, item.image, "failed", native_aspect=item.native_aspect, reason=reason
            )
            return StoredRecord.of(failed)

    def stored_records(
        self, items: Sequence[Item], on_record: Callable[[StoredRecord], None]
    ) -> list[StoredRecord]:
        """Make the records of pictures, in their order.

        Args:
            on_record: called in this thread with each record when it is made, in any order. What
                it raises ends the work.

        Raises:
            JobError: no picture can be annotated; what was in work has ended.
            KeyboardInterrupt: what is in work is left to its threads.
        """
        if self.parallel <= 1:
            records = []
            for item in items:
                records.append(self.stored_record(item))
                on_record(records[-1])
            return records
        pool = ThreadPoolExecutor(self.parallel, thread_name_prefix="annotate")
        futures = [pool.submit(self.stored_record, item) for item in items]
        try:
            for future in as_completed(futures):
                on_record(future.result())
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        except BaseException:
            # Answers that are under way will be kept.
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        pool.shutdown()
        return [future.result() for future in futures]


def _record(frame: Frame) -> Annotation:
    objects = tuple(found.annotated for found in frame.candidates)
    why_none = "nothing was detected"
    if frame.dropped:
        [(reason, _)] = Counter(lost.reason for lost in frame.dropped).most_common(1)
        why_none = f"no object could be used: {reason}"
    return Annotation(
        id=frame.item.id,
        image=frame.item.image,
        native_aspect=frame.item.native_aspect,
        status="ok" if objects else "empty",
        reason=None if objects else why_none,
        metric=frame.points.metric,
        intrinsics=frame.points.intrinsics,
        objects=objects,
        pixel_points=random_pixel_points(frame.points, frame.item.id, PIXEL_POINTS),
        dropped=frame.dropped,
    )


def random_pixel_points(points: PointMap, name: str, count: int) -> tuple[tuple[float, ...], ...]:
    """Draw pixels of which the point is known; the same for the same name.

    Returns:
        (u, v, x, y, z) each: the pixel's centre (px), then its point.
    """
    rows, columns = np.nonzero(np.isfinite(points.points_m).all(axis=-1))
    chosen = generator(name).choice(len(rows), min(count, len(rows)), replace=False)
    found: NDArray = points.points_m[rows[chosen], columns[chosen]].astype(float)
    pixels = np.column_stack([columns[chosen], rows[chosen]]).astype(float)
    return tuple(tuple(row) for row in np.hstack([pixels, found]).tolist())


def _log_once(item: Item, error: Exception) -> None:
    """Log the traceback of the first error of its kind; of the others the record says enough."""
    place = (type(error), *traceback.extract_tb(error.__traceback__)[-1][:2])
    if place not in _logged_places:
        _logged_places.add(place)
        log.error("%s: an error that no stage expected", item.id, exc_info=error)
