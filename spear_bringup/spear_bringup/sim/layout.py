"""Where things stand at the start of a trial: the same for the same seed, on every machine."""

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from spear_bringup.sim.objects import BOWL, CUBES, DISHES, OBJECTS, PLATE
from spear_policy.geometry.poses import Pose
from spear_policy.geometry.quaternions import from_rotation_vector

# Centres of all objects, base frame [m]: where a Franka reaches the table with the gripper down.
REACH_X_M = (0.35, 0.62)
REACH_Y_M = (-0.25, 0.25)
# A finger of the open gripper ends this far from the middle of the cube between the fingers.
FINGER_REACH_M = 0.055
_TRIES_AN_OBJECT, _ATTEMPTS = 50, 1000


def clearance_m(a: str, b: str) -> float:
    """Least distance between the centres of two objects, so that the fingers fit between [m].

    The fingers come down around a cube; two dishes only must not touch.
    """
    radii = [_radius_m(name) for name in (a, b)]
    if OBJECTS[a] in DISHES and OBJECTS[b] in DISHES:
        return sum(radii) + 0.01
    if OBJECTS[a] in CUBES and OBJECTS[b] in CUBES:
        return FINGER_REACH_M + radii[0]
    return FINGER_REACH_M + max(radii)


def _radius_m(name: str) -> float:
    thing = OBJECTS[name]
    # The corner of a cube, as its yaw is free.
    return thing.side_m / np.sqrt(2) if thing in CUBES else thing.rim_radius_m


def random_layout(seed: int) -> dict[str, Pose]:
    """Poses of every object in the base frame, drawn from `seed` alone.

    Raises:
        ValueError: the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"the scene seed must be 0 or more, got {seed}")
    draws = np.random.default_rng(seed)
    for _ in range(_ATTEMPTS):
        if placed := _place_all(draws):
            return placed
    raise RuntimeError(f"no layout found for seed {seed} in {_ATTEMPTS} attempts")


def _place_all(draws: np.random.Generator) -> dict[str, Pose] | None:
    low, high = np.array([REACH_X_M, REACH_Y_M]).T
    placed: dict[str, Pose] = {}
    for thing in (*DISHES, *CUBES):  # the largest first, or they find no room
        for _ in range(_TRIES_AN_OBJECT):
            pose = _standing(thing.name, draws.uniform(low, high), draws.uniform(-np.pi, np.pi))
            if not too_close({**placed, thing.name: pose}):
                placed[thing.name] = pose
                break
        else:
            return None
    return placed


def fixed_layout() -> dict[str, Pose]:
    """The arrangement of the pictures: every object in its place, no chance involved."""
    spots = {
        PLATE.name: (0.54, 0.13, 0.0),
        BOWL.name: (0.53, -0.15, 0.0),
        "red cube": (0.42, 0.02, 0.3),
        "green cube": (0.38, -0.10, -0.5),
        "blue cube": (0.40, 0.16, 0.9),
        "yellow cube": (0.60, 0.0, 0.1),
    }
    return {name: _standing(name, (x, y), yaw) for name, (x, y, yaw) in spots.items()}


LAYOUTS = ("random", "fixed")


def layout(kind: str, seed: int) -> dict[str, Pose]:
    """The layout named `kind`, one of LAYOUTS. Raises ValueError for any other."""
    if kind == "random":
        return random_layout(seed)
    if kind == "fixed":
        return fixed_layout()
    raise ValueError(f"unknown layout {kind!r}: choose one of {', '.join(LAYOUTS)}")


def too_close(poses: dict[str, Pose]) -> list[tuple[str, str]]:
    """Pairs that stand nearer to each other than `clearance_m` allows."""

    def distance_m(a: str, b: str) -> float:
        return np.linalg.norm((poses[a].position_m - poses[b].position_m)[:2])

    return [(a, b) for a, b in combinations(poses, 2) if distance_m(a, b) < clearance_m(a, b)]


def _standing(name: str, spot_xy_m: ArrayLike, yaw_rad: float) -> Pose:
    position = (*spot_xy_m, OBJECTS[name].height_m / 2)
    return Pose(position, from_rotation_vector([0.0, 0.0, yaw_rad]))
