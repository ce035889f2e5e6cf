"""How far annotated boxes are from the true ones, object by object."""

from dataclasses import asdict, dataclass
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.accuracy.box_iou import box_iou
from spear_training.annotation.accuracy.round_objects import turned_to_agree
from spear_training.annotation.accuracy.truth import SceneTruth
from spear_training.annotation.boxes.vertex_order import CORNER_SIDES, edges_of
from spear_training.annotation.records import AnnotatedObject, Annotation

NOT_FOUND = "not found"


def _namings():
    """The 48 ways to name a box's axes: their new order, and that of the corners; first: as is."""
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            sides = (CORNER_SIDES * signs)[:, np.argsort(order)]
            yield list(order), ((sides @ [4, 2, 1] + 7) / 2).astype(int)


_NAMINGS = tuple(_namings())


@dataclass(frozen=True)
class ObjectAccuracy:
    """One true object and what became of it; numbers are None where it was lost.

    Attributes:
        scene: id of its picture.
        label: in words.
        is_round: whether it has an axis of symmetry: its true box may be turned about that axis,
            and its vertices have no true order.
        diagonal_m: of its true box.
        visible_fraction: the share of its pixels that nothing hides; None where nobody said.
        lost: why it has no annotation; None where it has one.
        centre_error_m: distance of the boxes' centres.
        extent_error_m: largest difference of the lengths of matching edges.
        iou: volume of the intersection over that of the union.
        order_kept: whether each vertex lies next to the true one of its number.
    """

    scene: str
    label: str
    is_round: bool
    diagonal_m: float
    visible_fraction: float | None = None
    lost: str | None = None
    centre_error_m: float | None = None
    extent_error_m: float | None = None
    iou: float | None = None
    order_kept: bool | None = None

    @property
    def centre_error_share(self) -> float | None:
        """Distance of the centres as a share of the true box's diagonal."""
        return None if self.centre_error_m is None else self.centre_error_m / self.diagonal_m

    @property
    def extent_error_share(self) -> float | None:
        """Error of the extents as a share of the true box's diagonal."""
        return None if self.extent_error_m is None else self.extent_error_m / self.diagonal_m

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return asdict(self)


def compare_scene(truth: SceneTruth, annotation: Annotation | None) -> list[ObjectAccuracy]:
    """Compare the annotation of a picture with its truth; objects are matched by their labels.

    Args:
        truth: what is there.
        annotation: of the same picture; None: there is none.

    Returns:
        One entry for each true object.

    Raises:
        ValueError: they are of different pictures.
    """
    if annotation is not None and annotation.id != truth.annotation.id:
        raise ValueError(
            f"the annotation of {annotation.id} is compared with the truth of {truth.annotation.id}"
        )
    return [_compare(truth, there, annotation) for there in truth.annotation.objects]


def _compare(truth, there, annotation):
    axis = truth.axes_of_symmetry.get(there.label)
    known = {
        "scene": truth.annotation.id,
        "label": there.label,
        "is_round": axis is not None,
        "diagonal_m": float(np.linalg.norm(there.vertices[7] - there.vertices[0])),
        "visible_fraction": truth.visible_fraction.get(there.label),
    }
    found = None if annotation is None else _named(annotation, there.label)
    if found is None:
        return ObjectAccuracy(**known, lost=_why_lost(annotation, there.label))
    true_vertices, vertices = there.vertices, found.vertices
    if axis is not None:
        true_vertices = turned_to_agree(true_vertices, axis, vertices)
    order, is_first = matching_axes(vertices, true_vertices)
    extents, true_extents = (
        np.linalg.norm(edges_of(corners), axis=1) for corners in (vertices, true_vertices)
    )
    return ObjectAccuracy(
        **known,
        centre_error_m=float(np.linalg.norm(found.centre_m - there.centre_m)),
        extent_error_m=float(np.abs(extents[order] - true_extents).max()),
        iou=box_iou(vertices, true_vertices),
        order_kept=None if axis is not None else is_first,
    )


def matching_axes(
    vertices_m: NDArray[np.float64], true_vertices_m: NDArray[np.float64]
) -> tuple[list[int], bool]:
    """Name the axes of a box so that its corners (8, 3) come closest to those of another.

    Returns:
        The order of its axes that fits, and whether its corners were in the best order already.
    """
    distances = [
        np.linalg.norm(vertices_m[corners] - true_vertices_m, axis=1).sum()
        for _, corners in _NAMINGS
    ]
    best = int(np.argmin(distances))
    return _NAMINGS[best][0], best == 0


def _named(annotation: Annotation, label: str) -> AnnotatedObject | None:
    return next((found for found in annotation.objects if found.label == label), None)


def _why_lost(annotation, label):
    if annotation is None:
        return "its picture has no annotation"
    if annotation.status == "failed":
        return f"its picture failed: {annotation.reason}"
    return next((drop.reason for drop in annotation.dropped if drop.label == label), NOT_FOUND)
