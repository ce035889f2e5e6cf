"""One page about a policy's chunks on recorded moments: errors, baselines, probes, curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import wilcoxon

from spear_policy.shared.files import write_atomically
from spear_policy.shared.pages import (
    BLUE,
    GREEN,
    ORANGE,
    Headline,
    legend_above,
    render,
    svg_address,
)
from spear_training.evaluation.open_loop import BASELINES, PROBES, ChunkErrors, OpenLoopErrors
from spear_training.train.metrics import plot_metric

NAMES = {
    "hold_still": "hold still",
    "mean_action": "mean action",
    "repeat_last": "last motion once more",
    "no_sentence": "without the sentence",
    "no_external": "without the external camera",
    "no_wrist": "without the wrist camera",
    "no_state": "without the state",
}
CAPTION = (
    "Means over all moments; translations from the anchor in millimetres, rotations in degrees; F1 "
    "of a closed gripper over all steps."
)
PROBE_CAPTION = (
    "The same network, moments and noise with one input taken away: another sentence that says "
    "nothing, a black picture, the state in the middle of its range. p: paired Wilcoxon test of "
    "the translation errors against those of the whole input; above 0.01 no difference is claimed. "
    "Moments of one episode are alike, so p is too small rather than too large."
)
CLAIMED = 0.01
SHOWN = 6
GREY = "#9aa5b1"
_TEMPLATE = Path(__file__).with_name("open_loop.html")


@dataclass(frozen=True)
class ErrorTable:
    """One of the tables on the page."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    caption: str


def write_page(path: Path, name: str, found: OpenLoopErrors, metrics: Sequence[dict] = ()) -> None:
    """Write the page, whole or not at all.

    Args:
        path: of the page.
        name: of the checkpoint.
        found: its errors.
        metrics: records of the training's metrics.jsonl; none: no curves.

    Raises:
        OSError: it cannot be written.
    """
    moments, steps = found.model.translation_mm.shape
    datasets = sorted(set(found.dataset))
    curves = svg_address(lambda figure: _draw_curves(metrics, figure), 10, 3.2) if metrics else ""
    page = render(
        _TEMPLATE,
        name=name,
        about=f"{moments} moments of {', '.join(datasets)}, {steps} steps each.",
        headlines=_headlines(found),
        tables=[_errors_table(found, steps), *_probe_table(found), *_dataset_table(found)],
        by_step=svg_address(lambda figure: _draw_steps(found, figure), 10, 3.6),
        chunks=svg_address(lambda figure: _draw_chunks(found, figure), 10, 4.4),
        curves=curves,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page)


def _headlines(found: OpenLoopErrors) -> list[Headline]:
    numbers = found.numbers()
    headlines = []
    for kind, unit, title in (
        ("translation", "mm", "translation error"),
        ("rotation", "deg", "rotation error"),
    ):
        own, still = numbers[f"{kind}_{unit}"], numbers[f"hold_still/{kind}_{unit}"]
        share = numbers[f"{kind}_share_of_hold_still"]
        words = f"{100 * share:.0f} % of holding still ({still:.1f} {unit})"
        headlines.append(Headline(f"{own:.1f} {unit}", title, words))
    headlines.append(Headline(_number(found.model.gripper_f1, 2), "gripper F1", "of closed"))
    return headlines


def _errors_table(found: OpenLoopErrors, steps: int) -> ErrorTable:
    numbers = [str(step) for step in range(1, steps + 1)]
    columns = ("", *(f"mm, step {n}" for n in numbers), *(f"°, step {n}" for n in numbers), "F1")
    every = {"the policy": found.model} | {NAMES[name]: found.others[name] for name in BASELINES}
    rows = [(name, *_cells(errors)) for name, errors in every.items()]
    return ErrorTable("Errors", columns, rows, CAPTION)


def _cells(errors: ChunkErrors) -> list[str]:
    cells = [f"{value:.1f}" for value in errors.translation_mm.mean(axis=0)]
    cells += [f"{value:.1f}" for value in errors.rotation_deg.mean(axis=0)]
    return [*cells, _number(errors.gripper_f1, 2)]


