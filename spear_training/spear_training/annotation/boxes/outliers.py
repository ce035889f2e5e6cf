"""The stage `outliers`: points far from their neighbours leave the cloud."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spear_training.annotation.frame import Frame, JobError, StageError
from spear_training.annotation.records import Dropped


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
