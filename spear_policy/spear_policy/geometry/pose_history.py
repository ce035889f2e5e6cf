"""The last seconds of end-effector poses, interpolated at any stamp between them."""

from bisect import bisect_left
from collections import deque

from spear_policy.geometry.poses import Pose, interpolate


class PoseHistory:
    """Samples (stamp, measured pose, commanded pose) of the last `length_s` seconds.

    Not thread-safe: the owner locks.
    """

    def __init__(self, length_s: float = 3.0):
        self.length_s = length_s
        self._samples: deque[tuple[float, Pose, Pose]] = deque()

    def add(self, stamp_s: float, measured: Pose, commanded: Pose) -> None:
        """Append a sample; one that is not newer than the last starts the history anew.

        A stamp that goes back means that the clock was reset: poses from before it belong to
        another time.
        """
        if self._samples and stamp_s <= self._samples[-1][0]:
            if stamp_s == self._samples[-1][0]:
                return
            self._samples.clear()
        self._samples.append((stamp_s, measured, commanded))
        while self._samples[0][0] < stamp_s - self.length_s:
            self._samples.popleft()

    @property
    def newest(self) -> tuple[float, Pose, Pose] | None:
        """The newest sample, or None."""
        return self._samples[-1] if self._samples else None

    def at(self, stamp_s: float, slack_s: float = 0.0) -> tuple[Pose, Pose] | None:
        """(measured, commanded) at `stamp_s`, or None when the history does not cover it.

        Within `slack_s` before the first or after the last sample the nearest one is given.
        """
        samples = self._samples
        if not samples:
            return None
        first, last = samples[0], samples[-1]
        if not first[0] - slack_s <= stamp_s <= last[0] + slack_s:
            return None
        if stamp_s <= first[0]:
            return first[1:]
        if stamp_s >= last[0]:
            return last[1:]
        index = bisect_left(samples, stamp_s, key=lambda sample: sample[0])
        (t0, measured0, commanded0), (t1, measured1, commanded1) = (
            samples[index - 1],
            samples[index],
        )
        t = (stamp_s - t0) / (t1 - t0)
        return interpolate(measured0, measured1, t), interpolate(commanded0, commanded1, t)
