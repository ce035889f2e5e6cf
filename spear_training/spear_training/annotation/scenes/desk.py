"""Kinds of things from a desk, a workshop and a toy box."""

import numpy as np

from spear_training.annotation.scenes.kitchen import ANY, BRIGHT
from spear_training.annotation.scenes.paints import Paint, cloth, metal, printed, some_paint
from spear_training.annotation.scenes.surfaces import ball, box, cylinder, ring, round_body, tube
from spear_training.annotation.scenes.things import Body, Kind, Part, Support

RUBBER = Paint((0.09, 0.09, 0.10), specular=0.1)


def book(rng, rgb):
    wide, deep, thick = rng.uniform([0.13, 0.19, 0.015], [0.2, 0.28, 0.05])
    board = 0.003
    cover = printed(rng, rgb)
    pages = box([wide - 0.006, deep - 0.010, thick - 2 * board], [0.001, 0, thick / 2])
    spine = box([board, deep, thick], [-wide / 2 + board / 2, 0, thick / 2])
    boards = [box([wide, deep, board], [0, 0, z]) for z in (board / 2, thick - board / 2)]
    support = Support((0.0, 0.0, thick), (wide / 2, deep / 2))
    paper = Part(pages, Paint((0.92, 0.90, 0.83), specular=0.05))
    return Body([*(Part(surface, cover) for surface in (*boards, spine)), paper], (support,))


def parcel(rng, rgb):
    size = rng.uniform([0.12, 0.10, 0.06], [0.26, 0.2, 0.16])
    card = Paint((0.66, 0.50, 0.34), specular=0.05)
    tape = box([size[0] + 0.0006, 0.04, size[2] + 0.0006], [0, 0, size[2] / 2])
    support = Support((0.0, 0.0, size[2] + 0.0003), (size[0] / 2, size[1] / 2))
    return Body([
        Part(box(size, [0, 0, size[2] / 2]), card),
        Part(tape, Paint((0.78, 0.66, 0.46), specular=0.5)),
    ], (support,))  # fmt: skip


def roll_of_tape(rng, rgb):
    outer = rng.uniform(0.035, 0.055)
    inner, width = outer * rng.uniform(0.55, 0.75), rng.uniform(0.018, 0.05)
    low, high, between = 0.001, width - 0.001, inner + 0.003
    tape = ring([[between, low], [outer, low], [outer, high], [between, high]])
    core = ring([[inner, 0], [between, 0], [between, width], [inner, width]])
    return Body([
        Part(tape, Paint(rgb, specular=0.6, shininess=0.7)), Part(core, Paint((0.7, 0.6, 0.45))),
    ])  # fmt: skip


def screwdriver(rng, rgb):
    grip, shaft = rng.uniform(0.08, 0.11), rng.uniform(0.07, 0.14)
    thick = rng.uniform(0.012, 0.017)
    outline = [[0, 0], [0.8 * thick, 0], [thick, 0.08 * grip], [thick, 0.6 * grip],
               [0.65 * thick, 0.8 * grip], [0.8 * thick, grip], [0, grip]]  # fmt: skip
    blade = box([0.007, 0.0015, 0.014], [0, 0, grip + shaft + 0.005])
    return Body([
        Part(round_body(outline, 12), some_paint(rng, rgb, 0.6)),
        Part(cylinder(0.003, grip - 0.002, grip + shaft, 16), metal(rng)), Part(blade, metal(rng)),
    ])  # fmt: skip


def hammer(rng, rgb):
    length, head = rng.uniform(0.24, 0.32), rng.uniform(0.09, 0.12)
    steel = metal(rng)
    handle = tube([[0, 0, 0], [0.35 * length, 0, 0.001], [length, 0, 0]], [0.015, 0.012, 0.011])
    block = box([0.028, head, 0.028], [length - 0.004, 0, 0])
    face = cylinder(0.017, 0, 0.02).moved([length - 0.004, head / 2, 0],
                                          [[1, 0, 0], [0, 0, 1], [0, -1, 0]])  # fmt: skip
    return Body([Part(handle, some_paint(rng, rgb, 0.2)), Part(block, steel), Part(face, steel)])


def torch(rng, rgb):
    length, thick = rng.uniform(0.11, 0.18), rng.uniform(0.012, 0.017)
    outline = [[0, 0], [thick, 0], [thick, 0.66 * length], [1.6 * thick, 0.78 * length],
               [1.6 * thick, length], [0, length]]  # fmt: skip
    lens = cylinder(1.45 * thick, length - 0.001, length + 0.001)
    return Body([Part(round_body(outline), Paint(rgb, specular=0.5, shininess=0.7)),
                 Part(lens, Paint((0.9, 0.9, 0.8), specular=0.9))])  # fmt: skip


def marker_pen(rng, rgb):
    length, thick = rng.uniform(0.12, 0.15), rng.uniform(0.007, 0.011)
    barrel = cylinder(thick, 0, 0.68 * length, 24)
    cap = [[0, 0.62 * length], [1.12 * thick, 0.62 * length], [1.1 * thick, 0.97 * length],
           [0.8 * thick, length], [0, length]]  # fmt: skip
    return Body([Part(barrel, Paint((0.88, 0.88, 0.86))), Part(round_body(cap, 24), Paint(rgb))])


def toy_brick(rng, rgb):
    unit = rng.uniform(0.014, 0.022)
    across, along, high = int(rng.integers(1, 3)), int(rng.integers(2, 5)), 1.2 * unit
    paint = Paint(rgb, specular=0.6, shininess=0.7)
    parts = [Part(box([along * unit, across * unit, high], [0, 0, high / 2]), paint)]
    for i in range(along):
        for j in range(across):
            spot = [(i - (along - 1) / 2) * unit, (j - (across - 1) / 2) * unit, 0]
            stud = cylinder(0.3 * unit, high, 1.22 * high, 20).moved(spot)
            parts.append(Part(stud, paint))
    return Body(parts)


