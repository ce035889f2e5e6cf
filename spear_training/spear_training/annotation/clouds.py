"""The points that an object's mask shows: the stage `clouds`, and `outliers`, which cleans them."""

from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, maximum_filter, minimum_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from spear_policy.shared.seeds import generator
from spear_training.annotation.frame import Candidate, Frame
from spear_training.annotation.records import Dropped
from spear_training.annotation.stages import JobError, StageError


@dataclass(frozen=True)
class MakeClouds:
    """Takes the points of each mask that lie on the object's surface (`surface_pixels`).

    Attributes:
        jump_share: a change of the distance by more than this share of it is a jump; 0: no pixel
            is left out for jumps.
        part_share: parts that jumps cut off go if they have fewer pixels than this share of the
            largest part's.
        erode_px: pixels at the rim of the mask that are left out: for depth cameras whose picture
            lies a little beside the colour's. It makes small objects smaller.
        most_points: larger clouds are thinned by chance, the same for the same picture.
        min_points: smaller ones drop the object.

    Raises:
        JobError: a limit that cannot work.
    """

    jump_share: float = 0.04
    part_share: float = 0.1
    erode_px: int = 0
    most_points: int = 10_000
    min_points: int = 50
    name: ClassVar[str] = "clouds"
    parallel: ClassVar[int] = 1

    def __post_init__(self):
        if not (self.jump_share >= 0 and 0 <= self.part_share <= 1 and self.erode_px >= 0):
            raise JobError(
                f"clouds: jump_share is {self.jump_share}, part_share {self.part_share}, erode_px "
                f"{self.erode_px}; they must be at least 0, 0 to 1, and at least 0"
            )
        if not self.most_points >= self.min_points >= 4:
            raise JobError(
                f"clouds: min_points is {self.min_points}, most_points {self.most_points}; they "
                "must be at least 4 and at least min_points"
            )

    @property
    def settings(self) -> dict:
        """The limits."""
        return asdict(self)

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
        if self.erode_px:
            mask = binary_erosion(mask, iterations=self.erode_px)
        points = frame.points.points_m[part].astype(np.float64)
        known = mask & np.isfinite(points).all(axis=-1)
        if not known.any():
            return "no depth inside its mask"
        if self.jump_share > 0:
            distance_m = np.linalg.norm(points, axis=-1)
            known = surface_pixels(known, distance_m, self.jump_share, self.part_share)
        cloud = points[known]
        if len(cloud) < self.min_points:
            return f"{len(cloud)} points, fewer than {self.min_points}"
        if len(cloud) <= self.most_points:
            return cloud
        draws = generator(frame.item.id, candidate.label)
        return cloud[np.sort(draws.choice(len(cloud), self.most_points, replace=False))]


def surface_pixels(
    known: NDArray[np.bool_], distance_m: NDArray[np.float64], jump_share: float, part_share: float
) -> NDArray[np.bool_]:
    """Leave out pixels beside a jump of depth, then small parts that jumps cut off.

    Two things put wrong points into a mask. Where depth jumps, cameras and networks alike report
    points in the air between the two surfaces; and a mask that is a pixel too wide takes in a rim
    of the background. A statistical test on the cloud finds neither well: such points are many, and
    have each other for neighbours. In the picture they are easy to find: depth jumps around them.
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


@dataclass(frozen=True)
class RemoveOutliers:
    """Statistical outlier removal: points far from their neighbours leave the cloud.

    With 2 standard deviations, a face that the camera sees at a grazing angle is often lost
    whole, for its points are farther apart than those of the others; so the limit is 3.

    Attributes:
        neighbours: of each point, whose mean distance is taken.
        sigmas: points whose mean distance is above the cloud's mean by more than this many
            standard deviations go.
        min_points: smaller clouds drop the object.

    Raises:
        JobError: a limit that cannot work.
    """

    neighbours: int = 20
    sigmas: float = 3.0
    min_points: int = 50
    name: ClassVar[str] = "outliers"
    parallel: ClassVar[int] = 1

    def __post_init__(self):
        if self.neighbours < 1 or not self.sigmas > 0 or self.min_points < 4:
            raise JobError(
                f"outliers: neighbours is {self.neighbours}, sigmas {self.sigmas}, min_points "
                f"{self.min_points}; they must be at least 1, above 0 and at least 4"
            )

    @property
    def settings(self) -> dict:
        """The limits."""
        return asdict(self)

    def __call__(self, frame: Frame) -> Frame:
        """Clean the clouds; an object with too few points left is dropped with the reason.

        Raises:
            StageError: there are no clouds yet.
        """
        kept, lost = [], []
        for candidate in frame.candidates:
            if candidate.cloud_m is None:
                raise StageError("there are no clouds: put the stage clouds before outliers")
            cloud = without_outliers(candidate.cloud_m, self.neighbours, self.sigmas)
            if len(cloud) < self.min_points:
                reason = f"{len(cloud)} points without outliers, fewer than {self.min_points}"
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
