"""Image messages as numpy arrays and back, with the signature and the rules of ROS 2's cv_bridge.

It reads any object with the fields of sensor_msgs/Image or CompressedImage, so it needs no ROS.
Rows may be padded, bytes may be big-endian; every refusal says what is wrong with the message.
"""

import array
import re
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_COLOURS = {
    "rgb8": ("RGB", np.uint8, 3),
    "bgr8": ("BGR", np.uint8, 3),
    "rgba8": ("RGBA", np.uint8, 4),
    "bgra8": ("BGRA", np.uint8, 4),
    "mono8": ("GRAY", np.uint8, 1),
    "mono16": ("GRAY", np.uint16, 1),
}
_DEPTHS = {
    "8U": np.uint8,
    "8S": np.int8,
    "16U": np.uint16,
    "16S": np.int16,
    "32S": np.int32,
    "32F": np.float32,
    "64F": np.float64,
}
_DEPTH_NAMES = {np.dtype(dtype): name for name, dtype in _DEPTHS.items()}
_OPENCV_TYPE = re.compile(r"(8U|8S|16U|16S|32S|32F|64F)C([1-4])")


# 8K. A small file may claim to be far larger, and decoding it would keep the policy busy.
_MOST_PIXELS = 7680 * 4320


class CvBridgeError(TypeError):
    """An image cannot be read, converted or written; the text says why and what to do."""


@dataclass(frozen=True)
class Encoding:
    """What the name of an encoding says; `colour` is OpenCV's word, or "" for plain numbers."""

    name: str
    colour: str
    dtype: np.dtype
    channels: int


def encoding_of(name: str) -> Encoding:
    """The encoding of a name such as "rgb8" or "16UC1".

    Raises:
        CvBridgeError: the name is unknown.
    """
    if name in _COLOURS:
        colour, dtype, channels = _COLOURS[name]
        return Encoding(name, colour, np.dtype(dtype), channels)
    if match := _OPENCV_TYPE.fullmatch(name):
        return Encoding(name, "", np.dtype(_DEPTHS[match[1]]), int(match[2]))
    raise CvBridgeError(
        f"image encoding {name!r} is unknown; use one of {', '.join(_COLOURS)}, "
        "or OpenCV's 8UC1 .. 64FC4"
    )


def read_image(message: Any) -> NDArray:
    """The pixels of an Image, (height, width) or (height, width, channels), native byte order.

    The array shares the message's memory where no padding or byte order has to be removed.

    Raises:
        CvBridgeError: unknown encoding, or sizes that contradict each other.
    """
    encoding = encoding_of(message.encoding)
    height, width, step = message.height, message.width, message.step
    row = width * encoding.channels * encoding.dtype.itemsize
    size = f"{width}x{height} {encoding.name}"
    if not height or not width:
        raise CvBridgeError(f"the image is empty: {size}")
    if step < row:
        raise CvBridgeError(f"step is {step} bytes; a row of {size} has {row}")
    data = _bytes_of(message.data)
    if len(data) != step * height:
        raise CvBridgeError(
            f"the image has {len(data)} bytes; {size} with step {step} has {step * height}"
        )
    pixels = np.ascontiguousarray(data.reshape(height, step)[:, :row])
    order = ">" if message.is_bigendian else "<"
    pixels = pixels.view(encoding.dtype.newbyteorder(order))
    pixels = pixels.astype(encoding.dtype, copy=False)
    shape = (height, width) if encoding.channels == 1 else (height, width, encoding.channels)
    return pixels.reshape(shape)


def convert(pixels: NDArray, source: str, wanted: str) -> NDArray:
    """Pixels of encoding `source` as encoding `wanted`, by cv_bridge's rules.

    16-bit grey becomes 8-bit by scale; plain numbers (such as 16UC1, a depth image) never become
    a colour, and other depths change by rounding and saturation.

    Raises:
        CvBridgeError: the conversion makes no sense.
    """
    if wanted in ("passthrough", source):
        return pixels
    a, b = encoding_of(source), encoding_of(wanted)
    if b.colour and not a.colour:
        raise CvBridgeError(
            f"{source} does not say what its numbers mean, so they cannot become {wanted}; "
            "the publisher has to name the colours (rgb8, bgr8, mono8, ...)"
        )
    if not b.colour and a.channels != b.channels:
        raise CvBridgeError(f"{source} has {a.channels} channels and {wanted} has {b.channels}")
    if b.colour and a.colour != b.colour:
        pixels = cv2.cvtColor(pixels, getattr(cv2, f"COLOR_{a.colour}2{b.colour}"))
    return _to_depth(pixels, b.dtype)


def _to_depth(pixels: NDArray, dtype: np.dtype) -> NDArray:
    if pixels.dtype == dtype:
        return pixels
    if (pixels.dtype, dtype) == (np.uint8, np.uint16):
        return pixels.astype(dtype) * np.uint16(257)
    if (pixels.dtype, dtype) == (np.uint16, np.uint8):
        return np.rint(pixels / 257.0).astype(dtype)
    if dtype.kind == "f":
        return pixels.astype(dtype)
    bounds = np.iinfo(dtype)
    # NaN, a depth that was not measured, becomes 0.
    wide = np.nan_to_num(np.rint(pixels.astype(np.float64)), posinf=bounds.max, neginf=bounds.min)
    return np.clip(wide, bounds.min, bounds.max).astype(dtype)


