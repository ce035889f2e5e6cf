"""From frames as they came to the RGB images that an engine gets; wrong ones are named."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spear_policy.inference.engine import CameraSpec
from spear_policy.inference.frame_buffer import Frame
from spear_policy.inference.synchroniser import InputProblem

# A depth or grey image would be converted without a complaint and mean nothing to a policy.
COLOUR_ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8")


def decode(
    frames: Mapping[str, Frame],
    cameras: tuple[CameraSpec, ...],
    topics: Mapping[str, str],
    bridge: Any,
) -> dict[str, NDArray]:
    """(H, W, 3) uint8 RGB by camera name; a camera whose width is 0 may have any size.

    Args:
        frames: messages (Image or CompressedImage) by camera name.
        topics: resolved topic by camera name, for messages.
        bridge: a converter with cv_bridge's methods.

    Raises:
        InputProblem: a message is broken, has no colour, or not the size that the engine wants.
    """
    sizes = {spec.name: (spec.width, spec.height) for spec in cameras}
    images = {}
    for name, frame in frames.items():
        image = _rgb(frame.message, topics[name], bridge)
        size = (image.shape[1], image.shape[0])
        if sizes[name] != (0, 0) and size != sizes[name]:
            wanted = "{}x{}".format(*sizes[name])
            raise InputProblem(
                f"{topics[name]} is {size[0]}x{size[1]}; the engine wants {wanted}: set the camera "
                "to that size or put an image_proc resize node before it"
            )
        images[name] = image
    return images


def _rgb(message: Any, topic: str, bridge: Any) -> NDArray:
    compressed = not hasattr(message, "encoding")
    if not compressed and message.encoding not in COLOUR_ENCODINGS:
        raise InputProblem(
            f"{topic} has encoding {message.encoding!r}; a policy needs colour "
            f"({', '.join(COLOUR_ENCODINGS)}): remap to the colour image of the camera"
        )
    try:
        if not compressed:
            return bridge.imgmsg_to_cv2(message, "rgb8")
        image = bridge.compressed_imgmsg_to_cv2(message, "passthrough")
    except Exception as error:  # cv_bridge lets OpenCV's and numpy's errors through
        raise InputProblem(f"{topic}: {error}") from None
    if image.ndim != 3 or image.dtype != np.uint8 or image.shape[2] != 3:
        raise InputProblem(
            f"{topic} holds pictures of shape {image.shape} {image.dtype}; a policy needs colour: "
            "remap to the colour image of the camera"
        )
    return np.ascontiguousarray(image[..., ::-1])
