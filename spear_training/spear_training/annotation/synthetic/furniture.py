"""Kinds of furniture: seats, tables, beds, what holds things."""

import numpy as np

from spear_training.annotation.synthetic.meshes import (
    Surface,
    ball,
    box,
    cylinder,
    round_body,
    tube,
)
from spear_training.annotation.synthetic.objects import SOFT, Body, Kind, Part, Support
from spear_training.annotation.synthetic.textures import Paint, cloth, metal, some_paint, wood


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


def stool(rng, rgb):
    radius, height = rng.uniform([0.15, 0.4], [0.2, 0.7])
    seat = cylinder(radius, height - 0.04, height)
    parts = [Part(seat, _timber(rng, rgb))]
    for angle in np.arange(3) * 2.0944 + 0.3:
        out = np.array([np.cos(angle), np.sin(angle), 0])
        leg = tube([1.05 * radius * out, 0.55 * radius * out + [0, 0, height - 0.035]], 0.016)
        parts.append(Part(leg, metal(rng) if rng.random() < 0.2 else parts[0].paint))
    top = 0.6 * radius
    return Body(parts, (Support((0.0, 0.0, height), (top, top)),))


def table(rng, rgb):
    size = rng.uniform([0.9, 0.7, 0.70], [1.7, 0.95, 0.78])
    return _table(rng, rgb, size)


def coffee_table(rng, rgb):
    return _table(rng, rgb, rng.uniform([0.7, 0.45, 0.35], [1.15, 0.65, 0.48]))


def _table(rng, rgb, size):
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


def desk(rng, rgb):
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


def cupboard(rng, rgb):
    size = rng.uniform([0.7, 0.4, 1.1], [1.2, 0.6, 2.0])
    chest = box(size, [0, 0, size[2] / 2])
    parts = [Part(chest, _timber(rng, rgb)), *_drawers(rng, _timber(rng, rgb), chest, 1, 2)]
    return Body(parts, (Support((0.0, 0.0, size[2]), (size[0] / 2, size[1] / 2), 0.35),))


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
    Kind("stool", stool),
    Kind("table", table),
    Kind("round table", round_table, symmetry="axis"),
    Kind("coffee table", coffee_table),
    Kind("armchair", armchair, SOFT),
)
ALONG_WALLS = (
    Kind("desk", desk),
    Kind("chest of drawers", chest_of_drawers),
    Kind("cupboard", cupboard),
    Kind("bookshelf", bookshelf),
    Kind("sofa", sofa, SOFT),
    Kind("bed", bed),
)
