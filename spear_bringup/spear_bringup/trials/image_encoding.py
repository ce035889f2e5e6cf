"""A raw image as JPEG or PNG, the way bags keep it."""

import cv2
import numpy as np

_TO_BGR = {
    "rgb8": cv2.COLOR_RGB2BGR,
    "bgr8": None,
    "rgba8": cv2.COLOR_RGBA2BGR,
    "bgra8": cv2.COLOR_BGRA2BGR,
}
_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
_DEEP = ("mono16", "16UC1")


def compress(
    data: bytes,
    encoding: str,
    height: int,
    width: int,
    step: int,
    is_bigendian: bool = False,
    jpeg_quality: int = 90,
) -> tuple[str, bytes]:
    """(format as CompressedImage has it, compressed bytes) of a sensor_msgs/Image's contents.

    8-bit images become JPEG; 16-bit ones become PNG, because depth must not be changed.

    Args:
        data: at least height * step bytes, rows of `step` bytes.
        jpeg_quality: 1 .. 100.

    Raises:
        ValueError: the encoding is not known, or the sizes do not fit.
    """
    if encoding in _DEEP:
        item = np.dtype(">u2" if is_bigendian else "<u2")
        pixels = _pixels(data, encoding, height, width, step, 1, item).astype(np.uint16)
        return f"{encoding}; png compressed", _encoded(".png", pixels, [])
    if encoding not in _CHANNELS:
        known = ", ".join([*_CHANNELS, *_DEEP])
        raise ValueError(f"image encoding {encoding!r} cannot be compressed; known: {known}")
    channels = _CHANNELS[encoding]
    pixels = _pixels(data, encoding, height, width, step, channels, np.dtype(np.uint8))
    conversion = _TO_BGR.get(encoding)
    if conversion is not None:
        pixels = cv2.cvtColor(pixels, conversion)
    target = "mono8" if channels == 1 else "bgr8"
    jpeg = _encoded(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(jpeg_quality)])
    return f"{encoding}; jpeg compressed {target}", jpeg


def _pixels(data, encoding, height, width, step, channels, item) -> np.ndarray:
    row_bytes = width * channels * item.itemsize
    if height < 1 or width < 1 or step < row_bytes or len(data) < height * step:
        raise ValueError(
            f"{encoding} image of {width} x {height} needs rows of {row_bytes} bytes; "
            f"step is {step} and there are {len(data)} bytes"
        )
    rows = np.frombuffer(data, np.uint8, height * step).reshape(height, step)[:, :row_bytes]
    pixels = np.ascontiguousarray(rows).view(item)
    return pixels.reshape(height, width, channels) if channels > 1 else pixels


def _encoded(suffix: str, pixels: np.ndarray, options: list[int]) -> bytes:
    done, encoded = cv2.imencode(suffix, pixels, options)
    if not done:
        raise ValueError(f"OpenCV cannot write this image as {suffix}")
    return encoded.tobytes()
