"""The pictures of an episode: decoded one by one, always RGB, black cameras left out."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from spear_policy.inference.episode import EpisodeError, Video
from spear_training.data.encoded_video import EncodedVideo
from spear_training.data.oxe.rules import Camera
from spear_training.data.tfds_features import FeatureSpec


def open_camera(camera: Camera, pictures: list[bytes], spec: FeatureSpec) -> Video | None:
    """The pictures of one camera, or None where every one is black: the episode lacks the camera.

    Raises:
        EpisodeError: a picture that had to be looked at is damaged; further ones raise it when
            they are asked for.
    """
    try:
        video = EncodedVideo(pictures, partial(_decode, spec, camera.channels == "bgr"))
        return None if _is_black(video) else video
    except EpisodeError as error:
        raise EpisodeError(f"{camera.key}: {error}") from None


def decoded(video: Video) -> NDArray[np.uint8]:
    """(T, H, W, 3): all of it at once. Raises EpisodeError."""
    return np.stack([video[step] for step in range(len(video))])


def _decode(spec: FeatureSpec, swapped: bool, data: bytes) -> NDArray[np.uint8]:
    picture = spec.picture(data)
    # "swapped" says that what the file calls red is blue.
    return np.ascontiguousarray(picture[..., ::-1] if swapped else picture)


def _is_black(video: Video) -> bool:
    # A camera that is there shows something in its first picture, so one is looked at mostly.
    return not any(video[step].any() for step in range(len(video)))
