"""Kinds of objects that furnish a room: seats, tables, beds, shelves, and what decorates them."""

import numpy as np

from spear_training.annotation.synthetic.meshes import (
    Surface,
    ball,
    box,
    cylinder,
    round_body,
    tube,
)
from spear_training.annotation.synthetic.objects import Body, Kind, Part, Support
from spear_training.annotation.synthetic.textures import (
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

SOFT = tuple(COLOURS)  # any colour may be named
_RUBBER = Paint((0.09, 0.09, 0.10), specular=0.1)


def _legs(half_x_m, half_y_m, height_m, thick_m) -> list[Surface]:
    """Four upright legs at the corners of a rectangle."""
    return [
        box([thick_m, thick_m, height_m], [x * half_x_m, y * half_y_m, height_m / 2])
        for x in (-1, 1)
        for y in (-1, 1)
    ]


def _timber(rng, rgb) -> Paint:
    return wood(rng) if rng.random() < 0.6 else some_paint(rng, rgb, 0.3)


def chair(rng, rgb):
    wide, seat, back = rng.uniform([0.38, 0.42, 0.38], [0.48, 0.48, 0.52])
    deep, thick = wide * rng.uniform(0.95, 1.1), rng.uniform(0.03, 0.045)
    frame = _timber(rng, rgb)
    cushion = some_paint(rng, rgb, 0.1)
    parts = [Part(leg, frame) for leg in _legs(wide / 2 - thick, deep / 2 - thick, seat, thick)]
    parts.append(Part(box([wide, deep, 0.04], [0, 0, seat]), cushion))
    for x in (-1, 1):
        spot = [x * (wide / 2 - thick), deep / 2 - thick, seat + back / 2]
        parts.append(Part(box([thick, thick, back], spot), frame))
    if rng.random() < 0.5:
        rests = [(0.55, 0.85)]
    else:
        rests = [(0.3, 0.12), (0.6, 0.12), (0.9, 0.12)]
    for middle, high in rests:
        size = [wide - 2 * thick, 0.02, high * back]
        low = min(middle * back, back * (1 - high / 2))
        parts.append(Part(box(size, [0, deep / 2 - thick, seat + low]), cushion))
    return Body(parts)


def table(rng, rgb):
    size = rng.uniform([0.9, 0.7, 0.70], [1.7, 0.95, 0.78])
    thick, leg = rng.uniform(0.02, 0.045), rng.uniform(0.035, 0.07)
    paint = _timber(rng, rgb)
    parts = [Part(box([*size[:2], thick], [0, 0, size[2] - thick / 2]), paint)]
    half_x, half_y = size[0] / 2 - leg, size[1] / 2 - leg
    under = metal(rng) if rng.random() < 0.3 else paint
    parts += [Part(surface, under) for surface in _legs(half_x, half_y, size[2] - thick, leg)]
    return Body(parts, (Support((0.0, 0.0, size[2]), (size[0] / 2 - 0.02, size[1] / 2 - 0.02)),))


def round_table(rng, rgb):
    radius, height = rng.uniform([0.4, 0.68], [0.6, 0.76])
    paint = _timber(rng, rgb)
    outline = [[0, 0], [0.55 * radius, 0], [0.5 * radius, 0.03], [0.05, 0.06],
               [0.04, height - 0.03], [0, height - 0.03]]  # fmt: skip
    inner = 0.66 * radius
    return Body([Part(cylinder(radius, height - 0.03, height), paint),
                 Part(round_body(outline), paint)],
                (Support((0.0, 0.0, height), (inner, inner)),))  # fmt: skip


def writing_table(rng, rgb):
    size = rng.uniform([1.1, 0.55, 0.71], [1.6, 0.75, 0.76])
    paint, front = _timber(rng, rgb), some_paint(rng, rgb, 0.3)
    wide = 0.3 * size[0]
    parts = [Part(box([*size[:2], 0.03], [0, 0, size[2] - 0.015]), paint)]
    for side in (-1, 1):
        panel = box([0.03, size[1] - 0.02, size[2] - 0.03],
                    [side * (size[0] / 2 - 0.02), 0, (size[2] - 0.03) / 2])  # fmt: skip
        parts.append(Part(panel, paint))
    chest = box([wide, size[1] - 0.06, 0.5], [size[0] / 2 - 0.035 - wide / 2, 0, size[2] - 0.28])
    parts.append(Part(chest, paint))
    parts += _drawers(rng, front, chest, 3)
    return Body(parts, (Support((0.0, 0.0, size[2]), (size[0] / 2 - 0.02, size[1] / 2 - 0.02)),))


def _drawers(rng, paint, chest, rows, columns=1) -> list[Part]:
    """Fronts with knobs on the -y side of a box."""
    low, high = chest.vertices_m.min(axis=0), chest.vertices_m.max(axis=0)
    wide, tall = (high[0] - low[0]) / columns, (high[2] - low[2]) / rows
    knob, parts = metal(rng), []
    for row in range(rows):
        for column in range(columns):
            x, z = low[0] + (column + 0.5) * wide, low[2] + (row + 0.5) * tall
            front = box([wide - 0.02, 0.018, tall - 0.02], [x, low[1] - 0.006, z])
            parts.append(Part(front, paint))
            parts.append(Part(ball(0.014).moved([x, low[1] - 0.024, z]), knob))
    return parts


def chest_of_drawers(rng, rgb):
    size = rng.uniform([0.6, 0.38, 0.65], [1.1, 0.48, 1.0])
    chest = box(size, [0, 0, size[2] / 2])
    parts = [Part(chest, _timber(rng, rgb))]
    rows, columns = int(rng.integers(3, 5)), int(rng.integers(1, 3))
    parts += _drawers(rng, _timber(rng, rgb), chest, rows, columns)
    return Body(parts, (Support((0.0, 0.0, size[2]), (size[0] / 2, size[1] / 2)),))


def bookshelf(rng, rgb):
    wide, deep, tall = rng.uniform([0.6, 0.26, 1.0], [1.1, 0.34, 1.9])
    paint, board = _timber(rng, rgb), 0.02
    levels = int(tall / 0.36)
    parts = [Part(box([wide, 0.008, tall], [0, deep / 2 - 0.004, tall / 2]), paint)]
    for side in (-1, 1):
        wall = box([board, deep, tall], [side * (wide - board) / 2, 0, tall / 2])
        parts.append(Part(wall, paint))
    step = (tall - board) / levels
    supports = []
    for level in range(levels + 1):
        height = level * step + board / 2
        parts.append(Part(box([wide - 2 * board, deep - 0.01, board], [0, -0.004, height]), paint))
        half = (wide / 2 - board - 0.004, deep / 2 - 0.012)
        clearance = step - board - 0.01 if level < levels else 0.3
        supports.append(Support((0.0, -0.006, height + board / 2), half, clearance))
    return Body(parts, tuple(supports))


def sofa(rng, rgb):
    return _sofa(rng, rgb, rng.uniform(1.5, 2.2), int(rng.integers(2, 4)))


def armchair(rng, rgb):
    return _sofa(rng, rgb, rng.uniform(0.75, 0.95), 1)


def _sofa(rng, rgb, wide, seats):
    deep, seat, tall = rng.uniform([0.78, 0.38, 0.72], [0.95, 0.46, 0.92])
    arm = rng.uniform(0.12, 0.2)
    cover, foot = cloth(rng, rgb), wood(rng, 64)
    parts = [Part(leg, foot) for leg in _legs(wide / 2 - 0.06, deep / 2 - 0.06, 0.08, 0.05)]
    parts.append(Part(box([wide, deep, seat - 0.2], [0, 0, 0.08 + (seat - 0.2) / 2]), cover))
    back = box([wide, 0.2, tall - 0.08], [0, deep / 2 - 0.1, 0.08 + (tall - 0.08) / 2])
    parts.append(Part(back, cover))
    high = seat + rng.uniform(0.06, 0.12)
    for side in (-1, 1):
        size, x = [arm, deep, high], side * (wide - arm) / 2
        parts.append(Part(box(size, [x, 0, 0.08 + high / 2]), cover))
    place = (wide - 2 * arm) / seats
    for number in range(seats):
        x = -wide / 2 + arm + (number + 0.5) * place
        size = [place - 0.01, deep - 0.22, 0.13]
        parts.append(Part(box(size, [x, -0.1, seat - 0.065]), cover))
    return Body(parts)


def bed(rng, rgb):
    wide, long, tall = rng.uniform([0.9, 1.9, 0.7], [1.7, 2.1, 1.1])
    frame = _timber(rng, rgb)
    parts = [Part(leg, frame) for leg in _legs(wide / 2 - 0.05, long / 2 - 0.05, 0.2, 0.07)]
    parts += [
        Part(box([wide, long, 0.1], [0, 0, 0.2]), frame),
        Part(box([wide, 0.05, tall], [0, long / 2 + 0.025, tall / 2]), frame),
        Part(box([wide - 0.06, long - 0.06, 0.2], [0, 0, 0.35]), Paint((0.9, 0.9, 0.88))),
        Part(box([wide - 0.02, 0.68 * long, 0.06], [0, -0.15 * long, 0.46]), cloth(rng, rgb)),
    ]
    for x in (-0.25, 0.25) if wide > 1.2 else (0,):
        pillow = ball(1.0).stretched([0.3, 0.2, 0.08])
        parts.append(Part(pillow.moved([x * wide, long / 2 - 0.28, 0.51]), cloth(rng, (0.9,) * 3)))
    return Body(parts)


FREE = (
    Kind("chair", chair, SOFT),
    Kind("table", table),
    Kind("round table", round_table, symmetry="axis"),
    Kind("armchair", armchair, SOFT),
)
ALONG_WALLS = (
    Kind("desk", writing_table),
    Kind("chest of drawers", chest_of_drawers),
    Kind("bookshelf", bookshelf),
    Kind("sofa", sofa, SOFT),
    Kind("bed", bed),
)


# Lamps, plants and decoration ------------------------------------------------------------------


def floor_lamp(rng, rgb):
    tall, shade, drop = rng.uniform([1.3, 0.16, 0.2], [1.7, 0.26, 0.32])
    pole = metal(rng)
    foot = 0.15
    outline = [[0, 0], [foot, 0], [foot, 0.015], [0.2 * foot, 0.04], [0.09 * foot, 0.08],
               [0.09 * foot, tall - 0.3 * drop], [0, tall - 0.3 * drop]]  # fmt: skip
    top, low = shade * rng.uniform(0.5, 0.95), tall - drop
    cone = [[0, tall - 0.4 * drop], [top - 0.01, tall - 0.39 * drop], [shade - 0.004, low],
            [shade, low], [top, tall], [top - 0.004, tall], [top - 0.008, tall - 0.35 * drop],
            [0, tall - 0.35 * drop]]  # fmt: skip
    return Body([Part(round_body(outline), pole), Part(round_body(cone), cloth(rng, rgb, 64))])


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


def laptop(rng, rgb):
    wide, deep = rng.uniform(0.30, 0.36), rng.uniform(0.21, 0.25)
    lean = rng.uniform(0.1, 0.45)
    case = Paint(rgb, specular=0.6, shininess=0.6)
    base = box([wide, deep, 0.016], [0, 0, 0.008])
    keys = box([0.9 * wide, 0.5 * deep, 0.002], [0, 0.1 * deep, 0.0165])
    turn = [[1, 0, 0], [0, np.cos(lean), np.sin(lean)], [0, -np.sin(lean), np.cos(lean)]]
    hinge = [0, deep / 2 - 0.004, 0.016]
    lid = box([wide, 0.008, deep], [0, 0, deep / 2]).moved(hinge, turn)
    screen = box([0.93 * wide, 0.002, 0.88 * deep], [0, -0.004, deep / 2]).moved(hinge, turn)
    return Body([Part(base, case), Part(keys, _RUBBER), Part(lid, case),
                 Part(screen, printed(rng, rng.uniform(0.1, 0.8, 3)))])  # fmt: skip


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
    Kind("television", television),
    Kind("laptop", laptop, ("grey", "black", "white")),
)
RUG = Kind("rug", rug, SOFT)
PICTURE = Kind("picture", picture)
