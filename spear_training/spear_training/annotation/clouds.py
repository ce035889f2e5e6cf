"""The stage `clouds`: the points that an object's mask shows."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, maximum_filter, minimum_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from spear_policy.shared.seeds import seed_of
from spear_training.annotation.frame import Candidate, Frame
from spear_training.annotation.records import Dropped
from spear_training.annotation.stages import JobError, StageError

# Which pixels of a mask show the object's surface: not the air, not what is behind it.


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


# The stage `outliers`: points far from their neighbours leave the cloud.


class RemoveOutliers:
    """Statistical outlier removal.

    With 2 standard deviations, a face that the camera sees at a grazing angle is often lost
    whole, for its points are farther apart than those of the others; so the limit is 3.
    """

    name = "outliers"
    parallel = 1

    def __init__(self, neighbours: int = 20, sigmas: float = 3.0, min_points: int = 50):
        """Take the limits.

        Args:
            neighbours: of each point, whose mean distance is taken.
            sigmas: points whose mean distance is above the cloud's mean by more than this many
                standard deviations go.
            min_points: smaller clouds drop the object.

        Raises:
            JobError: a limit that cannot work.
        """
        if neighbours < 1 or not sigmas > 0 or min_points < 4:
            raise JobError(
                f"outliers: neighbours is {neighbours}, sigmas {sigmas}, min_points {min_points}; "
                "they must be at least 1, above 0 and at least 4"
            )
        self._neighbours, self._sigmas, self._least = neighbours, sigmas, min_points

    @property
    def settings(self) -> dict:
        """The limits."""
        return {
            "neighbours": self._neighbours,
            "sigmas": self._sigmas,
            "min_points": self._least,
        }

    def __call__(self, frame: Frame) -> Frame:
        """Clean the clouds; an object with too few points left is dropped with the reason.

        Raises:
            StageError: there are no clouds yet.
        """
        kept, lost = [], []
        for candidate in frame.candidates:
            if candidate.cloud_m is None:
                raise StageError("there are no clouds: put the stage clouds before outliers")
            cloud = without_outliers(candidate.cloud_m, self._neighbours, self._sigmas)
            if len(cloud) < self._least:
                reason = f"{len(cloud)} points without outliers, fewer than {self._least}"
                lost.append(Dropped(candidate.label, reason))
            else:
                kept.append(replace(candidate, cloud_m=cloud))
        return frame.keep(kept, lost)


def without_outliers(
    cloud_m: NDArray[np.float64], neighbours: int, sigmas: float
) -> NDArray[np.float64]:
    """Leave out the points whose neighbours are far away, for this cloud.

    Args:
        cloud_m: (P, 3), finite.
        neighbours: see `RemoveOutliers`.
        sigmas: see `RemoveOutliers`.

    Returns:
        (Q, 3), in the same order. A cloud with no more points than neighbours stays as it is.
    """
    if len(cloud_m) <= neighbours:
        return cloud_m
    # Each point is found as its own nearest, at a distance of 0.
    distance_m = cKDTree(cloud_m).query(cloud_m, k=neighbours + 1)[0][:, 1:].mean(axis=1)
    return cloud_m[distance_m <= distance_m.mean() + sigmas * distance_m.std()]


# The stage `clouds`: the points that an object's mask shows.


class MakeClouds:
    """Takes the points of each mask that lie on the object's surface (`surface_pixels`)."""

    name = "clouds"
    parallel = 1

    def __init__(
        self,
        jump_share: float = 0.04,
        part_share: float = 0.1,
        erode_px: int = 0,
        most_points: int = 10_000,
        min_points: int = 50,
    ):
        """Take the limits.

        Args:
            jump_share: a change of the distance by more than this share of it is a jump; 0: no
                pixel is left out for jumps.
            part_share: parts that jumps cut off go if they have fewer pixels than this share of
                the largest part's.
            erode_px: pixels at the rim of the mask that are left out: for depth cameras whose
                picture lies a little beside the colour's. It makes small objects smaller.
            most_points: larger clouds are thinned by chance, the same for the same picture.
            min_points: smaller ones drop the object.

        Raises:
            JobError: a limit that cannot work.
        """
        if not (jump_share >= 0 and 0 <= part_share <= 1 and erode_px >= 0):
            raise JobError(
                f"clouds: jump_share is {jump_share}, part_share {part_share}, erode_px "
                f"{erode_px}; they must be at least 0, 0 to 1, and at least 0"
            )
        if not most_points >= min_points >= 4:
            raise JobError(
                f"clouds: min_points is {min_points}, most_points {most_points}; they must be at "
                "least 4 and at least min_points"
            )
        self._jump_share, self._part_share, self._erode_px = jump_share, part_share, erode_px
        self._most, self._least = most_points, min_points

    @property
    def settings(self) -> dict:
        """The limits."""
        return {
            "jump_share": self._jump_share,
            "part_share": self._part_share,
            "erode_px": self._erode_px,
            "most_points": self._most,
            "min_points": self._least,
        }

    def __call__(self, frame: Frame) -> Frame:
        """Add the clouds; an object with too few points is dropped with the reason.

        Raises:
            StageError: there are no points, or no masks, yet.
        """
        if frame.points is None:
            raise StageError("there are no points: put a geometry stage before clouds")
        kept, lost = [], []
        for candidate in frame.candidates:
            if candidate.mask is None:
                raise StageError("there are no masks: put a segmenter before clouds")
            cloud = self._cloud(candidate, frame)
            if isinstance(cloud, str):
                lost.append(Dropped(candidate.label, cloud))
            else:
                kept.append(replace(candidate, cloud_m=cloud))
        return frame.keep(kept, lost)

    def _cloud(self, candidate: Candidate, frame: Frame) -> NDArray[np.float64] | str:
        """Points, or the reason why there are none."""
        rows, columns = (np.flatnonzero(candidate.mask.any(axis=side)) for side in (1, 0))
        if len(rows) == 0:
            return "its mask is empty"
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        mask = candidate.mask[part]
        if self._erode_px:
            mask = binary_erosion(mask, iterations=self._erode_px)
        points = frame.points.points_m[part].astype(np.float64)
        known = mask & np.isfinite(points).all(axis=-1)
        if not known.any():
            return "no depth inside its mask"
        if self._jump_share > 0:
            distance_m = np.linalg.norm(points, axis=-1)
            known = surface_pixels(known, distance_m, self._jump_share, self._part_share)
        cloud = points[known]
        if len(cloud) < self._least:
            return f"{len(cloud)} points, fewer than {self._least}"
        if len(cloud) <= self._most:
            return cloud
        rng = np.random.default_rng(seed_of(f"{frame.item.id} {candidate.label}"))
        return cloud[np.sort(rng.choice(len(cloud), self._most, replace=False))]
