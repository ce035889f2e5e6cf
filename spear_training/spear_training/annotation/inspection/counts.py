"""Summary of a run: counts of its records and questions, as headlines, tables and charts.

`Tally` counts records while they go by, `AskedQuestions` the questions; `find_outliers` names
boxes of a size that their label does not have; `summarise` puts all of it into the upper part of
the page.
"""

import json
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spear_policy.model.coordinate_bins import CoordinateBins
from spear_policy.shared.pages import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    Headline,
    legend_above,
    svg_address,
)
from spear_training.annotation.boxes import edges_of
from spear_training.annotation.records import Annotation

# Counts over the records of a run --------------------------------------------------------------


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


# Counts over the questions of a run ------------------------------------------------------------


_COORDINATE = re.compile(r"<coord([0-9]{4,6})>")


@dataclass
class AskedQuestions:
    """Questions of a run.

    Attributes:
        pictures: lines of the file.
        categories: questions by category.
        bin_uses: how often answers have each 3D token; None: the bins are not known.
        of_picture: stored pairs of the pictures that were asked for, by id.
        damaged: lines that hold no questions.
    """

    pictures: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    bin_uses: NDArray[np.int64] | None = None
    of_picture: dict[str, list[dict]] = field(default_factory=dict)
    damaged: int = 0


def read_asked(
    path: Path, ids: Container[str], bins: CoordinateBins | None
) -> AskedQuestions | None:
    """Read a file of questions, keeping those of some pictures.

    Args:
        path: of the file.
        ids: of the pictures whose questions are kept.
        bins: that the answers are written with, if they are known.

    Returns:
        None where there is no such file.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_file():
        return None
    asked = AskedQuestions(bin_uses=np.zeros(bins.count, np.int64) if bins else None)
    with path.open("rb") as file:
        for line in file:
            try:
                _add(asked, json.loads(line), ids)
            except (ValueError, TypeError, KeyError, AttributeError):
                asked.damaged += 1
    return asked


def _add(asked: AskedQuestions, values: dict, ids: Container[str]) -> None:
    pairs = [
        {**pair, "answer": str(pair["answer"]), "question": str(pair["question"])}
        for pair in values["pairs"]
    ]
    categories = Counter(str(pair["category"]) for pair in pairs)
    name = values["id"]
    asked.pictures += 1
    asked.categories += categories
    if asked.bin_uses is not None:
        numbers = [int(found) for pair in pairs for found in _COORDINATE.findall(pair["answer"])]
        known = [number for number in numbers if number < len(asked.bin_uses)]
        asked.bin_uses += np.bincount(known, minlength=len(asked.bin_uses))
    if name in ids:
        asked.of_picture[name] = pairs


# Charts ----------------------------------------------------------------------------------------


_BINS = 40
_MOST_GROUPS = 128
_MARGINS = {"left": 0.13, "right": 0.98, "bottom": 0.2, "top": 0.88}


def count_chart(counts: Counter[int], x_label: str, y_label: str) -> str:
    """Bars of how often each small number occurs."""
    numbers = range(max(counts, default=0) + 1)

    def draw(axes):
        # One shape for all bars; a rest of 0 between two of them.
        edges = [side for number in numbers for side in (number - 0.4, number + 0.4)]
        heights = [height for number in numbers for height in (counts[number], 0)][:-1]
        axes.stairs(heights, edges, fill=True, color=BLUE)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _whole_counts(axes)

    return _drawn(draw)


def length_chart(
    lengths_m: NDArray, x_label: str, y_label: str, marked_m: Sequence[float] = ()
) -> str:
    """A histogram over a logarithmic axis, with the median; marked values are drawn below.

    Args:
        lengths_m: all above 0, at least one.
        x_label: of the axis.
        y_label: of the axis.
        marked_m: outliers.
    """
    low, high = lengths_m.min() / 1.2, lengths_m.max() * 1.2
    edges = np.geomspace(low, high, _BINS + 1)

    def draw(axes):
        axes.stairs(np.histogram(lengths_m, edges)[0], edges, fill=True, color=BLUE)
        median = float(np.median(lengths_m))
        axes.axvline(median, color=ORANGE, linewidth=1.2, label=f"median {median:.3g}")
        if len(marked_m):
            at_base = np.zeros(len(marked_m))
            label = f"{len(marked_m)} outliers"
            axes.plot(marked_m, at_base, "|", color=RED, markersize=12, clip_on=False, label=label)
        axes.set(xscale="log", xlim=(low, high), xlabel=x_label, ylabel=y_label)
        _plain_ticks(axes, low, high)
        _whole_counts(axes)
        legend_above(axes)

    return _drawn(draw)


def bin_chart(uses: dict[str, NDArray], colours: Sequence[str] = (BLUE, ORANGE)) -> str:
    """How often each bin of the 3D tokens is used, against all bins used alike.

    Args:
        uses: counts (bins,) by what they are of; those with none are left out.
        colours: one each.
    """

    def draw(axes):
        for (name, counts), colour in zip(uses.items(), colours, strict=False):
            if not counts.sum():
                continue
            group = -(-len(counts) // _MOST_GROUPS)
            starts = np.arange(0, len(counts), group)
            widths = np.diff([*starts, len(counts)])
            density = np.add.reduceat(counts, starts) / widths * len(counts) / counts.sum()
            axes.stairs(density, [*starts, len(counts)], color=colour, label=name, linewidth=1.2)
        axes.axhline(1.0, color=GREY, linewidth=0.8, linestyle="--", label="all alike")
        axes.set(xlabel="number of the 3D token", ylabel="use", ylim=(0, None))
        legend_above(axes)

    return _drawn(draw)


def _whole_counts(axes) -> None:
    axes.yaxis.get_major_locator().set_params(integer=True)


def _plain_ticks(axes, low: float, high: float) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if high / low > 30:
        axes.xaxis.set_minor_formatter(NullFormatter())
        return
    steps = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = np.multiply.outer(powers, steps).ravel()
    axes.set_xticks(ticks[(ticks >= low) & (ticks <= high)])
    axes.xaxis.set_minor_locator(NullLocator())


def _drawn(draw) -> str:
    return svg_address(lambda figure: draw(figure.subplots(gridspec_kw=_MARGINS)), 4.2, 2.3)


# Outliers: boxes of a size unusual for their label ---------------------------------------------


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


# The summary at the top of the page ------------------------------------------------------------


MOST_ROWS = 15
MOST_LABELS = 30


@dataclass(frozen=True)
class Chart:
    """A drawing: title, address that holds it, remark."""

    title: str
    address: str
    remark: str = ""


@dataclass(frozen=True)
class Table:
    """A table; its first column is the widest. `more` says what is left out."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: str = ""


