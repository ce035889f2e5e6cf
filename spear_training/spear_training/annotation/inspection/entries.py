"""What the page shows of one picture."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from spear_training.annotation.boxes.vertex_order import edges_of
from spear_training.annotation.frame import StageError
from spear_training.annotation.inspection.drawing import (
    Colour,
    Image,
    colour_of,
    draw_box_3d,
    draw_boxes_2d,
    draw_mark,
    draw_masks,
    draw_point,
    web_colour,
)
from spear_training.annotation.inspection.plan_views import (
    PlanView,
    view_from_above,
    view_from_the_side,
)
from spear_training.annotation.inspection.projection import is_shown, project
from spear_training.annotation.inspection.tags import Tag, draw_tags, label_tag, vertex_tags
from spear_training.annotation.inspection.token_text import AskedPair
from spear_training.annotation.items import Intrinsics, Item
from spear_training.annotation.masks import MaskError, decode_mask
from spear_training.annotation.picture import read_frame
from spear_training.annotation.records import Annotation

JPEG_QUALITY = 80
_MARK: Colour = (255, 255, 255)
_SAME_PLACE_PX = 8.0


@dataclass(frozen=True)
class Shown:
    """A picture, whole inside the page: what it shows, and a data URI of a JPEG."""

    title: str
    uri: str


@dataclass(frozen=True)
class ObjectRow:
    """A line of the table of objects.

    Attributes:
        number: from 1, as on the pictures.
        label: its own.
        colour: "#rrggbb", as on the pictures.
        sides: along the box's x, y, z axis: width, height, depth; cm, or units.
        distance: of the box's centre from the camera; m, or units.
        points: of the cloud.
        score: of the detector, if it gave one.
        unusual: "" or why its size is unusual.
    """

    number: int
    label: str
    colour: str
    sides: tuple[float, float, float]
    distance: float
    points: int
    score: float | None
    unusual: str


@dataclass(frozen=True)
class Entry:
    """All that is shown of one picture; `notes` say what could not be shown, and why."""

    annotation: Annotation
    pictures: tuple[Shown, ...]
    views: tuple[PlanView, ...]
    rows: tuple[ObjectRow, ...]
    pairs: tuple[AskedPair, ...]
    notes: tuple[str, ...]


def make_entry(
    annotation: Annotation,
    images: Path | None,
    pairs: Sequence[AskedPair],
    unusual: dict[str, str] | None = None,
) -> Entry:
    """Draw a picture and what was found in it; what cannot be drawn is noted.

    Args:
        annotation: the record.
        images: folder that its picture is relative to; None: it is not known.
        pairs: questions about it, explained.
        unusual: label -> why the size of this object is unusual.
    """
    notes: list[str] = []
    image = _read(annotation, images, notes)
    found = annotation.objects
    above = view_from_above(found, annotation.intrinsics)
    side = view_from_the_side(found, annotation.intrinsics)
    return Entry(
        annotation,
        () if image is None else _pictures(image, annotation, pairs, notes),
        tuple(view for view in (above, side) if view),
        tuple(_rows(annotation, unusual or {})),
        tuple(pairs),
        tuple(notes),
    )


def in_flat(image: Image, annotation: Annotation, notes: list[str]) -> Image:
    """Draw masks, 2D boxes and labels; what is wrong with a mask goes to `notes`."""
    colours = [colour_of(number) for number in range(len(annotation.objects))]
    drawn = image
    for found, colour in zip(annotation.objects, colours, strict=True):
        try:
            drawn = draw_masks(drawn, [decode_mask(found.mask)], [colour])
        except (MaskError, ValueError) as error:
            notes.append(f"{found.label}: {error}")
    boxes = [found.box_xyxy_px for found in annotation.objects]
    tags = [
        label_tag(f"{number} {found.label}", found.box_xyxy_px, colour)
        for number, (found, colour) in enumerate(zip(annotation.objects, colours, strict=True), 1)
    ]
    return draw_tags(draw_boxes_2d(drawn, boxes, colours), tags)


def in_space(image: Image, annotation: Annotation) -> Image:
    """Draw the oriented boxes with numbered corners, and the keypoints; needs the intrinsics."""
    camera, height, width = annotation.intrinsics, *image.shape[:2]
    numbered = list(enumerate(annotation.objects))
    # The furthest first, so that near boxes lie over it.
    numbered.sort(key=lambda each: -np.linalg.norm(each[1].centre_m))
    drawn, tags = image, []
    for number, found in numbered:
        colour = colour_of(number)
        drawn = draw_box_3d(drawn, found.vertices, camera, colour)
        drawn = draw_point(drawn, found.closest_m, camera, colour, "disc")
        drawn = draw_point(drawn, found.furthest_m, camera, colour, "ring")
        drawn = draw_point(drawn, found.centre_m, camera, colour, "cross")
        tags = vertex_tags(found.vertices, camera, colour, width, height) + tags
    return draw_tags(drawn, tags)


def _read(annotation: Annotation, images: Path | None, notes: list[str]) -> Image | None:
    if images is None:
        return None
    item = Item(annotation.id, annotation.image, native_aspect=annotation.native_aspect)
    try:
        return read_frame(item, images).image
    except StageError as error:
        notes.append(f"The picture cannot be shown: {error}.")
        return None


def _pictures(image: Image, annotation: Annotation, pairs, notes: list[str]) -> tuple[Shown, ...]:
    if not annotation.objects:
        return (_shown("The picture", image),)
    flat = _with_marks(in_flat(image, annotation, notes), pairs, annotation.intrinsics)
    shown = [_shown("Masks, 2D boxes", flat)]
    if annotation.intrinsics is None:
        notes.append("The record has no intrinsics, so its 3D boxes cannot be drawn.")
    else:
        shown.append(_shown("Oriented 3D boxes, keypoints", in_space(image, annotation)))
    return tuple(shown)


def _with_marks(image: Image, pairs: Sequence[AskedPair], camera: Intrinsics | None) -> Image:
    """Mark the places that questions and answers speak of with the question's number."""
    tags = []
    height, width = image.shape[:2]
    for number, pair in enumerate(pairs, 1):
        marked: list[np.ndarray] = []
        places = [np.array(pixel) for pixel in pair.pixels_px()]
        if camera:
            places += [project(point, camera) for point in pair.points_m()]
        for place in places:
            # A question may say in space what its answer says in the picture.
            known = any(np.abs(place - other).max() < _SAME_PLACE_PX for other in marked)
            if is_shown(place, width, height) and not known:
                marked.append(place)
                image = draw_mark(image, place, _MARK, "ring")
                u, v = place.tolist()
                tags.append(Tag(f"Q{number}", ((u + 8, v - 8), (u + 8, v + 4)), _MARK))
    return draw_tags(image, tags)


def _shown(title: str, image: Image) -> Shown:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    stored = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1]
    return Shown(title, "data:image/jpeg;base64," + base64.b64encode(stored).decode())


def _rows(annotation: Annotation, unusual: dict[str, str]):
    factor = 100.0 if annotation.metric else 1.0
    for number, found in enumerate(annotation.objects):
        sides = np.linalg.norm(edges_of(found.vertices), axis=1) * factor
        yield ObjectRow(
            number + 1,
            found.label,
            web_colour(number),
            tuple(sides.tolist()),
            float(np.linalg.norm(found.centre_m)),
            found.cloud_size,
            found.score,
            unusual.get(found.label, ""),
        )
