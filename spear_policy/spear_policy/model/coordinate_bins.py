"""Bins of the 3D tokens: a coordinate in metres to a token's number and back.

The bins are narrow where the data is dense, so that the tokens are used about equally often. One
range serves x, y and z.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

BINS_FILE = "bins.json"  # in the folder of a data set, and beside the weights of stage 1
SCHEMES = ("normal", "empirical")


@dataclass(frozen=True)
class CoordinateBins:
    """Edges of the bins, ascending; bin i lies between edges i and i + 1.

    Values outside the edges belong to the outermost bins.

    Attributes:
        edges_m: count + 1 of them.
        scheme: normal: equal shares of a normal distribution. empirical: equal shares of the
            values themselves, for skewed data.
    """

    edges_m: tuple[float, ...]
    scheme: Literal["normal", "empirical"] = "normal"

    def __post_init__(self):
        """Refuse edges that leave a bin without a middle.

        Raises:
            ValueError: with the edge and the fix.
        """
        _check_scheme(self.scheme)
        edges, middles = self._edges, self._middles
        if edges.ndim != 1 or len(edges) < 2:
            raise ValueError("bins need a list of at least two edges")
        if not np.isfinite(edges).all():
            raise ValueError("an edge of the bins is not finite: fit them again")
        bad = np.flatnonzero((edges[:-1] >= middles) | (middles >= edges[1:]))
        if len(bad):
            raise ValueError(
                f"edges {bad[0]} and {bad[0] + 1} of the bins do not ascend "
                f"({edges[bad[0]]!r}, {edges[bad[0] + 1]!r}): the values repeat too often for "
                f"{self.count} bins; fit fewer bins, other values or the scheme 'normal'"
            )

    @classmethod
    def fit(
        cls,
        values_m: ArrayLike,
        count: int,
        scheme: Literal["normal", "empirical"] = "normal",
        low: float = 1.0,
        high: float = 99.0,
    ) -> "CoordinateBins":
        """Fit bins to coordinates.

        Args:
            values_m: any shape; the pooled x, y and z of points on objects (m).
            count: number of bins: the vocabulary's coordinate_tokens.
            scheme: see the class.
            low: percentile at which the first bin begins.
            high: percentile at which the last bin ends.

        Raises:
            ValueError: NaN or infinity, fewer values than bins, or values that are all the same.
        """
        values = np.asarray(values_m, float).ravel()
        _check_scheme(scheme)
        if count < 1:
            raise ValueError(f"count is {count}: there must be at least one bin")
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles {low}, {high}: they must ascend within 0..100")
        if len(values) < max(count, 2):
            raise ValueError(
                f"{len(values)} values are too few for {count} bins: give at least as many values "
                "as bins"
            )
        _check_finite(values)
        if scheme == "empirical":
            edges = np.percentile(values, np.linspace(low, high, count + 1))
            return cls(tuple(edges.tolist()), "empirical")
        z_min, z_max = np.percentile(values, [low, high])
        return cls.normal(values.mean(), values.std(), z_min, z_max, count)

    @classmethod
    def normal(
        cls, mean_m: float, std_m: float, z_min_m: float, z_max_m: float, count: int
    ) -> "CoordinateBins":
        """Cut the part of a normal distribution between two values into equal shares.

        Edge i is mean + std * Phi^-1(Phi(a) + i/count * (Phi(b) - Phi(a))), with a and b the
        ends in units of std.

        Raises:
            ValueError: std is not positive or the ends do not ascend.
        """
        if not (np.isfinite([mean_m, std_m, z_min_m, z_max_m]).all() and std_m > 0):
            raise ValueError(
                f"mean {mean_m!r} m, std {std_m!r} m: they must be finite and the values must "
                "not be all the same"
            )
        a, b = ndtr((np.array([z_min_m, z_max_m]) - mean_m) / std_m)
        edges = mean_m + std_m * ndtri(a + np.arange(count + 1) / count * (b - a))
        edges[[0, -1]] = z_min_m, z_max_m
        return cls(tuple(edges.tolist()))

    @property
    def count(self) -> int:
        """Number of bins."""
        return len(self.edges_m) - 1

    def encode(self, z_m: ArrayLike) -> NDArray[np.int64]:
        """Number of the bin, 0 .. count - 1, of each coordinate (m); any shape.

        Raises:
            ValueError: NaN or infinity.
        """
        z = np.asarray(z_m, float)
        _check_finite(z)
        found = np.searchsorted(self._edges, z, side="right") - 1
        return np.clip(found, 0, self.count - 1)

    def decode(self, index: ArrayLike) -> NDArray[np.float64]:
        """Middle (m) of each bin; any shape.

        Raises:
            ValueError: there is no such bin.
        """
        index = np.asarray(index)
        if not np.issubdtype(index.dtype, np.integer):
            raise ValueError(f"bins are numbered by integers, not {index.dtype}")
        if ((index < 0) | (index >= self.count)).any():
            raise ValueError(f"there is no bin {index.tolist()}: they are 0..{self.count - 1}")
        return self._middles[index]

    def to_dict(self) -> dict:
        """Plain values for JSON; Python writes and reads each edge exactly."""
        return {"scheme": self.scheme, "edges_m": list(self.edges_m)}

    @classmethod
    def from_dict(cls, values: dict) -> "CoordinateBins":
        """Read what `to_dict` wrote.

        Raises:
            ValueError: something is missing, unknown or no number.
        """
        if not isinstance(values, dict) or set(values) != {"scheme", "edges_m"}:
            raise ValueError("the bins' description must have exactly: scheme, edges_m")
        try:
            edges = tuple(float(edge) for edge in values["edges_m"])
        except (TypeError, ValueError):
            raise ValueError("edges_m of the bins must be a list of numbers") from None
        return cls(edges, values["scheme"])

    @cached_property
    def _edges(self):
        return np.array(self.edges_m, float)

    @cached_property
    def _middles(self):
        return (self._edges[:-1] + self._edges[1:]) / 2


def _check_scheme(scheme):
    if scheme not in SCHEMES:
        raise ValueError(f"the scheme of the bins is {scheme!r}: choose from {', '.join(SCHEMES)}")


def _check_finite(values):
    wrong = values.size - np.isfinite(values).sum()
    if wrong:
        raise ValueError(
            f"{wrong} of {values.size} coordinates are not finite (NaN or infinity): remove the "
            "masked pixels of the point map first"
        )
