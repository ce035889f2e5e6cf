"""The stage `clouds`: the points that an object's mask shows."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from spear_training.annotation.boxes.surface_pixels import surface_pixels
from spear_training.annotation.frame import Candidate, Frame, JobError, StageError
from spear_training.annotation.pipeline import seed_of
from spear_training.annotation.records import Dropped


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