@dataclass(frozen=True)
class CountSummary:
    """What the upper part shows.

    Attributes:
        headlines: in order.
        charts: in order; those without data are left out.
        labels: (label, objects, share of the most frequent one's), most frequent first.
        more_labels: how many labels are not among them.
        tables: in order; those without rows are left out.
        outliers: all of them.
    """

    headlines: tuple[Headline, ...]
    charts: tuple[Chart, ...]
    labels: tuple[tuple[str, int, float], ...]
    more_labels: int
    tables: tuple[Table, ...]
    outliers: tuple[Outlier, ...]


def summarise(tally: Tally, asked: AskedQuestions | None, pictures_in_list: int) -> CountSummary:
    """Put a tally, and the questions if there are any, into words and drawings."""
    outliers = tuple(find_outliers(tally))
    frequent = tally.labels.most_common(MOST_LABELS)
    most = frequent[0][1] if frequent else 1
    tables = (
        _reason_table(tally),
        _drop_table(tally),
        _outlier_table(tally, outliers),
        _time_table(tally),
        _question_table(asked),
    )
    return CountSummary(
        tuple(_headlines(tally, asked, outliers, pictures_in_list)),
        tuple(_charts(tally, asked, outliers)),
        tuple((label, count, count / most) for label, count in frequent),
        len(tally.labels) - len(frequent),
        tuple(table for table in tables if table and table.rows),
        outliers,
    )


def settings_rows(run: dict) -> list[tuple[str, list[tuple[str, str]]]]:
    """The stages of a run with their settings, in words."""
    rows = []
    for stage in run["settings"]:
        values = {key: value for key, value in stage.items() if key != "stage"}
        rows.append((str(stage.get("stage", "?")), [(k, _words(v)) for k, v in values.items()]))
    return rows


def _words(value) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _headlines(tally: Tally, asked: AskedQuestions | None, outliers, in_list: int):
    pictures, objects = tally.statuses.total(), len(tally.longest_m)
    of_list = "" if pictures == in_list else f"of {in_list:,} in the list"
    yield Headline(f"{pictures:,}", "pictures", of_list)
    for status in ("ok", "empty", "failed"):
        yield Headline(f"{tally.statuses[status]:,}", status, _share(tally.statuses, status))
    looked_at = tally.per_picture.total()
    mean = f"{objects / looked_at:.1f} a picture" if looked_at else ""
    yield Headline(f"{objects:,}", "objects", mean)
    yield Headline(f"{len(tally.labels):,}", "labels")
    dropped = tally.dropped.total()
    of_all = f"{dropped / (objects + dropped):.1%} of those found" if dropped else ""
    yield Headline(f"{dropped:,}", "dropped", of_all)
    if objects:
        yield Headline(f"{len(outliers):,}", "unusual sizes", f"{len(outliers) / objects:.2%}")
    if asked:
        remark = f"in {asked.pictures:,} of the pictures"
        yield Headline(f"{asked.categories.total():,}", "questions", remark)


