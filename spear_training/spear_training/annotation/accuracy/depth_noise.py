"""Makes exact depth as bad as a camera's: noise, false points at edges, holes.

The noise along the ray grows with the square of the distance, as for all cameras that
triangulate. Its size is that of the first Kinect: sigma = 0.0012 + 0.0019 (z - 0.4)^2 metres
(C. Nguyen, S. Izadi, D. Lovell, "Modeling Kinect Sensor Noise for Improved 3D Reconstruction and
Tracking", 3DIMPVT 2012). Where depth jumps, a pixel sees two surfaces and the camera reports
something between them.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

from spear_training.annotation.frame import Frame, StageError
from spear_training.annotation.pipeline import seed_of


@dataclass(frozen=True)
class DepthNoise:
    """How bad the depth is. The default is a Kinect's, at 840x630.

    Attributes:
        axial_scale: times the noise of the Kinect; 0: none.
        correlation_px: sigma of the Gaussian that makes neighbours err alike; 0: each pixel by
            itself. The size of the noise stays.
        edge_px: how far from a jump of depth pixels may be false; 0: nowhere.
        edge_share: the share 0..1 of the pixels there that are.
        jump_share: a jump is a change of depth by this share of it.
        hole_share: the share 0..1 of all pixels where nothing is measured.
        seed: draws the noise; pictures differ by their ids all the same.
    """

    axial_scale: float = 1.0
    correlation_px: float = 2.0
    edge_px: int = 2
    edge_share: float = 0.5
    jump_share: float = 0.02
    hole_share: float = 0.01
    seed: int = 0


def axial_sigma_m(depth_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation of the Kinect's noise at each depth (m); valid from 0.4 m."""
    return 0.0012 + 0.0019 * (depth_m - 0.4) ** 2


def noisy_depth(
    depth_m: NDArray[np.float64], noise: DepthNoise, name: str = ""
) -> NDArray[np.float64]:
    """Spoil a depth picture; the same for the same noise and name.

    Args:
        depth_m: (H, W); 0 or not finite where nothing is known.
        noise: how.
        name: of the picture.

    Returns:
        (H, W); 0 where nothing is known.
    """
    rng = np.random.default_rng(seed_of(f"{noise.seed} {name}"))
    known = np.isfinite(depth_m) & (depth_m > 0)
    found = _false_at_edges(np.where(known, depth_m, 0.0), known, noise, rng)
    error = rng.standard_normal(depth_m.shape)
    if noise.correlation_px > 0:
        error = gaussian_filter(error, noise.correlation_px, mode="wrap")
        error /= error.std()
    found = found + noise.axial_scale * axial_sigma_m(found) * error
    holes = rng.random(depth_m.shape) < noise.hole_share
    return np.where(known & ~holes & (found > 0), found, 0.0)


def _false_at_edges(depth, known, noise, rng):
    """Put pixels near a jump of depth between the two surfaces there."""
    draws = rng.random((2, *depth.shape))
    if noise.edge_px < 1:
        return depth
    size = 2 * noise.edge_px + 1
    near = minimum_filter(np.where(known, depth, np.inf), size)
    far = maximum_filter(np.where(known, depth, -np.inf), size)
    false = known & (far - near > noise.jump_share * depth) & (draws[0] < noise.edge_share)
    between = np.zeros_like(depth)
    between[false] = near[false] + draws[1][false] * (far - near)[false]
    return np.where(false, between, depth)


class NoisyDepth:
    """Stage behind the geometry's that moves each point along its ray, as `noisy_depth` says."""

    name = "noise"
    parallel = 1

    def __init__(self, noise: DepthNoise | None = None):
        """Take how bad the depth is to be; None: a Kinect's."""
        self.noise = noise or DepthNoise()

    @property
    def settings(self) -> dict:
        """The noise."""
        return asdict(self.noise)

    def __call__(self, frame: Frame) -> Frame:
        """Spoil `frame.points`.

        Raises:
            StageError: there are none yet.
        """
        if frame.points is None:
            raise StageError("there is no depth to spoil: put this stage behind the geometry's")
        points = frame.points.points_m.astype(np.float64)
        true = points[..., 2]
        spoilt = noisy_depth(true, self.noise, frame.item.id)
        with np.errstate(invalid="ignore", divide="ignore"):
            points *= np.where(spoilt > 0, spoilt / true, np.nan)[..., None]
        return replace(frame, points=replace(frame.points, points_m=points.astype(np.float32)))
