"""Frames for tests of single stages."""

import numpy as np

from spear_policy.inference.image_geometry import plan_fit
from spear_training.annotation.frame import Frame, in_picture
from spear_training.annotation.records import Item


def frame_of(width=640, height=480, candidates=(), seed=0, **known):
    """Return the frame of a stored picture of this size, of random colours.

    `known` are further fields of its item.
    """
    fit = plan_fit(width, height, 840, 630)
    stored = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    visible = in_picture(fit, np.ones((height, width), bool), outside=False)
    item = Item("kitchen/1", "kitchen.jpg", **known)
    return Frame(item, fit.apply(stored), fit, visible, tuple(candidates))


def labels(found):
    """Return the labels of candidates or dropped objects."""
    return [one.label for one in found]


def reasons(frame):
    """Return why objects were dropped, by label."""
    return {lost.label: lost.reason for lost in frame.dropped}
