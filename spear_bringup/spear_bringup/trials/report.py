"""The report of a folder of trials: report.html, summary.json and media/, made from bags and rows.

It can be made again whenever the bags are there:
    ros2 run spear_bringup trial_report out/demo
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from spear_bringup.control.gate import Reason, Verdict
from spear_bringup.trials.bag_reader import BagReadError, TrialSeries, cameras, frames, read_trial
from spear_bringup.trials.metrics import measure
from spear_bringup.trials.plots import SpeedLimits, write_plots
from spear_bringup.trials.recording import SHEET_NAME, TrialRow, read_rows
from spear_bringup.trials.results import COLUMNS, ReportedTrial, TrialsSummary, cells, verdict_rows
from spear_policy.shared.files import atomic_write, write_atomically
from spear_policy.shared.pages import Headline, render
from spear_policy.shared.workers import process_pool

# The engines that are `simulation_only` in spear_policy.inference.engine.
TRUTH_ENGINES = {"scripted"}


def reads_truth(summary: TrialsSummary) -> list[str]:
    """The engines of the trials that see the simulation's ground truth, which no robot gives."""
    ran = {trial.row.engine for trial in summary.trials} | set(summary.engine.split(", "))
    return sorted(ran & TRUTH_ENGINES)


# Headlines -------------------------------------------------------------------------------------


def headlines(summary: TrialsSummary) -> list[Headline]:
    """What somebody wants to know first; numbers that no bag has are left out."""
    trials = summary.trials
    metrics = [trial.metrics for trial in trials if trial.metrics is not None]
    found = [
        Headline(
            f"{summary.successes} of {len(trials)}",
            "trials succeeded",
            "95 % interval of the rate: {:.0%} to {:.0%}".format(*summary.success_rate_95),
        ),
        Headline(
            f"{np.median([trial.row.duration_s for trial in trials]):.1f} s",
            "median duration",
            "by the node clock",
        ),
    ]
    worst = (
        ("seam_mm", "{:.1f} mm", "position seam", "step between chunks"),
        ("seam_mrad", "{:.1f} mrad", "rotation seam", "turn between chunks"),
        ("command_period_s", "{:.3f} s", "command period", "from command to command"),
        ("camera_to_command_age_s", "{:.3f} s", "camera to command", "image stamp to hand-over"),
    )
    for attribute, form, name, remark in worst:
        spreads = [getattr(m, attribute) for m in metrics if getattr(m, attribute) is not None]
        if spreads:
            value = form.format(max(spread.p99 for spread in spreads))
            found.append(Headline(value, name, f"{remark}; p99, worst trial"))
    factors = [m.real_time_factor for m in metrics if m.real_time_factor is not None]
    if factors:
        found.append(
            Headline(f"{np.mean(factors):.2f}", "real-time factor", "mean over the trials")
        )
    return found


# Video: both cameras side by side, with the time and the gate's verdict below ------------------

VIEW_HEIGHT, BAR_HEIGHT = 360, 36  # pixels; even, as yuv420p wants
_FONT, _SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.55
_BACKGROUND, _TEXT = (38, 30, 26), (240, 236, 232)  # BGR
_COLOURS = {
    Verdict.PASS: (110, 190, 70),
    Verdict.CLAMPED: (60, 180, 240),
    Verdict.HELD: (210, 160, 90),
    Verdict.REJECTED: (70, 110, 235),
    Verdict.STOPPED: (60, 60, 220),
}