def _charts(tally: Tally, asked: AskedQuestions | None, outliers):
    if tally.per_picture:
        drawn = count_chart(tally.per_picture, "objects in a picture", "pictures")
        yield Chart("Objects a picture", drawn, "failed pictures left out")
    for title, stored, marked in (
        ("Longest side of the box", tally.longest_m, [each.longest_m for each in outliers]),
        ("Distance from the camera", tally.distance_m, ()),
    ):
        lengths = np.frombuffer(stored, np.float32).astype(float)
        lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
        if len(lengths):
            yield Chart(title, length_chart(lengths, tally.unit, "objects", marked))
    uses = {}
    if tally.bin_uses is not None:
        uses["points on objects"] = tally.bin_uses
    if asked and asked.bin_uses is not None:
        uses["answers"] = asked.bin_uses
    if any(counts.any() for counts in uses.values()):
        remark = "; ".join(f"{name}: {_bits(n)}" for name, n in uses.items() if n.any())
        yield Chart("Use of the 3D tokens", bin_chart(uses), remark)


def _bits(counts) -> str:
    """Entropy against the most that so many bins can have."""
    shares = counts[counts > 0] / counts.sum()
    return f"{-(shares * np.log2(shares)).sum():.2f} of {np.log2(len(counts)):.0f} bits"


def _reason_table(tally: Tally) -> Table:
    ordered = tally.reasons.most_common()
    rows = tuple(
        (reason, status, f"{count:,}", "{}: {}".format(*tally.examples[status, reason]))
        for (status, reason), count in ordered[:MOST_ROWS]
    )
    return Table(
        "Pictures without a result, by reason",
        ("reason (N: a number)", "status", "pictures", "the first of them"),
        rows,
        _more(len(ordered)),
    )


def _drop_table(tally: Tally) -> Table:
    ordered = tally.dropped.most_common()
    rows = tuple(
        (reason, f"{count:,}", _share(tally.dropped, reason))
        for reason, count in ordered[:MOST_ROWS]
    )
    columns = ("reason (N: a number)", "objects", "share")
    return Table("Objects dropped, by reason", columns, rows, _more(len(ordered)))


def _outlier_table(tally: Tally, outliers) -> Table:
    rows = tuple(
        (
            each.label,
            f"{each.longest_m:.3g} {tally.unit}",
            f"{each.times:.2g} times",
            f"{each.usual_m:.3g} {tally.unit} ({'label' if each.of_label else 'all objects'})",
            each.id,
        )
        for each in outliers[:MOST_ROWS]
    )
    rule = (
        f"More than {MOST_RATIO:g} times the median of the label, or less than a "
        f"{1 / MOST_RATIO:g} of it; objects of labels with fewer than {LEAST_OF_LABEL} are "
        "compared with all objects. "
    )
    columns = ("label", "longest side", "is", "the usual size", "picture")
    return Table("Unusual sizes", columns, rows, rule + _more(len(outliers)))


def _time_table(tally: Tally) -> Table:
    total = sum(sum(seconds) for seconds in tally.seconds.values()) or 1.0
    rows = []
    for stage, stored in tally.seconds.items():
        seconds = np.frombuffer(stored, np.float32).astype(float)
        median, late = np.quantile(seconds, (0.5, 0.95))
        share = f"{seconds.sum() / total:.0%}"
        rows.append((stage, _seconds(median), _seconds(late), share))
    columns = ("stage", "median", "95th percentile", "share of all")
    return Table("Time a picture", columns, tuple(rows))


def _question_table(asked: AskedQuestions | None) -> Table | None:
    if asked is None:
        return None
    rows = tuple(
        (category, f"{count:,}", _share(asked.categories, category))
        for category, count in asked.categories.most_common()
    )
    return Table("Questions, by category", ("category", "questions", "share"), rows)


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"


def _share(counts, key) -> str:
    return f"{counts[key] / counts.total():.1%}" if counts.total() else ""


def _more(rows: int) -> str:
    return f"{rows - MOST_ROWS:,} more are not shown." if rows > MOST_ROWS else ""
