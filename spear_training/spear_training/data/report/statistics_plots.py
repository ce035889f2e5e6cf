"""The drawings of a mixture's statistics."""

from collections.abc import Mapping

from spear_policy.inference.statistics import AXES, Statistics
from spear_training.data.statistics.motion import MotionStatistics
from spear_training.data.statistics.normalisation import HIGH, LOW
from spear_training.pages.drawing import BLUE, ORANGE


def draw_ranges(
    figure, motions: Mapping[str, MotionStatistics], pooled: Statistics, kind: str
) -> None:
    """1 %, median and 99 % of each data set, a row each, and the bounds of the mixture.

    Args:
        figure: an empty matplotlib Figure.
        motions: of each data set, from above to below.
        pooled: of the mixture.
        kind: "translation" or "position".
    """
    names, bounds = list(motions), getattr(pooled, kind)
    axes = figure.subplots(1, 3, sharey=True)
    longest = max(len(name) for name in names)
    inch = figure.get_size_inches()
    figure.subplots_adjust(
        left=min(0.4, (0.075 * longest + 0.2) / inch[0]),
        right=0.99,
        wspace=0.06,
        bottom=0.45 / inch[1],
        top=1 - 0.45 / inch[1],
    )
    for axis, name, low, high in zip(axes, AXES, bounds.low, bounds.high, strict=True):
        axis.axvspan(low, high, color=ORANGE, alpha=0.15, linewidth=0)
        for row, motion in enumerate(motions.values()):
            sketch = getattr(motion, kind)[AXES.index(name)]
            ends = sketch.quantile(LOW), sketch.quantile(HIGH)
            axis.plot(ends, (row, row), "-", color=BLUE, linewidth=3, solid_capstyle="butt")
            axis.plot(sketch.quantile(0.5), row, "o", color=BLUE, markersize=4.5)
        axis.set(title=name, ylim=(len(names) - 0.5, -0.5))
        axis.locator_params(axis="x", nbins=6)
    axes[0].set_yticks(range(len(names)), names)
