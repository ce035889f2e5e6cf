"""An episode's pictures as the store keeps them: fitted, JPEG, and counted for statistics."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from spear_policy.inference.episode import EpisodeError, Video
from spear_policy.inference.image_geometry import Fit, plan_fit
from spear_training.data.store.facts import CameraFacts

JPEG_QUALITY = 92
# Statistics look at this many pictures of an episode, spread evenly.
COUNTED_PICTURES = 8
_JPEG_SETTINGS = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
# OpenCV before 4.7 has no name for it and always writes 4:2:0.
if hasattr(cv2, "IMWRITE_JPEG_SAMPLING_FACTOR"):
    _JPEG_SETTINGS += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]


@dataclass(frozen=True, eq=False)
class StoredPictures:
    """One camera's pictures of an episode.

    Attributes:
        jpegs: T encoded pictures.
        fit: how they were brought to their size; None for black ones in place of a camera.
        histogram: (3, 256) how often each value of red, green and blue was seen.
        counted: how many pictures the histogram is of.
    """

    jpegs: list[bytes]
    fit: Fit | None
    histogram: NDArray[np.int64]
    counted: int


def store_pictures(video: Video, camera: CameraFacts) -> StoredPictures:
    """Fit and encode every picture of `video`.

    Raises:
        EpisodeError: a picture cannot be decoded or fitted; the text names camera and step.
        DataFileError: the file that a lazy `video` reads is damaged.
    """
    width, height = camera.size
    try:
        plan = plan_fit(
            video.shape[2], video.shape[1], width, height, camera.mode, camera.native_aspect
        )
    except ValueError as error:
        raise EpisodeError(f"camera {camera.name!r}: {error}") from None
    steps = len(video)
    counted = np.unique(np.linspace(0, steps - 1, min(steps, COUNTED_PICTURES)).round())
    histogram = np.zeros((3, 256), np.int64)
    jpegs = []
    for step in range(steps):
        try:
            picture = plan.apply(np.asarray(video[step]))
        except EpisodeError as error:
            raise EpisodeError(f"camera {camera.name!r}: {error}") from None
        if step in counted:
            histogram += picture_histogram(picture)
        jpegs.append(encode_jpeg(picture))
    return StoredPictures(jpegs, plan, histogram, len(counted))


def black_pictures(steps: int, camera: CameraFacts) -> StoredPictures:
    """What stands for a camera that the episode lacks; no part of the statistics."""
    width, height = camera.size
    black = encode_jpeg(np.zeros((height, width, 3), np.uint8))
    return StoredPictures([black] * steps, None, np.zeros((3, 256), np.int64), 0)


def encode_jpeg(picture: NDArray[np.uint8]) -> bytes:
    """A picture (H, W, 3) RGB as JPEG 4:2:0 of the store's quality."""
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), _JPEG_SETTINGS)
    if not done:
        raise EpisodeError(f"a picture of shape {picture.shape} cannot be encoded")
    return encoded.tobytes()


def picture_histogram(picture: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(3, 256): how often each value occurs in red, green and blue of (H, W, 3)."""
    counts = [cv2.calcHist([picture], [channel], None, [256], [0, 256]) for channel in range(3)]
    return np.stack([np.ravel(count) for count in counts]).astype(np.int64)
