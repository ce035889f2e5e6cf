"""Kinds of things from a kitchen: crockery, food, packages."""

from dataclasses import replace

import numpy as np

from spear_training.annotation.scenes.paints import Paint, metal, printed, some_paint, wood
from spear_training.annotation.scenes.surfaces import (
    Surface,
    arc,
    ball,
    box,
    cylinder,
    round_body,
    tube,
)
from spear_training.annotation.scenes.things import Body, Kind, Part, Support

BRIGHT = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "turquoise")
ANY = (*BRIGHT, "brown", "black", "white", "grey")


def vessel(foot_m: float, rim_m: float, height_m: float, wall_m: float, bulge: float) -> Surface:
    """An open vessel from its two radii; `bulge` 1 is a straight wall, below it is rounder."""
    floor = 1.5 * wall_m
    part = np.linspace(0, 1, 9)[1:]
    outside = np.column_stack([foot_m + (rim_m - foot_m) * part**bulge, height_m * part])
    inner_height = floor + (height_m - floor) * part
    inside = np.column_stack([outside[:, 0] - wall_m, inner_height])
    well = [[max(foot_m - wall_m, 0.3 * foot_m), floor], [0, floor]]
    return round_body([[0, 0], [foot_m, 0], *outside, *inside[::-1], *well])


def mug(rng, rgb):
    radius, height = rng.uniform(0.034, 0.048), rng.uniform(0.075, 0.115)
    foot = radius * rng.uniform(0.8, 1.0)
    glaze = some_paint(rng, rgb, 0.6)
    middle = (radius + foot) / 2 - 0.002
    reach = np.array([rng.uniform(0.022, 0.034), 0, 0])
    path = arc([middle, 0, 0.5 * height], reach, [0, 0, 0.32 * height], -np.pi / 2, np.pi / 2)
    handle = tube(path, rng.uniform(0.004, 0.0065))
    return Body([
        Part(vessel(foot, radius, height, 0.0035, 1.0), glaze),
        Part(handle, replace(glaze, texture=None)),
    ])  # fmt: skip


def cup(rng, rgb):
    height, rim = rng.uniform(0.08, 0.13), rng.uniform(0.035, 0.045)
    return Body([Part(vessel(rim * 0.72, rim, height, 0.002, 1.0), some_paint(rng, rgb, 0.2))])


def bowl(rng, rgb):
    rim = rng.uniform(0.06, 0.13)
    surface = vessel(rim * rng.uniform(0.4, 0.65), rim, rim * rng.uniform(0.5, 0.85), 0.004, 0.55)
    return Body([Part(surface, some_paint(rng, rgb, 0.6))])


def plate(rng, rgb):
    rim, height = rng.uniform(0.08, 0.14), rng.uniform(0.014, 0.026)
    foot, rise = 0.62 * rim, 0.006
    outline = [[0, 0], [foot, 0], [0.8 * rim, 0.4 * height], [rim, height], [rim, height + 0.003],
               [0.8 * rim, 0.4 * height + rise], [foot, rise], [0, rise]]  # fmt: skip
    inner = foot / np.sqrt(2) * 0.95
    support = Support((0.0, 0.0, rise), (inner, inner))
    return Body([Part(round_body(outline), some_paint(rng, rgb, 0.6))], (support,))


def bottle(rng, rgb):
    radius, height = rng.uniform(0.028, 0.045), rng.uniform(0.19, 0.31)
    neck, shoulder = rng.uniform(0.30, 0.42) * radius, rng.uniform(0.55, 0.72) * height
    bend = np.linspace(0, 1, 8)
    flank = np.column_stack([
        neck + (radius - neck) * (0.5 + 0.5 * np.cos(np.pi * bend)),
        shoulder + (0.88 * height - shoulder) * bend,
    ])  # fmt: skip
    outline = [[0, 0], [0.9 * radius, 0], [radius, 0.03 * height], *flank, [neck, 0.95 * height],
               [0, 0.95 * height]]  # fmt: skip
    cap = cylinder(1.15 * neck, 0.93 * height, height)
    band = cylinder(1.01 * radius, 0.18 * height, 0.9 * shoulder)
    lid = Paint(tuple(rng.uniform(0.05, 0.9, 3)), specular=0.3)
    glass = Paint(rgb, specular=0.9, shininess=0.9)
    return Body([
        Part(round_body(outline), glass), Part(cap, lid), Part(band, printed(rng, rgb)),
    ])  # fmt: skip


def can(rng, rgb):
    radius, height = rng.uniform(0.029, 0.052), rng.uniform(0.08, 0.14)
    lid, steel = 0.9 * radius, metal(rng)
    inner, sunk = lid - 0.002, height - 0.003
    outline = [[0, 0], [lid, 0], [radius, 0.004], [radius, height - 0.004], [lid, height],
               [inner, height], [inner, sunk], [0, sunk]]  # fmt: skip
    band = cylinder(radius + 0.0003, 0.006, height - 0.006)
    return Body([Part(round_body(outline), steel), Part(band, printed(rng, rgb))])


def cereal_box(rng, rgb):
    size = rng.uniform([0.13, 0.045, 0.19], [0.21, 0.08, 0.31])
    return Body([Part(box(size, [0, 0, size[2] / 2]), printed(rng, rgb))])


