"""Only objects that are the one of their kind in the picture, so that a name says which."""

from collections import Counter

from spear_training.annotation.detectors.box_rules import UNSEEN
from spear_training.annotation.frame import Frame
from spear_training.annotation.records import Dropped


class KeepUnique:
    """Drops all objects of a label that was found more than once, as the paper does.

    An object that an earlier stage dropped counts too (a second bowl stays a second bowl if its
    mask is damaged), unless nobody sees it in the picture.
    """

    name = "unique"
    parallel = 1

    @property
    def settings(self) -> dict:
        """There is nothing to set."""
        return {}

    def __call__(self, frame: Frame) -> Frame:
        """Keep the single ones."""
        labels = Counter(found.label for found in frame.candidates)
        labels.update(lost.label for lost in frame.dropped if lost.reason not in UNSEEN)
        kept = [found for found in frame.candidates if labels[found.label] == 1]
        lost = [
            Dropped(found.label, f"{labels[found.label]} of its kind")
            for found in frame.candidates
            if labels[found.label] > 1
        ]
        return frame.keep(kept, lost)
