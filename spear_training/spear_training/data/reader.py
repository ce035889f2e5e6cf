"""What every reader of recorded data is, and how it says that a file cannot be used."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from spear_policy.inference.episode import Episode, EpisodeError


class DataFileError(ValueError):
    """A data file or folder cannot be used; the text names it, the place in it and the fix."""


class NotSelectedError(EpisodeError):
    """The episode is sound, but the reader's rules do not take it; the text says why."""


class EpisodeReader(Protocol):
    """Episodes by number. A damaged one raises when it is read and leaves the others alone."""

    @property
    def name(self) -> str:
        """A word for file names and reports, such as "bridge_dataset-train"."""

    def __len__(self) -> int:
        """How many episodes there are, damaged ones included."""

    def read(self, index: int) -> Episode:
        """Episode `index`, 0-based.

        Raises:
            DataFileError: the file is damaged there.
            NotSelectedError: the reader's rules do not take it.
            EpisodeError: what is in the file is no usable episode.
            IndexError: no such number.
        """


def spread(chosen: Sequence[int], most: int) -> list[int]:
    """At most `most` of `chosen`, evenly over all of them, without repeats."""
    count = min(most, len(chosen))
    if count < 2:
        return list(chosen[:count])
    return [chosen[i * (len(chosen) - 1) // (count - 1)] for i in range(count)]


# Pictures that stay encoded until they are asked for -----------------------------------------

Decode = Callable[[Any], NDArray[np.uint8]]


class EncodedVideo:
    """A Video (see inference.episode) of encoded pictures; only the first is decoded at once.

    Attributes:
        shape: (T, H, W, 3).
        dtype: uint8.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, pictures: Sequence[Any], decode: Decode | None = None):
        """Take pictures, and what makes (H, W, 3) uint8 RGB of one.

        Args:
            pictures: at least one; JPEG or PNG bytes unless `decode` says otherwise.
            decode: `decode_rgb` if it is not given.

        Raises:
            EpisodeError: there is no picture, or the first cannot be decoded.
        """
        if not len(pictures):
            raise EpisodeError("a camera has no picture")
        self._pictures, self._decode = pictures, decode or decode_rgb
        self.shape = (len(pictures), *self[0].shape)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, step: int) -> NDArray[np.uint8]:
        """Decode the picture (H, W, 3) of a step.

        Raises:
            EpisodeError: it is damaged, or of another size than the first.
        """
        picture = self._pictures[step]
        try:
            image = self._decode(picture)
        except ValueError as error:
            raise EpisodeError(f"picture {step}: {error}") from None
        if hasattr(self, "shape") and image.shape != self.shape[1:]:
            raise EpisodeError(f"picture {step} is {image.shape}, the first {self.shape[1:]}")
        return image


def decode_rgb(encoded: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG to (H, W, 3) RGB.

    Raises:
        ValueError: it is empty or damaged.
    """
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise ValueError(f"its {len(encoded)} bytes are no picture")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
