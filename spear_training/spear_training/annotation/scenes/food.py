"""Kinds of food: fruit, vegetables, bread."""

from dataclasses import replace

import numpy as np

from spear_training.annotation.scenes.paints import Paint, some_paint, stone
from spear_training.annotation.scenes.surfaces import Surface, ball, box, round_body, tube
from spear_training.annotation.scenes.things import Body, Kind, Part


def _peel(rng, rgb) -> Paint:
    """A mottled skin, a shade of `rgb`."""
    shade = np.clip(np.array(rgb) + rng.normal(0, 0.03, 3), 0.02, 0.98)
    return replace(stone(rng, shade, 64), specular=0.25, shininess=0.3)


def _fruit(width_m: float, height_m: float, waist: float, dimple: float) -> Surface:
    """A round fruit; a `waist` above 0 makes its upper half slimmer, `dimple` sinks its top."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, 21)
    up = (np.sin(angles) + 1) / 2
    radius = width_m / 2 * np.cos(angles) * (1 - waist * up)
    sunk = dimple * np.exp(-((radius / (0.3 * width_m)) ** 2)) * (up > 0.5)
    outline = np.column_stack([radius, height_m * (up - sunk)])
    outline[[0, -1], 0] = 0.0
    return round_body(outline)


def orange(rng, rgb):
    radius = rng.uniform(0.033, 0.045)
    return Body([Part(ball(radius), _peel(rng, (0.95, 0.50, 0.08)))])


def apple(rng, rgb):
    width = rng.uniform(0.065, 0.085)
    height = 0.9 * width
    skin = _peel(rng, [(0.72, 0.10, 0.10), (0.55, 0.70, 0.16), (0.85, 0.70, 0.2)][rng.integers(3)])
    low = 0.80 * height
    stalk = tube([[0, 0, low - 0.01], [0.001, 0, low + 0.008], [0.004, 0, low + 0.022]], 0.0015, 6)
    return Body([Part(_fruit(width, height, 0.0, 0.16), skin), Part(stalk, Paint((0.3, 0.2, 0.1)))])


def pear(rng, rgb):
    width = rng.uniform(0.06, 0.075)
    height = rng.uniform(1.3, 1.5) * width
    skin = _peel(rng, [(0.70, 0.75, 0.25), (0.80, 0.68, 0.25)][rng.integers(2)])
    stalk = tube([[0, 0, 0.97 * height], [0.003, 0, height + 0.02]], 0.0016, 6)
    return Body([Part(_fruit(width, height, 0.62, 0.0), skin), Part(stalk, Paint((0.3, 0.2, 0.1)))])


def lemon(rng, rgb):
    radius, length = rng.uniform(0.024, 0.03), rng.uniform(0.075, 0.095)
    along = np.linspace(0, 1, 19)
    tips = np.minimum(along, 1 - along) - 0.02
    half = np.maximum(np.sin(np.pi * along) ** 0.7, 0.2 * np.exp(-(tips**2) / 0.004))
    profile = np.column_stack([radius * half, length * along])
    profile[[0, -1], 0] = 0.0
    return Body([Part(round_body(profile), _peel(rng, (0.95, 0.85, 0.15)))])


def egg(rng, rgb):
    width = rng.uniform(0.04, 0.047)
    shell = [(0.90, 0.80, 0.68), (0.94, 0.93, 0.90), (0.72, 0.52, 0.38)][rng.integers(3)]
    return Body([Part(_fruit(width * 1.1, 1.32 * width, 0.18, 0.0), _peel(rng, shell))])


def carrot(rng, rgb):
    length, radius = rng.uniform(0.13, 0.2), rng.uniform(0.013, 0.02)
    along = np.linspace(0, 1, 12)
    profile = np.column_stack([radius * (along**0.45) * (1 - 0.6 * (along > 0.97)), length * along])
    parts = [Part(round_body([*profile, [0, length]], 24), _peel(rng, (0.93, 0.45, 0.10)))]
    for _ in range(3):
        lean = rng.uniform(-0.012, 0.012, 2)
        path = [[0, 0, length - 0.004], [*(lean / 2), length + 0.02], [*lean, length + 0.05]]
        parts.append(Part(tube(path, [0.003, 0.0025, 0.001], 6), Paint((0.20, 0.50, 0.15))))
    return Body(parts)


def banana(rng, rgb):
    bend, thick = rng.uniform(0.9, 1.5), rng.uniform(0.015, 0.019)
    radius = rng.uniform(0.15, 0.19) / bend
    angles = np.linspace(-bend / 2, bend / 2, 17)
    path = radius * np.column_stack([np.sin(angles), 1 - np.cos(angles), 0 * angles])
    along = np.linspace(-1, 1, 17)
    width = thick * np.clip(1.05 - np.abs(along) ** 5, 0.25, 1)
    skin = Paint(tuple(np.array([0.93, 0.80, 0.20]) + rng.normal(0, 0.03, 3)), specular=0.2)
    return Body([Part(tube(path, width, 8), skin)])


def cucumber(rng, rgb):
    length, thick, sag = rng.uniform(0.18, 0.28), rng.uniform(0.018, 0.025), rng.uniform(0, 0.02)
    along = np.linspace(-1, 1, 17)
    path = np.column_stack([along * length / 2, sag * along**2, 0 * along])
    width = thick * np.sqrt(np.clip(1 - along**6, 0.05, 1))
    return Body([Part(tube(path, width, 20), _peel(rng, (0.16, 0.40, 0.14)))])


def tomato(rng, rgb):
    width = rng.uniform(0.055, 0.08)
    parts = [Part(_fruit(width, 0.78 * width, 0.0, 0.1), some_paint(rng, (0.80, 0.12, 0.08), 0.7))]
    for angle in np.arange(5) * 1.2566:
        tip = [0.3 * width * np.cos(angle), 0.3 * width * np.sin(angle), 0.73 * width]
        parts.append(Part(tube([[0, 0, 0.69 * width], tip], [0.003, 0.001], 5),
                          Paint((0.2, 0.45, 0.12))))  # fmt: skip
    return Body(parts)


def loaf(rng, rgb):
    size = rng.uniform([0.18, 0.09, 0.05], [0.28, 0.12, 0.08])
    crust = _peel(rng, (0.62, 0.40, 0.20))
    lower = box([*size[:2], 0.6 * size[2]], [0, 0, 0.3 * size[2]])
    across = np.linspace(-1, 1, 17)
    upper = tube(np.column_stack([across * size[0] / 2, 0 * across, 0 * across + 0.6 * size[2]]),
                 size[1] / 2 * np.clip(1.02 - across**14, 0.8, 1), 24)  # fmt: skip
    upper = upper.moved([0, 0, -0.6 * size[2]]).stretched([1, 1, 0.8 * size[2] / size[1]])
    return Body([Part(lower, crust), Part(upper.moved([0, 0, 0.6 * size[2]]), crust)])


def doughnut(rng, rgb):
    ring, thick = rng.uniform(0.028, 0.035), rng.uniform(0.014, 0.018)
    angles = np.linspace(0, 2 * np.pi, 41)
    path = np.column_stack([ring * np.cos(angles), ring * np.sin(angles), 0 * angles])
    dough = tube(path, thick, 20)
    icing = tube(path + [0, 0, 0.003], 0.94 * thick, 20)
    return Body(
        [Part(dough, _peel(rng, (0.70, 0.45, 0.22))), Part(icing, some_paint(rng, rgb, 0.6))]
    )


FOOD = (
    Kind("orange", orange, symmetry="ball"),
    Kind("apple", apple),
    Kind("pear", pear, rests=("up", "side")),
    Kind("lemon", lemon, symmetry="axis", rests=("side",)),
    Kind("egg", egg, symmetry="axis", rests=("side",)),
    Kind("carrot", carrot, rests=("side",)),
    Kind("banana", banana),
    Kind("cucumber", cucumber),
    Kind("tomato", tomato),
    Kind("loaf of bread", loaf),
    Kind("doughnut", doughnut, ("brown", "pink", "white", "yellow"), symmetry="axis"),
)
