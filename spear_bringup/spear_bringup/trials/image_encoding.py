"""Pixels as JPEG or PNG, the way bags keep images."""

import cv2
import numpy as np
from numpy.typing import NDArray


def compress(pixels: NDArray, encoding: str, jpeg_quality: int = 90) -> tuple[str, bytes]:
    """(format as CompressedImage has it, compressed bytes).

    8-bit images become JPEG; 16-bit ones become PNG, because depth must not be changed.

    Args:
        pixels: (H, W, 3) uint8 BGR, or (H, W) uint8 or uint16 grey.
        encoding: what the image was before, such as rgb8.
        jpeg_quality: 1 .. 100.

    Raises:
        ValueError: the pixels are of no such kind.
    """
    kind = (pixels.dtype.type, pixels.shape[2:])
    if kind == (np.uint16, ()):
        return f"{encoding}; png compressed", _encoded(".png", pixels, [])
    targets = {(np.uint8, (3,)): "bgr8", (np.uint8, ()): "mono8"}
    if kind not in targets:
        raise ValueError(f"a {encoding} image cannot be compressed; record its raw topic instead")
    jpeg = _encoded(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(jpeg_quality)])
    return f"{encoding}; jpeg compressed {targets[kind]}", jpeg


def _encoded(suffix: str, pixels: NDArray, options: list[int]) -> bytes:
    done, encoded = cv2.imencode(suffix, pixels, options)
    if not done:
        raise ValueError(f"OpenCV cannot write this image as {suffix}")
    return encoded.tobytes()
