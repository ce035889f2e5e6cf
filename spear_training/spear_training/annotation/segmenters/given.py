"""The segmenter `given`: masks that the list of items holds."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.detectors.given import detect_given, given_mask
from spear_training.annotation.frame import Candidate, Frame
from spear_training.annotation.masks import MaskError
from spear_training.annotation.records import Dropped


class GivenSegmenter:
    """Takes the masks of the objects that the detector `given` found.

    A candidate is not told by its place in the list, for stages between may have dropped others.
    It is the item's object that gives this label and this box: the detector's own rule is
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
            except MaskError as error:
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
        raise MaskError("the item has it twice")
    if not stored or stored[0] is None:
        raise MaskError("the item has no mask for it")
    mask = given_mask(frame, stored[0]) & frame.visible
    if not mask.any():
        raise MaskError("its mask is empty")
    return mask
