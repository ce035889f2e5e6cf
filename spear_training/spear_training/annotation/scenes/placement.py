"""Where things stand: drawn at random, never through one another.

What stands on one level is kept apart by its rectangles; what stands on a thing lies within that
thing's support. So nothing can touch except what rests on what, and no physics is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.scenes.things import Footprint, Placed, Support, Thing, stand

GAP_M = 0.004
_TRIES = 30


@dataclass
class Level:
    """A level rectangle of the world, and what stands on it so far.

    Attributes:
        middle_m: (3,) its middle.
        half_m: half its length along its own two axes.
        yaw_rad: of its first axis.
        clearance_m: free height above it.
        taken: rectangles in the world that are in use.
    """

    middle_m: NDArray[np.float64]
    half_m: tuple[float, float]
    yaw_rad: float = 0.0
    clearance_m: float = 10.0
    taken: list[Footprint] = field(default_factory=list)

    def place(
        self, rng: np.random.Generator, thing: Thing, gap_m: float = GAP_M, spread: float = 1.0
    ) -> Placed | None:
        """Put a thing somewhere free; None when no place was found.

        Args:
            gap_m: room to leave around it.
            spread: below 1 draws towards the middle.
        """
        low, high = thing.resting_box_m
        if high[2] - low[2] > self.clearance_m:
            return None
        for _ in range(_TRIES):
            offset = rng.uniform(-1, 1, 2) * self.half_m * spread
            placed = self.try_at(thing, offset, rng.uniform(-np.pi, np.pi), gap_m)
            if placed is not None:
                return placed
        return None

    def try_at(
        self, thing: Thing, offset_m: NDArray, yaw_rad: float, gap_m: float = GAP_M
    ) -> Placed | None:
        """Put a thing at an offset (2,) from the middle, along the level's axes, if it is free."""
        cos, sin = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        local = stand(thing, np.asarray(offset_m, float), yaw_rad, 0.0).footprint
        if not local.inside(self.half_m):
            return None
        spot = self.middle_m[:2] + np.array([[cos, -sin], [sin, cos]]) @ offset_m
        placed = stand(thing, spot, yaw_rad + self.yaw_rad, self.middle_m[2])
        footprint = placed.footprint
        if not all(footprint.apart_from(other, gap_m) for other in self.taken):
            return None
        self.taken.append(footprint)
        return placed


def levels_on(placed: Placed) -> list[Level]:
    """The supports of a thing that stands upright, in the world; none of one that lies."""
    if not np.allclose(placed.thing.rest, np.eye(3)):
        return []
    return [_level(placed, support) for support in placed.thing.body.supports]


def place_all(
    rng: np.random.Generator, things: Sequence[Thing], level: Level, stacked: float, spread: float
) -> list[Placed]:
    """Put things on a level, biggest first, some of them on top of others; who fits nowhere goes.

    Args:
        stacked: chance that a thing is tried on top of another first.
        spread: see Level.place.
    """
    by_size = sorted(things, key=lambda thing: -thing.footprint_m2)
    found: list[Placed] = []
    upper: list[Level] = []
    for thing in by_size:
        placed = None
        if upper and rng.random() < stacked:
            placed = upper[rng.integers(len(upper))].place(rng, thing)
        placed = placed or level.place(rng, thing, spread=spread)
        if placed is not None:
            found.append(placed)
            upper += levels_on(placed)
    return found


def _level(placed: Placed, support: Support) -> Level:
    middle = placed.axes @ np.array(support.centre_m) + placed.position_m
    return Level(middle, support.half_m, placed.yaw_rad, support.clearance_m)
