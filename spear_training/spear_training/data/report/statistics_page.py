"""The page of a mixture's statistics: report.html beside statistics.json, one file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spear_policy.inference.statistics import AXES, Statistics
from spear_training.data.report.statistics_plots import draw_ranges
from spear_training.data.statistics.motion import MotionStatistics
from spear_training.data.statistics.normalisation import Normalisation
from spear_training.data.statistics.oddities import Oddity
from spear_training.data.whole_file import write_whole
from spear_training.pages.drawing import svg_address
from spear_training.pages.page import render

PAGE_NAME = "report.html"
TEMPLATE = Path(__file__).parent / "templates" / "statistics.html"
KINDS = {
    "translation": "Translations of the chunks, 0.2 to 1 s ahead [m]",
    "position": "Positions of the hand in the robot's base frame [m]",
}
MEANINGS = {
    "global_quantile": "1 % and 99 % of the whole mixture become -1 and 1",
    "const": "bounds that were given become -1 and 1, the same for all data sets",
    "dataset_quantile": "1 % and 99 % of each data set for itself become -1 and 1",
    "mean_std": "mean of the whole mixture becomes 0, deviation 1",
}
COLUMNS = (
    "data set",
    "share",
    "episodes",
    "moments",
    "idle",
    "open",
    "gripper changes an episode",
    "1 s, median [mm]",
    "1 s, 99 % [mm]",
    "too fast",
)


@dataclass(frozen=True)
class RangeRow:
    """One row of the table of numbers: whose, which axis, and its numbers in words."""

    whose: str
    axis: str
    numbers: tuple[str, ...]


def write_statistics_report(
    folder: Path,
    motions: Mapping[str, MotionStatistics],
    shares: Mapping[str, float],
    found: Normalisation,
    odd: Sequence[Oddity],
) -> Path:
    """Write the page into `folder`, whole or not at all.

    Args:
        folder: where statistics.json is.
        motions, shares: of each data set, in the order in which they are shown.
        found: what the mixture is normalised by.
        odd: what a person should look at.

    Returns:
        The page's path.

    Raises:
        OSError: it cannot be written.
    """
    values = {
        "scheme": found.scheme,
        "meaning": MEANINGS[found.scheme],
        "pooled_hash": found.hashes()["pooled"],
        "moments": sum(motion.moments for motion in motions.values()),
        "columns": COLUMNS,
        "rows": [_row(name, motion, shares[name]) for name, motion in motions.items()],
        "odd": odd,
        "plots": [(title, _drawn(motions, found.pooled, kind)) for kind, title in KINDS.items()],
        "ranges": _ranges(found),
        "hashes": found.hashes() if found.scheme == "dataset_quantile" else {},
    }
    page = folder / PAGE_NAME
    write_whole(page, render(TEMPLATE, **values).encode())
    return page


def _row(name: str, motion: MotionStatistics, share: float) -> list[str]:
    return [
        name,
        f"{100 * share:.1f} %",
        f"{motion.episodes:,}",
        f"{motion.moments:,}",
        f"{100 * motion.idle_share:.1f} %",
        f"{100 * motion.open_share:.1f} %",
        f"{motion.gripper_changes / max(1, motion.episodes):.2f}",
        f"{1e3 * motion.distance.quantile(0.5):.0f}",
        f"{1e3 * motion.distance.quantile(0.99):.0f}",
        f"{motion.implausible_episodes:,}",
    ]


def _drawn(motions: Mapping[str, MotionStatistics], pooled: Statistics, kind: str) -> str:
    height_in = 1.1 + 0.24 * len(motions)
    return svg_address(lambda figure: draw_ranges(figure, motions, pooled, kind), 11.0, height_in)


def _ranges(found: Normalisation) -> dict[str, list[RangeRow]]:
    """By kind: the numbers of the mixture, or of each data set where they differ."""
    if found.scheme == "dataset_quantile":
        owners = {**found.by_data_set, "whole mixture": found.pooled}
    else:
        owners = {"whole mixture": found.pooled}
    return {
        title: [
            RangeRow(whose, axis, tuple(f"{round(value, 4) + 0.0:.4f}" for value in numbers))
            for whose, statistics in owners.items()
            for axis, *numbers in _axes(getattr(statistics, kind))
        ]
        for kind, title in KINDS.items()
    }


def _axes(bounds):
    return zip(AXES, bounds.low, bounds.high, bounds.mean, bounds.std, strict=True)
