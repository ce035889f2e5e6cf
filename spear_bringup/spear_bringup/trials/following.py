"""Whether a robot repeated a recorded motion: the judgement of a trial of engine `replay`.

Compared is what was recorded with what was executed. The chunks only say where and when the replay
began: a policy that asks for something else, or a driver that slows the motion down, has not
repeated it, however well the arm followed them.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spear_bringup.trials.series import StateSeries
from spear_policy.geometry.chunks import Chunk
from spear_policy.geometry.poses import Pose
from spear_policy.geometry.tracking import (
    TimedPoses,
    TrackingErrors,
    best_lag_s,
    replayed_motion,
    tracking_errors,
)

POSITION_LIMIT_MM, ROTATION_LIMIT_DEG = 5.0, 2.0
MOST_LAG_S = 0.1  # a robot follows its reference a little late; later than this it is elsewhere


@dataclass(frozen=True, eq=False)
class Recording:
    """What a replay is to repeat: the sentence, and the motion in the recorded robot's base."""

    instruction: str
    motion: TimedPoses

    @classmethod
    def from_file(cls, episode_file: Path) -> "Recording":
        """Read sentence and motion of an episode; the policy reads and judges the whole file.

        Raises:
            ValueError: it is no episode file.
        """
        try:
            with np.load(episode_file, allow_pickle=False) as arrays:
                words = json.loads(str(arrays["words"]))
                motion = TimedPoses(arrays["stamps_s"], arrays["poses"])
            return cls(words["instruction"], motion)
        except (OSError, KeyError, ValueError) as error:
            text = f"{episode_file} is no episode file ({error}); use import_episodes"
            raise ValueError(text) from error


def following_errors(recorded: TimedPoses, first: Chunk, states: StateSeries) -> TrackingErrors:
    """How far the measured pose was from every recorded step, after the delay of following itself.

    Args:
        recorded: the motion to repeat, in the recorded robot's base.
        first: the replay's first chunk, from whose anchor and stamp the motion counts.
        states: what the arm did.

    Raises:
        ValueError: the states do not cover the motion.
    """
    if not len(states.stamps_s):
        raise ValueError("no ee_state was recorded")
    new = np.concatenate([[True], np.diff(states.stamps_s) > 0])
    done = TimedPoses(states.stamps_s[new], states.measured[new])
    # Where the arm stood, whichever pose the chunk itself is anchored to.
    start = Pose(first.anchor_measured[:3], first.anchor_measured[3:])
    targets = replayed_motion(recorded, start, first.stamp_s)
    if targets.stamps_s[-1] > done.stamps_s[-1]:
        left_s = targets.stamps_s[-1] - done.stamps_s[-1]
        raise ValueError(f"the trial ended {left_s:.1f} s before the recorded motion")
    return tracking_errors(targets, done, best_lag_s(targets, done, MOST_LAG_S))
