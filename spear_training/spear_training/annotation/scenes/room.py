"""Scenes in a room: furniture along the walls and free, small things on it, pictures."""

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.scenes.decor import FREE_DECOR, ON_FURNITURE, PICTURE, RUG
from spear_training.annotation.scenes.desk import DESK, LAPTOP
from spear_training.annotation.scenes.furniture import ALONG_WALLS, FREE
from spear_training.annotation.scenes.kitchen import KITCHEN
from spear_training.annotation.scenes.paints import Paint, plaster, wood
from spear_training.annotation.scenes.placement import Level, levels_on, place_all
from spear_training.annotation.scenes.scene import (
    Lamp,
    Scene,
    draw_things,
    some_floor,
    some_sky,
    some_wall,
    tint,
    walls,
)
from spear_training.annotation.scenes.surfaces import box
from spear_training.annotation.scenes.things import Part, Placed, Thing, stand
from spear_training.annotation.scenes.views import View, looking_at

VIEWS = 24
WALL_GAP_M = 0.03
# Yaw that turns the +y side of a thing to the wall on this side of the axis x (0) or y (1).
_BACK_TO = {(1, 1.0): 0.0, (1, -1.0): np.pi, (0, 1.0): -np.pi / 2, (0, -1.0): np.pi / 2}
# Of the small kinds, those that one can still make out from across a room.
_SMALL_WORDS = {"book", "box", "ball", "bowl", "bottle", "cereal box", "teapot", "saucepan"}
SMALL = (*ON_FURNITURE, LAPTOP, *(kind for kind in (*DESK, *KITCHEN) if kind.word in _SMALL_WORDS))


def room(rng: np.random.Generator) -> Scene:
    """A furnished room; its floor is the plane z = 0."""
    half, tall = rng.uniform(1.8, 3.2, 2), rng.uniform(2.4, 3.0)
    floor = Level(np.zeros(3), tuple(half - WALL_GAP_M))
    against = draw_things(rng, ALONG_WALLS, int(rng.integers(2, 5)), twins=0.1)
    furniture = _along_walls(rng, floor, against)
    rugs = _rugs(rng, floor)
    furniture += _free(rng, floor, rugs)
    small = [thing for one in furniture for thing in _upon(rng, one)]
    placed = [*rugs, *furniture, *small]
    placed += _pictures(rng, half, placed)
    paint = some_wall(rng)
    return Scene(
        family="room",
        things=tuple(placed),
        backdrop=(*_shell(rng, half, tall, paint), *_openings(rng, half, tall)),
        lamps=_lamps(rng, half, tall),
        ambient=rng.uniform(0.32, 0.5),
        sky=some_sky(rng),
        reach_m=4.5,
        nearest_m=0.4,
        views=tuple(_views(rng, half, placed)),
    )


def _along_walls(rng: np.random.Generator, floor: Level, things: list[Thing]) -> list[Placed]:
    """Put furniture with its back, its +y side, against a wall."""
    found = []
    for thing in things:
        half_deep = np.diff(thing.resting_box_m, axis=0)[0, 1] / 2
        for _ in range(12):
            axis, side = int(rng.integers(2)), rng.choice([-1.0, 1.0])
            offset = rng.uniform(-1, 1, 2) * floor.half_m
            offset[axis] = side * (floor.half_m[axis] - half_deep - 1e-6)
            placed = floor.try_at(thing, offset, _BACK_TO[axis, side], gap_m=0.02)
            if placed is not None:
                found.append(placed)
                break
    return found


def _rugs(rng: np.random.Generator, floor: Level) -> list[Placed]:
    """A rug in the middle, or none."""
    if rng.random() > 0.45:
        return []
    rug = floor.place(rng, draw_things(rng, [RUG], 1, 0.0)[0], spread=0.5)
    return [] if rug is None else [rug]


def _free(rng: np.random.Generator, floor: Level, rugs: list[Placed]) -> list[Placed]:
    """Furniture in the middle; if there is a rug, some of it stands on that."""
    things = draw_things(rng, (*FREE, *FREE_DECOR), int(rng.integers(2, 6)), twins=0.25)
    upon = len(things) // 2 if rugs else 0
    found = []
    for rug in rugs:
        found += place_all(rng, things[:upon], levels_on(rug)[0], stacked=0.0, spread=0.9)
    return found + place_all(rng, things[upon:], floor, stacked=0.0, spread=0.85)


def _upon(rng: np.random.Generator, furniture: Placed) -> list[Placed]:
    """Small things on a piece of furniture."""
    found = []
    for level in levels_on(furniture):
        things = draw_things(rng, SMALL, int(rng.integers(0, 4)), twins=0.1)
        found += place_all(rng, things, level, stacked=0.1, spread=0.9)
    return found


