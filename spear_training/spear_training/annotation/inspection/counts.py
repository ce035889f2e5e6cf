"""Summary of a run: counts of its records and questions, as headlines and tables.

`Tally` counts records while they go by, `AskedQuestions` the questions; `find_outliers` names
boxes of a size that their label does not have; `summarise` puts all of it into the upper part of
the page.
"""

import json
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spear_policy.shared.pages import Headline
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
        statuses: pictures by status.
        reasons: pictures by (status, reason); numbers and file names of a reason do not count.
        examples: of each of these, the first picture's id and its reason in full.
        dropped: objects that were dropped, by reason.
        metric: pictures with objects, by whether their lengths are metres.
        seconds: by stage, of each picture.
        ids: of the pictures that have objects.
        longest_m: by label, of each object: the longest side of its box.
        picture_numbers: likewise, into `ids`.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    metric: Counter[bool] = field(default_factory=Counter)
    seconds: dict[str, array] = field(default_factory=lambda: defaultdict(lambda: array("f")))
    ids: list[str] = field(default_factory=list)
    longest_m: dict[str, array] = field(default_factory=lambda: defaultdict(lambda: array("f")))
    picture_numbers: dict[str, array] = field(
        default_factory=lambda: defaultdict(lambda: array("l"))
    )

    def add(self, annotation: Annotation) -> None:
        self.statuses[annotation.status] += 1
        if annotation.status != "ok":
            words = annotation.reason or "no reason"
            key = annotation.status, reason_group(words, annotation.image)
            key = _held(self.reasons, key, (annotation.status, OTHER_REASONS))
            self.reasons[key] += 1
            self.examples.setdefault(key, (annotation.id, words))
        for lost in annotation.dropped:
            reason = reason_group(lost.reason, annotation.image)
            self.dropped[_held(self.dropped, reason, OTHER_REASONS)] += 1
        for stage, seconds in annotation.seconds.items():
            self.seconds[stage].append(seconds)
        if annotation.objects:
            self.metric[annotation.metric] += 1
            self.ids.append(annotation.id)
        for found in annotation.objects:
            sides = np.linalg.norm(edges_of(found.vertices), axis=1)
            self.longest_m[found.label].append(float(sides.max()))
            self.picture_numbers[found.label].append(len(self.ids) - 1)

    @property
    def objects(self) -> Counter[str]:
        """Objects by label."""
        return Counter({label: len(sides) for label, sides in self.longest_m.items()})

    @property
    def unit(self) -> str:
        """What lengths are in: m, or words."""
        if not self.metric[False]:
            return "m"
        return "m or units" if self.metric[True] else "units"


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


@dataclass
class AskedQuestions:
    """Questions of a run.

    Attributes:
        pictures: lines of the file.
        categories: questions by category.
        of_picture: stored pairs of the pictures that were asked for, by id.
        damaged: lines that hold no questions.
    """

    pictures: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    of_picture: dict[str, list[dict]] = field(default_factory=dict)
    damaged: int = 0


def read_asked(path: Path, ids: Container[str]) -> AskedQuestions | None:
    """Read a file of questions, keeping those of some pictures.

    Args:
        path: of the file.
        ids: of the pictures whose questions are kept.

    Returns:
        None where there is no such file.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_file():
        return None
    asked = AskedQuestions()
    with path.open("rb") as file:
        for line in file:
            try:
                values = json.loads(line)
                name = values["id"]
                pairs = [
                    {**pair, **{key: str(pair[key]) for key in ("category", "question", "answer")}}
                    for pair in values["pairs"]
                ]
                kept = name in ids
            except (ValueError, TypeError, KeyError):
                asked.damaged += 1
                continue
            asked.pictures += 1
            asked.categories.update(pair["category"] for pair in pairs)
            if kept:
                asked.of_picture[name] = pairs
    return asked


# Outliers: boxes of a size unusual for their label ---------------------------------------------


LEAST_OF_LABEL = 8
MOST_RATIO = 4.0


@dataclass(frozen=True)
class Outlier:
    """An object of an unusual size.

    Attributes:
        id: of its picture.
        label: its own.
        longest_m: longest side of its box.
        usual_m: median of its label.
    """

    id: str
    label: str
    longest_m: float
    usual_m: float

    @property
    def times(self) -> float:
        """How many times the usual size; below 1: smaller."""
        return self.longest_m / self.usual_m


def find_outliers(tally: Tally) -> list[Outlier]:
    """Objects more than 4 times as large as the median of their label, or less than a quarter.

    Labels with fewer than LEAST_OF_LABEL objects have no usual size.

    Returns:
        The furthest out first.
    """
    found = []
    for label, stored in tally.longest_m.items():
        if len(stored) < LEAST_OF_LABEL:
            continue
        longest_m = np.maximum(stored, 1e-9)
        usual_m = float(np.median(longest_m))
        for at in np.flatnonzero(np.abs(np.log(longest_m / usual_m)) > np.log(MOST_RATIO)):
            name = tally.ids[tally.picture_numbers[label][at]]
            found.append(Outlier(name, label, float(longest_m[at]), usual_m))
    return sorted(found, key=lambda each: -abs(np.log(each.times)))


# The summary at the top of the page ------------------------------------------------------------


MOST_ROWS = 15


@dataclass(frozen=True)
class Table:
    """A table; its first column is the widest. `more` says what is left out."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: str = ""


