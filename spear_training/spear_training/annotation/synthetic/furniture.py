"""Kinds of objects that furnish a room: seats, tables, beds, shelves, and what stands on them."""

import numpy as np

from spear_training.annotation.synthetic.meshes import ball, box, round_body
from spear_training.annotation.synthetic.objects import (
    ANY,
    BIG_ENOUGH_FOR_ROOMS,
    Body,
    Kind,
    Part,
    Support,
    top_of,
)
from spear_training.annotation.synthetic.textures import (
    Paint,
    cloth,
    metal,
    printed,
    some_paint,
    wood,
)


def _block(size_m, centre_m, paint) -> Part:
    return Part(box(size_m, centre_m), paint)


def legs(half_x_m, half_y_m, height_m, thick_m, paint) -> list[Part]:
    """Four upright legs at the corners of a rectangle."""
    return [
        _block([thick_m, thick_m, height_m], [x * half_x_m, y * half_y_m, height_m / 2], paint)
        for x in (-1, 1)
        for y in (-1, 1)
    ]


def _timber(rng, rgb) -> Paint:
    return wood(rng) if rng.random() < 0.6 else some_paint(rng, rgb, 0.3)


def chair(rng, rgb):
    wide, seat, back = rng.uniform([0.38, 0.42, 0.38], [0.48, 0.48, 0.52])
    deep, thick = wide * rng.uniform(0.95, 1.1), rng.uniform(0.03, 0.045)
    frame, cushion = _timber(rng, rgb), some_paint(rng, rgb, 0.1)
    x, y = wide / 2 - thick, deep / 2 - thick
    parts = legs(x, y, seat, thick, frame)
    parts.append(_block([wide, deep, 0.04], [0, 0, seat], cushion))
    parts += [_block([thick, thick, back], [s * x, y, seat + back / 2], frame) for s in (-1, 1)]
    # One broad back rest or three bars: their middles and heights, of the back's height.
    rests = [(0.55, 0.85)] if rng.random() < 0.5 else [(0.3, 0.12), (0.6, 0.12), (0.9, 0.12)]
    for middle, high in rests:
        size = [wide - 2 * thick, 0.02, high * back]
        parts.append(_block(size, [0, y, seat + middle * back], cushion))
    return Body(parts)


def table(rng, rgb):
    size = rng.uniform([0.9, 0.7, 0.70], [1.7, 0.95, 0.78])
    thick, leg = rng.uniform(0.02, 0.045), rng.uniform(0.035, 0.07)
    paint = _timber(rng, rgb)
    under = metal(rng) if rng.random() < 0.3 else paint
    parts = [_block([*size[:2], thick], [0, 0, size[2] - thick / 2], paint)]
    parts += legs(size[0] / 2 - leg, size[1] / 2 - leg, size[2] - thick, leg, under)
    return Body(parts, top_of(size, 0.02))


def chest_of_drawers(rng, rgb):
    size = rng.uniform([0.6, 0.38, 0.65], [1.1, 0.48, 1.0])
    parts = [_block(size, [0, 0, size[2] / 2], _timber(rng, rgb))]
    paint, knob = _timber(rng, rgb), metal(rng)
    rows, columns = int(rng.integers(3, 5)), int(rng.integers(1, 3))
    wide, tall, face = size[0] / columns, size[2] / rows, -size[1] / 2
    for row, column in np.ndindex(rows, columns):
        x, z = (column + 0.5) * wide - size[0] / 2, (row + 0.5) * tall
        parts.append(_block([wide - 0.02, 0.018, tall - 0.02], [x, face - 0.006, z], paint))
        parts.append(Part(ball(0.014).moved([x, face - 0.024, z]), knob))
    return Body(parts, top_of(size))


def bookshelf(rng, rgb):
    wide, deep, tall = rng.uniform([0.6, 0.26, 1.0], [1.1, 0.34, 1.9])
    paint, board = _timber(rng, rgb), 0.02
    parts = [_block([wide, 0.008, tall], [0, deep / 2 - 0.004, tall / 2], paint)]
    for side in (-1, 1):
        parts.append(_block([board, deep, tall], [side * (wide - board) / 2, 0, tall / 2], paint))
    levels = int(tall / 0.36)
    step = (tall - board) / levels
    half = (wide / 2 - board - 0.004, deep / 2 - 0.012)
    supports = []
    for level in range(levels + 1):
        height = level * step + board / 2
        size = [wide - 2 * board, deep - 0.01, board]
        parts.append(_block(size, [0, -0.004, height], paint))
        clearance = step - board - 0.01 if level < levels else 0.3
        supports.append(Support((0.0, -0.006, height + board / 2), half, clearance))
    return Body(parts, tuple(supports))


