"""The measured accuracy as files: accuracy.json, and accuracy.html with curves and tables."""

import json
from pathlib import Path

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from spear_policy.shared.files import write_atomically
from spear_policy.shared.pages import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    legend_above,
    render,
    svg_address,
)
from spear_training.annotation.accuracy.measure import (
    ALL,
    AccuracyReport,
    ErrorSpread,
    GroupSummary,
)

# Tables of the measured accuracy ---------------------------------------------------------------


COLUMNS = (
    "objects",
    "true",
    "found %",
    "centre mm",
    "centre %",
    "edges mm",
    "IoU",
    "> 0.25 %",
    "> 0.5 %",
    "order %",
)
LOST_COLUMNS = ("reason", "objects")
NOTHING = "-"
CAPTION = (
    "errors: median (90th percentile); centre %: of the true box's diagonal; edges: the worst of "
    "the three; IoU: median, and shares above; order: share of objects, round ones aside, whose "
    "vertices have the true order"
)


def all_tables(report: AccuracyReport) -> list[tuple[str, tuple[str, ...], list, str]]:
    """Title, columns, rows and caption of every table that has rows."""
    tables = []
    for condition in report.conditions:
        groups = condition.summaries()
        rows = [(name, *_cells(group)) for name, group in groups.items()]
        lost = [(reason, str(count)) for reason, count in groups[ALL].lost.items()]
        tables.append((condition.name, COLUMNS, rows, CAPTION))
        tables.append((f"{condition.name}: objects without a box", LOST_COLUMNS, lost, ""))
    return [table for table in tables if table[2]]


def terminal_tables(report: AccuracyReport) -> list[Table]:
    """Tables for a terminal of 80 columns."""
    tables = []
    for title, columns, rows, caption in all_tables(report):
        table = Table(
            title=title,
            caption=caption,
            title_justify="left",
            caption_justify="left",
            box=SIMPLE,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=number == 0)
        for row in rows:
            table.add_row(*row)
        tables.append(table)
    return tables


def _cells(group: GroupSummary) -> tuple[str, ...]:
    return (
        str(group.objects),
        _percent(group.recall),
        _spread(group.centre_error_m, _millimetres),
        _spread(group.centre_error_share, _percent),
        _spread(group.extent_error_m, _millimetres),
        NOTHING if group.iou_median is None else f"{group.iou_median:.2f}",
        _percent(group.iou_over_25),
        _percent(group.iou_over_50),
        _percent(group.order_kept),
    )


def _spread(spread: ErrorSpread | None, words) -> str:
    return NOTHING if spread is None else f"{words(spread.median)} ({words(spread.p90)})"


def _millimetres(length_m: float) -> str:
    return _short(1000 * length_m)


def _percent(share: float | None) -> str:
    return NOTHING if share is None else _short(100 * share)


def _short(number: float) -> str:
    return f"{number:.1f}" if number < 9.95 else f"{number:.0f}"


# accuracy.json and accuracy.html ---------------------------------------------------------------


_COLOURS = (BLUE, ORANGE, GREEN, RED, GREY)
_TEMPLATE = Path(__file__).with_name("accuracy.html")


def write_report(report: AccuracyReport, folder: Path) -> Path:
    """Write accuracy.json and accuracy.html, each whole or not at all.

    Returns:
        The page's path.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "accuracy.html"
    write_atomically(
        folder / "accuracy.json", json.dumps(report.to_dict(), indent=1, allow_nan=False)
    )
    drawing = svg_address(lambda figure: _draw(report, figure), 10, 3.6)
    write_atomically(
        page,
        render(_TEMPLATE, scenes=report.scenes, drawing=drawing, tables=all_tables(report)),
    )
    return page


def _draw(report: AccuracyReport, figure) -> None:
    """Which share of the objects is better than what, for the IoU and for the centre's error."""
    left, right = figure.subplots(1, 2, gridspec_kw={"left": 0.06, "wspace": 0.2})
    for condition, colour in zip(report.conditions, _COLOURS, strict=False):
        found = [entry for entry in condition.objects if entry.lost is None]
        ious = np.sort([entry.iou for entry in found])[::-1]
        errors = np.sort([entry.centre_error_share for entry in found])
        share = np.arange(1, len(found) + 1) / max(1, len(condition.objects))
        left.plot(ious, share, color=colour, label=condition.name)
        right.plot(100 * errors, share, color=colour, label=condition.name)
    left.set(xlabel="IoU at least", ylabel="share of all objects", xlim=(1, 0), ylim=(0, 1))
    right.set(xlabel="centre error at most (% of diagonal)", xlim=(0, 50), ylim=(0, 1))
    legend_above(left)
