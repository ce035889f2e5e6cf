"""Objects with names: what they are made of, how they rest, and where they stand in a scene.

First what every object has (parts, supports, a kind, a place), then the kinds of small objects.
Furniture is in furniture.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from spear_training.annotation.boxes import OrientedBox
from spear_training.annotation.synthetic.meshes import (
    Footprint,
    Surface,
    ball,
    box,
    cylinder,
    round_body,
    tube,
    turn,
)
from spear_training.annotation.synthetic.textures import (
    COLOURS,
    Paint,
    colour,
    metal,
    printed,
    some_paint,
    stone,
    wood,
)

# How a rotation matrix lays an object down: as it is built, on its side, on its back.
REST_AXES = {
    "up": np.eye(3),
    "side": np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]),  # its z axis lies
    "back": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),  # its y axis points up
}
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
    """A level rectangle that other objects may stand on.

    Attributes:
        centre_m: its middle (x, y, z).
        half_m: half its length along x and along y.
        clearance_m: free height above it.
    """

    centre_m: tuple[float, float, float]
    half_m: tuple[float, float]
    clearance_m: float = 10.0


def top_of(size_m: NDArray, rim_m: float = 0.0) -> tuple[Support]:
    """The top of a box (3,) that stands on the origin, but for a rim."""
    half_m = np.asarray(size_m[:2]) / 2 - rim_m
    return (Support((0.0, 0.0, size_m[2]), tuple(half_m)),)


@dataclass(frozen=True)
class Body:
    """What an object is made of, in its own frame, z up; and what can stand on it."""

    parts: list[Part]
    supports: tuple[Support, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A sort of object.

    Attributes:
        word: what it is called.
        build: makes one, of a size and shape drawn anew, in the colour given.
        colours: those that its label may name; none: its colour would not tell it from others.
        symmetry: what it may be turned about by any angle and look the same.
        rests: ways in which it may lie, of REST_AXES, drawn evenly.
    """

    word: str
    build: Callable[[np.random.Generator, tuple[float, float, float]], Body]
    colours: tuple[str, ...] = ()
    symmetry: Symmetry = None
    rests: tuple[str, ...] = ("up",)


@dataclass(frozen=True)
class SyntheticObject:
    """One object with a label, not yet anywhere.

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
        """Low and high corner (2, 3) of the rested object, not yet turned about the vertical."""
        rested = self.vertices_m @ self.rest.T
        return np.stack([rested.min(axis=0), rested.max(axis=0)])


@dataclass(frozen=True)
class PlacedObject:
    """An object at its place.

    Attributes:
        object: what stands there.
        position_m: (3,) of the origin of its own frame, in the world.
        yaw_rad: turned about the vertical after it was laid down.
    """

    object: SyntheticObject
    position_m: NDArray[np.float64]
    yaw_rad: float

    @cached_property
    def axes(self) -> NDArray[np.float64]:
        """Its own axes (columns, 3x3) in the world."""
        return Rotation.from_euler("z", self.yaw_rad).as_matrix() @ self.object.rest

    @cached_property
    def vertices_m(self) -> NDArray[np.float64]:
        """All vertices (V, 3) in the world."""
        return self.object.vertices_m @ self.axes.T + self.position_m

    @cached_property
    def box(self) -> OrientedBox:
        """The box around it along its own axes, in the world."""
        low, high = self.object.vertices_m.min(axis=0), self.object.vertices_m.max(axis=0)
        centre = self.axes @ ((low + high) / 2) + self.position_m
        return OrientedBox(centre, self.axes, high - low)

    @cached_property
    def footprint(self) -> Footprint:
        """What it takes up on the ground."""
        low, high = self.object.resting_box_m[:, :2]
        centre = self.position_m[:2] + turn(self.yaw_rad) @ (low + high) / 2
        return Footprint(centre, (high - low) / 2, self.yaw_rad)


def stand(
    object_: SyntheticObject, spot_m: NDArray, yaw_rad: float, height_m: float
) -> PlacedObject:
    """Put the middle of an object's footprint at `spot_m` (2,), resting at `height_m`."""
    low, high = object_.resting_box_m
    middle = turn(yaw_rad) @ (low + high)[:2] / 2
    return PlacedObject(object_, np.array([*(spot_m - middle), height_m - low[2]]), yaw_rad)


