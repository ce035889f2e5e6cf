"""What every reader of recorded data is, and how it says that a file cannot be used."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
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


def outline(reason: str) -> str:
    """A reason without what differs from one episode to the next: paths, quotations, numbers."""
    return re.sub(r"\d+(\.\d+)?", "#", re.sub(r"'[^']*'|\S*/\S*", "...", reason))


# Files that cannot be read --------------------------------------------------------------------

# How every file begins that stands for one that Git LFS has not fetched (the LFS specification).
LFS_BEGIN = b"version https://git-lfs.github.com/spec/"
LFS_WORDS = "is a pointer of Git LFS, not the file; fetch it with `git lfs pull`"


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file only stands for one that Git LFS has not fetched. Raises OSError."""
    with open(path, "rb") as file:
        return file.read(len(LFS_BEGIN)) == LFS_BEGIN


def unreadable(path: Path, error: Exception | None = None, fix: str = "copy it again") -> str:
    """Why a file cannot be read, as a sentence that names it once.

    Args:
        path: of the file.
        error: that reading it raised; None: `fix` alone is said.
        fix: what to do, where the file is there and is what it seems.
    """
    try:
        if is_lfs_pointer(path):
            return f"{path}: {LFS_WORDS}"
    except OSError as here:
        return f"{path}: cannot be read ({here.strerror}); {fix}"
    why = getattr(error, "strerror", None) or str(error or "")
    for quoted in (f"'{path}'", f'"{path}"', str(path)):
        why = why.replace(quoted, "it")
    return f"{path}: cannot be read ({why}); {fix}" if why else f"{path}: {fix}"


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
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise EpisodeError(
                f"picture {step} is {image.shape} {image.dtype}, no 8-bit colour picture"
            )
        if hasattr(self, "shape") and image.shape != self.shape[1:]:
            raise EpisodeError(f"picture {step} is {image.shape}, the first {self.shape[1:]}")
        return image


def decode_rgb(encoded: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or another picture to (H, W, 3) RGB.

    Raises:
        ValueError: it is empty, damaged, transparent, or of more than 8 bits, as depth is.
    """
    # A JPEG has neither transparency nor 16 bits, and is turned as its EXIF demands.
    how = cv2.IMREAD_COLOR if encoded[:2] == b"\xff\xd8" else cv2.IMREAD_UNCHANGED
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), how)
    except cv2.error:
        image = None
    if image is None:
        if encoded.startswith(LFS_BEGIN):
            raise ValueError("is a pointer of Git LFS: fetch the files with `git lfs pull`")
        raise ValueError(f"its {len(encoded)} bytes are no picture")
    if image.dtype != np.uint8:
        raise ValueError(
            f"it has {8 * image.dtype.itemsize} bits a channel, so it is a depth image or raw "
            "data; name the camera's 8-bit colour pictures"
        )
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if image.shape[2] == 4 and image[..., 3].min() < 255:
        raise ValueError("it is transparent in places: put the pictures on a background first")
    return np.ascontiguousarray(image[..., 2::-1])
