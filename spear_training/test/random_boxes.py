"""Boxes for tests, at random or as told."""

import numpy as np
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spear_training.annotation.boxes import CORNER_SIDES


def box_vertices(centre_m, axes, extents_m):
    """Return the corners (8, 3) of a box whose axes are named as they come."""
    return np.asarray(centre_m) + CORNER_SIDES * (np.asarray(extents_m) / 2) @ np.asarray(axes).T


@st.composite
def rotations(draw):
    """Draw rotation matrices, those with right and half right angles among them."""
    if draw(st.booleans()):
        steps = draw(st.tuples(*[st.integers(0, 7)] * 3))
        return Rotation.from_euler("xyz", 45.0 * np.array(steps), degrees=True).as_matrix()
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 3))
    return Rotation.from_euler("xyz", angles, degrees=True).as_matrix()


@st.composite
def boxes(draw, reach_m=1.0):
    """Draw corners of boxes with edges of 1 mm to 1 m, round numbers among them."""
    centre = draw(st.tuples(*[st.floats(-reach_m, reach_m) | st.sampled_from([0.0, 0.5])] * 3))
    extents = draw(st.tuples(*[st.floats(1e-3, 1.0) | st.sampled_from([0.1, 0.5])] * 3))
    return box_vertices(centre, draw(rotations()), extents)