def make_object(
    rng: np.random.Generator, kind: Kind, colour_name: str, name_the_colour: bool
) -> SyntheticObject:
    """Build one of a kind in a shade of a colour, with its label and a way to lie."""
    body = kind.build(rng, colour(rng, colour_name))
    label = f"{colour_name} {kind.word}" if name_the_colour and kind.colours else kind.word
    rest = kind.rests[rng.integers(len(kind.rests))]
    return SyntheticObject(label, body, kind.symmetry, REST_AXES[rest])


# Kinds of small objects ------------------------------------------------------------------------


BRIGHT = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "turquoise")
ANY = tuple(COLOURS)


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
    angles, reach = np.linspace(-np.pi / 2, np.pi / 2, 13), rng.uniform(0.022, 0.034)
    path = [(radius + foot) / 2 - 0.002, 0, height / 2] + np.column_stack(
        [reach * np.cos(angles), 0 * angles, 0.32 * height * np.sin(angles)]
    )
    handle = tube(path, rng.uniform(0.004, 0.0065))
    cup = Part(vessel(foot, radius, height, 0.0035, 1.0), glaze)
    return Body([cup, Part(handle, replace(glaze, texture=None))])


def bowl(rng, rgb):
    rim = rng.uniform(0.06, 0.13)
    surface = vessel(rim * rng.uniform(0.4, 0.65), rim, rim * rng.uniform(0.5, 0.85), 0.004, 0.55)
    return Body([Part(surface, some_paint(rng, rgb, 0.6))])


def plate(rng, rgb):
    rim, height = rng.uniform(0.08, 0.14), rng.uniform(0.014, 0.026)
    foot, rise = 0.62 * rim, 0.006
    outline = [[0, 0], [foot, 0], [0.8 * rim, 0.4 * height], [rim, height], [rim, height + 0.003],
               [0.8 * rim, 0.4 * height + rise], [foot, rise], [0, rise]]  # fmt: skip
    inner = 1.34 * foot  # the side of a square within the foot
    return Body(
        [Part(round_body(outline), some_paint(rng, rgb, 0.6))], top_of((inner, inner, rise))
    )


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


def frying_pan(rng, rgb):
    rim, height = rng.uniform(0.09, 0.13), rng.uniform(0.035, 0.05)
    pan = vessel(0.8 * rim, rim, height, 0.003, 1.0)
    length = rng.uniform(0.13, 0.18)
    path = [[rim - 0.006, 0, 0.75 * height], [rim + 0.3 * length, 0, 0.9 * height],
            [rim + length, 0, 1.1 * height]]  # fmt: skip
    handle = tube(path, [0.007, 0.010, 0.011])
    return Body([Part(pan, Paint(rgb, specular=0.5, shininess=0.6)),
                 Part(handle, Paint((0.08, 0.08, 0.08), specular=0.2))])  # fmt: skip


def book(rng, rgb):
    wide, deep, thick = rng.uniform([0.13, 0.19, 0.015], [0.2, 0.28, 0.05])
    board = 0.003
    cover = printed(rng, rgb)
    pages = box([wide - 0.006, deep - 0.010, thick - 2 * board], [0.001, 0, thick / 2])
    spine = box([board, deep, thick], [-wide / 2 + board / 2, 0, thick / 2])
    boards = [box([wide, deep, board], [0, 0, z]) for z in (board / 2, thick - board / 2)]
    paper = Part(pages, Paint((0.92, 0.90, 0.83), specular=0.05))
    bound = [Part(surface, cover) for surface in (*boards, spine)]
    return Body([*bound, paper], top_of((wide, deep, thick)))


