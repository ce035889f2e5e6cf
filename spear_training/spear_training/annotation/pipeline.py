"""The stages in their order, and what comes out of them: one record a picture."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.boxes.gaps import box_gap_m
from spear_training.annotation.frame import Frame, PointMap, Stage, StageError
from spear_training.annotation.items import Item
from spear_training.annotation.picture import read_frame
from spear_training.annotation.records import Annotation

PIXEL_POINTS = 64


class Pipeline:
    """Annotates pictures. A stage that fails ends its picture, not the job."""

    def __init__(self, root: Path, stages: Sequence[Stage]):
        """Take the folder that the items' paths are relative to, and the stages in order."""
        self.root, self.stages = Path(root), tuple(stages)

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
            JobError: no picture can be annotated until somebody mends what the text names.
        """
        known = {"id": item.id, "image": item.image, "native_aspect": item.native_aspect}
        seconds: dict[str, float] = {}
        name = "read"
        try:
            started = time.perf_counter()
            frame = read_frame(item, self.root)
            seconds["read"] = time.perf_counter() - started
            for stage in self.stages:
                name, started = stage.name, time.perf_counter()
                frame = stage(frame)
                seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
        except StageError as error:
            return Annotation(**known, status="failed", reason=f"{name}: {error}", seconds=seconds)
        return replace(_record(frame), seconds=seconds)


def _record(frame: Frame) -> Annotation:
    objects = tuple(found.annotated for found in frame.candidates)
    found_any = "nothing was detected" if not frame.dropped else "no object could be used"
    return Annotation(
        id=frame.item.id,
        image=frame.item.image,
        native_aspect=frame.item.native_aspect,
        status="ok" if objects else "empty",
        reason=None if objects else found_any,
        metric=frame.points.metric,
        intrinsics=frame.points.intrinsics,
        objects=objects,
        gaps_m=tuple(
            (i, j, tuple(box_gap_m(objects[i].vertices, objects[j].vertices).tolist()))
            for i, j in combinations(range(len(objects)), 2)
        ),
        pixel_points=random_pixel_points(frame.points, frame.item.id, PIXEL_POINTS),
        dropped=frame.dropped,
    )


def random_pixel_points(points: PointMap, name: str, count: int) -> tuple[tuple[float, ...], ...]:
    """Draw pixels of which the point is known; the same for the same name.

    Returns:
        (u, v, x, y, z) each: the pixel's centre (px), then its point.
    """
    rows, columns = np.nonzero(np.isfinite(points.points_m).all(axis=-1))
    draws = np.random.default_rng(seed_of(name))
    chosen = draws.choice(len(rows), min(count, len(rows)), replace=False)
    found: NDArray = points.points_m[rows[chosen], columns[chosen]].astype(float)
    pixels = np.column_stack([columns[chosen], rows[chosen]]).astype(float)
    return tuple(tuple(row) for row in np.hstack([pixels, found]).tolist())


def seed_of(name: str) -> int:
    """A seed that depends on the name alone, on every machine and in every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
