"""The detector and the segmenter `given`: objects that the list of items names, with their masks.

Ego-Exo4D's masks come this way, and so does any list of boxes that another program wrote.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.detections import OUTSIDE, Detection, reported_label, sort_out
from spear_training.annotation.frame import Candidate, Frame, box_in_picture, in_picture
from spear_training.annotation.records import Dropped, GivenObject, RecordError, decode_mask
from spear_training.annotation.stages import ObjectError, StageError


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
        if found.box_xyxy_px is not None:
            box = box_in_picture(frame.fit, found.box_xyxy_px)
        elif found.mask is not None:
            box = box_of_mask(given_mask(frame, found.mask))
        else:
            raise ObjectError("the item gives neither its box nor its mask")
    except ObjectError as error:
        return [], [Dropped(reported_label(found.label), str(error))]
    return sort_out([Detection(found.label, box)], frame.visible)


def given_mask(frame: Frame, stored: dict) -> NDArray[np.bool_]:
    """A mask of the item in the picture (630, 840), False in padding.

    Raises:
        ObjectError: it is damaged, or not of the stored picture's size.
    """
    try:
        return in_picture(frame.fit, decode_mask(stored), outside=False)
    except RecordError as error:
        raise ObjectError(str(error)) from None
    except ValueError as error:
        raise ObjectError(f"its mask does not fit: {error}") from None


def box_of_mask(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The box around a mask, edge to edge.

    Raises:
        ObjectError: nothing of the mask is in the picture.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        raise ObjectError(OUTSIDE)
    return float(columns[0]), float(rows[0]), columns[-1] + 1.0, rows[-1] + 1.0


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


def _masks_by_object(frame: Frame) -> dict[tuple, list[dict | None]]:
    """Stored masks by label and box."""
    masks: dict[tuple, list[dict | None]] = {}
    for found in frame.item.objects or ():
        for same in detect_given(frame, found)[0]:
            masks.setdefault((same.label, same.box_xyxy_px), []).append(found.mask)
    return masks


def _mask_of(
    candidate: Candidate, frame: Frame, masks: dict[tuple, list[dict | None]]
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
