"""How the arm moves in some episodes, spread over the whole store."""

from dataclasses import dataclass

import numpy as np

from spear_training.data.importing.selection import spread
from spear_training.data.statistics.gather import kept_statistics
from spear_training.data.statistics.motion import MotionStatistics
from spear_training.data.statistics.normalisation import normalisation
from spear_training.data.statistics.oddities import oddities
from spear_training.data.store.frames import FrameStore
from spear_training.data.store.motions import episode_motion

MOST_FRAMES = 30_000  # a second or two of counting


@dataclass(frozen=True, eq=False)
class MotionSample:
    """What the motions of a store look like.

    Attributes:
        motion: counts over all moments of `episodes` episodes.
        episodes: how many were counted.
        whole: whether these are all.
        interval_s: median time between two frames [s]; NaN where no episode has two.
        longest_gap_s: between two frames of an episode [s].
    """

    motion: MotionStatistics
    episodes: int
    whole: bool
    interval_s: float
    longest_gap_s: float

    def oddities(self, name: str) -> list[str]:
        """What a person should look at, in sentences."""
        try:
            pooled = normalisation({name: self.motion}, {name: 1.0}).pooled
        except ValueError as error:
            return [f"its motion cannot be normalised: {error}"]
        return [oddity.text for oddity in oddities({name: self.motion}, pooled)]


def sample_motion(store: FrameStore, most_frames: int = MOST_FRAMES) -> MotionSample:
    """Count some episodes; all of them where `stats` has counted them already or they are few.

    Raises:
        DataFileError: an episode has numbers that no episode can have.
    """
    share = min(1.0, most_frames / len(store))
    chosen = spread(range(len(store.episodes)), max(1, int(share * len(store.episodes))))
    kept = kept_statistics(store)
    motion, intervals_s = kept or MotionStatistics(), []
    for episode in chosen:
        found = episode_motion(store, episode)
        intervals_s.append(np.diff(found.measured.stamps_s))
        if kept is None:
            name = f"{store.facts.name} episode {episode}"
            motion.add(name, found.measured, found.told, found.commands)
    intervals = np.concatenate(intervals_s)
    return MotionSample(
        motion,
        motion.episodes,
        motion.episodes == len(store.episodes),
        float(np.median(intervals)) if len(intervals) else float("nan"),
        float(intervals.max(initial=0.0)),
    )
