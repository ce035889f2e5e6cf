"""Boxes of a size that their label does not have: what a person should look at first."""

from dataclasses import dataclass

import numpy as np

from spear_training.annotation.inspection.tally import Tally

LEAST_OF_LABEL = 8
LEAST_OF_ALL = 30
MOST_RATIO = 4.0
_FENCE = 3.0  # interquartile ranges beyond the quartiles, of the logarithm


@dataclass(frozen=True)
class Outlier:
    """An object of an unusual size.

    Attributes:
        id: of its picture.
        label: its own.
        longest_m: longest side of its box.
        usual_m: median of its label; of all objects where there are fewer than LEAST_OF_LABEL.
        of_label: whether it is the label's.
    """

    id: str
    label: str
    longest_m: float
    usual_m: float
    of_label: bool

    @property
    def times(self) -> float:
        """How many times the usual size; below 1: smaller."""
        return self.longest_m / self.usual_m


def find_outliers(tally: Tally) -> list[Outlier]:
    """Objects more than 4 times as large as the median of their label, or less than a quarter.

    An object of a rare label is one if it is far out among all objects: on a logarithmic scale,
    3 interquartile ranges beyond the quartiles; fewer than 30 objects have no such range.

    Returns:
        The furthest out first.
    """
    longest = np.maximum(np.frombuffer(tally.longest_m, np.float32).astype(float), 1e-9)
    if not len(longest):
        return []
    numbers = np.frombuffer(tally.label_numbers, np.dtype(tally.label_numbers.typecode))
    sizes = np.log(longest)
    low, middle, high = np.quantile(sizes, (0.25, 0.5, 0.75))
    fence = _FENCE * (high - low)
    usual = np.full(len(sizes), middle)
    far = (
        (sizes < low - fence) | (sizes > high + fence)
        if len(sizes) >= LEAST_OF_ALL
        else (np.zeros(len(sizes), bool))
    )
    counts = np.bincount(numbers)
    frequent = counts[numbers] >= LEAST_OF_LABEL
    for of_label in np.split(np.argsort(numbers, kind="stable"), np.cumsum(counts)[:-1]):
        if len(of_label) >= LEAST_OF_LABEL:
            usual[of_label] = np.median(sizes[of_label])
    far[frequent] = np.abs(sizes - usual)[frequent] > np.log(MOST_RATIO)
    order = np.flatnonzero(far)
    order = order[np.argsort(-np.abs(sizes - usual)[order], kind="stable")]
    names = list(tally.label_names)
    return [
        Outlier(
            tally.ids[tally.picture_numbers[at]],
            names[numbers[at]],
            float(longest[at]),
            float(np.exp(usual[at])),
            bool(frequent[at]),
        )
        for at in order.tolist()
    ]
