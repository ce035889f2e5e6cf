"""Which pixels of a mask show the object's surface: not the air, not what is behind it.

Two things put wrong points into a mask. Where depth jumps, cameras and networks alike report
points in the air between the two surfaces; and a mask that is a pixel too wide takes in a rim of
the background. A statistical test on the cloud finds neither well: such points are many, and have
each other for neighbours. In the picture they are easy to tell: depth jumps around them.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def surface_pixels(
    known: NDArray[np.bool_], distance_m: NDArray[np.float64], jump_share: float, part_share: float
) -> NDArray[np.bool_]:
    """Leave out pixels beside a jump of depth, then small parts that jumps cut off.

    Pixels outside the mask do not count, so that the rim of a clean mask stays.

    Args:
        known: (H, W), in the mask and with a point.
        distance_m: (H, W), of each point from the camera; anything where not known.
        jump_share: a change of the distance by more than this share of it is a jump, within the
            3x3 pixels around a pixel or from one pixel to the next.
        part_share: a part with fewer pixels than this share of the largest part's is small.

    Returns:
        (H, W).
    """
    return _large_parts(_smooth(known, distance_m, jump_share), distance_m, jump_share, part_share)


def _smooth(known, distance, jump_share):
    near = minimum_filter(np.where(known, distance, np.inf), 3)
    far = maximum_filter(np.where(known, distance, -np.inf), 3)
    with np.errstate(invalid="ignore"):  # where nothing is known, infinity minus infinity
        return known & (far - near <= jump_share * distance)


def _large_parts(known, distance_m, jump_share, part_share):
    count = int(known.sum())
    if count == 0:
        return known
    distance = np.where(known, distance_m, 0.0)
    number = np.zeros(known.shape, int)
    number[known] = np.arange(count)
    pairs = []
    for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        step = np.abs(distance[one] - distance[other])
        joined = known[one] & known[other] & (step <= jump_share * distance[one])
        pairs.append(np.stack([number[one][joined], number[other][joined]]))
    rows, columns = np.hstack(pairs)
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(count, count))
    part = connected_components(graph, directed=False)[1]
    sizes = np.bincount(part)
    kept = known.copy()
    kept[known] = (sizes >= part_share * sizes.max())[part]
    return kept
