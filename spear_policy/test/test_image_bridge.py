"""Which converter is chosen, and that cv_bridge and ours agree where both exist."""

import sys
from itertools import product
from types import ModuleType

import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from spear_policy.inference.image_codec import CvBridge
from spear_policy.nodes.policy_topics import choose_bridge

OURS = CvBridge(Image, CompressedImage)
ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16")


def install(monkeypatch, bridge_class):
    """Put a module cv_bridge on the path that has this class."""
    module = ModuleType("cv_bridge")
    module.CvBridge = bridge_class
    monkeypatch.setitem(sys.modules, "cv_bridge", module)


def test_without_cv_bridge_ours_is_chosen_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    bridge, text = choose_bridge()
    assert isinstance(bridge, CvBridge)
    assert "own image converter: no cv_bridge" in text


def test_the_ros_1_package_of_pypi_is_not_used(monkeypatch):
    class RosOneBridge:
        def cv2_to_imgmsg(self, cvim, encoding="passthrough"):
            raise AssertionError("must not be called")

    install(monkeypatch, RosOneBridge)
    bridge, text = choose_bridge()
    assert isinstance(bridge, CvBridge)
    assert "ROS 1" in text


def test_a_cv_bridge_that_fails_its_self_test_is_not_used(monkeypatch):
    class Swapped(CvBridge):
        def __init__(self):
            super().__init__(Image, CompressedImage)

        def imgmsg_to_cv2(self, img_msg, desired_encoding="passthrough"):
            return super().imgmsg_to_cv2(img_msg, "passthrough")

    install(monkeypatch, Swapped)
    assert "failed its self-test" in choose_bridge()[1]


def test_a_cv_bridge_that_breaks_on_this_numpy_is_not_used(monkeypatch):
    class Broken:
        def cv2_to_imgmsg(self, cvim, encoding="passthrough", header=None):
            return cvim.tostring_of_numpy_1()

    install(monkeypatch, Broken)
    assert isinstance(choose_bridge()[0], CvBridge)


def test_a_working_cv_bridge_is_preferred(monkeypatch):
    class Working(CvBridge):
        def __init__(self):
            super().__init__(Image, CompressedImage)

    install(monkeypatch, Working)
    bridge, text = choose_bridge()
    assert isinstance(bridge, Working)
    assert text == "image converter: cv_bridge of ROS"


def test_ours_fills_real_messages_with_field_checks_on():
    message = OURS.cv2_to_imgmsg(np.full((4, 6, 3), 9, np.uint8), "rgb8")
    assert isinstance(message, Image) and (message.step, message.is_bigendian) == (18, 0)
    assert isinstance(OURS.cv2_to_compressed_imgmsg(np.zeros((4, 6), np.uint8)), CompressedImage)


def test_cv_bridge_and_ours_read_the_same():
    theirs, text = choose_bridge()
    if isinstance(theirs, CvBridge):
        pytest.skip(f"there is no second image converter to compare with here ({text})")
    kinds = {"mono16": np.uint16, "16UC1": np.uint16, "32FC1": np.float32}
    for source, wanted in product((*ENCODINGS, "16UC1", "32FC1"), repeat=2):
        channels = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4}.get(source, 1)
        draws = np.random.default_rng(7).integers(0, 256, (6, 8, channels))
        picture = np.squeeze(draws.astype(kinds.get(source, np.uint8)))
        message = theirs.cv2_to_imgmsg(picture, source)
        a, b = _read(theirs, message, wanted), _read(OURS, message, wanted)
        assert type(a) is type(b), (source, wanted)
        if a is not None:
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def _read(bridge, message, wanted):
    """The array, or None where the converter refuses."""
    try:
        return bridge.imgmsg_to_cv2(message, wanted)
    except TypeError:
        return None
