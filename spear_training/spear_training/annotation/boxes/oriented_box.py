"""The smallest oriented box around a cloud of points, and the clouds that have none.

A box along the principal axes would be simpler and wrong: a cube's is up to four times too large
(facts/data.md 3).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from spear_training.annotation.boxes.box_search import best_axes

MIN_POINTS = 4
# Of the cloud's length. Thinner is flat (a sheet of paper, a picture on the wall) and gets a box
# of this thickness; narrower is a line and gets none.
FLAT = 1e-3
_SAME_PLACE = 1e-12  # of the points' coordinates: what rounding leaves of a length of zero


class BoxError(ValueError):
    """A cloud that has no box; the text says why, as the reason on a record."""


@dataclass(frozen=True)
class OrientedBox:
    """A box in the camera frame.

    Attributes:
        centre_m: (3,).
        axes: (3, 3) whose columns are unit vectors along the edges, right-handed.
        extents_m: (3,) lengths of the edges along these axes, all positive.
    """

    centre_m: NDArray[np.float64]
    axes: NDArray[np.float64]
    extents_m: NDArray[np.float64]


def minimal_box(cloud_m: NDArray[np.float64]) -> OrientedBox:
    """Fit a box of least volume; points that are not finite do not count.

    Args:
        cloud_m: (P, 3).

    Raises:
        BoxError: too few points, or they lie in one place or on a line.
    """
    cloud = np.asarray(cloud_m, np.float64)
    cloud = cloud[np.isfinite(cloud).all(axis=1)]
    if len(cloud) < MIN_POINTS:
        raise BoxError(f"it has {len(cloud)} points, fewer than a box needs ({MIN_POINTS})")
    middle = cloud.mean(axis=0)
    try:
        principal = np.linalg.svd(cloud - middle, full_matrices=False)[2].T
    except np.linalg.LinAlgError as error:
        raise BoxError(f"its points cannot be measured: {error}") from None
    points = (cloud - middle) @ principal
    # The spread along the principal axes tells lines and planes; it is not the box.
    spread = np.ptp(points, axis=0)
    length, width = spread.max(), np.median(spread)
    if not (np.isfinite(length) and length > _SAME_PLACE * np.abs(cloud).max()):
        raise BoxError("all of its points lie in one place")
    if width <= FLAT * length:
        raise BoxError("its points lie on a line")
    flat = spread[2] <= FLAT * length
    try:
        turn = _flat_axes(points) if flat else best_axes(points)
    except QhullError:
        raise BoxError("its points lie too nearly on a line or in a plane for a box") from None
    seen = points @ turn
    low, high = seen.min(axis=0), seen.max(axis=0)
    centre = middle + principal @ turn @ ((low + high) / 2)
    axes = principal @ turn
    if np.linalg.det(axes) < 0:
        axes = axes * np.array([1.0, 1.0, -1.0])
    return OrientedBox(centre, axes, np.maximum(high - low, FLAT * length))


def _flat_axes(points):
    """Axes (3, 3), columns, of the rectangle of least area around points in the plane z = 0."""
    across = points[:, :2]
    corners = across[ConvexHull(across).vertices]
    sides = np.roll(corners, -1, axis=0) - corners
    x, y = (sides / np.linalg.norm(sides, axis=1, keepdims=True)).T
    areas = np.ptp(np.outer(corners[:, 0], x) + np.outer(corners[:, 1], y), axis=0) * np.ptp(
        np.outer(corners[:, 1], x) - np.outer(corners[:, 0], y), axis=0
    )
    x, y = x[np.argmin(areas)], y[np.argmin(areas)]
    return np.array([[x, -y, 0.0], [y, x, 0.0], [0.0, 0.0, 1.0]])
