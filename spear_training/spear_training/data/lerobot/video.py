"""Pictures of one episode out of an mp4, which may hold those of many."""

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from spear_training.data.reader import DataFileError


class Mp4Video:
    """A Video (see inference.episode) that decodes an mp4 as pictures are asked for.

    One after the other they are decoded in one pass; anywhere else the file is searched from the
    key frame before.

    Attributes:
        shape: (T, H, W, 3).
        dtype: uint8.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, times_s: NDArray, fps: float):
        """Open a file.

        Args:
            path: of the mp4.
            times_s: (T,) when in the file each picture is shown [s].
            fps: pictures a second; a picture may be shown a quarter of 1 / fps before its time,
                or half of it after.

        Raises:
            DataFileError: the file is missing or no video.
        """
        self._path, self._times_s = path, np.asarray(times_s, float)
        self._early_s, self._late_s = 0.25 / fps, 0.5 / fps
        try:
            self._container = av.open(str(path))
            if not self._container.streams.video:
                raise DataFileError(f"{path}: has no video in it; copy it again")
            self._stream = self._container.streams.video[0]
            # One reader is one process: more threads would only compete with other readers.
            self._stream.codec_context.thread_count = 1
            height, width = self._stream.codec_context.height, self._stream.codec_context.width
        except (av.FFmpegError, OSError) as error:
            raise DataFileError(f"{path}: cannot be opened ({error}); copy it again") from None
        self.shape = (len(self._times_s), height, width, 3)
        self._frames = None
        self._next_step = -1

    def __len__(self) -> int:
        return len(self._times_s)

    def __getitem__(self, step: int) -> NDArray[np.uint8]:
        """Decode the picture (H, W, 3) of a step.

        Raises:
            DataFileError: the file is cut short, damaged, or has no picture at that time.
            IndexError: no such step.
        """
        if not -len(self) <= step < len(self):
            raise IndexError(f"{self._path}: no step {step}, there are {len(self)}")
        step %= len(self)
        wanted_s = float(self._times_s[step])
        try:
            if self._frames is None or step != self._next_step:
                self._seek(wanted_s)
            self._next_step = -1  # in case of an error
            for frame in self._frames:
                if frame.time is None or frame.time < wanted_s - self._early_s:
                    continue
                if frame.time > wanted_s + self._late_s:
                    break
                self._next_step = step + 1
                return frame.to_ndarray(format="rgb24")
            else:
                raise DataFileError(
                    f"{self._path}: ends before step {step} at {wanted_s:.3f} s; it is cut short: "
                    "copy it again"
                )
        except (av.FFmpegError, OSError) as error:
            raise DataFileError(
                f"{self._path}: step {step} at {wanted_s:.3f} s cannot be decoded ({error}); copy "
                "it again"
            ) from None
        raise DataFileError(
            f"{self._path}: has no picture at {wanted_s:.3f} s (step {step}), the next is at "
            f"{frame.time:.3f} s; its frame rate is not the data set's fps"
        )

    def _seek(self, wanted_s: float) -> None:
        early_s = max(0.0, wanted_s - self._early_s)
        self._container.seek(int(early_s / self._stream.time_base), stream=self._stream)
        self._frames = self._container.decode(self._stream)
