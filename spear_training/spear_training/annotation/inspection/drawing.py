"""Drawings on pictures: masks, 2D boxes, oriented 3D boxes, points.

Pictures are (H, W, 3) uint8 RGB; every function returns a new one. Pixels count from the centre of
the top left one, except 2D boxes, which run from edge to edge.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.inspection.projection import Line, box_lines, is_shown, project
from spear_training.annotation.items import Intrinsics

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
_DASH_PX, _GAP_PX = 5.0, 5.0
_AXES_FROM = 0  # the corner that the axes are drawn at


def colour_of(number: int) -> Colour:
    """The colour of an object of a picture, by its number."""
    return PALETTE[number % len(PALETTE)]


def web_colour(number: int) -> str:
    """The colour of an object as "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*colour_of(number))


def draw_masks(
    image: Image, masks: Sequence[NDArray[np.bool_]], colours: Sequence[Colour], share: float = 0.35
) -> Image:
    """Tint what masks (H, W) show and draw their outlines.

    Args:
        image: to draw on.
        masks: one an object.
        colours: one a mask.
        share: of the colour, 0..1; the rest is the picture.

    Raises:
        ValueError: a mask has another size than the picture.
    """
    drawn = image.copy()
    for mask, colour in zip(masks, colours, strict=True):
        if mask.shape != image.shape[:2]:
            raise ValueError(
                f"a mask is {mask.shape[1]}x{mask.shape[0]}, the picture "
                f"{image.shape[1]}x{image.shape[0]}"
            )
        mixed = (1 - share) * drawn[mask] + share * np.array(colour)
        drawn[mask] = np.rint(mixed).astype(np.uint8)
        outlines, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(drawn, outlines, -1, colour, 1)
    return drawn


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
    """Draw the edges of an oriented box; hidden ones thin and dashed.

    The edges that leave corner 0 are coloured as axes: x red, y green, z blue.

    Args:
        image: to draw on.
        vertices_m: (8, 3) in the order of `boxes.vertex_order`; corners may be behind the camera
            or outside the picture, then the edges are cut there.
        intrinsics: of the picture.
        colour: of the other edges.
    """
    drawn = image.copy()
    height, width = image.shape[:2]
    lines = box_lines(vertices_m, intrinsics, width, height)
    for line in lines:
        ink = AXIS_COLOURS[line.edge.axis] if line.edge.start == _AXES_FROM else colour
        if line.edge.hidden:
            for start, end in _dashes(line):
                _line(drawn, start, end, ink, 1)
        else:
            _line(drawn, line.start_px, line.end_px, _DARK, 4)
    for line in lines:
        if not line.edge.hidden:
            axis = line.edge.start == _AXES_FROM
            ink = AXIS_COLOURS[line.edge.axis] if axis else colour
            _line(drawn, line.start_px, line.end_px, ink, 3 if axis else 2)
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


def draw_point(
    image: Image, point_m: Sequence[float], intrinsics: Intrinsics, colour: Colour, mark: Mark
) -> Image:
    """Draw a mark where the picture shows a point; the picture itself where it does not."""
    return draw_mark(image, project(point_m, intrinsics), colour, mark)


def _line(image: Image, start, end, colour: Colour, thickness: int) -> None:
    """Draw into the image itself."""
    start, end = _fixed([start, end]).tolist()
    cv2.line(image, start, end, colour, thickness, cv2.LINE_AA, _FRACTION_BITS)


def _fixed(points_px) -> NDArray[np.int32]:
    return np.rint(np.array(points_px) * 2**_FRACTION_BITS).astype(np.int32)


def _dashes(line: Line) -> Iterable[tuple[tuple, tuple]]:
    start, end = np.array(line.start_px), np.array(line.end_px)
    length = np.hypot(*(end - start))
    along = (end - start) / max(length, 1e-9)
    for begin in np.arange(0.0, length, _DASH_PX + _GAP_PX):
        stop = min(begin + _DASH_PX, length)
        yield tuple(start + begin * along), tuple(start + stop * along)
