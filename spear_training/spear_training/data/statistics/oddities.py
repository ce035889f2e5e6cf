"""What a person should look at before training: data sets that are not like the others."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from spear_policy.inference.statistics import Statistics
from spear_training.data.statistics.motion import MotionStatistics


@dataclass(frozen=True)
class OddityLimits:
    """Beyond what a data set is pointed out.

    Attributes:
        outside_share: of its translations outside the mixture's 1 % .. 99 %.
        size_ratio: of its median motion in a second to the mixture's, either way.
        reach_m: of its positions from one end of an axis to the other.
        turn_rad: that 1 % of its chunks exceed.
        open_share: of steps with the gripper open, or closed: it hardly ever moves.
        idle_share: of moments at which nothing moves.
    """

    outside_share: float = 0.15
    size_ratio: float = 5.0
    reach_m: float = 2.5
    turn_rad: float = 2.0
    open_share: float = 0.98
    idle_share: float = 0.3


@dataclass(frozen=True)
class Oddity:
    """One thing about one data set, and what it may mean."""

    data_set: str
    text: str


def oddities(
    motions: Mapping[str, MotionStatistics],
    pooled: Statistics,
    limits: OddityLimits | None = None,
) -> list[Oddity]:
    """Everything worth a look, by data set.

    Args:
        motions: of each data set.
        pooled: of the mixture.
    """
    limits = limits or OddityLimits()
    medians = {name: motion.distance.quantile(0.5) for name, motion in motions.items()}
    typical = float(np.median(list(medians.values())))
    found = []
    for name in sorted(motions):
        motion = motions[name]
        texts = [
            *_outside(motion, pooled, limits),
            *_size(medians[name], typical, limits, alone=len(motions) == 1),
            *_reach(motion, limits),
            *_gripper(motion, limits),
        ]
        turn = motion.turn.quantile(0.99)
        if turn > limits.turn_rad:
            texts.append(
                f"1 % of the chunks turn by more than {turn:.1f} rad in their last step: check "
                "the unit and the order of the angles, or of the quaternion"
            )
        if motion.idle_share > limits.idle_share:
            texts.append(
                f"nothing moves at {100 * motion.idle_share:.0f} % of the moments: the model "
                "learns to wait; cut the recordings shorter"
            )
        if motion.implausible_episodes:
            first = next(iter(sorted(motion.outliers.items())))
            texts.append(
                f"{motion.implausible_episodes} of {motion.episodes} episodes move faster than an "
                f"arm can, e.g. {first[0]}: {first[1]}"
            )
        found += [Oddity(name, text) for text in texts]
    return found


def _outside(motion: MotionStatistics, pooled: Statistics, limits: OddityLimits) -> list[str]:
    texts = []
    low_high = zip(pooled.translation.low, pooled.translation.high, strict=True)
    for axis, sketch, (low, high) in zip("xyz", motion.translation, low_high, strict=True):
        share = 1 - sketch.share_between(low, high)
        if share > limits.outside_share:
            texts.append(
                f"{100 * share:.0f} % of its translations along {axis} are outside the mixture's "
                f"{low:.3f}..{high:.3f} m"
            )
    return texts


def _size(median: float, typical: float, limits: OddityLimits, alone: bool) -> list[str]:
    if alone or median <= 0 or typical <= 0:
        return []
    ratio = median / typical
    if 1 / limits.size_ratio <= ratio <= limits.size_ratio:
        return []
    return [
        f"its median motion in a second is {ratio:.2g} times the other data sets': check the unit "
        "of its positions and its rate"
    ]


def _reach(motion: MotionStatistics, limits: OddityLimits) -> list[str]:
    texts = []
    for axis, sketch in zip("xyz", motion.position, strict=True):
        if not sketch.count:
            continue
        reach = sketch.quantile(0.99) - sketch.quantile(0.01)
        if reach > limits.reach_m:
            texts.append(
                f"its positions span {reach:.1f} m along {axis}, more than an arm reaches: check "
                "their unit and frame"
            )
    return texts


def _gripper(motion: MotionStatistics, limits: OddityLimits) -> list[str]:
    share = motion.open_share
    state = "open" if share >= 0.5 else "closed"
    if max(share, 1 - share) <= limits.open_share:
        return []
    return [
        f"the gripper is told to be {state} in {100 * max(share, 1 - share):.1f} % of the steps: "
        "check which end of its numbers is open"
    ]
