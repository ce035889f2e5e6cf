"""Round things as triangle meshes: a profile turned about the z axis."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_bringup.sim.objects import BOWL, PLATE, Dish

WALL_M = 0.004


def turned(profile_m: ArrayLike, segments: int = 48) -> tuple[NDArray, NDArray]:
    """Turn a closed profile about the z axis.

    Args:
        profile_m: (N, 2) radius and height [m] from the axis (first) along the outside back to
            the axis (last), seen so that the outside is on the right hand.
        segments: corners of the circle.

    Returns:
        vertices (V, 3) [m] and triangles (T, 3) with outward normals.
    """
    profile = np.asarray(profile_m, float)
    angles = 2 * np.pi * np.arange(segments) / segments
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    rows = [np.column_stack([r * ring, np.full(segments, z)]) for r, z in profile[1:-1]]
    poles = np.array([[0, 0, profile[0, 1]], [0, 0, profile[-1, 1]]])
    vertices = np.concatenate([*rows, poles])
    bottom, top = len(vertices) - 2, len(vertices) - 1

    here = np.arange(segments)
    there = np.roll(here, -1)
    triangles = [np.stack([np.full(segments, bottom), there, here], axis=-1)]
    for row in range(len(rows) - 1):
        a, b = row * segments + here, row * segments + there
        c, d = a + segments, b + segments
        triangles += [np.stack([a, b, d], axis=-1), np.stack([a, d, c], axis=-1)]
    last = (len(rows) - 1) * segments
    triangles.append(np.stack([last + here, last + there, np.full(segments, top)], axis=-1))
    return vertices, np.concatenate(triangles)


def dish_profile_m(dish: Dish) -> NDArray:
    """(N, 2) radius and height of a dish's outline, heights from its middle [m]."""
    rim, floor, height = dish.rim_radius_m, dish.floor_radius_m, dish.height_m
    # Up the outside, over the rim, down the inside to the floor.
    curve = np.linspace(0, 1, 7)[1:]
    bulge = 1.0 if dish is PLATE else 0.62
    outside = np.column_stack([floor + (rim - floor) * curve**bulge, height * curve])
    inner_radius = floor + (rim - WALL_M - floor) * curve**bulge
    inner_height = dish.floor_height_m + (height - dish.floor_height_m) * curve
    inside = np.column_stack([inner_radius, inner_height])
    foot = [[0, 0], [floor, 0]]
    well = [[floor, dish.floor_height_m], [0, dish.floor_height_m]]
    return np.array([*foot, *outside, *inside[::-1], *well]) - [0, height / 2]


def bowl_wall_m(segments: int = 12) -> list[tuple[NDArray, NDArray, float]]:
    """Boxes around the bowl that stand for its wall in contacts.

    Returns:
        for each box: half sizes (3,) [m], middle (3,) [m] in the bowl's frame, yaw [rad]. Each
        leans outwards by `bowl_lean_rad`.
    """
    half_height = (BOWL.height_m - BOWL.floor_height_m) / 2
    radius = (BOWL.floor_radius_m + BOWL.rim_radius_m) / 2
    half_width = BOWL.rim_radius_m * np.tan(np.pi / segments)
    half = np.array([WALL_M / 2, half_width, half_height / np.cos(bowl_lean_rad())])
    height = BOWL.floor_height_m + half_height - BOWL.height_m / 2
    yaws = 2 * np.pi * np.arange(segments) / segments
    return [(half, np.array([radius * np.cos(a), radius * np.sin(a), height]), a) for a in yaws]


def bowl_lean_rad() -> float:
    """Angle of the bowl's wall against the vertical [rad]."""
    rise = BOWL.height_m - BOWL.floor_height_m
    return float(np.arctan2(BOWL.rim_radius_m - BOWL.floor_radius_m, rise))
