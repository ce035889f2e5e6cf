"""What many comparisons come to: medians, tails and shares, for all scenes and for each kind."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from spear_training.annotation.accuracy.compare import ObjectAccuracy

ALL = "all"
CLEARLY_SEEN = 0.9  # of an object's pixels, for the groups of objects that little hides


@dataclass(frozen=True)
class Spread:
    """The middle and the bad end of some numbers: median, and 90th percentile."""

    median: float
    p90: float


@dataclass(frozen=True)
class GroupSummary:
    """What became of a group of true objects; None where there is nothing to say.

    Attributes:
        objects, found: how many there are, and how many of them were annotated.
        lost: number of those that were not, by the reason.
        centre_error_m, centre_error_share, extent_error_m, extent_error_share: see
            `ObjectAccuracy`; shares are of the true box's diagonal.
        iou_median, iou_over_25, iou_over_50: median, and shares of those found whose IoU is
            above 0.25 and 0.5.
        ordered: how many of those found have an order of vertices, which round ones have not.
        order_kept: the share of these whose order is the true one.
    """

    objects: int
    found: int
    lost: dict[str, int]
    centre_error_m: Spread | None
    centre_error_share: Spread | None
    extent_error_m: Spread | None
    extent_error_share: Spread | None
    iou_median: float | None
    iou_over_25: float | None
    iou_over_50: float | None
    ordered: int
    order_kept: float | None

    @property
    def recall(self) -> float | None:
        """The share of the objects that were annotated."""
        return self.found / self.objects if self.objects else None

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return asdict(self) | {"recall": self.recall}


def summarise(objects: Sequence[ObjectAccuracy]) -> dict[str, GroupSummary]:
    """Summaries by the name of the group: all, then each kind of scene, then what is well seen.

    The kind of a scene is its id without the number at its end: `room` for `room/000012`.
    """
    kinds = sorted({kind_of_scene(entry.scene) for entry in objects})
    groups: dict[str, Callable[[ObjectAccuracy], bool]] = {ALL: lambda entry: True}
    if len(kinds) > 1:
        groups |= {
            kind: lambda entry, kind=kind: kind_of_scene(entry.scene) == kind for kind in kinds
        }
    groups |= {
        f"{CLEARLY_SEEN:.0%} visible": lambda entry: (entry.visible_fraction or 0) >= CLEARLY_SEEN,
        "not round": lambda entry: not entry.is_round,
        "round": lambda entry: entry.is_round,
    }
    return {
        name: _group([entry for entry in objects if belongs(entry)])
        for name, belongs in groups.items()
    }


def kind_of_scene(scene: str) -> str:
    """Name the kind of a scene from its id."""
    return re.sub(r"[/_\-\d]+$", "", scene) or ALL


def _group(objects: Sequence[ObjectAccuracy]) -> GroupSummary:
    found = [entry for entry in objects if entry.lost is None]
    ious = np.array([entry.iou for entry in found])
    orders = [entry.order_kept for entry in found if entry.order_kept is not None]
    # Numbers in reasons would make each of them another.
    lost = Counter(re.sub(r"\d+", "N", entry.lost) for entry in objects if entry.lost is not None)
    return GroupSummary(
        objects=len(objects),
        found=len(found),
        lost=dict(lost.most_common()),
        centre_error_m=_spread(entry.centre_error_m for entry in found),
        centre_error_share=_spread(entry.centre_error_share for entry in found),
        extent_error_m=_spread(entry.extent_error_m for entry in found),
        extent_error_share=_spread(entry.extent_error_share for entry in found),
        iou_median=float(np.median(ious)) if found else None,
        iou_over_25=float(np.mean(ious > 0.25)) if found else None,
        iou_over_50=float(np.mean(ious > 0.5)) if found else None,
        ordered=len(orders),
        order_kept=float(np.mean(orders)) if orders else None,
    )


def _spread(values: Iterable[float]) -> Spread | None:
    values = list(values)
    if not values:
        return None
    median, tail = np.percentile(values, [50, 90])
    return Spread(float(median), float(tail))
