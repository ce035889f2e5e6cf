"""Whether a second annotation of the same picture, with other noise, says the same."""

from dataclasses import dataclass

import numpy as np

from spear_training.annotation.accuracy.box_iou import box_iou
from spear_training.annotation.accuracy.compare import matching_axes
from spear_training.annotation.records import Annotation


@dataclass(frozen=True)
class Repeat:
    """One object that both annotations have.

    Attributes:
        scene: id of its picture.
        label: in words.
        is_round: see `ObjectAccuracy`.
        order_kept: whether each vertex lies next to that of its number in the other annotation.
        vertex_shift_m: mean distance of the vertices of one number.
        iou: of the two boxes.
    """

    scene: str
    label: str
    is_round: bool
    order_kept: bool
    vertex_shift_m: float
    iou: float


@dataclass(frozen=True)
class RepeatSummary:
    """Many repeats: how many, the share whose order keeps, median shift and median IoU."""

    objects: int
    order_kept: float
    vertex_shift_m: float
    iou_median: float


def repeats(first: Annotation, second: Annotation, round_labels: set[str]) -> list[Repeat]:
    """Compare two annotations of one picture, object by object.

    Args:
        first: one of them.
        second: the other.
        round_labels: of the objects that have an axis of symmetry.

    Raises:
        ValueError: they are of different pictures.
    """
    if first.id != second.id:
        raise ValueError(f"{first.id} and {second.id} are different pictures")
    others = {found.label: found for found in second.objects}
    found = []
    for one in first.objects:
        if one.label in others:
            a, b = one.vertices, others[one.label].vertices
            shift = np.linalg.norm(a - b, axis=1).mean()
            is_round = one.label in round_labels
            kept = matching_axes(a, b)[1]
            found.append(Repeat(first.id, one.label, is_round, kept, float(shift), box_iou(a, b)))
    return found


def summarise_repeats(entries: list[Repeat]) -> dict[str, RepeatSummary]:
    """Summaries by the name of the group, for those that have any object."""
    groups = {
        "not round": [entry for entry in entries if not entry.is_round],
        "round": [entry for entry in entries if entry.is_round],
    }
    return {
        name: RepeatSummary(
            objects=len(group),
            order_kept=float(np.mean([entry.order_kept for entry in group])),
            vertex_shift_m=float(np.median([entry.vertex_shift_m for entry in group])),
            iou_median=float(np.median([entry.iou for entry in group])),
        )
        for name, group in groups.items()
        if group
    }
