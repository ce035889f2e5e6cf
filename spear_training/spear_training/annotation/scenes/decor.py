"""Kinds of what makes a room lived in: lamps, plants, rugs, pictures."""

import numpy as np

from spear_training.annotation.scenes.paints import (
    COLOURS,
    Paint,
    cloth,
    metal,
    plaster,
    printed,
    some_paint,
    stone,
    wood,
)
from spear_training.annotation.scenes.surfaces import box, cylinder, round_body, tube
from spear_training.annotation.scenes.things import Body, Kind, Part, Support

SOFT = tuple(COLOURS)


def floor_lamp(rng, rgb):
    tall, shade, drop = rng.uniform([1.3, 0.16, 0.2], [1.7, 0.26, 0.32])
    pole = metal(rng)
    return Body([*_lamp(pole, rng, rgb, tall, shade, drop, 0.15)])


def table_lamp(rng, rgb):
    tall, shade, drop = rng.uniform([0.32, 0.09, 0.12], [0.5, 0.15, 0.2])
    return Body([*_lamp(some_paint(rng, rgb, 0.6), rng, rgb, tall, shade, drop, 0.07)])


def _lamp(pole, rng, rgb, tall, shade, drop, foot):
    outline = [[0, 0], [foot, 0], [foot, 0.015], [0.2 * foot, 0.04], [0.09 * foot, 0.08],
               [0.09 * foot, tall - 0.3 * drop], [0, tall - 0.3 * drop]]  # fmt: skip
    top, low = shade * rng.uniform(0.5, 0.95), tall - drop
    cone = [[0, tall - 0.4 * drop], [top - 0.01, tall - 0.39 * drop], [shade - 0.004, low],
            [shade, low], [top, tall], [top - 0.004, tall], [top - 0.008, tall - 0.35 * drop],
            [0, tall - 0.35 * drop]]  # fmt: skip
    return [Part(round_body(outline), pole), Part(round_body(cone), cloth(rng, rgb, 64))]


def plant(rng, rgb):
    rim, height = rng.uniform([0.11, 0.16], [0.2, 0.34])
    pot = [[0, 0], [0.72 * rim, 0], [rim, height], [0.93 * rim, height], [0.9 * rim, 0.88 * height],
           [0, 0.88 * height]]  # fmt: skip
    parts = [
        Part(round_body(pot), some_paint(rng, rgb, 0.3)),
        Part(cylinder(0.89 * rim, 0.87 * height, 0.89 * height), Paint((0.2, 0.14, 0.1))),
    ]
    tall, green = rng.uniform(1.2, 3.0) * height, np.array([0.16, 0.42, 0.14])
    for angle in np.linspace(0, 2 * np.pi, int(rng.integers(10, 18)), endpoint=False):
        reach, rise = rng.uniform(0.5, 2.1) * rim, tall * rng.uniform(0.55, 1.0)
        out = np.array([np.cos(angle), np.sin(angle), 0])
        along = np.linspace(0, 1, 7)[:, None]
        path = along**1.5 * reach * out + [0, 0, 0.88 * height]
        path = path + np.sin(1.9 * along) * [0, 0, rise]
        blade = tube(path, 0.035 * np.sin(np.pi * np.linspace(0.12, 0.97, 7)), 6)
        shade = Paint(tuple(np.clip(green * rng.uniform(0.7, 1.5), 0, 1)), specular=0.3)
        parts.append(Part(blade, shade))
    return Body(parts)


def bin_(rng, rgb):
    foot, height = rng.uniform([0.1, 0.26], [0.15, 0.42])
    rim = foot * rng.uniform(1.0, 1.3)
    outline = [[0, 0], [foot, 0], [rim, height], [rim - 0.006, height], [foot - 0.006, 0.01],
               [0, 0.01]]  # fmt: skip
    return Body([Part(round_body(outline), some_paint(rng, rgb, 0.4))])


def vase(rng, rgb):
    height, radius = rng.uniform([0.18, 0.05], [0.4, 0.1])
    along = np.linspace(0, 1, 14)
    flank = radius * (0.55 + 0.45 * np.sin(rng.uniform(2.6, 4.2) * along + rng.uniform(0, 0.7)))
    outside = np.column_stack([flank, height * along])
    inside = (outside - [0.005, 0])[::-1][:-1]
    outline = [[0, 0], *outside, *inside, [0, inside[-1, 1]]]
    return Body([Part(round_body(outline), some_paint(rng, rgb, 0.7))])


def television(rng, rgb):
    wide = rng.uniform(0.7, 1.2)
    tall, black = 0.57 * wide, Paint((0.05, 0.05, 0.05), specular=0.6, shininess=0.8)
    return Body([
        Part(box([wide, 0.04, tall], [0, 0, 0.06 + tall / 2]), black),
        Part(box([0.96 * wide, 0.002, 0.93 * tall], [0, -0.0205, 0.06 + tall / 2]),
             printed(rng, rng.uniform(0.02, 0.6, 3))),
        Part(box([0.08, 0.03, 0.08], [0, 0, 0.04]), black),
        Part(box([0.35 * wide, 0.2, 0.012], [0, 0, 0.006]), black),
    ])  # fmt: skip


def rug(rng, rgb):
    size = rng.uniform([1.2, 0.8, 0.008], [2.4, 1.6, 0.014])
    weave = cloth(rng, rgb) if rng.random() < 0.6 else printed(rng, rgb)
    support = Support((0.0, 0.0, size[2]), (size[0] / 2, size[1] / 2))
    return Body([Part(box(size, [0, 0, size[2] / 2]), weave)], (support,))


def picture(rng, rgb):
    wide, tall, edge = rng.uniform([0.35, 0.3, 0.02], [1.0, 0.8, 0.05])
    frame = metal(rng) if rng.random() < 0.3 else wood(rng, 64)
    make = [printed, stone, cloth, plaster][rng.integers(4)]
    canvas = box([wide - 2 * edge, 0.012, tall - 2 * edge], [0, 0, tall / 2])
    bars = [box([wide, 0.025, edge], [0, 0, z]) for z in (edge / 2, tall - edge / 2)]
    bars += [box([edge, 0.025, tall], [x * (wide - edge) / 2, 0, tall / 2]) for x in (-1, 1)]
    return Body([Part(canvas, make(rng, rgb)), *(Part(bar, frame) for bar in bars)])


FREE_DECOR = (
    Kind("floor lamp", floor_lamp, SOFT, symmetry="axis"),
    Kind("plant", plant),
    Kind("bin", bin_, SOFT, symmetry="axis"),
)
ON_FURNITURE = (
    Kind("vase", vase, SOFT, symmetry="axis"),
    Kind("table lamp", table_lamp, SOFT, symmetry="axis"),
    Kind("television", television),
)
RUG = Kind("rug", rug, SOFT)
PICTURE = Kind("picture", picture)