def sofa(rng, rgb):
    return _upholstered(rng, rgb, rng.uniform(1.5, 2.2), int(rng.integers(2, 4)))


def armchair(rng, rgb):
    return _upholstered(rng, rgb, rng.uniform(0.75, 0.95), 1)


def _upholstered(rng, rgb, wide, seats):
    deep, seat, tall = rng.uniform([0.78, 0.38, 0.72], [0.95, 0.46, 0.92])
    arm, foot = rng.uniform(0.12, 0.2), 0.08
    cover = cloth(rng, rgb)
    parts = legs(wide / 2 - 0.06, deep / 2 - 0.06, foot, 0.05, wood(rng, 64))
    parts.append(_block([wide, deep, seat - 0.2], [0, 0, foot + seat / 2 - 0.1], cover))
    parts.append(_block([wide, 0.2, tall - foot], [0, deep / 2 - 0.1, (tall + foot) / 2], cover))
    high = seat + rng.uniform(0.06, 0.12)
    for side in (-1, 1):
        spot = [side * (wide - arm) / 2, 0, foot + high / 2]
        parts.append(_block([arm, deep, high], spot, cover))
    place = (wide - 2 * arm) / seats
    for number in range(seats):
        x = -wide / 2 + arm + (number + 0.5) * place
        parts.append(_block([place - 0.01, deep - 0.22, 0.13], [x, -0.1, seat - 0.065], cover))
    return Body(parts)


def bed(rng, rgb):
    wide, long, tall = rng.uniform([0.9, 1.9, 0.7], [1.7, 2.1, 1.1])
    frame, white = _timber(rng, rgb), Paint((0.9, 0.9, 0.88))
    blanket = cloth(rng, rgb)
    parts = [
        *legs(wide / 2 - 0.05, long / 2 - 0.05, 0.2, 0.07, frame),
        _block([wide, long, 0.1], [0, 0, 0.2], frame),
        _block([wide, 0.05, tall], [0, long / 2 + 0.025, tall / 2], frame),
        _block([wide - 0.06, long - 0.06, 0.2], [0, 0, 0.35], white),
        _block([wide - 0.02, 0.68 * long, 0.06], [0, -0.15 * long, 0.46], blanket),
    ]
    for x in (-0.25, 0.25) if wide > 1.2 else (0,):
        pillow = ball(1.0).stretched([0.3, 0.2, 0.08])
        parts.append(Part(pillow.moved([x * wide, long / 2 - 0.28, 0.51]), white))
    return Body(parts)


def floor_lamp(rng, rgb):
    tall, shade, drop = rng.uniform([1.3, 0.16, 0.2], [1.7, 0.26, 0.32])
    rod, end, low = 0.014, tall - 0.3 * drop, tall - drop
    pole = [[0, 0], [0.15, 0], [0.15, 0.02], [rod, 0.05], [rod, end], [0, end]]
    top = shade * rng.uniform(0.5, 0.95)
    cone = [[0, tall - 0.4 * drop], [top - 0.01, tall - 0.39 * drop], [shade - 0.004, low],
            [shade, low], [top, tall], [top - 0.004, tall], [top - 0.008, tall - 0.35 * drop],
            [0, tall - 0.35 * drop]]  # fmt: skip
    return Body([Part(round_body(pole), metal(rng)), Part(round_body(cone), cloth(rng, rgb, 64))])


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
    shown = printed(rng, rng.uniform(0.02, 0.6, 3))
    middle = 0.06 + tall / 2
    return Body([
        _block([wide, 0.04, tall], [0, 0, middle], black),
        _block([0.96 * wide, 0.002, 0.93 * tall], [0, -0.0205, middle], shown),
        _block([0.08, 0.03, 0.08], [0, 0, 0.04], black),
        _block([0.35 * wide, 0.2, 0.012], [0, 0, 0.006], black),
    ])  # fmt: skip


FREE = (
    Kind("chair", chair, ANY),
    Kind("table", table),
    Kind("armchair", armchair, ANY),
    Kind("floor lamp", floor_lamp, ANY, symmetry="axis"),
    Kind("bin", bin_, ANY, symmetry="axis"),
)
ALONG_WALLS = (
    Kind("chest of drawers", chest_of_drawers),
    Kind("bookshelf", bookshelf),
    Kind("sofa", sofa, ANY),
    Kind("bed", bed),
)
ON_FURNITURE = (
    *BIG_ENOUGH_FOR_ROOMS,
    Kind("vase", vase, ANY, symmetry="axis"),
    Kind("television", television),
)
