"""A pipeline in words: small enough to send to another process, which builds the stages itself."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from spear_training.annotation.frame import JobError, Stage
from spear_training.annotation.job.choices import DETECTORS, GEOMETRIES, SEGMENTERS
from spear_training.annotation.pipeline import Pipeline


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
            from spear_training.annotation.detectors.gemini import GeminiDetector
            from spear_training.annotation.detectors.gemini_options import GeminiOptions

            return GeminiDetector(self._made(GeminiOptions, "gemini"), self.answers)
        if self.detector == "grounding_dino":
            from spear_training.annotation.detectors.grounding_dino import (
                GroundingDinoDetector,
                GroundingDinoOptions,
            )

            return GroundingDinoDetector(self._made(GroundingDinoOptions, "grounding_dino"))
        if self.detector == "given":
            from spear_training.annotation.detectors.given import GivenDetector

            return self._made(GivenDetector, "given")
        raise _unknown("detector", self.detector, DETECTORS)

    def _unique(self) -> Stage:
        from spear_training.annotation.detectors.unique import KeepUnique

        return KeepUnique()

    def _segmenter(self) -> Stage:
        if self.segmenter == "sam2":
            from spear_training.annotation.segmenters.sam2 import Sam2Options, Sam2Segmenter

            return Sam2Segmenter(self._made(Sam2Options, "sam2"))
        if self.segmenter == "given":
            from spear_training.annotation.segmenters.given import GivenSegmenter

            return self._made(GivenSegmenter, "given")
        raise _unknown("segmenter", self.segmenter, SEGMENTERS)

    def _geometry(self) -> Stage:
        if self.geometry == "moge":
            from spear_training.annotation.geometries.moge import MogeGeometry, MogeOptions

            return MogeGeometry(self._made(MogeOptions, "moge"))
        if self.geometry == "depth":
            from spear_training.annotation.geometries.depth import DepthGeometry

            return self._made(partial(DepthGeometry, self.root), "depth")
        raise _unknown("geometry", self.geometry, GEOMETRIES)

    def _box_stages(self) -> list[Stage]:
        from spear_training.annotation.boxes.clouds import MakeClouds
        from spear_training.annotation.boxes.fit import FitBoxes
        from spear_training.annotation.boxes.outliers import RemoveOutliers

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
