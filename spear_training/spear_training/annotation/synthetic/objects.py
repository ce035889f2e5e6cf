"""Things with names: what they are made of, how they rest, and where they stand in a scene."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from spear_training.annotation.boxes import OrientedBox
from spear_training.annotation.synthetic.meshes import (
    Footprint,
    Surface,
    arc,
    ball,
    box,
    cylinder,
    ring,
    round_body,
    tube,
    turn,
)
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

# On its foot; as it is built, but tilted until it does not rock; on its side, so that its z axis
# lies down; on its back, so that its y axis points up.
Rest = Literal["up", "flat", "side", "back"]
_LAID_DEG = {"flat": (0, 0), "side": (0, 90), "back": (90, 0)}  # turned about x, then about y
# Its z axis; its middle, as a ball; nothing.
Symmetry = Literal["axis", "ball"] | None


@dataclass(frozen=True)
class Part:
    """A surface in one paint.

    Attributes:
        surface, paint: what it is.
        shadow: whether it throws one.
    """

    surface: Surface
    paint: Paint
    shadow: bool = True


@dataclass(frozen=True)
class Support:
    """A level rectangle that other things may stand on.

    Attributes:
        centre_m: its middle (x, y, z).
        half_m: half its length along x and along y.
        clearance_m: free height above it.
    """

    centre_m: tuple[float, float, float]
    half_m: tuple[float, float]
    clearance_m: float = 10.0


@dataclass(frozen=True)
class Body:
    """What a thing is made of, in its own frame, z up; and what can stand on it."""

    parts: list[Part]
    supports: tuple[Support, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A sort of thing.

    Attributes:
        word: what it is called.
        build: makes one, of a size and shape drawn anew, in the colour given.
        colours: those that its label may name; none: its colour would not tell it from others.
        symmetry: what it may be turned about by any angle and look the same.
        rests: ways in which it may lie, drawn evenly.
    """

    word: str
    build: Callable[[np.random.Generator, tuple[float, float, float]], Body]
    colours: tuple[str, ...] = ()
    symmetry: Symmetry = None
    rests: tuple[Rest, ...] = ("up",)


@dataclass(frozen=True)
class SyntheticObject:
    """One thing with a label, not yet anywhere.

    Attributes:
        label: its name in the annotation.
        body: its parts.
        symmetry: see Kind.
        rest: (3, 3) turns its own frame as it lies on a level ground.
    """

    label: str
    body: Body
    symmetry: Symmetry
    rest: NDArray[np.float64]

    @cached_property
    def vertices_m(self) -> NDArray[np.float64]:
        """All vertices (V, 3) in its own frame."""
        return np.concatenate([part.surface.vertices_m for part in self.body.parts])

    @cached_property
    def resting_box_m(self) -> NDArray[np.float64]:
        """Low and high corner (2, 3) of the rested thing, not yet turned about the vertical."""
        rested = self.vertices_m @ self.rest.T
        return np.stack([rested.min(axis=0), rested.max(axis=0)])

    @property
    def footprint_m2(self) -> float:
        """Area that it takes up on the ground."""
        low, high = self.resting_box_m
        return float((high - low)[:2].prod())


@dataclass(frozen=True)
class Placed:
    """A thing at its place.

    Attributes:
        thing: what stands there.
        position_m: (3,) of the origin of its own frame, in the world.
        yaw_rad: turned about the vertical after it was laid down.
    """

    thing: SyntheticObject
    position_m: NDArray[np.float64]
    yaw_rad: float

    @cached_property
    def axes(self) -> NDArray[np.float64]:
        """Its own axes (columns, 3x3) in the world."""
        return Rotation.from_euler("z", self.yaw_rad).as_matrix() @ self.thing.rest

    @cached_property
    def vertices_m(self) -> NDArray[np.float64]:
        """All vertices (V, 3) in the world."""
        return self.thing.vertices_m @ self.axes.T + self.position_m

    @cached_property
    def box(self) -> OrientedBox:
        """The box around it along its own axes, in the world."""
        low, high = self.thing.vertices_m.min(axis=0), self.thing.vertices_m.max(axis=0)
        centre = self.axes @ ((low + high) / 2) + self.position_m
        return OrientedBox(centre, self.axes, high - low)

    @cached_property
    def footprint(self) -> Footprint:
        """What it takes up on the ground."""
        low, high = self.thing.resting_box_m[:, :2]
        centre = self.position_m[:2] + turn(self.yaw_rad) @ (low + high) / 2
        return Footprint(centre, (high - low) / 2, self.yaw_rad)


def stand(thing: SyntheticObject, spot_m: NDArray, yaw_rad: float, height_m: float) -> Placed:
    """Put the middle of a thing's footprint at `spot_m` (2,), resting at `height_m`."""
    low, high = thing.resting_box_m
    middle = turn(yaw_rad) @ (low + high)[:2] / 2
    return Placed(thing, np.array([*(spot_m - middle), height_m - low[2]]), yaw_rad)


def make_thing(
    rng: np.random.Generator, kind: Kind, colour_name: str | None, rgb: tuple, name_the_colour: bool
) -> SyntheticObject:
    """Build one of a kind, with its label and a way to lie."""
    body = kind.build(rng, rgb)
    named = name_the_colour and colour_name is not None
    label = f"{colour_name} {kind.word}" if named else kind.word
    vertices = np.concatenate([part.surface.vertices_m for part in body.parts])
    rest = rest_axes(vertices, kind.rests[rng.integers(len(kind.rests))])
    return SyntheticObject(label, body, kind.symmetry, rest)


def rest_axes(vertices_m: NDArray, rest: Rest) -> NDArray:
    """How vertices (V, 3) turn to come to rest, as a rotation matrix.

    A thing that does not stand tilts until two points of its lower outline, one on either side of
    its middle, are level.
    """
    if rest == "up":
        return np.eye(3)
    laid = Rotation.from_euler("xy", _LAID_DEG[rest], degrees=True).as_matrix()
    outline = (vertices_m @ laid.T)[:, [0, 2]]
    hull = ConvexHull(outline)
    middle = (outline[:, 0].min() + outline[:, 0].max()) / 2
    for ends, equation in zip(outline[hull.simplices], hull.equations, strict=True):
        left, right = ends[ends[:, 0].argsort()]
        if equation[1] < 0 and left[0] < right[0] and left[0] <= middle <= right[0]:
            slope = np.arctan2(right[1] - left[1], right[0] - left[0])
            return Rotation.from_euler("y", slope).as_matrix() @ laid
    return laid


# Kinds of things from a kitchen: crockery, food, packages --------------------------------------


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


# Kinds of things from a desk, a workshop and a toy box -----------------------------------------


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


# Kinds of food: fruit, vegetables, bread -------------------------------------------------------


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


# Kinds of what makes a room lived in -----------------------------------------------------------


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