def _pictures(rng: np.random.Generator, half: NDArray, placed: list[Placed]) -> list[Placed]:
    """Pictures on the walls without an opening, where nothing stands in front of them."""
    found: list[Placed] = []
    for _ in range(int(rng.integers(0, 4))):
        thing = draw_things(rng, [PICTURE], 1, 0.0)[0]
        axis, low = int(rng.integers(2)), rng.uniform(1.1, 1.6)
        spot = rng.uniform(-0.7, 0.7, 2) * half
        spot[axis] = 0.015 - half[axis]
        picture = stand(thing, spot, _BACK_TO[axis, -1.0], low)
        high_ones = [one for one in placed if one.vertices_m[:, 2].max() > low]
        if all(picture.footprint.apart_from(one.footprint, 0.02) for one in (*high_ones, *found)):
            found.append(picture)
    return found


def _shell(rng: np.random.Generator, half: NDArray, tall: float, paint: Paint) -> list[Part]:
    """Floor, ceiling, walls and skirting boards."""
    sides = [2 * half[0], 2 * half[1]]
    accent = some_wall(rng) if rng.random() < 0.4 else paint
    ceiling = plaster(rng, [0.9, 0.9, 0.88])
    parts = [
        Part(box([*sides, 0.1], [0, 0, -0.05]), some_floor(rng)(max(sides)), shadow=False),
        Part(box([*sides, 0.1], [0, 0, tall + 0.05]), ceiling, shadow=False),
    ]
    parts += walls(half, 0.0, tall, [accent, paint, paint, paint])
    board = Paint(tuple(np.full(3, rng.uniform(0.6, 0.95))))
    return parts + walls(half - 0.012, 0.0, 0.08, [board] * 4)


def _openings(rng: np.random.Generator, half: NDArray, tall: float) -> list[Part]:
    """A window on the wall at +y and a door at +x, as flat panels."""
    size = rng.uniform([1.0, 0.9], [1.8, 1.3])
    frame, pane = Paint((0.92, 0.92, 0.92)), Paint(tuple(rng.uniform(0.75, 0.98, 3)), specular=0.9)
    x, middle = rng.uniform(-0.4, 0.4) * half[0], tall - 0.35 - size[1] / 2
    parts = [Part(box([size[0], 0.012, size[1]], [x, half[1], middle]), frame, shadow=False)]
    for side in (-1, 1):
        spot = [x + side * size[0] / 4, half[1], middle]
        glass = box([size[0] / 2 - 0.09, 0.016, size[1] - 0.14], spot)
        parts.append(Part(glass, pane, shadow=False))
    y = rng.uniform(-0.5, 0.5) * half[1]
    parts.append(Part(box([0.016, 0.9, 2.0], [half[0], y, 1.0]), wood(rng), shadow=False))
    return parts


def _lamps(rng: np.random.Generator, half: NDArray, tall: float) -> tuple[Lamp, ...]:
    ceiling = np.array([*(rng.uniform(-0.5, 0.5, 2) * half), tall - 0.1])
    sun = np.array([rng.uniform(-1, 1), rng.uniform(-1, 1), -rng.uniform(0.8, 2.0)])
    bright = rng.uniform(0.4, 0.65)
    return (
        Lamp(ceiling, np.array([0.0, 0.0, -1.0]), tint(rng, bright), True),
        Lamp(None, sun, tint(rng, 0.85 - bright), False),
    )


def _views(rng: np.random.Generator, half: NDArray, placed: list[Placed]) -> list[View]:
    """Cameras inside the room, clear of the furniture, that look at a part of it."""
    spots = np.array([one.box.centre_m for one in placed])
    middle = spots[:, :2].mean(axis=0)
    # A camera in a thing, or just above it, sees nothing else.
    low = np.array([one.vertices_m.min(axis=0) for one in placed]) - 0.25
    high = np.array([one.vertices_m.max(axis=0) for one in placed]) + 0.25
    found: list[View] = []
    for _ in range(40 * VIEWS):
        place = np.array([*(rng.uniform(-1, 1, 2) * (half - 0.25)), rng.uniform(0.9, 2.1)])
        spot = spots[rng.integers(len(spots))]
        target = np.array([*(0.5 * (spot[:2] + middle)), rng.uniform(0.3, 0.9)])
        free = not ((place > low) & (place < high)).all(axis=1).any()
        if free and 1.5 <= np.linalg.norm(target - place) <= 6.0:
            found.append(looking_at(rng, place, target))
            if len(found) == VIEWS:
                break
    return found
