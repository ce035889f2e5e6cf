"""Drawings on pictures: masks, 2D boxes, oriented 3D boxes, points.

Pictures are (H, W, 3) uint8 RGB; every function returns a new one. Pixels count from the centre of
the top left one, except 2D boxes, which run from edge to edge. Boxes have their corners in the
order of `boxes.ordered_vertices`: corner 4*sx + 2*sy + sz, where s is 0 on the negative and 1 on
the positive side of that axis.

In order: projection of points and box edges; masks, boxes and marks; labels, placed so that they
do not cover each other.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_training.annotation.boxes import edges_of
from spear_training.annotation.records import Intrinsics

# Projection of points and oriented boxes -------------------------------------------------------


# Corners are neighbours where their numbers differ in one bit; x is the highest bit.
_BIT_OF_AXIS = (4, 2, 1)
EDGES = tuple(
    (corner, corner | bit, axis)
    for axis, bit in enumerate(_BIT_OF_AXIS)
    for corner in range(8)
    if not corner & bit
)
# Nearer than this share of the larger distance of an edge's ends, nothing has a place in a picture.
_IN_FRONT = 1e-6


class Edge(NamedTuple):
    """The part of a box's edge that the picture shows.

    Attributes:
        corners: numbers of its ends.
        axis: 0, 1 or 2: it runs along the box's x, y or z axis.
        hidden: whether the box itself is between it and the camera.
        ends_px: (2, 2) of the part, u and v; (0, 0) is a pixel's centre.
    """

    corners: tuple[int, int]
    axis: int
    hidden: bool
    ends_px: NDArray[np.float64]


def project(points_m: ArrayLike, intrinsics: Intrinsics) -> NDArray[np.float64]:
    """Where points appear: (..., 3) in the camera frame to (..., 2) pixels u, v.

    (0, 0) is the centre of the top left pixel; NaN for what is not in front of the camera.
    """
    points = np.asarray(points_m, np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(points[..., 2:] > 0, intrinsics.project(points), np.nan)


def is_shown(pixels: NDArray, width_px: int, height_px: int) -> NDArray[np.bool_]:
    """Which of (..., 2) pixels lie in a picture; those that are NaN do not."""
    u, v = np.moveaxis(np.asarray(pixels), -1, 0)
    return (u >= -0.5) & (u <= width_px - 0.5) & (v >= -0.5) & (v <= height_px - 0.5)


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


def box_edges(
    vertices_m: NDArray, intrinsics: Intrinsics, width_px: int, height_px: int
) -> list[Edge]:
    """The edges of a box, each cut to what the picture shows of it.

    Args:
        vertices_m: (8, 3); corners may be behind the camera or outside the picture.
        intrinsics: of the picture.
        width_px: of the picture.
        height_px: of the picture.

    Returns:
        Hidden ones first, so that others are drawn over them; edges outside are left out.
    """
    faces, found = visible_faces(vertices_m), []
    for start, end, axis in EDGES:
        part = _in_view(vertices_m[[start, end]], intrinsics, width_px, height_px)
        if part is not None:
            beside = [(i, bool(start & _BIT_OF_AXIS[i])) for i in range(3) if i != axis]
            hidden = not any(face in faces for face in beside)
            found.append(Edge((start, end), axis, hidden, project(part, intrinsics)))
    return sorted(found, key=lambda edge: not edge.hidden)


def _in_view(ends_m, intrinsics, width_px, height_px):
    """The part (2, 3) of a line between two points that lies in the view; None: nothing of it."""
    left, right = -0.5 - intrinsics.cx, width_px - 0.5 - intrinsics.cx
    top, bottom = -0.5 - intrinsics.cy, height_px - 0.5 - intrinsics.cy
    # A point is in view where all of these are positive. They bound the view in space, where
    # nothing is divided by a distance that may be zero.
    planes = np.array(
        [
            [intrinsics.fx, 0.0, -left],
            [-intrinsics.fx, 0.0, right],
            [0.0, intrinsics.fy, -top],
            [0.0, -intrinsics.fy, bottom],
            [0.0, 0.0, 1.0],
        ]
    )
    least = np.zeros((5, 1))
    least[4] = _IN_FRONT * np.abs(ends_m).max()
    at_start, at_end = (planes @ ends_m.T - least).T
    if not np.isfinite([at_start, at_end]).all() or (np.maximum(at_start, at_end) <= 0).any():
        return None
    change = at_end - at_start
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = -at_start / change
    first = crossing[at_start < 0].max(initial=0.0)
    last = crossing[at_end < 0].min(initial=1.0)
    if first >= last:
        return None
    start, end = ends_m
    return np.array([start + first * (end - start), start + last * (end - start)])


# Masks, boxes and marks ------------------------------------------------------------------------


Colour = tuple[int, int, int]
Image = NDArray[np.uint8]
Mark = Literal["disc", "ring", "cross"]

# Apart from each other also for people who confuse red and green, and from the axes' colours.
PALETTE: tuple[Colour, ...] = (
    (255, 176, 0),
    (86, 180, 233),
    (227, 119, 194),
    (0, 176, 150),
    (240, 228, 66),
    (170, 130, 255),
    (255, 140, 90),
    (160, 200, 120),
    (200, 160, 120),
    (190, 190, 190),
)
# Of a box's x, y and z axis.
AXIS_COLOURS: tuple[Colour, ...] = ((255, 40, 40), (40, 210, 40), (50, 90, 255))
_DARK = (20, 24, 30)
_FRACTION_BITS = 4  # of OpenCV's coordinates


def colour_of(number: int) -> Colour:
    return PALETTE[number % len(PALETTE)]


def web_colour(number: int) -> str:
    """The colour of an object as "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*colour_of(number))


