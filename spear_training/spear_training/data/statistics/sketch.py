"""Quantiles, mean and deviation of more numbers than fit into memory.

Counts of bins that grow with the value, as in DDSketch (Masson, Rim and Lee, VLDB 2019). Counts
are added, so parts can be gathered in any order by any number of processes and come to the same
sketch to the last bit; a hash over the result means something.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

RELATIVE_ERROR = 2.5e-4  # of a quantile
SMALLEST, LARGEST = 1e-6, 1e4  # magnitudes beyond these share one bin
# Sums are kept in whole millionths, exactly: floats would depend on the order of adding.
_UNIT = 1e-6

_PART = 1 << 20  # values whose squares are summed at once without overflow

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_REACH = math.ceil(math.log(LARGEST / SMALLEST) / math.log(_GAMMA))


@dataclass
class Sketch:
    """What is kept of a series of numbers.

    Attributes:
        counts: (2 * reach + 1,) of the bins: negative ones, zero, positive ones.
        total, total_of_squares: exact sums of the values in millionths.
        low, high: the smallest and the largest value.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * _REACH + 1, np.int64))
    total: int = 0
    total_of_squares: int = 0
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: ArrayLike) -> None:
        """Count values, any shape.

        Raises:
            ValueError: a value is not finite.
        """
        values = np.asarray(values, float).ravel()
        if not len(values):
            return
        if not np.isfinite(values).all():
            raise ValueError("a value is not finite: leave the episode out")
        for begin in range(0, len(values), _PART):
            self._add_part(values[begin : begin + _PART])

    def _add_part(self, values: NDArray) -> None:
        self.counts += np.bincount(_bins(values), minlength=len(self.counts))
        whole = np.rint(np.clip(values, -LARGEST, LARGEST) / _UNIT).astype(np.int64)
        self.total += int(whole.sum())
        # Squares of whole numbers up to 1e10 overflow 64 bits in a sum: add their halves apart.
        upper, lower = np.divmod(whole, 1 << 20)
        self.total_of_squares += (
            (int(upper @ upper) << 40) + (int(upper @ lower) << 21) + int(lower @ lower)
        )
        self.low, self.high = min(self.low, values.min()), max(self.high, values.max())

    def merge(self, other: "Sketch") -> None:
        """Take in what another sketch has counted."""
        self.counts += other.counts
        self.total += other.total
        self.total_of_squares += other.total_of_squares
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    @property
    def count(self) -> int:
        """How many values."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Mean; NaN of nothing."""
        return self.total * _UNIT / self.count if self.count else math.nan

    @property
    def std(self) -> float:
        """Standard deviation of the values themselves, not of a sample; NaN of nothing."""
        if not self.count:
            return math.nan
        spread = self.count * self.total_of_squares - self.total**2
        return math.sqrt(max(spread, 0)) * _UNIT / self.count

    def quantile(self, share: float) -> float:
        """The value below which a share (0..1) of all lies, within `RELATIVE_ERROR`."""
        return pooled_quantile([self], [1.0], share)

    def share_between(self, low: float, high: float) -> float:
        """Share of the values from `low` to `high`, within the bins' width; NaN of nothing."""
        if not self.count:
            return math.nan
        first, last = _bins(np.array([low, high]))
        return float(self.counts[first : last + 1].sum() / self.count)

    def to_dict(self) -> dict:
        """Plain values for JSON; only bins with something in them."""
        used = np.flatnonzero(self.counts)
        return {
            "bins": {str(int(i) - _REACH): int(self.counts[i]) for i in used},
            "total_millionths": self.total,
            "total_of_squares": self.total_of_squares,
            "low": self.low if used.size else None,
            "high": self.high if used.size else None,
        }

    @classmethod
    def from_dict(cls, values: dict) -> "Sketch":
        """Read what `to_dict` wrote.

        Raises:
            ValueError: it is no sketch, or one with other bins.
        """
        try:
            sketch = cls(
                total=int(values["total_millionths"]),
                total_of_squares=int(values["total_of_squares"]),
            )
            for bin_, count in values["bins"].items():
                if not -_REACH <= int(bin_) <= _REACH:
                    raise ValueError(f"bin {bin_} does not exist")
                sketch.counts[int(bin_) + _REACH] = int(count)
            if values["bins"]:
                sketch.low, sketch.high = float(values["low"]), float(values["high"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no sketch ({type(error).__name__}: {error})") from None
        return sketch


def pooled_quantile(sketches: Sequence[Sketch], shares: Sequence[float], share: float) -> float:
    """A quantile of a mixture; see `pooled_quantiles`."""
    return float(pooled_quantiles(sketches, shares, [share])[0])


def pooled_quantiles(
    sketches: Sequence[Sketch], shares: Sequence[float], wanted: ArrayLike
) -> NDArray[np.float64]:
    """Quantiles of a mixture in which each part has a share, whatever number of values it has.

    Within a bin the values count as evenly spread, so quantiles of rising shares rise.

    Args:
        sketches, shares: of the parts; only the shares' ratios count.
        wanted: (Q,) shares of all values, 0..1.

    Raises:
        ValueError: a wanted share outside 0..1, or nothing was counted.
    """
    wanted = np.asarray(wanted, float)
    if not ((wanted >= 0) & (wanted <= 1)).all():
        raise ValueError(f"quantiles are asked for by shares of 0..1, not {wanted.tolist()}")
    parts = _counted(sketches, shares)
    mass = sum(sketch.counts * (weight / sketch.count) for sketch, weight in parts)
    used = np.flatnonzero(mass)
    below = np.concatenate([[0.0], np.cumsum(mass[used])])
    place = np.clip(np.searchsorted(below, wanted * below[-1]) - 1, 0, len(used) - 1)
    inside = (wanted * below[-1] - below[place]) / (below[place + 1] - below[place])
    low, high = _edges(used[place] - _REACH)
    found = low + np.clip(inside, 0, 1) * (high - low)
    ends = min(sketch.low for sketch, _ in parts), max(sketch.high for sketch, _ in parts)
    return np.clip(found, *ends)


def pooled_mean_std(sketches: Sequence[Sketch], shares: Sequence[float]) -> tuple[float, float]:
    """Mean and deviation of a mixture in which each part has a share.

    Raises:
        ValueError: nothing was counted.
    """
    parts = _counted(sketches, shares)
    whole = sum(weight for _, weight in parts)
    mean = sum(weight * sketch.mean for sketch, weight in parts) / whole
    square = sum(weight * (sketch.std**2 + sketch.mean**2) for sketch, weight in parts) / whole
    return mean, math.sqrt(max(square - mean**2, 0.0))


def _bins(values: NDArray) -> NDArray[np.int64]:
    magnitude = np.clip(np.abs(values), SMALLEST, LARGEST)
    steps = np.ceil(np.log(magnitude / SMALLEST) / math.log(_GAMMA)).astype(np.int64)
    steps[np.abs(values) < SMALLEST] = 0
    return np.sign(values).astype(np.int64) * np.minimum(steps, _REACH) + _REACH


def _counted(sketches: Sequence[Sketch], shares: Sequence[float]) -> list[tuple[Sketch, float]]:
    parts = [(s, w) for s, w in zip(sketches, shares, strict=True) if s.count and w > 0]
    if not parts:
        raise ValueError("there are no values: nothing was counted, or no part has a share")
    return parts


def _edges(bins: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lower and the upper end of bins, numbered from zero's."""
    outer = np.where(bins == 0, SMALLEST, SMALLEST * _GAMMA ** np.abs(bins).astype(float))
    inner = np.where(bins == 0, -SMALLEST, outer / _GAMMA)
    return np.where(bins < 0, -outer, inner), np.where(bins < 0, -inner, outer)