def read_compressed(message: Any) -> tuple[NDArray, str]:
    """The pixels of a CompressedImage and the encoding that they have now (bgr8, mono8, ...).

    Raises:
        CvBridgeError: no PNG or JPEG, too large by its header, or OpenCV cannot decode the bytes.
    """
    if "compressedDepth" in message.format:
        raise CvBridgeError("compressedDepth is no plain picture; subscribe to the raw depth image")
    data = _bytes_of(message.data)
    width, height = header_size(data.tobytes())
    if width * height > _MOST_PIXELS:
        raise CvBridgeError(
            f"the compressed image says that it is {width}x{height}; at most 8K (7680x4320 pixels) "
            "is decoded: set the camera to a smaller size"
        )
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if width * height else None
    except cv2.error as error:
        raise CvBridgeError(f"the compressed image is broken: {error}") from None
    if pixels is None:
        raise CvBridgeError(
            f"{len(data)} bytes of format {message.format!r} are no JPEG or PNG that OpenCV can "
            "decode"
        )
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    names = {(np.uint8, 1): "mono8", (np.uint16, 1): "mono16"}
    names |= {(np.uint8, 3): "bgr8", (np.uint8, 4): "bgra8"}
    return pixels, names.get((pixels.dtype.type, channels), _opencv_type(pixels))


def header_size(data: bytes) -> tuple[int, int]:
    """(width, height) by the header of a PNG or JPEG, nothing decoded; (0, 0) of anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    at = 2
    while data.startswith(b"\xff\xd8") and at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        # 0xFF before a marker is only a filler.
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
    return 0, 0


def _bytes_of(data: Any) -> NDArray:
    return np.array(data, np.uint8) if isinstance(data, list) else np.frombuffer(data, np.uint8)


def _opencv_type(pixels: NDArray) -> str:
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    return f"{_DEPTH_NAMES[pixels.dtype.newbyteorder('=')]}C{channels}"


class CvBridge:
    """cv_bridge's class. It writes messages of the two classes that it is given."""

    def __init__(self, image_class: Any, compressed_class: Any):
        """Take sensor_msgs/Image and sensor_msgs/CompressedImage, or what has their fields."""
        self._image, self._compressed = image_class, compressed_class

    def imgmsg_to_cv2(self, img_msg: Any, desired_encoding: str = "passthrough") -> NDArray:
        """An Image as an array in `desired_encoding`. Raises CvBridgeError."""
        return convert(read_image(img_msg), img_msg.encoding, desired_encoding)

    def cv2_to_imgmsg(self, cvim: NDArray, encoding: str = "passthrough", header=None) -> Any:
        """An array as an Image; "passthrough" names it by its OpenCV type. Raises CvBridgeError."""
        actual = self._type_of(cvim)
        if encoding == "passthrough":
            encoding = actual
        wanted = encoding_of(encoding)
        if f"{_DEPTH_NAMES[wanted.dtype]}C{wanted.channels}" != actual:
            raise CvBridgeError(f"an array of type {actual} cannot be sent as {encoding}")
        message = self._image()
        if header is not None:
            message.header = header
        message.height, message.width = cvim.shape[:2]
        message.encoding = encoding
        # Native "=" is little-endian on every machine that this runs on.
        message.is_bigendian = int(cvim.dtype.byteorder == ">")
        message.step = message.width * wanted.channels * wanted.dtype.itemsize
        # Assigning bytes makes rclpy look at every one of them; an array it takes as it is.
        message.data = array.array("B")
        message.data.frombytes(np.ascontiguousarray(cvim).reshape(-1).view(np.uint8).data)
        return message

    def cv2_to_compressed_imgmsg(self, cvim: NDArray, dst_format: str = "jpg") -> Any:
        """An array (bgr8, bgra8, mono8, mono16) as a CompressedImage. Raises CvBridgeError."""
        self._type_of(cvim)
        try:
            done, data = cv2.imencode(f".{dst_format}", cvim)
        except cv2.error as error:
            raise CvBridgeError(f"OpenCV cannot write {dst_format!r}: {error}") from None
        if not done:
            raise CvBridgeError(f"OpenCV could not write the image as {dst_format!r}")
        message = self._compressed()
        message.format = dst_format
        message.data = array.array("B", data.tobytes())
        return message

    @staticmethod
    def _type_of(cvim: NDArray) -> str:
        """Its OpenCV type such as 8UC3. Raises CvBridgeError when it is no image at all."""
        shaped = isinstance(cvim, np.ndarray) and cvim.size and cvim.ndim in (2, 3)
        if not shaped or (cvim.ndim == 3 and cvim.shape[2] > 4):
            what = f"shape {cvim.shape}" if isinstance(cvim, np.ndarray) else type(cvim).__name__
            raise CvBridgeError(f"an image is a numpy array (H, W) or (H, W, 1..4), got {what}")
        if cvim.dtype.newbyteorder("=") not in _DEPTH_NAMES:
            raise CvBridgeError(f"no image encoding holds numbers of type {cvim.dtype}")
        return _opencv_type(cvim)
