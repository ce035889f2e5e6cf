"""From the motions of a mixture's datasets to the numbers that normalise them (Table 10).

| scheme | low, high of a translation and a position |
|---|---|
| global_quantile | 1 % and 99 % of the whole mixture, each dataset with its share |
| const | bounds that the user gives, alike for all |
| dataset_quantile | 1 % and 99 % of each dataset for itself |
| mean_std | mean and deviation of the whole mixture |

The first is the paper's (arXiv 2511.17411, section 3.2).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from spear_policy.inference.statistics import Range, Statistics, statistics_hash
from spear_policy.shared.config import ConfigError
from spear_policy.shared.files import write_atomically
from spear_training.data.reader import DataFileError
from spear_training.data.statistics.motion import MotionStatistics
from spear_training.data.statistics.sketch import Sketch, pooled_mean_std, pooled_quantile

Scheme = Literal["global_quantile", "const", "dataset_quantile", "mean_std"]
SCHEMES = ("global_quantile", "const", "dataset_quantile", "mean_std")
LOW, HIGH = 0.01, 0.99


@dataclass(frozen=True)
class ConstBounds:
    """Bounds for the scheme const, the same for every dataset, x, y, z [m].

    Attributes:
        translation_low_m, translation_high_m: of a chunk's translations.
        position_low_m, position_high_m: of the end effector in the base frame.
    """

    translation_low_m: tuple[float, float, float] = (-0.1, -0.1, -0.1)
    translation_high_m: tuple[float, float, float] = (0.1, 0.1, 0.1)
    position_low_m: tuple[float, float, float] = (-1.0, -1.0, -1.0)
    position_high_m: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Normalisation:
    """What every sample of a mixture is normalised by.

    Attributes:
        scheme: one of `SCHEMES`.
        pooled: of the whole mixture; goes into a checkpoint's card unless the scheme is
            dataset_quantile.
        by_dataset: what to use for each dataset.
    """

    scheme: Scheme
    pooled: Statistics
    by_dataset: Mapping[str, Statistics]

    def card_statistics(self, robot_dataset: str | None = None) -> Statistics:
        """The statistics of a checkpoint's card.

        Args:
            robot_dataset: whose robot the checkpoint is for; needed by dataset_quantile only.

        Raises:
            ValueError: dataset_quantile without a known dataset.
        """
        if self.scheme != "dataset_quantile":
            return self.pooled
        if robot_dataset not in self.by_dataset:
            raise ValueError(
                f"the scheme dataset_quantile needs to know whose robot the checkpoint is for: one "
                f"of {', '.join(sorted(self.by_dataset))}, not {robot_dataset}"
            )
        return self.by_dataset[robot_dataset]

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the pooled statistics and of each dataset's, as cards carry them."""
        each = {name: statistics_hash(found) for name, found in sorted(self.by_dataset.items())}
        return {"pooled": statistics_hash(self.pooled), **each}