def carton(rng, rgb):
    side, height = rng.uniform(0.06, 0.08), rng.uniform(0.13, 0.20)
    ridge = 0.45 * side
    base = box([side, side, height], [0, 0, height / 2])
    # The roof is a box whose upper corners meet in a ridge.
    roof = box([side, side, ridge], [0, 0, height + ridge / 2])
    high = roof.vertices_m[:, 2] > height + ridge / 2
    pinched = np.where(high[:, None], roof.vertices_m * [1, 0.04, 1], roof.vertices_m)
    roof = replace(roof, vertices_m=pinched)
    fin = box([side, 0.003, 0.018], [0, 0, height + ridge + 0.008])
    paint = printed(rng, rgb)
    return Body([Part(base, paint), Part(roof, replace(paint, texture=None)),
                 Part(fin, replace(paint, texture=None))])  # fmt: skip


def jar(rng, rgb):
    radius, height = rng.uniform(0.03, 0.05), rng.uniform(0.07, 0.14)
    outline = [[0, 0], [radius, 0], [radius, 0.8 * height], [0.82 * radius, 0.87 * height],
               [0.82 * radius, 0.9 * height], [0, 0.9 * height]]  # fmt: skip
    contents = Paint(tuple(rng.uniform(0.15, 0.85, 3)), specular=0.9, shininess=0.9)
    lid = cylinder(0.9 * radius, 0.86 * height, height)
    return Body([Part(round_body(outline), contents), Part(lid, some_paint(rng, rgb, 0.4))])


def teapot(rng, rgb):
    radius = rng.uniform(0.06, 0.08)
    angles = np.linspace(-1.0, 1.15, 13)
    flank = np.column_stack([radius * np.cos(angles), 0.8 * radius * (np.sin(angles) + np.sin(1))])
    top = flank[-1]
    body = round_body([[0, 0], *flank, [0, top[1]]])
    lid = ball(0.95 * top[0]).stretched([1, 1, 0.35]).moved([0, 0, top[1]])
    knob = ball(0.011).moved([0, 0, top[1] + 0.33 * top[0] + 0.008])
    out = np.array([radius, 0, 0.6 * radius])
    spout = [out * [0.85, 1, 0.8], out * [1.25, 1, 1.1], out * [1.45, 1, 1.9], out * [1.7, 1, 2.3]]
    grip = arc([-0.8 * radius, 0, 0.75 * radius], [-0.75 * radius, 0, 0],
               [0, 0, 0.5 * radius], -np.pi / 2, np.pi / 2)  # fmt: skip
    glaze = some_paint(rng, rgb, 0.7)
    plain = replace(glaze, texture=None)
    return Body([Part(body, glaze), Part(lid, plain), Part(knob, plain),
                 Part(tube(spout, [0.017, 0.012, 0.009, 0.008]), plain),
                 Part(tube(grip, 0.006), plain)])  # fmt: skip


def frying_pan(rng, rgb):
    rim, height = rng.uniform(0.09, 0.13), rng.uniform(0.035, 0.05)
    pan = vessel(0.8 * rim, rim, height, 0.003, 1.0)
    length = rng.uniform(0.13, 0.18)
    path = [[rim - 0.006, 0, 0.75 * height], [rim + 0.3 * length, 0, 0.9 * height],
            [rim + length, 0, 1.1 * height]]  # fmt: skip
    handle = tube(path, [0.007, 0.010, 0.011])
    return Body([Part(pan, Paint(rgb, specular=0.5, shininess=0.6)),
                 Part(handle, Paint((0.08, 0.08, 0.08), specular=0.2))])  # fmt: skip


def saucepan(rng, rgb):
    radius, height = rng.uniform(0.07, 0.11), rng.uniform(0.08, 0.13)
    enamel = some_paint(rng, rgb, 0.7)
    parts = [Part(vessel(radius, radius, height, 0.003, 1.0), enamel)]
    for side in (-1, 1):
        path = arc([side * (radius - 0.002), 0, 0.8 * height], [side * 0.03, 0, 0],
                   [0, 0.03, 0], -np.pi / 2, np.pi / 2)  # fmt: skip
        parts.append(Part(tube(path, 0.005), Paint((0.1, 0.1, 0.1), specular=0.3)))
    return Body(parts)


def chopping_board(rng, rgb):
    size = rng.uniform([0.22, 0.15, 0.012], [0.34, 0.22, 0.022])
    support = Support((0.0, 0.0, size[2]), (size[0] / 2, size[1] / 2))
    return Body([Part(box(size, [0, 0, size[2] / 2]), wood(rng))], (support,))


def wooden_spoon(rng, rgb):
    length, grain = rng.uniform(0.2, 0.3), wood(rng, 64)
    scoop = ball(1.0).stretched([0.035, 0.024, 0.008]).moved([0.03, 0, 0])
    stick = tube([[0.05, 0, 0], [0.12, 0, 0.001], [length, 0, 0.003]], [0.005, 0.0045, 0.0055])
    return Body([Part(scoop, grain), Part(stick, grain)])


KITCHEN = (
    Kind("mug", mug, ANY),
    Kind("cup", cup, ANY, symmetry="axis"),
    Kind("bowl", bowl, ANY, symmetry="axis"),
    Kind("plate", plate, ANY, symmetry="axis"),
    Kind("bottle", bottle, BRIGHT, symmetry="axis", rests=("up", "up", "side")),
    Kind("can", can, BRIGHT, symmetry="axis", rests=("up", "up", "side")),
    Kind("cereal box", cereal_box, BRIGHT, rests=("up", "up", "back")),
    Kind("milk carton", carton, BRIGHT),
    Kind("jar", jar, symmetry="axis"),
    Kind("teapot", teapot, ANY),
    Kind("frying pan", frying_pan, ("black", "grey", "red")),
    Kind("saucepan", saucepan, ANY),
    Kind("chopping board", chopping_board),
    Kind("wooden spoon", wooden_spoon, rests=("flat",)),
)
