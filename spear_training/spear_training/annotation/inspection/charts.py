"""Small drawings of what a run comes to, as SVG for a page; legible on light and dark."""

import io
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLUE, ORANGE, RED = "#3d84cf", "#d9822b", "#d0524a"
_INK = "#7b8794"  # reads on white and on black
_STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "spear",  # the same numbers give the same drawing
}
# What matplotlib would write about the file itself.
_UNSAID = ("Creator", "Date", "Format", "Type")
_BINS = 40
_MOST_GROUPS = 128
_MARGINS = {"left": 0.13, "right": 0.98, "bottom": 0.2, "top": 0.88}


def count_chart(counts: Counter[int], x_label: str, y_label: str) -> str:
    """Bars of how often each small number occurs."""
    numbers = range(max(counts, default=0) + 1)

    def draw(axes):
        # One shape for all bars; a rest of 0 between two of them.
        edges = [side for number in numbers for side in (number - 0.4, number + 0.4)]
        heights = [height for number in numbers for height in (counts[number], 0)][:-1]
        axes.stairs(heights, edges, fill=True, color=BLUE)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _whole_counts(axes)

    return _drawn(draw)


def length_chart(
    lengths_m: NDArray, x_label: str, y_label: str, marked_m: Sequence[float] = ()
) -> str:
    """A histogram over a logarithmic axis, with the median; marked values are drawn below.

    Args:
        lengths_m: all above 0, at least one.
        x_label: of the axis.
        y_label: of the axis.
        marked_m: outliers.
    """
    low, high = lengths_m.min() / 1.2, lengths_m.max() * 1.2
    edges = np.geomspace(low, high, _BINS + 1)

    def draw(axes):
        axes.stairs(np.histogram(lengths_m, edges)[0], edges, fill=True, color=BLUE)
        median = float(np.median(lengths_m))
        axes.axvline(median, color=ORANGE, linewidth=1.2, label=f"median {median:.3g}")
        if len(marked_m):
            at_base = np.zeros(len(marked_m))
            label = f"{len(marked_m)} outliers"
            axes.plot(marked_m, at_base, "|", color=RED, markersize=12, clip_on=False, label=label)
        axes.set(xscale="log", xlim=(low, high), xlabel=x_label, ylabel=y_label)
        _plain_ticks(axes, low, high)
        _whole_counts(axes)
        _legend_above(axes)

    return _drawn(draw)


def bin_chart(uses: dict[str, NDArray], colours: Sequence[str] = (BLUE, ORANGE)) -> str:
    """How often each bin of the 3D tokens is used, against all bins used alike.

    Args:
        uses: counts (bins,) by what they are of; those with none are left out.
        colours: one each.
    """

    def draw(axes):
        for (name, counts), colour in zip(uses.items(), colours, strict=False):
            if not counts.sum():
                continue
            group = -(-len(counts) // _MOST_GROUPS)
            starts = np.arange(0, len(counts), group)
            widths = np.diff([*starts, len(counts)])
            density = np.add.reduceat(counts, starts) / widths * len(counts) / counts.sum()
            axes.stairs(density, [*starts, len(counts)], color=colour, label=name, linewidth=1.2)
        axes.axhline(1.0, color=_INK, linewidth=0.8, linestyle="--", label="all alike")
        axes.set(xlabel="number of the 3D token", ylabel="use", ylim=(0, None))
        _legend_above(axes)

    return _drawn(draw)


def _whole_counts(axes) -> None:
    axes.yaxis.get_major_locator().set_params(integer=True)


def _legend_above(axes) -> None:
    """Put the legend where no data can be under it."""
    axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.0)


def _plain_ticks(axes, low: float, high: float) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if high / low > 30:
        axes.xaxis.set_minor_formatter(NullFormatter())
        return
    steps = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = np.multiply.outer(powers, steps).ravel()
    axes.set_xticks(ticks[(ticks >= low) & (ticks <= high)])
    axes.xaxis.set_minor_locator(NullLocator())


def _drawn(draw) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    stored = io.StringIO()
    with rc_context(_STYLE):
        figure = Figure(figsize=(4.2, 2.3))
        draw(figure.subplots(gridspec_kw=_MARGINS))
        figure.savefig(stored, format="svg", metadata=dict.fromkeys(_UNSAID))
    drawn = stored.getvalue()
    # Groups of every drawing have the same names; a page may have each name once.
    return re.sub(r'<g id="[^"]*"', "<g", drawn[drawn.index("<svg") :])