@dataclass(frozen=True)
class CountSummary:
    """What the upper part shows: headlines, tables that have rows, all outliers."""

    headlines: tuple[Headline, ...]
    tables: tuple[Table, ...]
    outliers: tuple[Outlier, ...]


def summarise(tally: Tally, asked: AskedQuestions | None, pictures_in_list: int) -> CountSummary:
    """Put a tally, and the questions if there are any, into words."""
    outliers = tuple(find_outliers(tally))
    tables = [
        _reason_table(tally),
        _count_table("Objects dropped, by reason", "reason (N: a number)", tally.dropped),
        _count_table("Labels, most frequent first", "label", tally.objects),
        _outlier_table(tally, outliers),
        _time_table(tally),
    ]
    if asked:
        tables.append(_count_table("Questions, by category", "category", asked.categories))
    headlines = tuple(_headlines(tally, asked, outliers, pictures_in_list))
    return CountSummary(headlines, tuple(table for table in tables if table.rows), outliers)


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
    pictures, objects = tally.statuses.total(), tally.objects.total()
    of_list = "" if pictures == in_list else f"of {in_list:,} in the list"
    yield Headline(f"{pictures:,}", "pictures", of_list)
    for status in ("ok", "empty", "failed"):
        yield Headline(f"{tally.statuses[status]:,}", status, _share(tally.statuses, status))
    looked_at = pictures - tally.statuses["failed"]
    mean = f"{objects / looked_at:.1f} a picture" if looked_at else ""
    yield Headline(f"{objects:,}", "objects", mean)
    yield Headline(f"{len(tally.longest_m):,}", "labels")
    dropped = tally.dropped.total()
    of_all = f"{dropped / (objects + dropped):.1%} of those found" if dropped else ""
    yield Headline(f"{dropped:,}", "dropped", of_all)
    if objects:
        yield Headline(f"{len(outliers):,}", "unusual sizes", f"{len(outliers) / objects:.2%}")
    if asked:
        remark = f"in {asked.pictures:,} of the pictures"
        yield Headline(f"{asked.categories.total():,}", "questions", remark)


def _reason_table(tally: Tally) -> Table:
    ordered = tally.reasons.most_common()
    rows = tuple(
        (reason, status, f"{count:,}", "{}: {}".format(*tally.examples[status, reason]))
        for (status, reason), count in ordered[:MOST_ROWS]
    )
    columns = ("reason (N: a number)", "status", "pictures", "the first of them")
    return Table("Pictures without a result, by reason", columns, rows, _more(len(ordered)))


def _count_table(title: str, column: str, counts: Counter[str]) -> Table:
    rows = tuple(
        (name, f"{count:,}", _share(counts, name)) for name, count in counts.most_common(MOST_ROWS)
    )
    return Table(title, (column, "how many", "share"), rows, _more(len(counts)))


def _outlier_table(tally: Tally, outliers) -> Table:
    rows = tuple(
        (
            each.label,
            f"{each.longest_m:.3g} {tally.unit}",
            f"{each.times:.2g} times",
            f"{each.usual_m:.3g} {tally.unit}",
            each.id,
        )
        for each in outliers[:MOST_ROWS]
    )
    rule = (
        f"More than {MOST_RATIO:g} times the median of the label, or less than a "
        f"{1 / MOST_RATIO:g} of it; labels with fewer than {LEAST_OF_LABEL} objects have none. "
    )
    columns = ("label", "longest side", "is", "the usual size", "picture")
    return Table("Unusual sizes", columns, rows, rule + _more(len(outliers)))


def _time_table(tally: Tally) -> Table:
    total = sum(sum(seconds) for seconds in tally.seconds.values()) or 1.0
    rows = []
    for stage, seconds in tally.seconds.items():
        median, late = (1e3 * np.quantile(seconds, (0.5, 0.95))).tolist()
        rows.append((stage, f"{median:,.1f} ms", f"{late:,.1f} ms", f"{sum(seconds) / total:.0%}"))
    columns = ("stage", "median", "95th percentile", "share of all")
    return Table("Time a picture", columns, tuple(rows))


def _share(counts: Counter, key) -> str:
    return f"{counts[key] / counts.total():.1%}" if counts.total() else ""


def _more(rows: int) -> str:
    return f"{rows - MOST_ROWS:,} more are not shown." if rows > MOST_ROWS else ""