def wooden_block(rng, rgb):
    size = rng.uniform(0.035, 0.1, 3)
    paint = some_paint(rng, rgb, 0.1)
    support = Support((0.0, 0.0, size[2]), (size[0] / 2, size[1] / 2))
    return Body([Part(box(size, [0, 0, size[2] / 2]), paint)], (support,))


def dice(rng, rgb):
    side = rng.uniform(0.03, 0.08)
    pip = Paint(tuple(1 - np.round(rgb)), specular=0.3)
    parts = [Part(box([side] * 3, [0, 0, side / 2]), Paint(rgb, specular=0.4))]
    turns = (np.eye(3), [[0, 0, 1], [0, 1, 0], [-1, 0, 0]], [[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    for count, axes in zip(rng.permutation([1, 2, 4]), turns, strict=True):
        spots = [(0, 0)] if count == 1 else [(-1, -1), (1, 1), (-1, 1), (1, -1)][:count]
        for side_sign in (1, -1):
            for a, b in spots:
                flat = ball(0.1 * side).stretched([1, 1, 0.02])
                flat = flat.moved([a * 0.25 * side, b * 0.25 * side, side_sign * side / 2], None)
                parts.append(Part(flat.moved([0, 0, 0], axes).moved([0, 0, side / 2]), pip))
    return Body(parts)


def toy_car(rng, rgb):
    length = rng.uniform(0.09, 0.16)
    wide, wheel = 0.45 * length, 0.11 * length
    paint = some_paint(rng, rgb, 0.8)
    hull = box([length, wide, 0.17 * length], [0, 0, wheel + 0.05 * length])
    cabin = box([0.5 * length, 0.86 * wide, 0.16 * length], [-0.06 * length, 0, 0.32 * length])
    high = cabin.vertices_m[:, 2] > 0.32 * length
    cabin.vertices_m[high, 0] = 0.7 * cabin.vertices_m[high, 0] - 0.02 * length
    parts = [Part(hull, paint), Part(cabin, Paint((0.2, 0.25, 0.3), specular=0.9))]
    sideways = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    for x in (-0.3, 0.3):
        for y in (-1, 1):
            disc = cylinder(wheel, -0.03 * length, 0.03 * length, 24)
            parts.append(Part(disc.moved([x * length, y * wide / 2, wheel], sideways), RUBBER))
    return Body(parts)


def toy_ball(rng, rgb):
    return Body([Part(ball(rng.uniform(0.025, 0.075)), some_paint(rng, rgb, 0.5))])


def sponge(rng, rgb):
    size = rng.uniform([0.09, 0.06, 0.02], [0.13, 0.08, 0.035])
    scourer = box([*size[:2], 0.007], [0, 0, size[2] + 0.0035])
    return Body([Part(box(size, [0, 0, size[2] / 2]), cloth(rng, rgb, 64)),
                 Part(scourer, Paint((0.16, 0.40, 0.24), specular=0.02))])  # fmt: skip


def candle(rng, rgb):
    radius, height = rng.uniform(0.02, 0.04), rng.uniform(0.06, 0.16)
    wick = tube([[0, 0, height - 0.002], [0.001, 0, height + 0.012]], 0.0012, 6)
    wax = Part(cylinder(radius, 0, height), some_paint(rng, rgb, 0.3))
    return Body([wax, Part(wick, RUBBER)])


def remote_control(rng, rgb):
    length, wide, high = rng.uniform([0.14, 0.04, 0.014], [0.21, 0.055, 0.022])
    parts = [Part(box([length, wide, high], [0, 0, high / 2]), Paint(rgb, specular=0.3))]
    for i in range(int(rng.integers(4, 8))):
        for j in (-1, 0, 1):
            key = cylinder(0.11 * wide, high - 0.001, high + 0.002, 14)
            spot = [0.4 * length - 0.11 * length * i, 0.27 * wide * j, 0]
            parts.append(Part(key.moved(spot), Paint((0.75, 0.75, 0.75))))
    return Body(parts)


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
    return Body([Part(base, case), Part(keys, RUBBER), Part(lid, case),
                 Part(screen, printed(rng, rng.uniform(0.1, 0.8, 3)))])  # fmt: skip


DESK = (
    Kind("book", book, BRIGHT, rests=("up", "up", "up", "back")),
    Kind("box", parcel),
    Kind("roll of tape", roll_of_tape, ANY, symmetry="axis", rests=("up", "side")),
    Kind("screwdriver", screwdriver, BRIGHT, rests=("side",)),
    Kind("hammer", hammer, ("red", "black", "blue", "brown", "yellow"), rests=("flat",)),
    Kind("torch", torch, ANY, symmetry="axis", rests=("side", "up")),
    Kind(
        "marker pen",
        marker_pen,
        ("red", "green", "blue", "black"),
        symmetry="axis",
        rests=("side",),
    ),  # fmt: skip
    Kind("toy brick", toy_brick, BRIGHT),
    Kind("wooden block", wooden_block, (*BRIGHT, "brown")),
    Kind("dice", dice, ("white", "black", "red", "blue")),
    Kind("toy car", toy_car, ANY),
    Kind("ball", toy_ball, BRIGHT, symmetry="ball"),
    Kind("sponge", sponge, ("yellow", "pink", "blue", "orange")),
    Kind("candle", candle, ANY),
    Kind("remote control", remote_control, ("black", "white", "grey")),
)
LAPTOP = Kind("laptop", laptop, ("grey", "black", "white"))
