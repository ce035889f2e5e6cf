"""Frames become RGB of the right size, or a sentence that names the topic."""

from types import SimpleNamespace

import numpy as np
import pytest

from spear_policy.inference.engine import CameraSpec
from spear_policy.inference.image_codec import CvBridge
from spear_policy.inference.observation import Frame, InputError, decode

BRIDGE = CvBridge(SimpleNamespace, SimpleNamespace)
SPEC = CameraSpec("external", 8, 6)
RGB = np.random.default_rng(2).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def decoded(message, spec=SPEC):
    frames = {"external": Frame(0.0, 0.0, message)}
    return decode(frames, (spec,), {"external": "/external/image_raw"}, BRIDGE)["external"]


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_every_colour_encoding_becomes_the_same_rgb(encoding):
    picture = RGB if encoding.startswith("rgb") else RGB[..., ::-1]
    if encoding.endswith("a8"):
        picture = np.dstack([picture, RGB[..., 0]])
    message = BRIDGE.cv2_to_imgmsg(np.ascontiguousarray(picture), encoding)
    np.testing.assert_array_equal(decoded(message), RGB)


def test_a_compressed_image_becomes_rgb_not_bgr():
    message = BRIDGE.cv2_to_compressed_imgmsg(RGB[..., ::-1], "png")
    np.testing.assert_array_equal(decoded(message), RGB)


def test_a_camera_without_a_wanted_size_may_have_any():
    message = BRIDGE.cv2_to_imgmsg(RGB, "rgb8")
    assert decoded(message, CameraSpec("external", 0, 0)).shape == (6, 8, 3)


def test_a_wrong_size_is_refused_with_both_sizes():
    message = BRIDGE.cv2_to_imgmsg(RGB, "rgb8")
    with pytest.raises(InputError, match="/external/image_raw is 8x6; the engine wants 640x480"):
        decoded(message, CameraSpec("external", 640, 480))


@pytest.mark.parametrize(
    ("picture", "encoding"),
    [(RGB[..., 0], "mono8"), (RGB[..., 0].astype(np.uint16), "16UC1"), (RGB, "8UC3")],
)
def test_an_image_without_colour_is_refused(picture, encoding):
    message = BRIDGE.cv2_to_imgmsg(picture, encoding)
    with pytest.raises(InputError, match=f"has encoding '{encoding}'; a policy needs colour"):
        decoded(message)


def test_a_compressed_grey_image_is_refused():
    message = BRIDGE.cv2_to_compressed_imgmsg(RGB[..., 0], "png")
    with pytest.raises(InputError, match="a policy needs colour"):
        decoded(message)


def test_broken_data_is_refused_with_the_topic():
    message = BRIDGE.cv2_to_imgmsg(RGB, "rgb8")
    message.data = message.data[:-1]
    with pytest.raises(InputError, match="/external/image_raw: the image has 143 bytes"):
        decoded(message)
