"""Raw image messages as compressed ones, for cameras that publish no compressed topic."""

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image

from spear_bringup.trials.image_encoding import compress
from spear_policy.nodes.image_bridge import choose_bridge

_KEPT = ("mono8", "mono16", "16UC1")  # what becomes a picture without a change of colours


class ImageCompressor:
    """Serialized Image in, serialized CompressedImage out. jpeg_quality is 1 .. 100."""

    def __init__(self, jpeg_quality: int):
        self._bridge, _ = choose_bridge()
        self._jpeg_quality = jpeg_quality

    def __call__(self, raw: bytes) -> bytes:
        """Compress one message; raises ValueError naming what is wrong with it."""
        image = deserialize_message(raw, Image)
        wanted = "passthrough" if image.encoding in _KEPT else "bgr8"
        try:
            pixels = self._bridge.imgmsg_to_cv2(image, wanted)
        except TypeError as error:  # CvBridgeError of either converter
            raise ValueError(str(error)) from None
        message = CompressedImage(header=image.header)
        message.format, compressed = compress(pixels, image.encoding, self._jpeg_quality)
        message.data.frombytes(compressed)
        return serialize_message(message)