def write_video(
    trial: TrialSeries, path: Path, poster: Path, rate_hz: int = 15
) -> dict[str, tuple[int, int]]:
    """Write the video and a still from its middle, unless the bag has no image.

    Returns width and height of each camera's own pictures [px], for each that has any.

    Each frame shows the newest image of each camera at that moment of the node clock, so the
    video runs at the pace of the trial, also where the simulation was slower.
    """
    views = [view for view in (_View(trial, name) for name in cameras(trial.folder)) if view.seen]
    if not views:
        return {}
    count = max(1, int((trial.end_s - trial.start_s) * rate_hz))
    with (
        atomic_write(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as file,
    ):
        stream = None
        for number, picture in enumerate(_pictures(trial, views, rate_hz, count)):
            if stream is None:
                stream = _stream(file, picture, rate_hz)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
            if number == count // 2:
                cv2.imwrite(str(poster), picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
        file.mux(stream.encode())
    return {view.name: view.size for view in views}


def _stream(file, picture: NDArray, rate_hz: int):
    stream = file.add_stream("libx264", rate=rate_hz)
    stream.height, stream.width = picture.shape[:2]
    stream.pix_fmt = "yuv420p"
    stream.options = {"crf": "24", "preset": "veryfast"}
    return stream


def _pictures(
    trial: TrialSeries, views: list["_View"], rate_hz: int, count: int
) -> Iterator[NDArray]:
    captions = _Captions(trial)
    for number in range(count):
        time_s = trial.start_s + (number + 0.5) / rate_hz
        row = np.hstack([view.at(time_s) for view in views])
        yield np.vstack([row, captions.bar(time_s, row.shape[1])])


class _View:
    """One camera, read in step with the video."""

    def __init__(self, trial: TrialSeries, name: str):
        self.name = name
        self.size = (0, 0)
        self._frames = frames(trial.folder, name)
        self._next = next(self._frames, None)
        self._shown = None
        if self._next is not None:
            self.size = self._next[1].shape[1::-1]
            self._shown = np.zeros_like(self._fitted(self._next[1]))

    @property
    def seen(self) -> bool:
        return self._shown is not None

    def at(self, time_s: float) -> NDArray:
        newest = None
        while self._next is not None and self._next[0] <= time_s:
            newest = self._next[1]
            self._next = next(self._frames, None)
        if newest is not None:
            self._shown = self._fitted(newest)
        return self._shown

    def _fitted(self, image: NDArray) -> NDArray:
        height, width = image.shape[:2]
        width = 2 * round(width * VIEW_HEIGHT / height / 2)
        method = cv2.INTER_AREA if height > VIEW_HEIGHT else cv2.INTER_CUBIC
        fitted = cv2.resize(image, (width, VIEW_HEIGHT), interpolation=method)
        words = "{} {}x{}".format(self.name, *self.size)
        (text_width, text_height), _ = cv2.getTextSize(words, _FONT, _SCALE, 1)
        label = fitted[: text_height + 20, : text_width + 20]
        label[:] = (label * 0.45).astype(np.uint8)
        _put(fitted, words, 10, text_height + 10)
        return fitted


class _Captions:
    """The bar below the pictures: time in the trial, and the newest verdict with its reason."""

    def __init__(self, trial: TrialSeries):
        self._start_s = trial.start_s
        known = (trial.commands, trial.gate)
        stamps = np.concatenate([series.stamps_s for series in known])
        order = np.argsort(stamps, kind="stable")
        self._stamps = stamps[order]
        self._verdicts = np.concatenate([series.verdicts for series in known])[order].astype(int)
        self._reasons = np.concatenate([series.reasons for series in known])[order].astype(int)

    def bar(self, time_s: float, width: int) -> NDArray:
        picture = np.full((BAR_HEIGHT, width, 3), _BACKGROUND, np.uint8)
        baseline = BAR_HEIGHT // 2 + 6
        _put(picture, f"{time_s - self._start_s:.1f} s", 10, baseline)
        index = int(np.searchsorted(self._stamps, time_s, side="right")) - 1
        if index >= 0:
            verdict, text = self._words(index)
            x = width - 10 - cv2.getTextSize(text, _FONT, _SCALE, 1)[0][0]
            cv2.circle(picture, (x - 14, BAR_HEIGHT // 2), 6, _COLOURS[verdict], -1, cv2.LINE_AA)
            _put(picture, text, x, baseline)
        return picture

    def _words(self, index: int) -> tuple[Verdict, str]:
        verdict, reason = Verdict(self._verdicts[index]), Reason(self._reasons[index])
        if reason == Reason.NONE:
            return verdict, verdict.name
        return verdict, f"{verdict.name}  {reason.name.lower().replace('_', ' ')}"


def _put(picture: NDArray, text: str, x: int, baseline: int) -> None:
    cv2.putText(picture, text, (x, baseline), _FONT, _SCALE, _TEXT, 1, cv2.LINE_AA)


# Report ----------------------------------------------------------------------------------------

MEDIA_NAME = "media"
PLOT_TITLES = {
    "path": "End-effector path",
    "speed": "End-effector speed",
    "seams": "Seams",
    "gripper": "Gripper and timing",
}


class ReportError(Exception):
    """There is nothing to report; the text says where it was looked for."""


def write_report(
    folder: Path,
    engine: str = "",
    trial_ids: Sequence[str] | None = None,
    limits: SpeedLimits | None = None,
    progress: Callable[[str], None] = print,
) -> TrialsSummary:
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
        ReportError: no row is on the score sheet, or one of `trial_ids` is not.
    """
    folder = Path(folder)
    rows, warnings = read_rows(folder / SHEET_NAME)
    for warning in warnings:
        progress(warning)
    rows = _chosen(rows, trial_ids, folder)
    limits = limits or _earlier_limits(folder)
    (folder / MEDIA_NAME).mkdir(exist_ok=True)
    trials = []
    for trial in _results(folder, rows, limits):
        trials.append(trial)
        progress(f"report: trial {len(trials)} of {len(rows)}, {trial.row.trial_id}")
    engine = engine or ", ".join(sorted({row.engine for row in rows if row.engine}))
    summary = TrialsSummary(engine, tuple(trials), limits)
    summary.write(folder / "summary.json")
    _write_page(folder, summary)
    return summary


def _chosen(rows: list[TrialRow], trial_ids, folder: Path) -> list[TrialRow]:
    if not rows:
        raise ReportError(f"no trial is on {folder / SHEET_NAME}; record one first")
    if trial_ids is None:
        return rows
    by_id = {row.trial_id: row for row in rows}
    if missing := [trial_id for trial_id in trial_ids if trial_id not in by_id]:
        raise ReportError(f"{folder / SHEET_NAME} has no row for {', '.join(missing)}")
    return [by_id[trial_id] for trial_id in trial_ids]


def _earlier_limits(folder: Path) -> SpeedLimits | None:
    try:
        known = json.loads((folder / "summary.json").read_text())["limits"]
        return known and SpeedLimits(**known)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _results(
    folder: Path, rows: list[TrialRow], limits: SpeedLimits | None
) -> Iterator[ReportedTrial]:
    """Each trial's result in order, made on as many cores as there are."""
    workers = min(len(rows), os.cpu_count() or 1)
    make = partial(_result, folder, limits)
    if workers == 1:
        yield from map(make, rows)
        return
    with process_pool(workers) as pool:
        yield from pool.map(make, rows)


def _result(folder: Path, limits: SpeedLimits | None, row: TrialRow) -> ReportedTrial:
    media = folder / MEDIA_NAME
    try:
        trial = read_trial(folder / row.bag)
        video, poster = media / f"{row.trial_id}.mp4", media / f"{row.trial_id}.jpg"
        cameras = write_video(trial, video, poster)
    except BagReadError as error:
        return ReportedTrial(row, problem=str(error))
    plots = write_plots(trial, media, row.trial_id, limits)
    return ReportedTrial(
        row,
        measure(trial),
        video=f"{MEDIA_NAME}/{video.name}" if cameras else "",
        poster=f"{MEDIA_NAME}/{poster.name}" if cameras else "",
        cameras=cameras,
        plots={name: f"{MEDIA_NAME}/{file}" for name, file in plots.items()},
    )


def _write_page(folder: Path, summary: TrialsSummary) -> None:
    page = render(
        Path(__file__).parent / "templates" / "report.html",
        summary=summary,
        headlines=headlines(summary),
        reads_truth=reads_truth(summary),
        columns=COLUMNS,
        cells=cells,
        verdict_rows=verdict_rows,
        plot_titles=PLOT_TITLES,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    write_atomically(folder / "report.html", page)


def main() -> int:
    """Make the report of the folder named on the command line."""
    parser = argparse.ArgumentParser(
        description="Make report.html and summary.json of a folder of recorded trials. "
        "Example: ros2 run spear_bringup trial_report out/demo"
    )
    parser.add_argument("folder", type=Path, help="the recorder's directory, with scores.jsonl")
    parser.add_argument("--engine", default="", help="which policy ran; default: from the rows")
    parser.add_argument("--trial", action="append", metavar="ID", help="only this trial; repeat it")
    arguments = parser.parse_args()
    try:
        summary = write_report(arguments.folder, arguments.engine, arguments.trial)
    except (ReportError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(summary.table())
    print(f"{arguments.folder / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
