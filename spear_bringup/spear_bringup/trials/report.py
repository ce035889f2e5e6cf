"""The report of a folder of trials: report.html, summary.json and media/, made from bags and rows.

It can be made again whenever the bags are there:
    python3 -m spear_bringup.trials.report out/demo
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import jinja2

from spear_bringup.trials.bag_reader import BagUnreadable, read_trial
from spear_bringup.trials.headlines import headlines
from spear_bringup.trials.metrics import measure
from spear_bringup.trials.plots import SpeedLimits, write_plots
from spear_bringup.trials.recording import SHEET_NAME
from spear_bringup.trials.results import COLUMNS, Summary, TrialResult, cells, verdict_rows
from spear_bringup.trials.score_sheet import TrialRow, read_rows
from spear_bringup.trials.video import write_video

MEDIA_NAME = "media"
PLOT_TITLES = {
    "path": "End-effector path",
    "speed": "End-effector speed",
    "seams": "Seams",
    "gripper": "Gripper and timing",
}


class NoTrials(Exception):
    """There is nothing to report; the text says where it was looked for."""


def write_report(
    folder: Path,
    engine: str = "",
    trial_ids: Sequence[str] | None = None,
    limits: SpeedLimits | None = None,
    progress: Callable[[str], None] = print,
) -> Summary:
    """Write report.html, summary.json and media/ into a recorder's folder.

    Args:
        folder: the recorder's `directory`, with scores.jsonl and bags/.
        engine: which policy ran; empty: what the rows say.
        trial_ids: which trials, in this order; None: every row.
        limits: speed limits to draw; None: those of an earlier summary.json, if any.
        progress: gets one line a trial.

    Returns:
        The summary; `table()` is its text for a terminal.

    Raises:
        NoTrials: no row is on the score sheet, or one of `trial_ids` is not.
    """
    folder = Path(folder)
    rows, warnings = read_rows(folder / SHEET_NAME)
    for warning in warnings:
        progress(warning)
    rows = _chosen(rows, trial_ids, folder)
    limits = limits or _earlier_limits(folder)
    (folder / MEDIA_NAME).mkdir(exist_ok=True)
    trials = []
    for number, row in enumerate(rows, start=1):
        progress(f"report: trial {number} of {len(rows)}, {row.trial_id}")
        trials.append(_result(folder, row, limits))
    engine = engine or ", ".join(sorted({row.engine for row in rows if row.engine}))
    summary = Summary(engine, tuple(trials), limits)
    summary.write(folder / "summary.json")
    _write_page(folder, summary)
    return summary


def _chosen(rows: list[TrialRow], trial_ids, folder: Path) -> list[TrialRow]:
    if not rows:
        raise NoTrials(f"no trial is on {folder / SHEET_NAME}; record one first")
    if trial_ids is None:
        return rows
    by_id = {row.trial_id: row for row in rows}
    if missing := [trial_id for trial_id in trial_ids if trial_id not in by_id]:
        raise NoTrials(f"{folder / SHEET_NAME} has no row for {', '.join(missing)}")
    return [by_id[trial_id] for trial_id in trial_ids]


def _earlier_limits(folder: Path) -> SpeedLimits | None:
    try:
        known = json.loads((folder / "summary.json").read_text())["limits"]
        return known and SpeedLimits(**known)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _result(folder: Path, row: TrialRow, limits: SpeedLimits | None) -> TrialResult:
    media = folder / MEDIA_NAME
    try:
        trial = read_trial(folder / row.bag)
        video, poster = media / f"{row.trial_id}.mp4", media / f"{row.trial_id}.jpg"
        filmed = write_video(trial, video, poster)
    except BagUnreadable as error:
        return TrialResult(row, problem=str(error))
    plots = write_plots(trial, media, row.trial_id, limits)
    return TrialResult(
        row,
        measure(trial),
        video=f"{MEDIA_NAME}/{video.name}" if filmed else "",
        poster=f"{MEDIA_NAME}/{poster.name}" if filmed else "",
        plots={name: f"{MEDIA_NAME}/{file}" for name, file in plots.items()},
    )


def _write_page(folder: Path, summary: Summary) -> None:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        summary=summary,
        headlines=headlines(summary),
        columns=COLUMNS,
        cells=cells,
        verdict_rows=verdict_rows,
        plot_titles=PLOT_TITLES,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    beside = folder / ".report.html"
    beside.write_text(page, encoding="utf-8")
    os.replace(beside, folder / "report.html")


def main() -> int:
    """Make the report of the folder named on the command line."""
    parser = argparse.ArgumentParser(
        description="Make report.html and summary.json of a folder of recorded trials. "
        "Example: python3 -m spear_bringup.trials.report out/demo"
    )
    parser.add_argument("folder", type=Path, help="the recorder's directory, with scores.jsonl")
    parser.add_argument("--engine", default="", help="which policy ran; default: from the rows")
    parser.add_argument("--trial", action="append", metavar="ID", help="only this trial; repeat it")
    arguments = parser.parse_args()
    try:
        summary = write_report(arguments.folder, arguments.engine, arguments.trial)
    except (NoTrials, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(summary.table())
    print(f"{arguments.folder / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
