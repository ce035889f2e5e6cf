"""One stored episode without its pictures."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry.tracking import TimedPoses
from spear_training.data.reader import DataFileError
from spear_training.data.store.frames import FrameStore
from spear_training.data.store.poses import stored_poses


@dataclass(frozen=True, eq=False)
class EpisodeMotion:
    """One episode without its pictures.

    Attributes:
        episode: its number in the store.
        measured, told: poses over time; `told` is `measured` where nobody recorded commands.
        openings, commands: (T,) of the gripper.
    """

    episode: int
    measured: TimedPoses
    told: TimedPoses
    openings: NDArray
    commands: NDArray


def episode_motion(store: FrameStore, episode: int) -> EpisodeMotion:
    """The motion of an episode.

    Raises:
        DataFileError: it has numbers that no episode can have.
        IndexError: no such episode.
    """
    if not 0 <= episode < len(store.episodes):
        raise IndexError(f"{store.root}: no episode {episode}, it has {len(store.episodes)}")
    first = int(store.episodes.first_frame[episode])
    rows = slice(first, first + int(store.episodes.length[episode]))
    try:
        measured = stored_poses(store.stamps_s[rows], store.states[rows])
        commanded = store.facts.action_from == "commanded"
        told = stored_poses(measured.stamps_s, store.actions[rows]) if commanded else measured
    except ValueError as error:
        raise DataFileError(f"{store.root}: episode {episode}: {error}; import it again") from None
    return EpisodeMotion(
        episode,
        measured,
        told,
        np.array(store.states[rows, 7], float),
        np.array(store.actions[rows, 7], float),
    )
