"""Things with names: what they are made of, how they rest, and where they stand in a scene."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from spear_training.annotation.boxes.oriented_box import OrientedBox
from spear_training.annotation.scenes.footprint import Footprint, turn
from spear_training.annotation.scenes.paints import Paint
from spear_training.annotation.scenes.surfaces import Surface

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
class Thing:
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

    thing: Thing
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


def stand(thing: Thing, spot_m: NDArray, yaw_rad: float, height_m: float) -> Placed:
    """Put the middle of a thing's footprint at `spot_m` (2,), resting at `height_m`."""
    low, high = thing.resting_box_m
    middle = turn(yaw_rad) @ (low + high)[:2] / 2
    return Placed(thing, np.array([*(spot_m - middle), height_m - low[2]]), yaw_rad)


def make_thing(
    rng: np.random.Generator, kind: Kind, colour_name: str | None, rgb: tuple, name_the_colour: bool
) -> Thing:
    """Build one of a kind, with its label and a way to lie."""
    body = kind.build(rng, rgb)
    named = name_the_colour and colour_name is not None
    label = f"{colour_name} {kind.word}" if named else kind.word
    vertices = np.concatenate([part.surface.vertices_m for part in body.parts])
    rest = rest_axes(vertices, kind.rests[rng.integers(len(kind.rests))])
    return Thing(label, body, kind.symmetry, rest)


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
