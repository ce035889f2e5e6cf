"""The stage `boxes`: from the cleaned cloud of an object to what is stored of it."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.boxes.oriented_box import BoxError, minimal_box
from spear_training.annotation.boxes.vertex_order import ordered_vertices
from spear_training.annotation.frame import Candidate, Frame, JobError, StageError
from spear_training.annotation.masks import encode_mask
from spear_training.annotation.records import AnnotatedObject, Dropped


class FitBoxes:
    """Fits the smallest oriented box to each cloud and makes the object's record."""

    name = "boxes"
    parallel = 1

    def __init__(self, sample_points: int = 32):
        """Take how many points of its cloud each object keeps.

        Raises:
            JobError: not at least one.
        """
        if sample_points < 1:
            raise JobError(f"boxes: sample_points is {sample_points}; keep at least 1")
        self._sample_points = sample_points

    @property
    def settings(self) -> dict:
        """What the boxes depend on."""
        return {"sample_points": self._sample_points}

    def __call__(self, frame: Frame) -> Frame:
        """Add the annotated objects; an object whose cloud has no box is dropped with the reason.

        Raises:
            StageError: there are no clouds yet.
        """
        kept, lost = [], []
        for candidate in frame.candidates:
            if candidate.cloud_m is None or candidate.mask is None:
                raise StageError("there are no clouds: put the stage clouds before boxes")
            try:
                kept.append(replace(candidate, annotated=self._annotated(candidate)))
            except BoxError as error:
                lost.append(Dropped(candidate.label, str(error)))
        return frame.keep(kept, lost)

    def _annotated(self, candidate: Candidate) -> AnnotatedObject:
        vertices = ordered_vertices(minimal_box(candidate.cloud_m))
        return AnnotatedObject(
            label=candidate.label,
            box_xyxy_px=candidate.box_xyxy_px,
            mask=encode_mask(candidate.mask),
            score=candidate.score,
            vertices_m=_triples(vertices),
            **cloud_facts(candidate.cloud_m, self._sample_points),
        )


def cloud_facts(cloud_m: NDArray[np.float64], sample_points: int = 32) -> dict:
    """What a record keeps of a cloud: fields of `AnnotatedObject` by their names.

    Args:
        cloud_m: (P, 3), finite, at least one point.
        sample_points: how many points to keep, drawn evenly from the first to the last; all, if
            the cloud has no more.

    Returns:
        cloud_size, closest_m, furthest_m (by their distance from the camera) and sample_m.
    """
    distance_m = np.linalg.norm(cloud_m, axis=1)
    drawn = np.linspace(0, len(cloud_m) - 1, min(sample_points, len(cloud_m)))
    closest, furthest = cloud_m[[distance_m.argmin(), distance_m.argmax()]]
    return {
        "cloud_size": len(cloud_m),
        "closest_m": tuple(closest.tolist()),
        "furthest_m": tuple(furthest.tolist()),
        "sample_m": _triples(cloud_m[drawn.round().astype(int)]),
    }


def _triples(points: NDArray[np.float64]) -> tuple[tuple[float, float, float], ...]:
    return tuple(tuple(point) for point in points.tolist())