def normalisation(
    motions: Mapping[str, MotionStatistics],
    shares: Mapping[str, float],
    scheme: Scheme = "global_quantile",
    bounds: ConstBounds | None = None,
) -> Normalisation:
    """Work the statistics of a mixture out.

    Args:
        motions: of each dataset.
        shares: of each dataset in the mixture; only their ratios count.
        scheme: see the module.
        bounds: for const.

    Raises:
        ValueError: an unknown scheme, datasets that do not match, or one without motion.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"the scheme is {scheme!r}: it may be one of {', '.join(SCHEMES)}")
    if not motions or set(motions) != set(shares):
        unmatched = sorted(set(motions) ^ set(shares)) or "none at all"
        raise ValueError(f"statistics and shares must name the same datasets; not: {unmatched}")
    if empty := sorted(name for name, motion in motions.items() if not motion.moments):
        raise ValueError(f"no motion was counted in {', '.join(empty)}")
    names = sorted(motions)  # one order, so that sums of floats come out the same
    weights = [shares[name] for name in names]
    pooled = _statistics([motions[name] for name in names], weights, scheme, bounds)
    if scheme == "dataset_quantile":
        each = {name: _own(motions[name], pooled, scheme, bounds) for name in names}
    else:
        each = dict.fromkeys(names, pooled)
    return Normalisation(scheme, pooled, each)


def _own(
    motion: MotionStatistics, pooled: Statistics, scheme: Scheme, bounds: ConstBounds | None
) -> Statistics:
    """Of one dataset; the pooled positions where nobody knows where its robot stood."""
    if motion.position[0].count:
        return _statistics([motion], [1.0], scheme, bounds)
    placed = replace(motion, position=motion.translation)
    return replace(_statistics([placed], [1.0], scheme, bounds), position=pooled.position)


def _statistics(
    motions: list[MotionStatistics],
    weights: list[float],
    scheme: Scheme,
    bounds: ConstBounds | None,
) -> Statistics:
    fixed = bounds or ConstBounds()
    ends = {
        "translation": (fixed.translation_low_m, fixed.translation_high_m),
        "position": (fixed.position_low_m, fixed.position_high_m),
    }
    ranges = {}
    for kind, (low, high) in ends.items():
        axes = [[getattr(motion, kind)[axis] for motion in motions] for axis in range(3)]
        found = _range(axes, weights)
        ranges[kind] = Range(low, high, found.mean, found.std) if scheme == "const" else found
    return Statistics("mean_std" if scheme == "mean_std" else "quantile", **ranges)


def _range(axes: list[list[Sketch]], weights: list[float]) -> Range:
    moments = [pooled_mean_std(sketches, weights) for sketches in axes]
    return Range(
        low=tuple(pooled_quantile(sketches, weights, LOW) for sketches in axes),
        high=tuple(pooled_quantile(sketches, weights, HIGH) for sketches in axes),
        mean=tuple(mean for mean, _ in moments),
        std=tuple(std for _, std in moments),
    )


# statistics.json -------------------------------------------------------------------------------


FORMAT, VERSION = "spear-statistics", 1


def write_normalisation(
    path: Path, found: Normalisation, shares: Mapping[str, float], rows: Mapping[str, str]
) -> None:
    """Write it, whole or not at all.

    Args:
        path: of the file.
        found: what to write.
        shares: of each dataset in the mixture.
        rows: hash of the table row that each dataset was imported by, or "".

    Raises:
        OSError: it cannot be written.
    """
    values = {
        "format": FORMAT,
        "version": VERSION,
        "scheme": found.scheme,
        "pooled": _hashed(found.pooled),
        "data_sets": {
            name: {"share": shares[name], "row_hash": rows[name], **_hashed(statistics)}
            for name, statistics in sorted(found.by_dataset.items())
        },
    }
    write_atomically(path, (json.dumps(values, indent=1) + "\n").encode())


def read_normalisation(path: Path) -> Normalisation:
    """Read what `write_normalisation` wrote.

    Raises:
        DataFileError: missing, damaged, foreign or newer, or numbers that somebody edited.
    """
    try:
        values = json.loads(Path(path).read_text())
        if (values.get("format"), values.get("version")) != (FORMAT, VERSION):
            raise DataFileError(f"{path}: is no {FORMAT} {VERSION}; make it again with spear_stats")
        if values["scheme"] not in SCHEMES:
            raise ValueError(f"unknown scheme {values['scheme']!r}")
        datasets = {name: _checked(part) for name, part in values["data_sets"].items()}
        return Normalisation(values["scheme"], _checked(values["pooled"]), datasets)
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read ({error.strerror}); run spear_stats") from None
    except DataFileError:
        raise
    except (ConfigError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataFileError(
            f"{path}: damaged ({type(error).__name__}: {error}); make it again with spear_stats"
        ) from None


def _hashed(statistics: Statistics) -> dict:
    return {"statistics": statistics.to_dict(), "hash": statistics_hash(statistics)}


def _checked(values: dict) -> Statistics:
    statistics = Statistics.from_dict(values["statistics"])
    if statistics_hash(statistics) != values["hash"]:
        raise ValueError("the hash is of other numbers: somebody edited them")
    return statistics
