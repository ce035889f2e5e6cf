"""Which converter reads the camera: ROS's own cv_bridge where it works, else ours."""

import inspect
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from spear_policy.inference.image_codec import CvBridge


def choose_bridge() -> tuple[Any, str]:
    """A converter with cv_bridge's methods, and a sentence that says which one it is and why."""
    try:
        bridge = _ros_bridge()
    except Exception as error:  # a broken cv_bridge fails in many ways, none of which stop us
        return CvBridge(Image, CompressedImage), f"own image converter: {error}"
    return bridge, "image converter: cv_bridge of ROS"


def _ros_bridge() -> Any:
    """The installed cv_bridge, after it has shown that it works here. Raises when it does not."""
    try:
        from cv_bridge import CvBridge as RosBridge
    except ImportError as error:
        raise ImportError(f"no cv_bridge to import ({error})") from None
    if "header" not in inspect.signature(RosBridge.cv2_to_imgmsg).parameters:
        raise ImportError("the installed cv_bridge is the one of ROS 1 (from PyPI?)")
    bridge = RosBridge()
    sample = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    message = bridge.cv2_to_imgmsg(sample, "rgb8")
    same = bridge.imgmsg_to_cv2(message, "rgb8")
    swapped = bridge.imgmsg_to_cv2(message, "bgr8")
    depth = bridge.cv2_to_imgmsg(np.full((2, 2), 40000, np.uint16), "16UC1")
    works = np.array_equal(same, sample) and np.array_equal(swapped, sample[..., ::-1])
    if not works or int(bridge.imgmsg_to_cv2(depth)[0, 0]) != 40000:
        raise ImportError("the installed cv_bridge failed its self-test")
    return bridge
