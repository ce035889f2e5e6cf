"""What a run comes to, counted while its records go by."""

import re
from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spear_policy.model.text.coordinate_bins import CoordinateBins
from spear_training.annotation.boxes.vertex_order import edges_of
from spear_training.annotation.records import Annotation

LONGEST_REASON = 160  # letters
MOST_REASONS = 500
OTHER_REASONS = "other reasons"
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass
class Tally:
    """Counts over all records. Grows by a few numbers an object, not with their points.

    Attributes:
        bins: to count how often each is used; None: they are not known.
        statuses: pictures by status.
        reasons: pictures by (status, reason); numbers and file names of a reason do not count.
        examples: of each of these, the first picture's id and its reason in full.
        per_picture: pictures by their number of objects; failed ones do not count.
        labels: objects by label.
        dropped: objects that were dropped, by reason.
        metric: pictures with objects, by whether their lengths are metres.
        seconds: by stage, of each picture.
        bin_uses: how many coordinates of sample points lie in each bin.
        ids: of the pictures that have objects.
        picture_numbers, label_numbers: of each object; into `ids`, `label_names`.
        label_names: each label once.
        longest_m, distance_m: of each object: the box's longest side, its centre's distance.
    """

    bins: CoordinateBins | None = None
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    per_picture: Counter[int] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    metric: Counter[bool] = field(default_factory=Counter)
    seconds: dict[str, array] = field(default_factory=lambda: defaultdict(lambda: array("f")))
    bin_uses: NDArray[np.int64] | None = None
    ids: list[str] = field(default_factory=list)
    picture_numbers: array = field(default_factory=lambda: array("l"))
    label_numbers: array = field(default_factory=lambda: array("l"))
    label_names: dict[str, int] = field(default_factory=dict)
    longest_m: array = field(default_factory=lambda: array("f"))
    distance_m: array = field(default_factory=lambda: array("f"))

    def add(self, annotation: Annotation) -> None:
        """Count one record."""
        self.statuses[annotation.status] += 1
        if annotation.status != "failed":
            self.per_picture[len(annotation.objects)] += 1
        if annotation.status != "ok":
            said = annotation.reason or "no reason"
            key = annotation.status, reason_group(said, annotation.image)
            key = _held(self.reasons, key, (annotation.status, OTHER_REASONS))
            self.reasons[key] += 1
            self.examples.setdefault(key, (annotation.id, said))
        for lost in annotation.dropped:
            reason = reason_group(lost.reason, annotation.image)
            self.dropped[_held(self.dropped, reason, OTHER_REASONS)] += 1
        for stage, seconds in annotation.seconds.items():
            self.seconds[stage].append(seconds)
        if annotation.objects:
            self._add_objects(annotation)

    @property
    def unit(self) -> str:
        """What lengths are in: m, or words."""
        if not self.metric[False]:
            return "m"
        return "m or units" if self.metric[True] else "units"

    def _add_objects(self, annotation: Annotation) -> None:
        self.metric[annotation.metric] += 1
        self.ids.append(annotation.id)
        for found in annotation.objects:
            self.labels[found.label] += 1
            number = self.label_names.setdefault(found.label, len(self.label_names))
            self.label_numbers.append(number)
            self.picture_numbers.append(len(self.ids) - 1)
            vertices = found.vertices
            sides = np.linalg.norm(edges_of(vertices), axis=1)
            self.longest_m.append(float(sides.max()))
            self.distance_m.append(float(np.linalg.norm(vertices.mean(axis=0))))
        if self.bins:
            points = [point for found in annotation.objects for point in found.sample_m]
            numbers = np.array(points, float).ravel()
            used = self.bins.encode(numbers[np.isfinite(numbers)])
            uses = np.bincount(used, minlength=self.bins.count)
            self.bin_uses = uses if self.bin_uses is None else self.bin_uses + uses


def _held(counts: Counter, key, other):
    """The key, or another one where there are too many already."""
    return key if key in counts or len(counts) < MOST_REASONS else other


def reason_group(reason: str, image: str) -> str:
    """A reason without what is the picture's own: its file becomes FILE, numbers become N."""
    for name in (image, Path(image).name):
        reason = reason.replace(name, "FILE")
    reason = " ".join(_NUMBER.sub("N", reason).split())
    return reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 1] + "\u2026"
