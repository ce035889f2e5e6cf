"""Pages that are one file each: text is escaped, nothing is loaded from elsewhere."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jinja2
from numpy.typing import NDArray

_SHARED = Path(__file__).parent


def render(template: Path, **values) -> str:
    """Fill a template, which extends base.html, with values.

    Raises:
        jinja2.UndefinedError: the template asks for a value that is not given.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, _SHARED]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)


@dataclass(frozen=True)
class Headline:
    """A number that is seen first, as text: its value, its name, and a remark in small print."""

    value: str
    name: str
    remark: str = ""


# Drawings and pictures -------------------------------------------------------------------------

BLUE, ORANGE, GREEN, RED, GREY = "#2f6fb7", "#d9822b", "#3c9a5f", "#c8443c", "#8a94a0"
AXES = (("x", BLUE), ("y", ORANGE), ("z", GREEN))
MOST_POINTS = 800  # of a line: it keeps its look, the file stays small
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": "#3e4c59",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.7,
    "xtick.color": "#616e7c",
    "ytick.color": "#616e7c",
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    # Margins that fit: to have matplotlib find them takes as long as the rest of a drawing.
    "figure.subplot.left": 0.13,
    "figure.subplot.right": 0.98,
    "figure.subplot.bottom": 0.14,
    "figure.subplot.top": 0.91,
    "figure.subplot.wspace": 0.4,
    "figure.subplot.hspace": 0.48,
    "text.parse_math": False,  # a sentence may have two dollars
    "svg.fonttype": "none",
    "svg.hashsalt": "spear",  # the same numbers give the same file
}


def svg(draw: Callable, width_in: float, height_in: float, layout: str | None = None) -> bytes:
    """A drawing as the content of an SVG file.

    Args:
        draw: fills an empty matplotlib Figure.
        width_in, height_in: of the drawing [inch].
        layout: matplotlib's engine of it; None: the margins of `STYLE`.
    """
    # Slow to import, and many programs that can draw are not asked to.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    stored = io.BytesIO()
    with rc_context(STYLE):
        figure = Figure(figsize=(width_in, height_in), layout=layout)
        draw(figure)
        figure.savefig(stored, format="svg", metadata={"Date": None})
    return stored.getvalue()


def svg_address(draw: Callable, width_in: float, height_in: float) -> str:
    """A drawing as an address that holds it, for `<img src=...>`; see `svg`."""
    return _address("image/svg+xml", svg(draw, width_in, height_in))


def jpeg_address(jpeg: bytes) -> str:
    """An encoded picture as an address."""
    return _address("image/jpeg", jpeg)


def thin(*arrays: NDArray) -> list[NDArray]:
    """Every n-th entry of arrays of one length, at most `MOST_POINTS`."""
    step = -(-len(arrays[0]) // MOST_POINTS)
    return [array[:: max(1, step)] for array in arrays]


def legend_above(axis) -> None:
    """Put the legend on the line of the title, where no data can be under it."""
    axis.legend(ncols=4, loc="lower right", bbox_to_anchor=(1.0, 0.99), borderaxespad=0.0)


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
