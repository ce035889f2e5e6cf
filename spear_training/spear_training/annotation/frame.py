"""What the stages hand on to each other, and what a stage is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.items import Intrinsics, Item
from spear_training.annotation.records import AnnotatedObject, Dropped

if TYPE_CHECKING:  # it imports torch, which takes seconds that reading records need not wait
    from spear_policy.inference.image_geometry import Fit


class StageError(Exception):
    """This picture cannot be annotated; the text is the reason on its record."""


class JobError(Exception):
    """No picture can be annotated until somebody mends what the text names."""


@dataclass(frozen=True)
class PointMap:
    """Where the pixels of a picture lie.

    Attributes:
        points_m: (630, 840, 3) float32, camera frame (x right, y down, z forward); NaN where
            nothing is known. Never infinite.
        intrinsics: of the picture.
        metric: whether the unit is a metre.
    """

    points_m: NDArray[np.float32]
    intrinsics: Intrinsics
    metric: bool = True


@dataclass(frozen=True)
class Candidate:
    """An object on its way through the stages; what a stage adds is None before it.

    Attributes:
        label: what it is, in words.
        box_xyxy_px: left, top, right, bottom in the picture of 840x630, edge to edge.
        score: of the detector, 0..1, if it gives one.
        mask: (630, 840) bool.
        cloud_m: (P, 3) points, finite.
        annotated: what will be stored.
    """

    label: str
    box_xyxy_px: tuple[float, float, float, float]
    score: float | None = None
    mask: NDArray[np.bool_] | None = None
    cloud_m: NDArray[np.float64] | None = None
    annotated: AnnotatedObject | None = None


@dataclass(frozen=True)
class Frame:
    """One picture on its way through the stages.

    Attributes:
        item: what it was made from; `item.image` is relative to the folder of the list.
        image: (630, 840, 3) uint8 RGB.
        fit: how the stored picture became `image`; maps pixels both ways.
        visible: (630, 840) bool, False where `image` is padding.
        candidates: objects so far.
        dropped: objects that were found and not used.
        points: set by the geometry stage.
    """

    item: Item
    image: NDArray[np.uint8]
    fit: Fit
    visible: NDArray[np.bool_]
    candidates: tuple[Candidate, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    points: PointMap | None = None

    def keep(self, kept: list[Candidate], lost: list[Dropped]) -> Frame:
        """The frame with these candidates and further dropped ones."""
        return replace(self, candidates=tuple(kept), dropped=(*self.dropped, *lost))


class Stage(Protocol):
    """One step of the pipeline. Called from several threads at once if `parallel` is above 1."""

    @property
    def name(self) -> str:
        """A short word for reports: "gemini", "sam2", "boxes"."""

    @property
    def settings(self) -> dict:
        """All that the result depends on (model, prompt, thresholds), as plain JSON values."""

    @property
    def parallel(self) -> int:
        """How many pictures it gains from working on at once: 1, or a service's requests."""

    def __call__(self, frame: Frame) -> Frame:
        """Add this stage's part.

        Raises:
            StageError: this picture cannot be used; the job records it and goes on.
            JobError: no picture can be used (no key, no model); the job stops.
        """