def _probe_table(found: OpenLoopErrors) -> list[ErrorTable]:
    rows = []
    for probe in PROBES:
        errors = found.others.get(f"no_{probe}")
        if errors is None:
            continue
        p = p_value(errors, found.model)
        reads = "reads it" if p < CLAIMED else "no difference shown"
        rows.append(
            (
                NAMES[f"no_{probe}"],
                f"{errors.translation_mm.mean():.1f}",
                f"{errors.rotation_deg.mean():.1f}",
                _number(errors.gripper_f1, 2),
                f"{p:.2g}",
                reads,
            )
        )
    columns = ("", "mm", "°", "F1", "p", "")
    title = "What the policy reads"
    return [ErrorTable(title, columns, rows, PROBE_CAPTION)] if rows else []


def p_value(without: ChunkErrors, whole: ChunkErrors) -> float:
    """Of no difference between the translation errors of two policies on the same moments."""
    difference = (without.translation_mm - whole.translation_mm).mean(axis=1)
    return float(wilcoxon(difference).pvalue) if np.any(difference) else 1.0


def _dataset_table(found: OpenLoopErrors) -> list[ErrorTable]:
    names = sorted(set(found.dataset))
    if len(names) < 2:
        return []
    rows = []
    for name in names:
        mine = found.dataset == name
        own, still = found.model.rows(mine), found.others["hold_still"].rows(mine)
        cells = (own.translation_mm, still.translation_mm, own.rotation_deg, still.rotation_deg)
        rows.append((str(name), str(int(mine.sum())), *(f"{cell.mean():.1f}" for cell in cells)))
    columns = ("", "moments", "mm", "hold still mm", "°", "hold still °")
    return [ErrorTable("By dataset", columns, rows, "Means over all moments and steps.")]


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


# Plots -------------------------------------------------------------------------------------------


def _draw_steps(found: OpenLoopErrors, figure) -> None:
    axes = figure.subplots(1, 2, gridspec_kw={"left": 0.07, "wspace": 0.22})
    every = {"the policy": (found.model, BLUE, "-")}
    for name, style in zip(BASELINES, ("--", ":", "-."), strict=True):
        every[NAMES[name]] = (found.others[name], GREY, style)
    for axis, kind, unit in ((axes[0], "translation_mm", "mm"), (axes[1], "rotation_deg", "°")):
        for label, (errors, colour, style) in every.items():
            means = getattr(errors, kind).mean(axis=0)
            axis.plot(range(1, len(means) + 1), means, style, color=colour, label=label)
        axis.set(xlabel="step", ylabel=f"{kind.partition('_')[0]} error [{unit}]", ylim=(0, None))
    legend_above(axes[0])


def _draw_chunks(found: OpenLoopErrors, figure) -> None:
    """Moments from the best to the worst, evenly spread."""
    order = np.argsort(found.model.translation_mm.mean(axis=1))
    chosen = order[np.linspace(0, len(order) - 1, min(SHOWN, len(order))).round().astype(int)]
    axes = figure.subplots(2, -(-len(chosen) // 2), sharex=True, squeeze=False).ravel()
    for axis, moment in zip(axes, chosen, strict=False):
        for part, style in ((found.recorded, "--"), (found.predicted, "-")):
            millimetres = 1e3 * part.translations_m[moment]
            for values, colour in zip(millimetres.T, (BLUE, ORANGE, GREEN), strict=True):
                axis.plot(range(1, len(values) + 1), values, style, color=colour)
        off = found.model.translation_mm[moment].mean()
        axis.set_title(f"off by {off:.1f} mm", fontsize=9)
    axes[0].set_ylabel("mm")


def _draw_curves(metrics: Sequence[dict], figure) -> None:
    left, right = figure.subplots(1, 2, gridspec_kw={"left": 0.07, "wspace": 0.22})
    for axis, key, colour, label in (
        (left, "loss", BLUE, "loss"),
        (left, "translation", ORANGE, "translation"),
        (left, "rotation_geometric", GREEN, "rotation, geometric"),
        (right, "rotation_error_deg", BLUE, "rotation, one step to the end"),
        (right, "rotation_identity_deg", GREY, "not turning"),
    ):
        plot_metric(axis, metrics, key, colour, label)
    left.set(xlabel="step", yscale="log")
    right.set(xlabel="step", ylabel="°", yscale="log")
    for axis in (left, right):
        legend_above(axis)
