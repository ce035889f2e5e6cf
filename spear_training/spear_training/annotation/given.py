"""The detector and the segmenter `given`: objects that the list of items names, with their masks.

Ego-Exo4D's masks come this way, and so does any list of boxes that another program wrote.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.detections import (
    OUTSIDE,
    Detection,
    box_iou_2d,
    reported_label,
    sort_out,
)
from spear_training.annotation.frame import Candidate, Frame
from spear_training.annotation.records import Dropped, GivenObject, RecordError, decode_mask
from spear_training.annotation.stages import ObjectError, StageError

Box = tuple[float, float, float, float]


class GivenDetector:
    """Takes the item's objects; an object without a box has its mask's."""

    name = "given"
    parallel = 1

    @property
    def settings(self) -> dict:
        """There is nothing to set."""
        return {}

    def __call__(self, frame: Frame) -> Frame:
        """Bring the objects into the picture.

        Raises:
            StageError: nobody has looked for objects in it.
        """
        if frame.item.objects is None:
            raise StageError(
                "the item has no objects: add them to the list, or choose a detector that finds "
                "them"
            )
        kept, lost = [], []
        for found in frame.item.objects:
            fine, refused = detect_given(frame, found)
            kept += fine
            lost += refused
        return frame.keep(kept, lost)


def detect_given(frame: Frame, found: GivenObject) -> tuple[list[Candidate], list[Dropped]]:
    """One object of the item: a candidate in a list, or why not in the other."""
    try:
        if found.crowd:
            raise ObjectError("a crowd, not one object")
        if found.box_xyxy_px is not None:
            check_box(frame, found)
            box = frame.given_box(found.box_xyxy_px)
        elif found.mask is not None:
            box = box_of_mask(given_mask(frame, found.mask))
        else:
            raise ObjectError("the item gives neither its box nor its mask")
    except ObjectError as error:
        return [], [Dropped(reported_label(found.label), str(error))]
    return sort_out([Detection(found.label, box)], frame.visible)


def given_mask(frame: Frame, stored: dict | list) -> NDArray[np.bool_]:
    """A mask of the item in the picture (630, 840), False in padding.

    Raises:
        ObjectError: it is damaged, or not of the stored picture's size.
    """
    try:
        return frame.given_map(decode_mask(stored, frame.given_size), outside=False)
    except RecordError as error:
        raise ObjectError(str(error)) from None
    except ValueError as error:
        raise ObjectError(f"its mask does not fit: {error}") from None


def box_of_mask(mask: NDArray[np.bool_]) -> Box:
    """The box around a mask, edge to edge.

    Raises:
        ObjectError: nothing of the mask is in the picture.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        raise ObjectError(OUTSIDE)
    return float(columns[0]), float(rows[0]), columns[-1] + 1.0, rows[-1] + 1.0


# Whether a box belongs to its picture and to its mask ---------------------------------------------

MOST_BEYOND = 0.1  # of the picture's side: what an honest box may reach beyond it
LEAST_OVERLAP = 0.5  # intersection over union, of a box and its mask's
SURE_OVERLAP = 0.9  # of a box that is read in another way than the list says
# What others write in four numbers a, b, c, d, and the box that they mean.
OTHER_READINGS: dict[str, Callable[[float, float, float, float], Box]] = {
    "left, top, width, height: name it bbox": lambda a, b, c, d: (a, b, a + c, b + d),
    "left, top, right, bottom: name it box_xyxy_px": lambda a, b, c, d: (a, b, c - a, d - b),
    "top, left, bottom, right": lambda a, b, c, d: (b, a, d, c),
    "centre, width, height": lambda a, b, c, d: (a - c / 2, b - d / 2, a + c / 2, b + d / 2),
}


def check_box(frame: Frame, found: GivenObject) -> None:
    """Refuse a box that cannot be the object's.

    Raises:
        ObjectError: it reaches far beyond the picture, is in shares of the picture, or does not
            lie on the object's mask; names the mistake if it is a known one.
    """
    box = found.box_xyxy_px
    if len(box) != 4 or not np.isfinite(box).all():
        return  # `clean_box` has words for it
    said = f"its box is {_words(box)}"
    if min(box) >= 0 and max(box) <= 1:
        raise ObjectError(f"{said}: give it in pixels, not in shares of the picture")
    if found.mask is not None:
        _check_overlap(frame, found.mask, box, said)
    size = np.tile(frame.given_size, 2)
    beyond = np.maximum(-np.array(box), box - size) / size
    if (beyond > MOST_BEYOND).any() and box_iou_2d(box, (0, 0, *size[:2])) > 0:
        width, height = frame.given_size
        raise ObjectError(f"{said}, far beyond the picture of {width}x{height}")


def _check_overlap(frame: Frame, mask: dict | list, box: Box, said: str) -> None:
    try:
        stored = decode_mask(mask, frame.given_size)
        frame.check_given_size(stored.shape[1], stored.shape[0])
        around = box_of_mask(stored)
    except (ObjectError, ValueError):
        return  # the segmenter has words for it
    overlap = box_iou_2d(box, around)
    said += f", its mask's {_words(around)}"
    meant = {words: read(*box) for words, read in OTHER_READINGS.items()}
    known = {f"is it {words}?": box_iou_2d(other, around) for words, other in meant.items()}
    turned = frame.turned_box(around)
    known["the box is upright and the mask is as stored"] = box_iou_2d(box, turned)
    likely = max(known, key=known.get)
    if known[likely] >= SURE_OVERLAP and known[likely] > overlap + 0.05:
        raise ObjectError(f"{said}: {likely}")
    if overlap < LEAST_OVERLAP:
        raise ObjectError(f"{said}: they share {100 * overlap:.0f} % of their area")


def _words(box: Box) -> str:
    return "(" + ", ".join(f"{side:g}" for side in box) + ")"


class GivenSegmenter:
    """Takes the masks of the objects that the detector `given` found.

    A candidate cannot be known by its place in the list, for stages between may have dropped
    others. It is the item's object that gives this label and this box: the detector's own rule is
    applied again, so the box is the same to the last bit.
    """

    name = "given"
    parallel = 1

    @property
    def settings(self) -> dict:
        """There is nothing to set."""
        return {}

    def __call__(self, frame: Frame) -> Frame:
        """Add the masks; an object without a usable one is dropped."""
        masks = _masks_by_object(frame)
        kept, lost = [], []
        for candidate in frame.candidates:
            try:
                mask = _mask_of(candidate, frame, masks)
            except ObjectError as error:
                lost.append(Dropped(candidate.label, str(error)))
            else:
                kept.append(replace(candidate, mask=mask))
        return frame.keep(kept, lost)


def _masks_by_object(frame: Frame) -> dict[tuple, list[dict | list | None]]:
    """Stored masks by label and box."""
    masks: dict[tuple, list[dict | list | None]] = {}
    for found in frame.item.objects or ():
        for same in detect_given(frame, found)[0]:
            masks.setdefault((same.label, same.box_xyxy_px), []).append(found.mask)
    return masks


def _mask_of(
    candidate: Candidate, frame: Frame, masks: dict[tuple, list[dict | list | None]]
) -> NDArray[np.bool_]:
    stored = masks.get((candidate.label, candidate.box_xyxy_px), [])
    if len(stored) > 1:
        raise ObjectError("the item has it twice")
    if not stored or stored[0] is None:
        raise ObjectError("the item has no mask for it")
    mask = given_mask(frame, stored[0]) & frame.visible
    if not mask.any():
        raise ObjectError("its mask is empty")
    return mask
