"""What a folder of our own recordings makes a store say about itself."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spear_policy.inference.episode import Episode, EpisodeError
from spear_training.data.bags.bag_folder import find_bags, open_bag
from spear_training.data.bags.bag_reader import BagReader, BagRules
from spear_training.data.reader import DataFileError
from spear_training.data.store.facts import EXTERNAL, WRIST, CameraFacts, StoreFacts

# The rate and the robot are those of some bags, spread over all of them.
LOOKED_AT = 5
# A rate nearer to a whole number than this is that number.
WHOLE_HZ = 0.02


def store_facts(root: str | Path, rules: BagRules | None = None) -> StoreFacts:
    """The facts of the store that the bags at or below `root` are imported to.

    Pictures of our cameras have square pixels, and what the arm and the gripper were told is
    recorded.

    Raises:
        DataFileError: there is no bag, not one of those that are looked at can be used, or they
            are of different robots.
    """
    rules = rules or BagRules()
    bags = find_bags(Path(root))
    reader = BagReader(root, rules)
    episodes = _some(reader, root)
    robots = sorted({episode.robot for episode in episodes})
    if len(robots) > 1:
        raise DataFileError(
            f"{root}: bags of {' and '.join(robots)}: a store is of one robot; import them apart"
        )
    cameras = (EXTERNAL, WRIST) if _any_wrist(bags, rules.namespace) else (EXTERNAL,)
    return StoreFacts(
        name=reader.name,
        robot=robots[0],
        control_hz=control_hz(episodes),
        cameras=tuple(CameraFacts(name) for name in cameras),
        action_from="commanded",
        gripper_from="commanded",
        reader="rosbag2 of our own trials",
        source={
            "outcomes": "any" if rules.outcomes is None else list(rules.outcomes),
            "namespace": rules.namespace,
            "max_state_gap_s": rules.max_state_gap_s,
            "max_wrist_skew_s": rules.max_wrist_skew_s,
        },
    )


def control_hz(episodes: Sequence[Episode]) -> float:
    """Pictures a second: the median over all intervals of some episodes [1/s].

    Raises:
        DataFileError: none of them has two pictures.
    """
    intervals_s = np.concatenate([np.diff(episode.stamps_s) for episode in episodes])
    if not len(intervals_s):
        raise DataFileError("the bags hold one picture each: their rate is not known")
    hz = 1 / statistics.median(intervals_s.tolist())
    return float(round(hz)) if abs(hz - round(hz)) < WHOLE_HZ * hz else round(hz, 2)


def _some(reader: BagReader, root: str | Path) -> list[Episode]:
    """A few sound episodes, from all over the folder."""
    found: list[Episode] = []
    first_reason = ""
    for index in np.random.default_rng(0).permutation(len(reader)).tolist():
        try:
            found.append(reader.read(index))
        except (DataFileError, EpisodeError) as error:
            first_reason = first_reason or str(error)
        if len(found) == LOOKED_AT:
            break
    if not found:
        raise DataFileError(f"{root}: none of {len(reader)} bags can be used; {first_reason}")
    return found


def _any_wrist(bags: Sequence[Path], namespace: str | None) -> bool:
    """Whether one of the bags has pictures of the wrist camera; damaged ones are passed over."""
    for folder in bags:
        try:
            with open_bag(folder, namespace) as bag:
                if bag.has(f"{WRIST}/image_raw/compressed") or bag.has(f"{WRIST}/image_raw"):
                    return True
        except DataFileError:
            continue
    return False
