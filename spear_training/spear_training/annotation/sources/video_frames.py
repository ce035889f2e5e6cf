"""Single pictures of a video by their number, decoding little more than those.

Number 0 is the picture that is shown first. A first pass over the file, without decoding, notes
where each picture and the key pictures lie. From the last key picture before a wanted one the
video is decoded onwards, unless the decoder is there already.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# A decoder is this far ahead of what it hands out; a jump that gains less would decode twice.
_NEAR_PACKETS = 8


class VideoError(ValueError):
    """A video, or a picture of it, cannot be read; the text says which and why."""


@dataclass(frozen=True)
class _Packet:
    """What the file says of one picture; stamps in the stream's unit."""

    shown: int
    read: int
    key: bool


class VideoFrames:
    """An open video; use it as a context."""

    def __init__(self, path: Path):
        """Open a video and note where its pictures are.

        Raises:
            VideoError: it is missing, or is no video.
        """
        import av

        self._path, self._errors = path, (av.error.FFmpegError, OSError)
        try:
            self._file = av.open(str(path))
        except self._errors as error:
            raise VideoError(f"{path} cannot be opened ({_words(error)})") from None
        try:
            if not self._file.streams.video:
                raise VideoError(f"{path} has no pictures in it")
            self._stream = self._file.streams.video[0]
            self._stream.thread_type = "AUTO"
            self._packets = self._read_packets()
        except BaseException:
            self._file.close()
            raise
        shown = sorted(range(len(self._packets)), key=lambda place: self._packets[place].shown)
        self._place_of_number = shown
        self._decoded: Iterator = iter(())
        self._at: int | None = None
        self._keys = [place for place, packet in enumerate(self._packets) if packet.key]

    def __len__(self) -> int:
        return len(self._packets)

    def __enter__(self) -> "VideoFrames":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def frames(
        self, numbers: Iterable[int]
    ) -> Iterator[tuple[int, NDArray[np.uint8] | VideoError]]:
        """Yield each wanted picture once, in the order they are shown.

        Returns:
            Pairs of its number, and the picture (H, W, 3) RGB or why it cannot be had.
        """
        self._at = None  # place of the picture decoded last
        for number in sorted(set(numbers)):
            if not 0 <= number < len(self):
                yield number, self._lost(number, f"the video has {len(self)}")
                continue
            try:
                found = self._picture(self._place_of_number[number])
            except self._errors as error:
                found, self._at = self._lost(number, _words(error)), None
            yield number, self._lost(number, "it is damaged") if found is None else found

    def _picture(self, place: int) -> NDArray[np.uint8] | None:
        shown = self._packets[place].shown
        key = self._key_before(place)
        if self._at is not None and key - self._at <= _NEAR_PACKETS:
            found = self._decode_to(shown)
        else:
            found = None
            # Some formats are sought by when a picture is shown, others by when it is read.
            for stamp in dict.fromkeys((self._packets[key].shown, self._packets[key].read)):
                if found is None:
                    self._file.seek(stamp, stream=self._stream)
                    self._decoded = self._file.decode(self._stream)
                    found = self._decode_to(shown)
        self._at = place
        return found

    def _read_packets(self) -> list[_Packet]:
        packets = []
        try:
            for packet in self._file.demux(self._stream):
                if not packet.size or packet.is_discard:
                    continue
                if packet.pts is None:
                    raise VideoError(f"{self._path} has no stamps; convert it to MP4")
                read = packet.pts if packet.dts is None else packet.dts
                packets.append(_Packet(packet.pts, read, packet.is_keyframe))
        except self._errors as error:
            raise VideoError(f"{self._path} is damaged ({_words(error)})") from None
        if not packets or not packets[0].key:
            raise VideoError(f"{self._path} has no picture to begin with; it is cut or damaged")
        return packets

    def _key_before(self, place: int) -> int:
        """The key picture that decoding must begin at: read before it, and shown before it."""
        index = bisect_right(self._keys, place) - 1
        while index > 0 and self._packets[self._keys[index]].shown > self._packets[place].shown:
            index -= 1
        return self._keys[index]

    def _decode_to(self, shown: int) -> NDArray[np.uint8] | None:
        for frame in self._decoded:
            if frame.pts == shown:
                return None if frame.is_corrupt else frame.to_ndarray(format="rgb24")
            if frame.pts is not None and frame.pts > shown:
                return None
        return None

    def _lost(self, number: int, reason: str) -> VideoError:
        return VideoError(f"picture {number} of {self._path.name} cannot be had: {reason}")


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