def draw_mask(image: Image, mask: NDArray[np.bool_], colour: Colour, share: float = 0.35) -> Image:
    """Tint what a mask (H, W) shows with a share (0..1) of a colour and draw its outline.

    Raises:
        ValueError: the mask has another size than the picture.
    """
    if mask.shape != image.shape[:2]:
        raise ValueError(
            f"a mask is {mask.shape[1]}x{mask.shape[0]}, the picture "
            f"{image.shape[1]}x{image.shape[0]}"
        )
    drawn = image.copy()
    mixed = (1 - share) * drawn[mask] + share * np.array(colour)
    drawn[mask] = np.rint(mixed).astype(np.uint8)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(drawn, outlines, -1, colour, 1)


def draw_boxes_2d(
    image: Image, boxes_xyxy_px: Sequence[Sequence[float]], colours: Sequence[Colour]
) -> Image:
    """Draw boxes (left, top, right, bottom; edge to edge); what is outside is cut off."""
    drawn = image.copy()
    most = np.array([image.shape[1], image.shape[0]] * 2) - 1.0
    for box, colour in zip(boxes_xyxy_px, colours, strict=True):
        left, top, right, bottom = np.clip(np.array(box) - 0.5, 0, most)
        corners = _fixed([(left, top), (right, top), (right, bottom), (left, bottom)])
        for ink, thickness in ((_DARK, 4), (colour, 2)):
            cv2.polylines(drawn, [corners], True, ink, thickness, cv2.LINE_AA, _FRACTION_BITS)
    return drawn


def draw_box_3d(image: Image, vertices_m: NDArray, intrinsics: Intrinsics, colour: Colour) -> Image:
    """Draw the edges of an oriented box; hidden ones thin.

    The edges that leave corner 0 are coloured as axes: x red, y green, z blue.

    Args:
        image: to draw on.
        vertices_m: (8, 3) in the order of `boxes.ordered_vertices`; corners may be behind the
            camera or outside the picture, then the edges are cut there.
        intrinsics: of the picture.
        colour: of the other edges.
    """
    drawn = image.copy()
    height, width = image.shape[:2]
    for edge in box_edges(vertices_m, intrinsics, width, height):
        axis = edge.corners[0] == 0
        ink = AXIS_COLOURS[edge.axis] if axis else colour
        if edge.hidden:
            _line(drawn, *edge.ends_px, ink, 1)
        else:
            _line(drawn, *edge.ends_px, _DARK, 4)
            _line(drawn, *edge.ends_px, ink, 3 if axis else 2)
    return drawn


