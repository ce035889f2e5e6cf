"""What a camera really sees of a scene, in the picture of 840x630 that is annotated."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spear_policy.inference.image_geometry import Fit, plan_fit
from spear_training.annotation.frame import PointMap
from spear_training.annotation.geometries.depth import backproject
from spear_training.annotation.picture import in_picture
from spear_training.annotation.records import PICTURE_HEIGHT_PX, PICTURE_WIDTH_PX
from spear_training.annotation.scenes.painter import SKY, Easel
from spear_training.annotation.scenes.things import Placed
from spear_training.annotation.scenes.views import LARGEST_PX, View

# A thing counts as seen with so many pixels, and such a share of what it would cover alone.
MIN_PX, MIN_VISIBLE = 300, 0.15
_BEHIND_M = 0.1  # a corner nearer than this to the camera's plane has no place in a picture
_GLANCE = 0.2
_MIN_GLANCE_PX = 16


@dataclass(frozen=True)
class Look:
    """What is seen.

    Attributes:
        fit: from the stored picture to the one of 840x630.
        view: the camera of the latter.
        things: (630, 840) index of the thing at each pixel; negative where there is none.
        points: exact points of all pixels.
        visible: of each thing that is seen well enough, by its index, the share of its pixels
            that is neither hidden nor outside the picture.
    """

    fit: Fit
    view: View
    things: NDArray[np.int32]
    points: PointMap
    visible: dict[int, float]


def look(easel: Easel, things: Sequence[Placed], view: View) -> Look:
    """Look at a scene's things through the camera of a stored picture."""
    fit = plan_fit(view.width_px, view.height_px, PICTURE_WIDTH_PX, PICTURE_HEIGHT_PX)
    fitted = view.fitted(fit)
    inside = in_picture(fit, np.ones((view.height_px, view.width_px), bool), outside=False)
    seen, depth_m = easel.things_and_depth(fitted)
    seen, depth_m = np.where(inside, seen, SKY), np.where(inside, depth_m, np.nan)
    counts = np.bincount(seen[seen >= 0], minlength=len(things))
    visible = {}
    for index in np.flatnonzero(counts >= MIN_PX):
        share = counts[index] / _silhouette_px(easel, int(index), things[index], fitted)
        if share >= MIN_VISIBLE:
            visible[int(index)] = min(1.0, float(share))
    points = PointMap(backproject(depth_m, fitted.intrinsics), fitted.intrinsics)
    return Look(fit, fitted, seen, points, visible)


def glance(easel: Easel, view: View, nearest_m: float) -> int:
    """How many things a small picture shows; -1 where something stands in front of the camera."""
    fit = plan_fit(view.width_px, view.height_px, PICTURE_WIDTH_PX, PICTURE_HEIGHT_PX)
    seen, depth_m = easel.things_and_depth(view.fitted(fit).shrunk(_GLANCE))
    if (depth_m < nearest_m).any():
        return -1
    return int((np.bincount(seen[seen >= 0], minlength=1) >= _MIN_GLANCE_PX).sum())


def _silhouette_px(easel: Easel, index: int, placed: Placed, view: View) -> float:
    """Pixels that a thing would cover alone, beyond the picture's edges too.

    Infinite where a part of it is behind the camera.
    """
    corners = view.in_camera(placed.vertices_m)
    if corners[:, 2].min() < _BEHIND_M:
        return np.inf
    pixels = view.project(corners)
    left, top = np.floor(pixels.min(axis=0)).astype(int) - 1
    wide, high = np.ceil(pixels.max(axis=0)).astype(int) + 2 - (left, top)
    # What is larger than the largest picture is drawn with larger pixels.
    coarse = int(np.ceil(max(wide / LARGEST_PX[0], high / LARGEST_PX[1])))
    wide, high = (coarse * -(-int(side) // coarse) for side in (wide, high))
    window = view.window(int(left), int(top), wide, high).shrunk(1 / coarse)
    return easel.silhouette_px(index, window) * coarse**2
