"""Cameras: where they stand, how they look at things, and the numbers of their pictures."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_policy.inference.image_geometry import Fit
from spear_training.annotation.items import Intrinsics
from spear_training.annotation.picture import intrinsics_in_picture

# Sizes of stored pictures, with how often they come.
SIZES_PX = {
    (640, 480): 0.35,
    (840, 630): 0.15,
    (1280, 720): 0.2,
    (720, 960): 0.12,
    (960, 540): 0.1,
    (600, 600): 0.08,
}
LARGEST_PX = (1280, 960)
FOV_DEG = (35.0, 70.0)


@dataclass(frozen=True)
class View:
    """One camera in the world.

    Attributes:
        width_px, height_px: of its picture.
        intrinsics: by pixel centres.
        position_m: (3,) in the world.
        axes: (3, 3) in the world; the columns point right, down and forward.
    """

    width_px: int
    height_px: int
    intrinsics: Intrinsics
    position_m: NDArray[np.float64]
    axes: NDArray[np.float64]

    def in_camera(self, points_m: ArrayLike) -> NDArray[np.float64]:
        """World points (N, 3) in the camera's frame."""
        return (np.asarray(points_m, float) - self.position_m) @ self.axes

    def project(self, points_m: ArrayLike) -> NDArray[np.float64]:
        """Pixels (N, 2) of points (N, 3) in the camera's frame, all of them in front of it."""
        return self.intrinsics.project(points_m)

    def fitted(self, fit: Fit) -> "View":
        """The camera of the picture that `fit` makes from this one's, padding included."""
        camera = intrinsics_in_picture(fit, self.intrinsics)
        return replace(self, width_px=fit.width, height_px=fit.height, intrinsics=camera)

    def window(self, left_px: int, top_px: int, width_px: int, height_px: int) -> "View":
        """The camera of a cut-out with the same pixels, which may reach beyond the picture."""
        camera = self.intrinsics
        moved = replace(camera, cx=camera.cx - left_px, cy=camera.cy - top_px)
        return replace(self, width_px=width_px, height_px=height_px, intrinsics=moved)

    def shrunk(self, factor: float) -> "View":
        """The same picture with `factor` times the pixels a side; its sides must stay whole."""
        camera = self.intrinsics
        small = Intrinsics(
            fx=camera.fx * factor,
            fy=camera.fy * factor,
            cx=(camera.cx + 0.5) * factor - 0.5,
            cy=(camera.cy + 0.5) * factor - 0.5,
        )
        width, height = round(self.width_px * factor), round(self.height_px * factor)
        return replace(self, width_px=width, height_px=height, intrinsics=small)


def looking_at(rng: np.random.Generator, position_m: NDArray, target_m: NDArray) -> View:
    """A camera of random size and field of view at a place, its target near the middle."""
    sizes = list(SIZES_PX)
    width, height = sizes[rng.choice(len(sizes), p=list(SIZES_PX.values()))]
    focal = height / (2 * np.tan(np.radians(rng.uniform(*FOV_DEG)) / 2))
    off_x, off_y = rng.uniform(-0.02, 0.02, 2)
    camera = Intrinsics(
        fx=focal,
        fy=focal * rng.uniform(0.995, 1.005),
        cx=(width - 1) / 2 + off_x * width,
        cy=(height - 1) / 2 + off_y * height,
    )
    forward = np.asarray(target_m, float) - position_m
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    roll = rng.normal(0, np.radians(2.0))
    cos, sin = np.cos(roll), np.sin(roll)
    axes = np.column_stack([cos * right + sin * down, cos * down - sin * right, forward])
    return View(width, height, camera, np.asarray(position_m, float), axes)
