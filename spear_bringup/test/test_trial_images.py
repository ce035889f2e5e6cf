"""The recorder keeps the colours, the rows and the depths of the images that it compresses."""

import cv2
import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image

from spear_bringup.nodes.trial_recorder import ImageCompressor
from spear_bringup.trials.bag_writer import compress


def picture():
    """Return a smooth picture of 48 x 64, BGR."""
    rows, columns = np.mgrid[0:48, 0:64]
    return np.dstack([rows * 5, columns * 3, 255 - rows * 2]).astype(np.uint8)


def compressed(pixels, encoding, padding=0, is_bigendian=False):
    """Send pixels through the compressor; its message and the pixels that it decodes to."""
    row = pixels[0].nbytes
    rows = np.zeros((len(pixels), row + padding), np.uint8)
    rows[:, :row] = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), row)
    message = Image(height=48, width=64, encoding=encoding, step=row + padding)
    message.header.stamp.sec, message.header.frame_id = 7, "camera_wrist_optical_frame"
    message.is_bigendian = int(is_bigendian)
    message.data.frombytes(rows.tobytes())
    raw = ImageCompressor(95)(serialize_message(message))
    answer = deserialize_message(raw, CompressedImage)
    return answer, cv2.imdecode(np.asarray(answer.data), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize(
    ("encoding", "conversion"),
    [
        ("bgr8", None),
        ("rgb8", cv2.COLOR_BGR2RGB),
        ("bgra8", cv2.COLOR_BGR2BGRA),
        ("rgba8", cv2.COLOR_BGR2RGBA),
    ],
)
def test_colours_and_stamps_are_kept_and_padding_is_not(encoding, conversion):
    image = picture() if conversion is None else cv2.cvtColor(picture(), conversion)
    message, pixels = compressed(image, encoding, padding=7)
    assert np.abs(pixels.astype(int) - picture()).mean() < 3
    assert message.format == f"{encoding}; jpeg compressed bgr8"
    assert message.header.stamp.sec == 7
    assert message.header.frame_id == "camera_wrist_optical_frame"


def test_grey_stays_grey():
    grey = cv2.cvtColor(picture(), cv2.COLOR_BGR2GRAY)
    message, pixels = compressed(grey, "mono8")
    assert pixels.shape == (48, 64) and np.abs(pixels.astype(int) - grey).mean() < 3
    assert message.format == "mono8; jpeg compressed mono8"


@pytest.mark.parametrize("is_bigendian", [False, True])
def test_depth_is_kept_exactly(is_bigendian):
    depth = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 20
    sent = depth.astype(">u2") if is_bigendian else depth
    message, pixels = compressed(sent, "16UC1", is_bigendian=is_bigendian)
    assert np.array_equal(pixels, depth) and message.format == "16UC1; png compressed"


def test_an_image_that_cannot_be_compressed_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match="yuv422"):
        compressed(np.zeros((48, 64, 2), np.uint8), "yuv422")
    with pytest.raises(ValueError, match="32FC1"):
        compressed(np.zeros((48, 64), np.float32), "32FC1")
    with pytest.raises(ValueError, match="32FC1 image cannot be compressed; record its raw topic"):
        compress(np.zeros((48, 64), np.float32), "32FC1")
