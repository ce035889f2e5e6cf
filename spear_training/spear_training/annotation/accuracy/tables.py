"""The measured accuracy in rows of words, for the terminal and for the page alike."""

from rich.box import SIMPLE
from rich.table import Table

from spear_training.annotation.accuracy.measure import AccuracyReport, Condition
from spear_training.annotation.accuracy.summary import ALL, GroupSummary, Spread

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
REPEAT_COLUMNS = ("objects", "in both", "order kept %", "vertices mm", "IoU")
LOST_COLUMNS = ("reason", "objects")
REPEATED = "noisy depth, and again with other noise"
NOTHING = "-"
CAPTION = (
    "errors: median (90th percentile); centre %: of the true box's diagonal; edges: the worst of "
    "the three; IoU: median, and shares above; order: share of objects, round ones aside, whose "
    "vertices have the true order"
)
REPEAT_CAPTION = "vertices: median distance of vertices of the same number; IoU: median"


def accuracy_rows(condition: Condition) -> list[tuple[str, ...]]:
    """One row for each group of objects, in the order of `COLUMNS`."""
    return [(name, *_cells(group)) for name, group in condition.summaries().items()]


def repeat_rows(report: AccuracyReport) -> list[tuple[str, ...]]:
    """One row for each group of objects, in the order of `REPEAT_COLUMNS`."""
    return [
        (
            name,
            str(group.objects),
            _percent(group.order_kept),
            _millimetres(group.vertex_shift_m),
            f"{group.iou_median:.2f}",
        )
        for name, group in report.repeat_summaries().items()
    ]


def lost_rows(condition: Condition) -> list[tuple[str, ...]]:
    """Reason and number of the objects that were lost for it."""
    return [(reason, str(count)) for reason, count in condition.summaries()[ALL].lost.items()]


def all_tables(report: AccuracyReport) -> list[tuple[str, tuple[str, ...], list, str]]:
    """Title, columns, rows and caption of every table that has rows."""
    tables = []
    for condition in report.conditions:
        tables += [
            (condition.name, COLUMNS, accuracy_rows(condition), CAPTION),
            (f"{condition.name}: objects without a box", LOST_COLUMNS, lost_rows(condition), ""),
        ]
    tables.append((REPEATED, REPEAT_COLUMNS, repeat_rows(report), REPEAT_CAPTION))
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


def _spread(spread: Spread | None, words) -> str:
    return NOTHING if spread is None else f"{words(spread.median)} ({words(spread.p90)})"


def _millimetres(length_m: float) -> str:
    return _short(1000 * length_m)


def _percent(share: float | None) -> str:
    return NOTHING if share is None else _short(100 * share)


def _short(number: float) -> str:
    return f"{number:.1f}" if number < 9.95 else f"{number:.0f}"
