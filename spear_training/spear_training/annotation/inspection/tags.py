"""Words on pictures, each on a plate of its own colour, placed so that they do not cover others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.inspection.drawing import Colour, Image
from spear_training.annotation.inspection.projection import is_shown, project
from spear_training.annotation.items import Intrinsics

LABEL_PX, NUMBER_PX = 14, 11
_LONGEST = 40  # letters
_PAD_PX = 2


@dataclass(frozen=True)
class Tag:
    """Words and where they may stand.

    Attributes:
        text: one line of letters that can be printed.
        places_px: upper left corners (x, y) to try, the best one first.
        colour: of the plate, or of the words where there is none.
        size_px: of the letters.
        plate: whether there is one.
        must: written even if it covers others.
    """

    text: str
    places_px: tuple[tuple[float, float], ...]
    colour: Colour
    size_px: int = LABEL_PX
    plate: bool = True
    must: bool = True


def label_tag(text: str, box_xyxy_px: Sequence[float], colour: Colour) -> Tag:
    """The name of a 2D box: above it, else below it, else inside it."""
    left, top, right, bottom = box_xyxy_px
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "\u2026"
    width, height = text_size(text, LABEL_PX)
    places = ((left, top - height), (right - width, top - height), (left, bottom), (left, top))
    return Tag(text, places, colour)


def vertex_tags(
    vertices_m: NDArray, intrinsics: Intrinsics, colour: Colour, width_px: int, height_px: int
) -> list[Tag]:
    """The numbers of a box's corners, a little outwards of them; near corners first.

    Corners that the picture does not show have none.
    """
    tags = []
    pixels = project(vertices_m, intrinsics)
    shown = is_shown(pixels, width_px, height_px)
    middle = pixels[shown].mean(axis=0) if shown.any() else None
    for number in np.argsort(np.linalg.norm(vertices_m, axis=1), kind="stable").tolist():
        if not shown[number]:
            continue
        size = np.array(text_size(str(number), NUMBER_PX))
        outwards = pixels[number] - middle
        outwards = outwards / max(np.abs(outwards).max(), 1e-9)
        places = tuple(
            tuple((pixels[number] + reach * outwards - size / 2).tolist()) for reach in (8, 14)
        )
        tags.append(Tag(str(number), places, colour, NUMBER_PX, plate=False, must=False))
    return tags


def draw_tags(image: Image, tags: Iterable[Tag]) -> Image:
    """Write the tags in their order; one that finds no free place is left out unless it must be."""
    from PIL import Image as Pillow
    from PIL import ImageDraw

    picture = Pillow.fromarray(image)
    pen = ImageDraw.Draw(picture)
    taken: list[tuple[float, float, float, float]] = []
    for tag in tags:
        size = text_size(tag.text, tag.size_px)
        spot = _spot(tag, size, picture.size, taken)
        if spot is None:
            continue
        taken.append(spot)
        where = (spot[0] + _PAD_PX, spot[1] + _PAD_PX)
        if tag.plate:
            pen.rectangle(spot, fill=tag.colour)
            pen.text(where, tag.text, fill=(20, 24, 30), font=_font(tag.size_px), anchor="lt")
        else:
            edge = {"stroke_width": 2, "stroke_fill": (20, 24, 30)}
            pen.text(where, tag.text, fill=tag.colour, font=_font(tag.size_px), anchor="lt", **edge)
    return np.asarray(picture).copy()


def text_size(text: str, size_px: int) -> tuple[float, float]:
    """Width and height (px) of a tag."""
    _, top, _, bottom = _font(size_px).getbbox("Ag", anchor="lt")
    return _font(size_px).getlength(text) + 2 * _PAD_PX, bottom - top + 2 * _PAD_PX


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
    return next(free, spots[0] if tag.must else None)


def _meet(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@lru_cache
def _font(size_px: int):
    """DejaVu Sans, which matplotlib brings along: it has most of the world's alphabets."""
    import matplotlib
    from PIL import ImageFont

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf")
    # The other engine, where it is installed at all, refuses some texts.
    return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.BASIC)
