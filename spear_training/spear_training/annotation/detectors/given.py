"""The detector `given`: objects that the list of items names, for data that has them already.

EgoExo4D's masks come this way, and so does any list of boxes that another program wrote.
"""

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.detectors.box_rules import (
    OUTSIDE,
    BoxError,
    Detection,
    reported_label,
    sort_out,
)
from spear_training.annotation.frame import Candidate, Frame, StageError
from spear_training.annotation.items import GivenObject
from spear_training.annotation.masks import MaskError, decode_mask
from spear_training.annotation.picture import box_in_picture, in_picture
from spear_training.annotation.records import Dropped


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
            raise BoxError("the item gives neither its box nor its mask")
    except (BoxError, MaskError) as error:
        return [], [Dropped(reported_label(found.label), str(error))]
    return sort_out([Detection(found.label, box)], frame.visible)


def given_mask(frame: Frame, stored: dict) -> NDArray[np.bool_]:
    """A mask of the item in the picture (630, 840), False in padding.

    Raises:
        MaskError: it is damaged, or not of the stored picture's size.
    """
    try:
        return in_picture(frame.fit, decode_mask(stored), outside=False)
    except MaskError:
        raise
    except ValueError as error:
        raise MaskError(f"its mask does not fit: {error}") from None


def box_of_mask(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The box around a mask, edge to edge.

    Raises:
        BoxError: nothing of the mask is in the picture.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        raise BoxError(OUTSIDE)
    return float(columns[0]), float(rows[0]), columns[-1] + 1.0, rows[-1] + 1.0
