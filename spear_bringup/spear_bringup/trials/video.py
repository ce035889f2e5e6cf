"""Both cameras of a trial side by side as H.264, with the time and the gate's verdict below."""

import os
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from spear_bringup.control.verdicts import Reason, Verdict
from spear_bringup.trials.bag_reader import cameras, frames
from spear_bringup.trials.series import TrialSeries

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


def write_video(trial: TrialSeries, path: Path, poster: Path, rate_hz: int = 15) -> bool:
    """Write the video and a still from its middle; False when the bag has no image.

    Each frame shows the newest image of each camera at that moment of the node clock, so the
    video runs at the pace of the trial, also where the simulation was slower.
    """
    views = [view for view in (_View(trial, name) for name in cameras(trial.folder)) if view.seen]
    if not views:
        return False
    beside = path.with_name(f".{path.name}")
    count = max(1, int((trial.end_s - trial.start_s) * rate_hz))
    try:
        with av.open(str(beside), "w", format="mp4", options={"movflags": "+faststart"}) as file:
            stream = None
            for number, picture in enumerate(_pictures(trial, views, rate_hz, count)):
                if stream is None:
                    stream = _stream(file, picture, rate_hz)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
                if number == count // 2:
                    cv2.imwrite(str(poster), picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
            file.mux(stream.encode())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return True


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
        self._name = name
        self._frames = frames(trial.folder, name)
        self._next = next(self._frames, None)
        self._shown = None if self._next is None else np.zeros_like(self._fitted(self._next[1]))

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
        (text_width, text_height), _ = cv2.getTextSize(self._name, _FONT, _SCALE, 1)
        label = fitted[: text_height + 20, : text_width + 20]
        label[:] = (label * 0.45).astype(np.uint8)
        _put(fitted, self._name, 10, text_height + 10)
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
