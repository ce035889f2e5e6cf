"""The newest frames of one camera, still as they came: an image is decoded only when it is used."""

from collections import deque
from dataclasses import dataclass
from typing import Any

# Enough for the frames of two cameras to find their partners, and for the state to catch up.
_DEPTH = 6


@dataclass(frozen=True, eq=False)
class Frame:
    """A received image message with its header stamp [node clock] and its receipt [steady]."""

    stamp_s: float
    received_s: float
    message: Any


class FrameBuffer:
    """The newest frames, oldest first. Not thread-safe: the owner locks.

    Attributes:
        topic: for messages to people.
        received: frames that came.
        dropped: frames that newer ones replaced before they were used.
    """

    def __init__(self, topic: str):
        self.topic = topic
        self.received = 0
        self.dropped = 0
        self._frames: deque[Frame] = deque()
        self._used_s = float("-inf")

    def put(self, frame: Frame) -> None:
        """Append a frame; an older stamp than the last one begins anew (the clock was reset)."""
        self.received += 1
        if self._frames and frame.stamp_s < self._frames[-1].stamp_s:
            self._frames.clear()
            self._used_s = float("-inf")
        self._frames.append(frame)
        if len(self._frames) > _DEPTH:
            self.dropped += self._frames.popleft().stamp_s > self._used_s

    def use(self, frame: Frame) -> None:
        """`frame` goes into an observation; the unused ones before it are dropped."""
        while self._frames and self._frames[0].stamp_s < frame.stamp_s:
            self.dropped += self._frames.popleft().stamp_s > self._used_s
        self._used_s = frame.stamp_s

    def newest_first(self) -> list[Frame]:
        """The buffered frames, newest first."""
        return list(reversed(self._frames))

    @property
    def newest(self) -> Frame | None:
        """The newest frame, or None."""
        return self._frames[-1] if self._frames else None
