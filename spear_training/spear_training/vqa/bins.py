"""Bins of the 3D tokens, fitted to the objects of a dataset or a mixture, and their file.

The rule of arXiv 2511.17411: all x, y and z of points on objects in one pool, cut at the
1st and 99th percentile. In a mixture each dataset counts by its share.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from spear_policy.model.coordinate_bins import CoordinateBins
from spear_policy.shared.files import write_lines
from spear_training.annotation.records import Annotation
from spear_training.annotation.stages import JobError
from spear_training.data.statistics.sketch import Sketch, pooled_mean_std, pooled_quantiles

COUNT = 1024
LOW_PERCENT, HIGH_PERCENT = 1.0, 99.0
_FORMAT = "spear bins 1"


@dataclass(frozen=True)
class FittedOn:
    """A dataset that bins were fitted on.

    Attributes:
        name: of the dataset.
        sha256: of its coordinates in their order.
        share: its weight.
        pictures, objects, coordinates: how many; pictures without objects do not count.
        metric: whether lengths are metres; None where the dataset has both.
    """

    name: str
    sha256: str
    share: float
    pictures: int
    objects: int
    coordinates: int
    metric: bool | None


@dataclass(frozen=True)
class FittedBins:
    """Bins and where they come from.

    Attributes:
        bins: the edges.
        fitted_on: the datasets.
        min_m, max_m: of all coordinates.
        share_clipped: of the coordinates that lie outside the edges.
    """

    bins: CoordinateBins
    fitted_on: tuple[FittedOn, ...]
    min_m: float
    max_m: float
    share_clipped: float

    def save(self, path: Path) -> None:
        """Write the file whole, or leave what is there.

        Raises:
            JobError: the disk is full.
        """
        values = {"format": _FORMAT, "count": self.bins.count, **self.bins.to_dict()}
        values |= {"min_m": self.min_m, "max_m": self.max_m, "share_clipped": self.share_clipped}
        values["fitted_on"] = [asdict(each) for each in self.fitted_on]
        write_lines(path, [json.dumps(values, ensure_ascii=False).encode()])

    @classmethod
    def load(cls, path: Path) -> "FittedBins":
        """Read what `save` wrote.

        Raises:
            JobError: it is not there, or it is no such file.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] != _FORMAT:
                raise ValueError(f"its format is {values['format']!r}, not {_FORMAT!r}")
            bins = {name: values[name] for name in ("scheme", "edges_m")}
            return cls(
                CoordinateBins.from_dict(bins),
                tuple(FittedOn(**each) for each in values["fitted_on"]),
                *(float(values[name]) for name in ("min_m", "max_m", "share_clipped")),
            )
        except OSError as error:
            raise JobError(f"{path} cannot be read ({error.strerror})") from None
        except (ValueError, TypeError, KeyError) as error:
            raise JobError(
                f"{path} holds no bins ({type(error).__name__}: {error}): `annotate questions` "
                "fits them"
            ) from None


@dataclass(frozen=True)
class BinSource:
    """A dataset to fit bins on: its name, share and records."""

    name: str
    share: float
    annotations: Iterable[Annotation]


def fit_bins(
    sources: Iterable[BinSource],
    count: int = COUNT,
    scheme: Literal["normal", "empirical"] = "normal",
    mixed_units: bool = False,
) -> FittedBins:
    """Fit bins. Memory does not grow with the data.

    Args:
        sources: read one after another, once.
        count: number of bins: the vocabulary's coordinate_tokens.
        scheme: see `CoordinateBins`.
        mixed_units: fit metric and unit-less data together nevertheless.

    Raises:
        JobError: metric and unit-less data meet, there are too few coordinates or they do not
            spread.
    """
    read = [_read(source) for source in sources]
    fitted_on = [each for each, _ in read]
    units = {each.metric for each in fitted_on if each.objects}
    if (None in units or len(units) > 1) and not mixed_units:
        raise JobError(
            f"{' and '.join(each.name for each in fitted_on)}: some lengths are metres and some "
            "have the depth model's own unit; one set of bins cannot serve both: annotate all "
            "with one kind of geometry, or allow it with --mixed-units"
        )
    coordinates = sum(each.coordinates for each in fitted_on)
    if coordinates < count:
        names = ", ".join(each.name for each in fitted_on)
        raise JobError(
            f"{names}: {coordinates} coordinates of objects are too few for {count} bins: "
            "annotate more pictures"
        )
    try:
        used = [(sketch, each.share) for each, sketch in read if each.coordinates]
        sketches, shares = zip(*used, strict=True)
        bins = _fit(sketches, shares, count, scheme)
    except ValueError as error:
        raise JobError(f"no bins can be fitted: {error}") from None
    low, high = min(sketch.low for sketch in sketches), max(sketch.high for sketch in sketches)
    inside = [sketch.share_between(bins.edges_m[0], bins.edges_m[-1]) for sketch in sketches]
    clipped = 1 - float(np.average(inside, weights=shares))
    return FittedBins(bins, tuple(fitted_on), low, high, clipped)


def _fit(
    sketches: Sequence[Sketch], shares: Sequence[float], count: int, scheme: str
) -> CoordinateBins:
    ends = LOW_PERCENT / 100, HIGH_PERCENT / 100
    if scheme == "empirical":
        edges = pooled_quantiles(sketches, shares, np.linspace(*ends, count + 1))
        return CoordinateBins(tuple(edges.tolist()), "empirical")
    mean, std = pooled_mean_std(sketches, shares)
    return CoordinateBins.normal(mean, std, *pooled_quantiles(sketches, shares, ends), count)


def _read(source: BinSource) -> tuple[FittedOn, Sketch]:
    sketch, digest = Sketch(), hashlib.sha256()
    pictures = objects = 0
    metric = set()
    for annotation in source.annotations:
        if not annotation.objects:
            continue
        pictures += 1
        objects += len(annotation.objects)
        metric.add(annotation.metric)
        numbers = [point for found in annotation.objects for point in found.sample_m]
        coordinates = np.array(numbers, "<f8").ravel()
        digest.update(coordinates.tobytes())
        try:
            sketch.add(coordinates)
        except ValueError as error:
            raise JobError(f"{source.name}, picture {annotation.id!r}: {error}") from None
    unit = metric.pop() if len(metric) == 1 else None
    sums = (pictures, objects, sketch.count)
    return FittedOn(source.name, digest.hexdigest(), source.share, *sums, unit), sketch
