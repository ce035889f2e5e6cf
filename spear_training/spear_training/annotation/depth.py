"""The geometry `depth`: a measured depth picture and the camera's intrinsics."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.frame import Frame, PointMap
from spear_training.annotation.records import GivenDepth, Intrinsics
from spear_training.annotation.stages import JobError, StageError
from spear_training.data.reader import LFS_WORDS, is_lfs_pointer

NOTHING_MEASURED = 0
SATURATED = np.iinfo(np.uint16).max  # whatever is farther than the file can say
# What the middle (median) of a depth picture can be: outside, the unit is wrong.
DISTANCES_M = (0.03, 100.0)
# Focal lengths by the side of the picture: 157 degrees wide to 3.
LEAST_FOCAL, MOST_FOCAL = 0.1, 20.0
# How far fx and fy may be apart beyond what `native_aspect` explains: 16:9 made square without it
# is 1.78.
MOST_OBLONG = 1.9
OFF_CENTRE = 0.2
# Shares of half a side: the centre of another size of the picture is equally far off both ways.
SAME_SCALE, OTHER_SIZE = 0.03, 0.2


@dataclass(frozen=True)
class DepthGeometry:
    """Reads 16-bit depth along the optical axis and gives each pixel its point, in metres.

    Attributes:
        root: folder of the list of items.
        max_range_m: from where on depth is not believed.
        off_centre: how far the camera's centre may be from the picture's, in sides of the picture;
            farther off, the intrinsics are taken for another picture's.

    Raises:
        JobError: a limit that cannot work.
    """

    root: Path
    max_range_m: float | None = None
    off_centre: float = OFF_CENTRE
    name: ClassVar[str] = "depth"
    parallel: ClassVar[int] = 1

    def __post_init__(self):
        if self.max_range_m is not None and not self.max_range_m > 0:
            raise JobError(f"max_range_m is {self.max_range_m}; it must be above 0")
        if not self.off_centre > 0:
            raise JobError(f"off_centre is {self.off_centre}; it must be above 0")

    @property
    def settings(self) -> dict:
        return {"max_range_m": self.max_range_m, "off_centre": self.off_centre}

    def __call__(self, frame: Frame) -> Frame:
        """Add the points."""
        given, camera = frame.item.depth, frame.item.intrinsics
        if given is None or camera is None:
            missing = "depth" if given is None else "intrinsics"
            raise StageError(
                f"the item has no {missing}: add them to the list, or take the geometry moge"
            )
        _check(given, camera, frame, self.off_centre)
        stored = read_depth(self.root / given.path)
        try:
            units = frame.given_map(stored, NOTHING_MEASURED)
        except ValueError as error:
            raise StageError(f"{given.path} does not fit: {error}") from None
        depth_m = (units / given.units_per_m).astype(np.float32)
        known = (units != NOTHING_MEASURED) & (units != SATURATED) & frame.visible
        if self.max_range_m is not None:
            known &= depth_m <= self.max_range_m
        if not known.any():
            raise StageError(f"{given.path} has no pixel with a measured depth in range")
        _check_distance(float(np.median(depth_m[known])), given)
        camera = frame.given_camera(camera)
        points = backproject(np.where(known, depth_m, np.nan), camera)
        return replace(frame, points=PointMap(points, camera, metric=True))


def read_depth(path: Path) -> NDArray[np.uint16]:
    """A depth picture (H, W) as stored.

    Raises:
        StageError: names the file and what is wrong with it.
    """
    import cv2

    if not path.is_file():
        raise StageError(f"{path.name}: there is no such file")
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None:
        if is_lfs_pointer(path):
            raise StageError(f"{path.name}: {LFS_WORDS}")
        raise StageError(f"{path.name} is no picture, or it is damaged")
    if stored.ndim != 2 or stored.dtype != np.uint16:
        raise StageError(
            f"{path.name} holds {stored.dtype} numbers of shape {stored.shape}; depth must be one "
            "channel of 16 bits: store it as a grey PNG"
        )
    return stored


def backproject(depth_m: NDArray[np.floating], camera: Intrinsics) -> NDArray[np.float32]:
    """Points of pixels.

    Args:
        depth_m: (H, W) along the optical axis; NaN where nothing is known.
        camera: of the same picture.

    Returns:
        (H, W, 3), camera frame (x right, y down, z forward); NaN where the depth is.
    """
    height, width = depth_m.shape
    across = (np.arange(width) - camera.cx) / camera.fx
    down = (np.arange(height) - camera.cy) / camera.fy
    points = (depth_m * across[None, :], depth_m * down[:, None], depth_m)
    return np.stack(points, axis=-1).astype(np.float32)


def _check(given: GivenDepth, camera: Intrinsics, frame: Frame, off_centre: float) -> None:
    width, height = frame.given_size
    positive = {"units_per_m": given.units_per_m, "fx": camera.fx, "fy": camera.fy}
    for name, value in positive.items():
        if not (math.isfinite(value) and value > 0):
            raise StageError(f"the item's {name} is {value}; it must be above 0")
    sides = {"x": (camera.fx, camera.cx, width), "y": (camera.fy, camera.cy, height)}
    for axis, (focal, centre, side) in sides.items():
        if not math.isfinite(centre):
            raise StageError(f"the item's c{axis} is {centre}; it must be finite")
        found = (
            f"the item's f{axis} is {focal:g} and c{axis} {centre:g}, and the picture is "
            f"{width}x{height}"
        )
        if focal < 2 and 0 <= centre <= 1:
            raise StageError(f"{found}: give pixels, not shares of the picture")
        if not LEAST_FOCAL * side <= focal <= MOST_FOCAL * side:
            raise StageError(f"{found}: no camera has such a lens; intrinsics are in pixels")
        if abs((centre + 0.5) / side - 0.5) > off_centre:
            raise StageError(
                f"{found}: they belong to another picture, or another size of it; for one that "
                f"was cut out beside the centre, depth.off_centre may be more than {off_centre:g}"
            )
    upright_aspect = frame.fit.source_width / frame.fit.source_height
    squashed = (frame.item.native_aspect or upright_aspect) / upright_aspect
    oblong = camera.fx / camera.fy * (1 / squashed if frame.turn.exchange else squashed)
    if not 1 / MOST_OBLONG <= oblong <= MOST_OBLONG:
        raise StageError(
            f"the item's fx, fy are {camera.fx:g}, {camera.fy:g}: too far apart for a camera; a "
            "picture that was squashed needs native_aspect"
        )
    middle = np.array([width, height]) / 2
    off = np.array([camera.cx, camera.cy]) + 0.5 - middle
    off_exchanged = off + middle - middle[::-1]
    limit = SAME_SCALE * min(width, height)
    if off_centre <= OFF_CENTRE and max(abs(off_exchanged)) < limit < min(abs(off)):
        raise StageError(
            f"the item's cx, cy are {camera.cx:g}, {camera.cy:g}, and the picture is "
            f"{width}x{height}: they are exchanged, or the picture was turned; for one that was "
            f"cut out like that, depth.off_centre may be more than {OFF_CENTRE:g}"
        )
    across, down = ((2 * centre + 1) / side for _, centre, side in sides.values())
    if abs(across - down) < SAME_SCALE and abs(across - 1) > OTHER_SIZE:
        raise StageError(
            f"the item's cx, cy are {camera.cx:g}, {camera.cy:g}: the middle of a picture of "
            f"{across * width:.0f}x{down * height:.0f}, and this one is {width}x{height}; scale "
            "fx, fy, cx, cy with the picture"
        )


def _check_distance(middle_m: float, given: GivenDepth) -> None:
    nearest_m, furthest_m = DISTANCES_M
    if not nearest_m <= middle_m <= furthest_m:
        raise StageError(
            f"{given.path}: half of the pixels are {middle_m:.3g} m away or more with units_per_m "
            f"{given.units_per_m:g}; it is 1000 where the file holds millimetres"
        )
