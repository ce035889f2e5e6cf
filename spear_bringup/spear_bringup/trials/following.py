"""Whether a robot did what its chunks said: the judgement of a trial that repeats a recording."""

from collections.abc import Sequence

import numpy as np

from spear_bringup.trials.series import StateSeries
from spear_policy.geometry.chunks import Chunk
from spear_policy.geometry.tracking import TimedPoses, TrackingErrors, best_lag_s, tracking_errors

POSITION_LIMIT_MM, ROTATION_LIMIT_DEG = 5.0, 2.0
MOST_LAG_S = 0.1  # a robot follows its reference a little late; later than this it is elsewhere
_SAME_INSTANT_S = 1e-6


def asked_motion(chunks: Sequence[Chunk]) -> TimedPoses:
    """The targets that counted: of each chunk the steps due before the next chunk's observation.

    Raises:
        ValueError: there is no chunk.
    """
    if not chunks:
        raise ValueError("no chunk was published")
    stamps, poses = [chunks[0].stamp_s], [chunks[0].anchor]
    nexts = [chunk.stamp_s for chunk in chunks[1:]] + [np.inf]
    for chunk, next_s in zip(chunks, nexts, strict=True):
        positions, orientations = chunk.targets()
        for due_s, position, orientation in zip(
            chunk.due_times_s(), positions, orientations, strict=True
        ):
            if stamps[-1] + _SAME_INSTANT_S < due_s <= next_s + _SAME_INSTANT_S:
                stamps.append(due_s)
                poses.append(np.concatenate([position, orientation]))
    return TimedPoses(np.array(stamps), np.array(poses))


def following_errors(chunks: Sequence[Chunk], states: StateSeries) -> TrackingErrors:
    """How far the measured pose was from every target, after the delay of the following itself.

    Raises:
        ValueError: there is no chunk, or the states do not cover the motion.
    """
    if not len(states.stamps_s):
        raise ValueError("no ee_state was recorded")
    new = np.concatenate([[True], np.diff(states.stamps_s) > 0])
    done = TimedPoses(states.stamps_s[new], states.measured[new])
    asked = asked_motion(chunks)
    # After the last chunk nobody has to wait for its steps: judge what was recorded of them.
    kept = asked.stamps_s <= done.stamps_s[-1]
    asked = TimedPoses(asked.stamps_s[kept], asked.poses[kept])
    return tracking_errors(asked, done, best_lag_s(asked, done, MOST_LAG_S))
