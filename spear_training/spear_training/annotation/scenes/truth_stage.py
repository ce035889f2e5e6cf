"""The truth of a picture, put together by the same code as every record: as a stage."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from numpy.typing import NDArray

from spear_training.annotation.boxes.fit import cloud_facts
from spear_training.annotation.boxes.oriented_box import OrientedBox
from spear_training.annotation.boxes.vertex_order import ordered_vertices
from spear_training.annotation.detectors.given import box_of_mask
from spear_training.annotation.frame import Candidate, Frame
from spear_training.annotation.masks import encode_mask
from spear_training.annotation.records import AnnotatedObject, Triple
from spear_training.annotation.scenes.look import Look
from spear_training.annotation.scenes.things import Placed


class TruthStage:
    """Adds what is true in place of what other stages find: points and whole boxes.

    A label that two things share is left out, as `KeepUnique` does.
    """

    name = "truth"
    parallel = 1

    def __init__(self, things: Sequence[Placed], look: Look):
        """Take the things of a scene and what the camera sees of them."""
        self._things, self._look = things, look
        labels = Counter(things[index].thing.label for index in look.visible)
        self.kept = [index for index in look.visible if labels[things[index].thing.label] == 1]

    @property
    def settings(self) -> dict:
        """There is nothing to set."""
        return {}

    def __call__(self, frame: Frame) -> Frame:
        """Add the points and the objects."""
        candidates = [self._candidate(index, frame) for index in self.kept]
        return replace(frame, points=self._look.points, candidates=tuple(candidates))

    @property
    def axes_of_symmetry(self) -> dict[str, Triple | None]:
        """By label, the axis of a round thing in the camera's frame; zeros for a ball."""
        return {
            self._things[index].thing.label: self._axis(self._things[index]) for index in self.kept
        }

    @property
    def visible_fraction(self) -> dict[str, float]:
        """By label, the share of the thing's pixels that can be seen."""
        return {
            self._things[index].thing.label: round(self._look.visible[index], 4)
            for index in self.kept
        }

    def _axis(self, placed: Placed) -> Triple | None:
        if placed.thing.symmetry == "axis":
            return _triple(self._look.view.axes.T @ placed.axes[:, 2])
        return (0.0, 0.0, 0.0) if placed.thing.symmetry == "ball" else None

    def _candidate(self, index: int, frame: Frame) -> Candidate:
        placed, mask = self._things[index], self._look.things == index
        cloud = self._look.points.points_m[mask].astype(float)
        box = box_of_mask(mask)
        annotated = AnnotatedObject(
            label=placed.thing.label,
            box_xyxy_px=box,
            mask=encode_mask(mask),
            score=None,
            vertices_m=tuple(map(_triple, ordered_vertices(box_in_camera(placed, self._look)))),
            **cloud_facts(cloud),
        )
        return Candidate(placed.thing.label, box, mask=mask, cloud_m=cloud, annotated=annotated)


def box_in_camera(placed: Placed, look: Look) -> OrientedBox:
    """The box of the whole thing, in the camera's frame."""
    box, view = placed.box, look.view
    centre = view.in_camera(box.centre_m[None])[0]
    return OrientedBox(centre, view.axes.T @ box.axes, box.extents_m)


def _triple(values: NDArray) -> Triple:
    x, y, z = (float(value) for value in values)
    return x, y, z