def draw_mark(image: Image, pixel_px: Sequence[float], colour: Colour, mark: Mark) -> Image:
    """Draw a mark at a pixel (u, v); the picture itself where it is outside."""
    drawn = image.copy()
    if not is_shown(np.array(pixel_px, float), image.shape[1], image.shape[0]):
        return drawn
    u, v = pixel_px
    for ink, more in ((_DARK, 2), (colour, 0)):
        if mark == "cross":
            for across, down in ((5, 5), (5, -5)):
                start, end = (u - across, v - down), (u + across, v + down)
                _line(drawn, start, end, ink, 2 + more)
        else:
            thickness = -1 if mark == "disc" else 2 + more
            radius = round((5 + (more / 2 if mark == "disc" else 0)) * 2**_FRACTION_BITS)
            middle = _fixed(pixel_px).tolist()
            cv2.circle(drawn, middle, radius, ink, thickness, cv2.LINE_AA, _FRACTION_BITS)
    return drawn


def _line(image: Image, start, end, colour: Colour, thickness: int) -> None:
    start, end = _fixed([start, end]).tolist()
    cv2.line(image, start, end, colour, thickness, cv2.LINE_AA, _FRACTION_BITS)


def _fixed(points_px) -> NDArray[np.int32]:
    return np.rint(np.array(points_px) * 2**_FRACTION_BITS).astype(np.int32)


# Labels ----------------------------------------------------------------------------------------


LABEL_PX = 14
_LONGEST = 40  # letters
_PAD_PX = 2


class Tag(NamedTuple):
    """Words on a plate, and where they may stand.

    Attributes:
        text: one line of letters that can be printed.
        places_px: upper left corners (x, y) to try, the best one first.
        colour: of the plate.
    """

    text: str
    places_px: tuple[tuple[float, float], ...]
    colour: Colour


def label_tag(text: str, box_xyxy_px: Sequence[float], colour: Colour) -> Tag:
    """The name of a 2D box: above it, else below it, else inside it."""
    left, top, right, bottom = box_xyxy_px
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "\u2026"
    width, height = text_size(text)
    places = ((left, top - height), (right - width, top - height), (left, bottom), (left, top))
    return Tag(text, places, colour)


def draw_tags(image: Image, tags: Iterable[Tag]) -> Image:
    """Write the tags in their order; one that finds no free place covers others."""
    from PIL import Image as Pillow
    from PIL import ImageDraw

    picture = Pillow.fromarray(image)
    pen = ImageDraw.Draw(picture)
    taken: list[tuple[float, float, float, float]] = []
    for tag in tags:
        spot = _spot(tag, text_size(tag.text), picture.size, taken)
        taken.append(spot)
        pen.rectangle(spot, fill=tag.colour)
        where = (spot[0] + _PAD_PX, spot[1] + _PAD_PX)
        pen.text(where, tag.text, fill=_DARK, font=_font(), anchor="lt")
    return np.asarray(picture).copy()


def text_size(text: str) -> tuple[float, float]:
    """Width and height (px) of a tag."""
    _, top, _, bottom = _font().getbbox("Ag", anchor="lt")
    return _font().getlength(text) + 2 * _PAD_PX, bottom - top + 2 * _PAD_PX


def _spot(tag: Tag, size, picture_size, taken):
    """Left, top, right, bottom inside the picture, free if there is a free one."""
    spots = []
    for place in tag.places_px:
        left, top = (
            float(np.clip(at, 0, max(0, most - side - 1)))
            for at, side, most in zip(place, size, picture_size, strict=True)
        )
        spots.append((left, top, left + size[0], top + size[1]))
    free = (spot for spot in spots if not any(_meet(spot, other) for other in taken))
    return next(free, spots[0])


def _meet(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@lru_cache
def _font():
    """DejaVu Sans, which matplotlib brings along: it has most of the world's alphabets."""
    import matplotlib
    from PIL import ImageFont

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf")
    # The other engine, where it is installed at all, refuses some texts.
    return ImageFont.truetype(str(path), LABEL_PX, layout_engine=ImageFont.Layout.BASIC)
