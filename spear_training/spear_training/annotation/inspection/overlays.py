"""Drawings on pictures, by matplotlib: masks, 2D boxes, oriented 3D boxes, points, names.

A drawing is a function that adds to axes in which a unit is a pixel and (0, 0) the centre of the
top left one; 2D boxes run from edge to edge. Boxes have their corners in the order of
`boxes.ordered_vertices`: corner 4*sx + 2*sy + sz, where s is 0 on the negative and 1 on the
positive side of that axis.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_erosion

from spear_training.annotation.boxes import edges_of
from spear_training.annotation.records import Intrinsics

Image = NDArray[np.uint8]

# Apart from each other also for people who confuse red and green, and from the axes' colours.
PALETTE = (
    "#ffb000",
    "#56b4e9",
    "#e377c2",
    "#00b096",
    "#f0e442",
    "#aa82ff",
    "#ff8c5a",
    "#a0c878",
    "#c8a078",
    "#bebebe",
)
AXIS_COLOURS = ("#ff2828", "#28d228", "#325aff")  # of a box's x, y and z axis
_DARK = "#14181e"
# Corners are neighbours where their numbers differ in one bit; x is the highest bit.
_BIT_OF_AXIS = (4, 2, 1)
EDGES = tuple(
    (corner, corner | bit, axis)
    for axis, bit in enumerate(_BIT_OF_AXIS)
    for corner in range(8)
    if not corner & bit
)
# What is nearer than this share of a line's farther end has no place in a picture.
_NEAREST = 1e-3
_PX_PER_IN = 100
_PT_PER_PX = 72 / _PX_PER_IN
_LEAST_NUMBERED_PX = 60.0
_LETTER_PX, _LINE_PX = 7.0, 15.0  # of a name, roughly
_LONGEST_NAME = 40  # letters


def colour_of(number: int) -> str:
    """The colour "#rrggbb" of an object of a picture, by its number."""
    return PALETTE[number % len(PALETTE)]


def drawn_on(image: Image, draw: Callable) -> Image:
    """The picture (H, W, 3) RGB with what `draw` adds to its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = image.shape[:2]
    figure = Figure(figsize=(width / _PX_PER_IN, height / _PX_PER_IN), dpi=_PX_PER_IN)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(image, interpolation="none", aspect="auto")
    axes.autoscale(False)
    draw(axes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is drawn as a box
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def tinted(image: Image, mask: NDArray[np.bool_], colour: str, share: float = 0.35) -> Image:
    """The picture with a share (0..1) of a colour where a mask (H, W) is, and its outline.

    Raises:
        ValueError: the mask has another size than the picture.
    """
    from matplotlib.colors import to_rgb

    if mask.shape != image.shape[:2]:
        raise ValueError(
            f"a mask is {mask.shape[1]}x{mask.shape[0]}, the picture "
            f"{image.shape[1]}x{image.shape[0]}"
        )
    ink = 255 * np.array(to_rgb(colour))
    drawn = image.copy()
    drawn[mask] = np.rint((1 - share) * image[mask] + share * ink).astype(np.uint8)
    drawn[mask & ~binary_erosion(mask)] = ink
    return drawn


def draw_box_2d(axes, box_xyxy_px: Sequence[float], colour: str) -> None:
    """Draw a box (left, top, right, bottom; edge to edge); what is outside is cut off."""
    left, top, right, bottom = np.array(box_xyxy_px) - 0.5
    _line(axes, [left, right, right, left, left], [top, top, bottom, bottom, top], colour, 2)


def draw_box_3d(axes, vertices_m: NDArray, intrinsics: Intrinsics, colour: str) -> None:
    """Draw the edges of an oriented box, hidden ones thin and dashed, and number its corners.

    Small boxes have no numbers. The edges that leave corner 0 are coloured as axes: x red, y
    green, z blue.

    Args:
        axes: of the picture.
        vertices_m: (8, 3); corners may be behind the camera or outside the picture.
        intrinsics: of the picture.
        colour: of the other edges.
    """
    faces = visible_faces(vertices_m)
    for start, end, axis in EDGES:
        part = in_front(vertices_m[[start, end]])
        if part is None:
            continue
        u, v = project(part, intrinsics).T
        ink = AXIS_COLOURS[axis] if start == 0 else colour
        beside = {(other, bool(start & _BIT_OF_AXIS[other])) for other in range(3) if other != axis}
        if beside & faces:
            _line(axes, u, v, ink, 3 if start == 0 else 2)
        else:
            axes.plot(u, v, linestyle=(0, (5, 5)), color=ink, linewidth=_PT_PER_PX, zorder=1.5)
    corners = project(vertices_m, intrinsics)
    if not np.ptp(corners, axis=0).max() > _LEAST_NUMBERED_PX:
        return
    for number, (u, v) in enumerate(corners.tolist()):
        plate = {"facecolor": _DARK, "edgecolor": "none", "pad": 0.5}
        axes.text(u, v, str(number), size=6, color=colour, ha="center", va="center", bbox=plate,
                  clip_on=True)  # fmt: skip


def draw_mark(
    axes, pixel_px: Sequence[float], colour: str, mark: Literal["disc", "ring", "cross"]
) -> None:
    """Draw a mark at a pixel (u, v); nothing where that is NaN or outside."""
    style = {"disc": "o", "ring": "o", "cross": "x"}[mark]
    u, v = pixel_px
    for ink, edge_px in ((_DARK, 4), (colour, 2)):
        axes.plot(
            [u],
            [v],
            style,
            markersize=10 * _PT_PER_PX,
            markeredgewidth=edge_px * _PT_PER_PX,
            markeredgecolor=ink,
            markerfacecolor=colour if mark == "disc" else "none",
        )


def draw_names(axes, names: Sequence[tuple[str, Sequence[float], str]]) -> None:
    """Write names on plates: above their boxes, else below, else inside; free if possible.

    Args:
        axes: of the picture.
        names: words, box (left, top, right, bottom) and colour of each.
    """
    height, width = axes.images[0].get_array().shape[:2]
    taken: list[tuple[float, float, float, float]] = []
    for words, (left, top, right, bottom), colour in names:
        text = "".join(letter if letter.isprintable() else " " for letter in words)
        text = text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "\u2026"
        wide = _LETTER_PX * len(text)
        places = (left, top - _LINE_PX), (right - wide, top - _LINE_PX), (left, bottom), (left, top)
        spots = [
            (x, y, x + wide, y + _LINE_PX)
            for x, y in np.clip(places, 0, [max(0, width - wide), height - _LINE_PX]).tolist()
        ]
        free = (spot for spot in spots if not any(_overlap(spot, other) for other in taken))
        spot = next(free, spots[0])
        taken.append(spot)
        plate = {"facecolor": colour, "edgecolor": "none", "pad": 1.0}
        axes.text(spot[0], spot[1], text, size=8, color=_DARK, va="top", bbox=plate, clip_on=True,
                  parse_math=False)  # fmt: skip


def project(points_m: ArrayLike, intrinsics: Intrinsics) -> NDArray[np.float64]:
    """Where points appear: (..., 3) in the camera frame to (..., 2) pixels u, v.

    (0, 0) is the centre of the top left pixel; NaN for what is not in front of the camera.
    """
    points = np.asarray(points_m, np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(points[..., 2:] > 0, intrinsics.project(points), np.nan)


def in_front(ends_m: NDArray) -> NDArray | None:
    """The part (2, 3) of a line between two points that lies before the camera; None: nothing."""
    least = _NEAREST * np.abs(ends_m).max()
    near, far = ends_m[ends_m[:, 2].argsort()]
    if not far[2] > least:
        return None
    if near[2] < least:
        near = near + (least - near[2]) / (far[2] - near[2]) * (far - near)
    return np.array([near, far])


def visible_faces(vertices_m: NDArray) -> set[tuple[int, bool]]:
    """Faces of a box that look towards the origin: (axis, whether on its positive side).

    None, if the origin is inside.
    """
    centre, faces = vertices_m.mean(axis=0), set()
    for axis, edge in enumerate(edges_of(vertices_m)):
        for positive in (False, True):
            outwards = edge if positive else -edge
            if outwards @ (centre + outwards / 2) < 0:
                faces.add((axis, positive))
    return faces


def _line(axes, u, v, colour: str, width_px: float) -> None:
    for ink, width in ((_DARK, width_px + 2), (colour, width_px)):
        axes.plot(u, v, color=ink, linewidth=width * _PT_PER_PX, solid_joinstyle="miter")


def _overlap(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
