"""The order of a box's corners: the same for the same box, whatever names its axes have.

A library may list the axes of a box in any order and with either sign. Here each axis is given
to the camera axis that it fits best, and points along it: of the 48 ways to name them, the one
with the largest sum of the three cosines. Corner 0 is then the left, upper, near one, corner 7
the right, lower, far one.

No such rule can be continuous: turning a cube by 90 degrees brings it onto itself, so somewhere on
the way the names must jump. Here they jump where two axes of the box fit two of the camera equally
well, which for a turn about a camera axis is at 45 degrees.
"""

from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.boxes.oriented_box import OrientedBox

# Corner 4*sx + 2*sy + sz: s is 0 on the negative side of that axis and 1 on the positive one.
CORNER_SIDES = np.array(list(product((-1.0, 1.0), repeat=3)))
_NAMINGS = [
    (list(order), np.array(signs))
    for order in permutations(range(3))
    for signs in product((1.0, -1.0), repeat=3)
]


def ordered_vertices(box: OrientedBox) -> NDArray[np.float64]:
    """Corners (8, 3) of a box in the camera frame, in the canonical order."""
    order, signs = max(_NAMINGS, key=lambda naming: _fitness(box.axes, *naming))
    half_edges = box.axes[:, order] * signs * (box.extents_m[order] / 2)
    return box.centre_m + CORNER_SIDES @ half_edges.T


def edges_of(vertices_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges of a box (rows: along its x, y and z axis) from its corners in canonical order."""
    return vertices_m[[4, 2, 1]] - vertices_m[0]


def _fitness(axes, order, signs):
    """Sum of cosines; the axes themselves decide between equals, so names never do."""
    named = axes[:, order] * signs
    return (np.trace(named), *named.ravel())
