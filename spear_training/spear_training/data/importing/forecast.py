"""What a store will need, from a look at some episodes."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spear_policy.inference.episode import Episode, EpisodeError
from spear_training.data.importing.selection import spread
from spear_training.data.lerobot.layout import V3_DATA_FILE_MB
from spear_training.data.oxe.selectors import NotSelected
from spear_training.data.reader import DataFileError, EpisodeReader
from spear_training.data.store.facts import StoreFacts
from spear_training.data.store.pictures import store_pictures

LOOKED_AT, PICTURES = 8, 4
# A frame without its pictures: its row, its lookup, and its place in what is kept meanwhile.
ROW_BYTES = 350
# Smaller files where there are few episodes: several processes shall have something to do.
LEAST_GROUPS, MOST_EPISODES = 16, 1000


@dataclass(frozen=True)
class Forecast:
    """What was seen.

    Attributes:
        episode_bytes: mean of an episode that is looked at, usable or not; None where not one
            was usable.
        reason: why the first one that is of no use is that, unless it is only not selected.
    """

    episode_bytes: float | None
    reason: str = ""

    def group_episodes(self, episodes: int) -> int:
        """How many of `episodes` to look at for one data file: below 100 MB, as LeRobot has it."""
        most = max(1, math.ceil(episodes / LEAST_GROUPS))
        if self.episode_bytes:
            most = min(most, int(V3_DATA_FILE_MB * 1e6 / self.episode_bytes))
        return min(max(1, most), MOST_EPISODES)

    def room_warning(self, root: Path, episodes: int) -> str | None:
        """Say so if `episodes` more are likely not to fit on the disk of `root`."""
        free = shutil.disk_usage(root).free
        needed = episodes * (self.episode_bytes or 0)
        if needed <= free:
            return None
        return (
            f"{root} will become too small: {episodes} episodes need about {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free; the import stops when the disk is full, and goes on "
            "when it is run again"
        )


def look(reader: EpisodeReader, facts: StoreFacts, chosen: Sequence[int]) -> Forecast:
    """Read some of the `chosen` episodes, and encode some pictures of each.

    Raises:
        OSError: a file cannot be read.
    """
    sizes, reason = [], ""
    for index in spread(chosen, LOOKED_AT):
        try:
            sizes.append(_episode_bytes(reader.read(index), facts))
        except (DataFileError, EpisodeError) as error:
            sizes.append(0.0)
            if not isinstance(error, NotSelected):
                reason = reason or f"episode {index}: {error}"
    return Forecast(float(np.mean(sizes)) if any(sizes) else None, reason)


def _episode_bytes(episode: Episode, facts: StoreFacts) -> float:
    frame = float(ROW_BYTES)
    for camera in facts.cameras:
        if (video := episode.images.get(camera.name)) is None:
            continue
        some = np.stack([video[step] for step in spread(range(len(episode)), PICTURES)])
        frame += float(np.mean([len(jpeg) for jpeg in store_pictures(some, camera).jpegs]))
    return frame * len(episode)
