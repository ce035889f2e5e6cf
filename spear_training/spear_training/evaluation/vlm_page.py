"""One page about a stage-1 model: its numbers, its training's curves, its boxes on pictures."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spear_policy.inference.image_geometry import fit
from spear_policy.model.answers import Box, Point
from spear_policy.shared.files import write_atomically
from spear_policy.shared.pages import (
    BLUE,
    GREEN,
    ORANGE,
    Headline,
    jpeg_address,
    legend_above,
    render,
    svg_address,
)
from spear_training.annotation.frame import read_picture
from spear_training.annotation.inspection.overlays import (
    draw_box_3d,
    draw_mark,
    drawn_on,
    project,
)
from spear_training.annotation.records import PICTURE_HEIGHT_PX, PICTURE_WIDTH_PX
from spear_training.evaluation.vlm_accuracy import AnsweredQuestion, VlmAccuracy
from spear_training.train.metrics import plot_metric
from spear_training.vqa.dataset import VqaSet

COLUMNS = (
    "category",
    "questions",
    "grammatical %",
    "tokens %",
    "error m",
    "mean place m",
    "2D box m",
)
CAPTION = (
    "grammatical: the answer is of its kind, with the 95 % Wilson interval; tokens: of the true "
    "answer that stand in their places; error: of the place that is answered, mean (median), in "
    "the unit of the annotation; mean place, 2D box: baselines that know no picture, on the same "
    "questions: the mean of the training answers, and the true 2D box at the mean training depth"
)
NOTHING = "-"
MOST_PROBLEMS = 8
_TEMPLATE = Path(__file__).with_name("vlm_page.html")


@dataclass(frozen=True)
class ShownBox:
    """A picture with a true and an answered place: its address, the question, a remark."""

    address: str
    question: str
    remark: str


def write_page(
    path: Path,
    name: str,
    accuracy: VlmAccuracy,
    pictures: VqaSet,
    metrics: Sequence[dict] = (),
    shown: int = 24,
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: of the page.
        name: of the model.
        accuracy: its answers about `pictures`.
        pictures: as they were given to `vlm_accuracy`.
        metrics: records of the training's metrics.jsonl; none: no curves.
        shown: how many answers are drawn on their pictures, spread evenly over the worst and best.

    Raises:
        StageError: a picture cannot be read any more.
        OSError: the page cannot be written.
    """
    curves = svg_address(lambda figure: _draw_curves(metrics, figure), 10, 3.6) if metrics else ""
    problems = Counter(re.sub(r"\d+", "N", a.problem) for a in accuracy.answered if a.problem)
    asked_about = len({each.picture for each in accuracy.answered})
    page = render(
        _TEMPLATE,
        name=name,
        about=f"{len(accuracy.answered)} questions about {asked_about} pictures, each asked alone "
        "and answered greedily.",
        headlines=_headlines(accuracy),
        columns=COLUMNS,
        rows=[_row(category, accuracy.of(category)) for category in accuracy.categories],
        caption=CAPTION,
        curves=curves,
        pictures=[_shown(each, pictures) for each in _chosen(accuracy, shown)],
        problems=problems.most_common(MOST_PROBLEMS),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page)


def _headlines(accuracy: VlmAccuracy) -> list[Headline]:
    boxes = accuracy.of("box")
    share, errors = boxes.grammatical, boxes.errors_m()
    low, high = share.interval
    found = [
        Headline(
            f"{100 * share.value:.1f} %" if share.total else NOTHING,
            "grammatical boxes",
            f"{share.count} of {share.total}, {100 * low:.0f} to {100 * high:.0f} %",
        )
    ]
    if len(errors):
        own, mean, flat = np.nanmean(errors, axis=0)
        best = np.nanmin([mean, flat])
        found.append(Headline(f"{own:.3f} m", "error of the box's centre", f"of {len(errors)}"))
        found.append(Headline(f"{own / best:.2f}", "of the better baseline", f"{best:.3f} m"))
    found.append(Headline(f"{100 * accuracy.token_accuracy:.1f} %", "tokens", "all categories"))
    return found


def _row(name: str, part: VlmAccuracy) -> tuple[str, ...]:
    share, errors = part.grammatical, part.errors_m()
    low, high = share.interval
    cells = [NOTHING] * 3
    if len(errors):
        means = np.nanmean(errors, axis=0)
        cells = [f"{mean:.3f}" for mean in means]
        cells[0] += f" ({np.median(errors[:, 0]):.3f})"
    return (
        name,
        str(share.total),
        f"{100 * share.value:.1f} ({100 * low:.0f} to {100 * high:.0f})",
        f"{100 * part.token_accuracy:.1f}",
        *cells,
    )


def _draw_curves(metrics: Sequence[dict], figure) -> None:
    """Loss on the left; accuracies of tokens on the right, in training and on held-out pictures."""
    left, right = figure.subplots(1, 2, gridspec_kw={"left": 0.06, "wspace": 0.2})
    for axis, key, colour, label in (
        (left, "loss", BLUE, "loss"),
        (right, "token_accuracy", BLUE, "tokens, training"),
        (right, "coordinate_accuracy", ORANGE, "3D tokens, training"),
        (right, "token_accuracy_held_out", GREEN, "tokens, held out"),
    ):
        plot_metric(axis, metrics, key, colour, label)
    left.set(xlabel="step", ylabel="loss", yscale="log")
    right.set(xlabel="step", ylim=(0, 1))
    legend_above(right)


def _chosen(accuracy: VlmAccuracy, count: int) -> list[AnsweredQuestion]:
    """Answers with a place, from the best to the worst, evenly spread."""
    placed = sorted(
        (a for a in accuracy.answered if np.isfinite(a.error_m)), key=lambda a: a.error_m
    )
    boxes = [a for a in placed if isinstance(a.said, Box)] or placed
    if len(boxes) <= count:
        return boxes
    return [boxes[number] for number in np.linspace(0, len(boxes) - 1, count).round().astype(int)]


def _shown(each: AnsweredQuestion, pictures: VqaSet) -> ShownBox:
    annotation = pictures.annotation(each.picture_number)
    image = fit(
        read_picture(each.picture),
        PICTURE_WIDTH_PX,
        PICTURE_HEIGHT_PX,
        native_aspect=annotation.native_aspect,
    )

    def draw(axes) -> None:
        for said, colour in ((each.pair.answer, GREEN), (each.said, ORANGE)):
            _draw_place(axes, said, annotation.intrinsics, colour)

    drawn = drawn_on(image, draw) if annotation.intrinsics is not None else image
    return ShownBox(_jpeg(drawn), each.question, f"off by {each.error_m:.3f} m")


def _draw_place(axes, said: Box | Point, intrinsics, colour: str) -> None:
    if isinstance(said, Box):
        draw_box_3d(axes, np.array(said.vertices_m), intrinsics, colour)
    else:
        draw_mark(axes, project(said.xyz_m, intrinsics), colour, "cross")


def _jpeg(image: NDArray[np.uint8]) -> str:
    small = cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    stored = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return jpeg_address(stored.tobytes())
