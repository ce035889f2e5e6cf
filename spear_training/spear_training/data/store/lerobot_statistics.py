"""The statistics that LeRobot keeps beside its data: of each episode, and of all.

SPEAR trains with its own, over a whole mixture (data/statistics). These are for other readers of
the folder. Quantiles over all frames are exact: those of episodes cannot be merged.
"""

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def vector_statistics(values: NDArray) -> dict[str, NDArray]:
    """Of vectors (N, D), N >= 1: each statistic (D,) float64, and count (1,)."""
    columns = [np.asarray(column, float) for column in np.asarray(values).T]
    levels = list(QUANTILES.values())
    quantiles = np.array([np.quantile(column, levels) for column in columns])
    result = {
        "min": np.array([column.min() for column in columns]),
        "max": np.array([column.max() for column in columns]),
        "mean": np.array([column.mean() for column in columns]),
        "std": np.array([column.std() for column in columns]),
        "count": np.array([len(values)]),
    }
    return result | {name: quantiles[:, i] for i, name in enumerate(QUANTILES)}


def picture_statistics(histogram: NDArray[np.int64], counted: int) -> dict[str, NDArray]:
    """Of pictures, from how often each value occurs (3, 256): each (3, 1, 1) in 0..1.

    `counted` is how many pictures the histogram is of; of none, all statistics are 0.
    """
    values = np.arange(256) / 255
    total = histogram.sum(axis=1)
    seen = histogram > 0
    share = histogram / np.maximum(total, 1)[:, None]
    mean = share @ values
    result = {
        "min": values[seen.argmax(axis=1)] * (total > 0),
        "max": values[255 - seen[:, ::-1].argmax(axis=1)] * (total > 0),
        "mean": mean,
        "std": np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1)),
    }
    below = np.cumsum(histogram, axis=1)
    for name, level in QUANTILES.items():
        # The smallest value that at least this share of the pixels does not exceed.
        reached = below >= np.maximum(level * total, 1)[:, None]
        result[name] = values[reached.argmax(axis=1)]
    shaped = {name: value.reshape(3, 1, 1) for name, value in result.items()}
    return shaped | {"count": np.array([counted])}
