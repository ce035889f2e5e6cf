"""Scenes on a table: crockery, food, tools and toys, seen from half a metre to 1.6 m."""

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.scenes.desk import DESK
from spear_training.annotation.scenes.food import FOOD
from spear_training.annotation.scenes.kitchen import KITCHEN
from spear_training.annotation.scenes.paints import cloth, stone, wood
from spear_training.annotation.scenes.placement import Level, place_all
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
from spear_training.annotation.scenes.things import Part, Placed
from spear_training.annotation.scenes.views import View, looking_at

KINDS = (*KITCHEN, *FOOD, *DESK)
VIEWS = 10
_TABLE_THICK_M, _FLOOR_Z_M = 0.035, -0.74


def table_top(rng: np.random.Generator) -> Scene:
    """A table with up to ten things; the table's top is the plane z = 0."""
    half = rng.uniform([0.5, 0.4], [0.85, 0.6])
    things = draw_things(rng, KINDS, int(rng.integers(3, 11)), twins=0.12)
    level = Level(np.zeros(3), tuple(half - 0.02))
    placed = place_all(rng, things, level, stacked=0.25, spread=rng.uniform(0.3, 0.75))
    return Scene(
        family="table",
        things=tuple(placed),
        backdrop=(*_table(rng, half), *_around(rng)),
        lamps=_lamps(rng),
        ambient=rng.uniform(0.22, 0.45),
        sky=some_sky(rng),
        reach_m=1.6,
        nearest_m=0.2,
        views=tuple(_view(rng, placed) for _ in range(VIEWS)),
    )


def _table(rng: np.random.Generator, half: NDArray) -> list[Part]:
    rgb = rng.uniform(0.2, 0.9) + rng.uniform(-0.08, 0.08, 3)
    paint = [wood(rng), wood(rng), stone(rng, rgb), cloth(rng, rgb)][rng.integers(4)]
    top = box([2 * half[0], 2 * half[1], _TABLE_THICK_M], [0, 0, -_TABLE_THICK_M / 2])
    tall = -_FLOOR_Z_M - _TABLE_THICK_M
    legs = [
        box([0.05, 0.05, tall], [x * (half[0] - 0.06), y * (half[1] - 0.06), _FLOOR_Z_M + tall / 2])
        for x in (-1, 1)
        for y in (-1, 1)
    ]
    under = wood(rng, 64)
    return [Part(top, paint), *(Part(leg, under) for leg in legs)]


def _around(rng: np.random.Generator) -> list[Part]:
    """A floor, and three times of four walls."""
    half = rng.uniform(2.0, 3.5, 2)
    ground = box([2 * half[0], 2 * half[1], 0.1], [0, 0, _FLOOR_Z_M - 0.05])
    parts = [Part(ground, some_floor(rng)(2 * half.max()), shadow=False)]
    if rng.random() < 0.75:
        paint = some_wall(rng)
        parts += walls(half, _FLOOR_Z_M, 2.2, [paint] * 4)
    return parts


def _lamps(rng: np.random.Generator) -> tuple[Lamp, ...]:
    count = int(rng.integers(1, 4))
    bright = rng.dirichlet(np.full(count, 4.0)) * rng.uniform(0.65, 1.0)
    lamps = []
    for number in range(count):
        azimuth, height = rng.uniform(-np.pi, np.pi), rng.uniform(0.7, 1.4)
        towards = np.array([np.cos(azimuth), np.sin(azimuth), height])
        position = None if rng.random() < 0.5 else 1.5 * towards
        # The first one throws the shadows; each further shadow costs as much again.
        lamps.append(Lamp(position, -towards, tint(rng, bright[number]), number == 0))
    return tuple(lamps)


def _view(rng: np.random.Generator, placed: list[Placed]) -> View:
    spots = np.array([one.box.centre_m for one in placed])
    target = spots.mean(axis=0) + rng.normal(0, 0.04, 3)
    distance, height = rng.uniform(0.5, 1.6), np.radians(rng.uniform(15, 70))
    azimuth = rng.uniform(-np.pi, np.pi)
    level = [np.cos(height) * np.cos(azimuth), np.cos(height) * np.sin(azimuth), np.sin(height)]
    return looking_at(rng, target + distance * np.array(level), target)
