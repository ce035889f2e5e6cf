"""The upper part of the page: a tally as headlines, tables and drawings."""

import json
from dataclasses import dataclass

import numpy as np

from spear_training.annotation.inspection.asked import Asked
from spear_training.annotation.inspection.charts import bin_chart, count_chart, length_chart
from spear_training.annotation.inspection.outliers import (
    LEAST_OF_LABEL,
    MOST_RATIO,
    Outlier,
    find_outliers,
)
from spear_training.annotation.inspection.tally import Tally

MOST_ROWS = 15
MOST_LABELS = 30


@dataclass(frozen=True)
class Headline:
    """A number with its name and a remark."""

    value: str
    name: str
    remark: str = ""


@dataclass(frozen=True)
class Chart:
    """A drawing: title, SVG, remark."""

    title: str
    svg: str
    remark: str = ""


@dataclass(frozen=True)
class Table:
    """A table; its first column is the widest. `more` says what is left out."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: str = ""


@dataclass(frozen=True)
class Summary:
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


def summarise(tally: Tally, asked: Asked | None, pictures_in_list: int) -> Summary:
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
    return Summary(
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


def _headlines(tally: Tally, asked: Asked | None, outliers, in_list: int):
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


def _charts(tally: Tally, asked: Asked | None, outliers):
    if tally.per_picture:
        svg = count_chart(tally.per_picture, "objects in a picture", "pictures")
        yield Chart("Objects a picture", svg, "failed pictures left out")
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


def _question_table(asked: Asked | None) -> Table | None:
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
