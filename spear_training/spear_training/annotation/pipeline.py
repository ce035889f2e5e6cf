"""The stages in their order, and what comes out of them: one record a picture."""

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.boxes import box_gap_m
from spear_training.annotation.frame import (
    Frame,
    JobError,
    PointMap,
    Stage,
    StageError,
    read_frame,
    seed_of,
)
from spear_training.annotation.records import Annotation, Item

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


# Names of the stages that a user can choose from; light, for the sake of --help.


DETECTORS = ("gemini", "grounding_dino", "given")
SEGMENTERS = ("sam2", "given")
GEOMETRIES = ("moge", "depth")
NETWORKS = ("grounding_dino", "sam2", "moge")
EXECUTORS = ("local", "ray")


# A pipeline in words: small enough to send to another process, which builds the stages it.


@dataclass(frozen=True)
class PipelineSpec:
    """Which stages, and their settings.

    Attributes:
        root: folder that the items' paths are relative to.
        detector, segmenter, geometry: names.
        answers: folder for the detector gemini's answers; None: they are not kept.
        options: stage name -> names and values that differ from the defaults.
    """

    root: Path
    detector: str
    segmenter: str
    geometry: str
    answers: Path | None = None
    options: dict[str, dict] = field(default_factory=dict)

    def build(self) -> Pipeline:
        """Make the stages; libraries and models are loaded when the first picture needs them.

        Raises:
            JobError: a stage or a setting that does not exist, or a value that cannot work.
        """
        if unknown := set(self.options) - set(self._stage_names()):
            raise JobError(
                f"no setting for {', '.join(sorted(unknown))}: the stages are "
                f"{', '.join(self._stage_names())}"
            )
        return Pipeline(
            self.root,
            [
                self._detector(),
                self._unique(),
                self._segmenter(),
                self._geometry(),
                *self._box_stages(),
            ],
        )

    def _stage_names(self) -> list[str]:
        chosen = (self.detector, self.segmenter, self.geometry, "clouds", "outliers", "boxes")
        return list(dict.fromkeys(chosen))

    def _detector(self) -> Stage:
        if self.detector == "gemini":
            from spear_training.annotation.gemini import GeminiDetector, GeminiOptions

            return GeminiDetector(self._made(GeminiOptions, "gemini"), self.answers)
        if self.detector == "grounding_dino":
            from spear_training.annotation.grounding_dino import (
                GroundingDinoDetector,
                GroundingDinoOptions,
            )

            return GroundingDinoDetector(self._made(GroundingDinoOptions, "grounding_dino"))
        if self.detector == "given":
            from spear_training.annotation.given import GivenDetector

            return self._made(GivenDetector, "given")
        raise _unknown("detector", self.detector, DETECTORS)

    def _unique(self) -> Stage:
        from spear_training.annotation.detections import KeepUnique

        return KeepUnique()

    def _segmenter(self) -> Stage:
        if self.segmenter == "sam2":
            from spear_training.annotation.sam2 import Sam2Options, Sam2Segmenter

            return Sam2Segmenter(self._made(Sam2Options, "sam2"))
        if self.segmenter == "given":
            from spear_training.annotation.given import GivenSegmenter

            return self._made(GivenSegmenter, "given")
        raise _unknown("segmenter", self.segmenter, SEGMENTERS)

    def _geometry(self) -> Stage:
        if self.geometry == "moge":
            from spear_training.annotation.moge import MogeGeometry, MogeOptions

            return MogeGeometry(self._made(MogeOptions, "moge"))
        if self.geometry == "depth":
            from spear_training.annotation.depth import DepthGeometry

            return self._made(partial(DepthGeometry, self.root), "depth")
        raise _unknown("geometry", self.geometry, GEOMETRIES)

    def _box_stages(self) -> list[Stage]:
        from spear_training.annotation.boxes import FitBoxes
        from spear_training.annotation.clouds import MakeClouds, RemoveOutliers

        return [
            self._made(MakeClouds, "clouds"),
            self._made(RemoveOutliers, "outliers"),
            self._made(FitBoxes, "boxes"),
        ]

    def _made(self, make: Callable, stage: str):
        """Call `make` with the settings of a stage."""
        given = self.options.get(stage, {})
        known = inspect.signature(make).parameters
        if unknown := [name for name in given if name not in known]:
            raise JobError(
                f"{stage} has no setting {', '.join(unknown)}; it has {', '.join(known) or 'none'}"
            )
        for name, value in given.items():
            for kind, words in ((str, "words"), ((int, float), "a number")):
                if isinstance(known[name].default, kind) and not isinstance(value, kind):
                    raise JobError(f"{stage}.{name} is {value!r}; it must be {words}")
        return make(**given)


def _unknown(kind: str, name: str, known: tuple[str, ...]) -> JobError:
    return JobError(f"there is no {kind} {name!r}; choose from {', '.join(known)}")
