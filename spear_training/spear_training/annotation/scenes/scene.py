"""A made-up scene: things, what is around them, lamps, and where a camera might stand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.scenes.paints import (
    COLOURS,
    Paint,
    cloth,
    colour,
    plaster,
    stone,
    tiles,
    wood,
)
from spear_training.annotation.scenes.surfaces import box
from spear_training.annotation.scenes.things import Kind, Part, Placed, Thing, make_thing
from spear_training.annotation.scenes.views import View

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Lamp:
    """A lamp; the sun where `position_m` is None.

    Attributes:
        position_m: (3,) in the world.
        direction: (3,) that it shines in.
        rgb: how bright, by colour.
        shadow: whether things throw shadows in its light.
    """

    position_m: NDArray[np.float64] | None
    direction: NDArray[np.float64]
    rgb: Colour
    shadow: bool


@dataclass(frozen=True)
class Scene:
    """All that is in a scene; the world has z up.

    Attributes:
        family: "table" or "room".
        things: what has a name.
        backdrop: walls, floor and table: drawn, and never named.
        lamps: lights.
        ambient: light from everywhere, 0..1.
        sky: colours above and at the horizon, seen where nothing is in the way.
        reach_m: how far from the origin shadows are drawn.
        nearest_m: a camera with anything nearer than this is no good.
        views: cameras to try, the best first.
    """

    family: str
    things: tuple[Placed, ...]
    backdrop: tuple[Part, ...]
    lamps: tuple[Lamp, ...]
    ambient: float
    sky: tuple[Colour, Colour]
    reach_m: float
    nearest_m: float
    views: tuple[View, ...]


def draw_things(
    rng: np.random.Generator, kinds: Sequence[Kind], count: int, twins: float
) -> list[Thing]:
    """Things of different kinds, at times two that share one label or differ by colour alone.

    Args:
        twins: chance of each thing to have a second of its kind.
    """
    found: list[Thing] = []
    chosen = rng.choice(len(kinds), min(count, len(kinds)), replace=False)
    for kind in (kinds[number] for number in chosen):
        names = kind.colours or tuple(COLOURS)
        named = bool(kind.colours) and rng.random() < 0.5
        first, other = rng.choice(len(names), 2, replace=len(names) < 2)
        copies = 1 + (rng.random() < twins)
        for number in (first, first if rng.random() < 0.5 else other)[:copies]:
            name = names[number]
            rgb = colour(rng, name)
            found.append(make_thing(rng, kind, name if kind.colours else None, rgb, named))
    return found


def some_floor(rng: np.random.Generator) -> Callable[[float], Paint]:
    """A paint for the floor; it is called with the side of the floor [m]."""
    rgb = rng.uniform(0.25, 0.8) + rng.uniform(-0.08, 0.08, 3)
    make = rng.choice(4)
    paint = wood(rng) if make == 0 else (tiles, cloth, stone)[make - 1](rng, rgb)
    tile_m = rng.uniform(0.8, 2.0)
    return lambda side_m: _repeated(paint, side_m / tile_m)


def some_wall(rng: np.random.Generator) -> Paint:
    """A paint for walls."""
    rgb = np.clip(rng.uniform(0.45, 0.92) + rng.uniform(-0.12, 0.12, 3), 0, 1)
    kind = rng.choice(["plaster", "stripes", "bricks", "stone"], p=[0.6, 0.15, 0.15, 0.1])
    if kind == "stripes":
        return _repeated(cloth(rng, rgb), 3)
    if kind == "bricks":
        return _repeated(tiles(rng, rgb), 3)
    return plaster(rng, rgb) if kind == "plaster" else stone(rng, rgb)


def walls(
    half_m: Sequence[float], low_m: float, high_m: float, paints: Sequence[Paint]
) -> list[Part]:
    """Four walls about the origin, inner faces at +-`half_m` (x, y), in the order +x -x +y -y."""
    thick, (half_x, half_y) = 0.1, half_m
    tall, middle = high_m - low_m, (high_m + low_m) / 2
    spots = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    return [
        Part(
            box(
                [thick if x else 2 * half_x, thick if y else 2 * half_y, tall],
                [x * (half_x + thick / 2), y * (half_y + thick / 2), middle],
            ),
            paint,
            shadow=False,
        )
        for (x, y), paint in zip(spots, paints, strict=True)
    ]


def some_sky(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Colours for what is behind everything."""
    high = np.clip(rng.uniform(0.2, 0.9) + rng.uniform(-0.12, 0.12, 3), 0, 1)
    low = np.clip(rng.uniform(0.3, 0.95) + rng.uniform(-0.08, 0.08, 3), 0, 1)
    return tuple(high), tuple(low)


def tint(rng: np.random.Generator, brightness: float) -> Colour:
    """A light from warm to cool."""
    warmth = rng.uniform(-0.12, 0.12)
    return tuple(brightness * np.array([1 + warmth, 1.0, 1 - warmth]))


def _repeated(paint: Paint, copies: float) -> Paint:
    return Paint(paint.rgb, paint.texture, copies, paint.specular, paint.shininess)