def parcel(rng, rgb):
    size = rng.uniform([0.12, 0.10, 0.06], [0.26, 0.2, 0.16])
    card = Paint((0.66, 0.50, 0.34), specular=0.05)
    tape = box([size[0] + 0.0006, 0.04, size[2] + 0.0006], [0, 0, size[2] / 2])
    band = Part(tape, Paint((0.78, 0.66, 0.46), specular=0.5))
    return Body([Part(box(size, [0, 0, size[2] / 2]), card), band], top_of(size + 0.0003))


def roll_of_tape(rng, rgb):
    outer = rng.uniform(0.035, 0.055)
    inner, width = outer * rng.uniform(0.55, 0.75), rng.uniform(0.018, 0.05)
    low, high, between = 0.001, width - 0.001, inner + 0.003
    tape = [[between, low], [outer, low], [outer, high], [between, high], [between, low]]
    core = [[inner, 0], [between, 0], [between, width], [inner, width], [inner, 0]]
    return Body([Part(round_body(tape), Paint(rgb, specular=0.6, shininess=0.7)),
                 Part(round_body(core), Paint((0.7, 0.6, 0.45)))])  # fmt: skip


def toy_ball(rng, rgb):
    return Body([Part(ball(rng.uniform(0.025, 0.075)), some_paint(rng, rgb, 0.5))])


def apple(rng, rgb):
    radius = rng.uniform(0.032, 0.043)
    skin = [(0.72, 0.10, 0.10), (0.55, 0.70, 0.16), (0.85, 0.70, 0.2)][rng.integers(3)]
    flesh = ball(radius).stretched([1, 1, 0.9]).moved([0, 0, 0.9 * radius])
    stalk = tube([[0, 0, 1.7 * radius], [0.001, 0, 1.9 * radius], [0.004, 0, 2.2 * radius]], 0.0015)
    return Body([Part(flesh, replace(stone(rng, skin, 64), specular=0.25)),
                 Part(stalk, Paint((0.3, 0.2, 0.1)))])  # fmt: skip


def banana(rng, rgb):
    bend, thick = rng.uniform(0.9, 1.5), rng.uniform(0.015, 0.019)
    radius = rng.uniform(0.15, 0.19) / bend
    angles = np.linspace(-bend / 2, bend / 2, 17)
    path = radius * np.column_stack([np.sin(angles), 1 - np.cos(angles), 0 * angles])
    along = np.linspace(-1, 1, 17)
    width = thick * np.clip(1.05 - np.abs(along) ** 5, 0.25, 1)
    skin = Paint(tuple(np.array([0.93, 0.80, 0.20]) + rng.normal(0, 0.03, 3)), specular=0.2)
    return Body([Part(tube(path, width, 8), skin)])


def cereal_box(rng, rgb):
    size = rng.uniform([0.13, 0.045, 0.19], [0.21, 0.08, 0.31])
    return Body([Part(box(size, [0, 0, size[2] / 2]), printed(rng, rgb))])


def chopping_board(rng, rgb):
    size = rng.uniform([0.22, 0.15, 0.012], [0.34, 0.22, 0.022])
    return Body([Part(box(size, [0, 0, size[2] / 2]), wood(rng))], top_of(size))


# Those that one can still make out from across a room.
BIG_ENOUGH_FOR_ROOMS = (
    Kind("book", book, BRIGHT, rests=("up", "up", "up", "back")),
    Kind("box", parcel),
    Kind("ball", toy_ball, BRIGHT, symmetry="ball"),
    Kind("bowl", bowl, ANY, symmetry="axis"),
    Kind("bottle", bottle, BRIGHT, symmetry="axis", rests=("up", "up", "side")),
    Kind("cereal box", cereal_box, BRIGHT, rests=("up", "up", "back")),
    Kind("frying pan", frying_pan, ("black", "grey", "red")),
)
ON_TABLES = (
    *BIG_ENOUGH_FOR_ROOMS,
    Kind("mug", mug, ANY),
    Kind("plate", plate, ANY, symmetry="axis"),
    Kind("can", can, BRIGHT, symmetry="axis", rests=("up", "up", "side")),
    Kind("chopping board", chopping_board),
    Kind("roll of tape", roll_of_tape, ANY, symmetry="axis", rests=("up", "side")),
    Kind("apple", apple),
    Kind("banana", banana),
)
