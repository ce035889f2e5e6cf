"""The two views: where they look from, and their intrinsics as numbers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation


@dataclass(frozen=True)
class View:
    """One camera of the scene.

    Attributes:
        name: of the MuJoCo camera and of the image topic's namespace.
        frame_id: its optical frame (x right, y down, z forward).
        width_px, height_px: size of its images.
        vertical_fov_deg: field of view from the top to the bottom edge.
    """

    name: str
    frame_id: str
    width_px: int
    height_px: int
    vertical_fov_deg: float

    @property
    def intrinsics(self) -> NDArray:
        """(3, 3) pinhole matrix [px]; pixel centres have integer coordinates, as in OpenCV."""
        focal = self.height_px / (2 * np.tan(np.radians(self.vertical_fov_deg) / 2))
        cx, cy = (self.width_px - 1) / 2, (self.height_px - 1) / 2
        return np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1.0]])


# Third-person view from in front of the robot and to its left, over the whole reachable area.
EXTERNAL = View("external", "camera_external_optical_frame", 280, 210, 46.0)
EXTERNAL_POSITION_M = np.array([1.14, 0.42, 0.70])
EXTERNAL_LOOKS_AT_M = np.array([0.38, 0.00, 0.17])

# On the hand, looking between the fingers: position and axes in the hand's frame.
WRIST = View("wrist", "camera_wrist_optical_frame", 112, 112, 75.0)
WRIST_POSITION_M = np.array([0.075, 0.0, 0.03])
WRIST_TILT_RAD = 0.36


def external_orientation() -> Rotation:
    """Axes of the external camera in the world, as MuJoCo has them: x right, y up, looks at -z."""
    back = EXTERNAL_POSITION_M - EXTERNAL_LOOKS_AT_M
    back = back / np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right = right / np.linalg.norm(right)
    return Rotation.from_matrix(np.column_stack([right, np.cross(back, right), back]))


def wrist_orientation() -> Rotation:
    """Axes of the wrist camera in the hand's frame, as MuJoCo has them.

    The camera sits beside the palm (hand +x), looks along the fingers (hand +z) and leans in.
    """
    tilt = WRIST_TILT_RAD
    back = np.array([np.sin(tilt), 0.0, -np.cos(tilt)])
    right = np.array([0.0, 1.0, 0.0])
    return Rotation.from_matrix(np.column_stack([right, np.cross(back, right), back]))


def optical_from_mujoco(axes: NDArray) -> NDArray:
    """A MuJoCo camera matrix (3, 3) in the optical convention: x right, y down, z forward."""
    return axes @ np.diag([1.0, -1.0, -1.0])


def project(view: View, optical_axes: NDArray, position_m: NDArray, point_m: NDArray) -> NDArray:
    """Pixel (u, v) of a world point [m] seen from a camera at `position_m` with `optical_axes`.

    Raises:
        ValueError: the point is behind the camera.
    """
    in_camera = optical_axes.T @ (np.asarray(point_m) - position_m)
    if in_camera[2] <= 0:
        raise ValueError(f"point {np.asarray(point_m).tolist()} is behind the {view.name} camera")
    return (view.intrinsics @ in_camera)[:2] / in_camera[2]
