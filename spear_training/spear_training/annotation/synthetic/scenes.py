"""A generated scene: objects, what is around them, lamps, and where a camera might stand.

Placement: what stands on one level is kept apart by its rectangles; what stands on an object lies
within that object's support. So nothing can touch except what rests on what, and no physics is
needed. Then the cameras, what all scenes share, and the two families: table tops and rooms. The
world has z up; cameras have x right, y down, z forward.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_policy.inference.image_geometry import Fit
from spear_training.annotation.frame import intrinsics_in_picture
from spear_training.annotation.records import Intrinsics
from spear_training.annotation.synthetic.furniture import ALONG_WALLS, FREE, ON_FURNITURE, legs
from spear_training.annotation.synthetic.meshes import Footprint, box, turn
from spear_training.annotation.synthetic.objects import (
    ON_TABLES,
    Kind,
    Part,
    PlacedObject,
    SyntheticObject,
    make_object,
    stand,
)
from spear_training.annotation.synthetic.textures import (
    COLOURS,
    Paint,
    cloth,
    plaster,
    stone,
    tiles,
    wood,
)

# Placement of objects --------------------------------------------------------------------------


GAP_M = 0.004
_TRIES = 30


@dataclass
class LevelPlane:
    """A level rectangle of the world, and what stands on it so far.

    Attributes:
        middle_m: (3,) its middle.
        half_m: half its length along its own two axes.
        yaw_rad: of its first axis.
        clearance_m: free height above it.
        taken: rectangles in the world that are in use.
    """

    middle_m: NDArray[np.float64]
    half_m: tuple[float, float]
    yaw_rad: float = 0.0
    clearance_m: float = 10.0
    taken: list[Footprint] = field(default_factory=list)

    def place(
        self, rng: np.random.Generator, object_: SyntheticObject, spread: float = 1.0
    ) -> PlacedObject | None:
        """Put an object somewhere free; None when no place was found.

        Args:
            spread: below 1 draws towards the middle.
        """
        low, high = object_.resting_box_m
        if high[2] - low[2] > self.clearance_m:
            return None
        for _ in range(_TRIES):
            offset = rng.uniform(-1, 1, 2) * self.half_m * spread
            placed = self.try_at(object_, offset, rng.uniform(-np.pi, np.pi))
            if placed is not None:
                return placed
        return None

    def try_at(
        self, object_: SyntheticObject, offset_m: NDArray, yaw_rad: float, gap_m: float = GAP_M
    ) -> PlacedObject | None:
        """Put an object at an offset (2,) from the middle, along the level's axes, if free."""
        spot = self.middle_m[:2] + turn(self.yaw_rad) @ offset_m
        placed = stand(object_, spot, yaw_rad + self.yaw_rad, self.middle_m[2])
        footprint = placed.footprint
        local_m = (footprint.corners_m - self.middle_m[:2]) @ turn(self.yaw_rad)
        if (np.abs(local_m) > self.half_m).any():
            return None
        if not all(footprint.apart_from(other, gap_m) for other in self.taken):
            return None
        self.taken.append(footprint)
        return placed


def levels_on(placed: PlacedObject) -> list[LevelPlane]:
    """The supports of an object that stands upright, in the world; none of one that lies."""
    if not np.allclose(placed.object.rest, np.eye(3)):
        return []
    return [
        LevelPlane(
            placed.axes @ np.array(support.centre_m) + placed.position_m,
            support.half_m,
            placed.yaw_rad,
            support.clearance_m,
        )
        for support in placed.object.body.supports
    ]


def place_all(
    rng: np.random.Generator,
    objects: Sequence[SyntheticObject],
    level: LevelPlane,
    stacked: float,
    spread: float,
) -> list[PlacedObject]:
    """Put objects on a level, biggest first, some of them on top of others; who fits nowhere goes.

    Args:
        stacked: chance that an object is tried on top of another first.
        spread: see LevelPlane.place.
    """
    by_size = sorted(objects, key=lambda one: -np.ptp(one.resting_box_m[:, :2], axis=0).prod())
    found: list[PlacedObject] = []
    upper: list[LevelPlane] = []
    for object_ in by_size:
        placed = None
        if upper and rng.random() < stacked:
            placed = upper[rng.integers(len(upper))].place(rng, object_)
        placed = placed or level.place(rng, object_, spread=spread)
        if placed is not None:
            found.append(placed)
            upper += levels_on(placed)
    return found


# Cameras ---------------------------------------------------------------------------------------


# Sizes of stored pictures, with how often they come.
SIZES_PX = {
    (640, 480): 0.35,
    (840, 630): 0.15,
    (1280, 720): 0.2,
    (720, 960): 0.12,
    (960, 540): 0.1,
    (600, 600): 0.08,
}
LARGEST_PX = (1280, 960)
FOV_DEG = (35.0, 70.0)


@dataclass(frozen=True)
class SyntheticCamera:
    """One camera in the world.

    Attributes:
        width_px, height_px: of its picture.
        intrinsics: by pixel centres.
        position_m: (3,) in the world.
        axes: (3, 3) in the world; the columns point right, down and forward.
    """

    width_px: int
    height_px: int
    intrinsics: Intrinsics
    position_m: NDArray[np.float64]
    axes: NDArray[np.float64]

    def in_camera(self, points_m: ArrayLike) -> NDArray[np.float64]:
        """World points (N, 3) in the camera's frame."""
        return (np.asarray(points_m, float) - self.position_m) @ self.axes

    def fitted(self, fit: Fit) -> "SyntheticCamera":
        """The camera of the picture that `fit` makes from this one's, padding included."""
        camera = intrinsics_in_picture(fit, self.intrinsics)
        return replace(self, width_px=fit.width, height_px=fit.height, intrinsics=camera)

    def part(
        self, left_px: int, top_px: int, width_px: int, height_px: int, scale: float = 1.0
    ) -> "SyntheticCamera":
        """The camera of a cut-out, which may reach beyond the picture, at `scale` its pixels."""
        camera = self.intrinsics
        intrinsics = Intrinsics(
            fx=camera.fx * scale,
            fy=camera.fy * scale,
            cx=(camera.cx + 0.5 - left_px) * scale - 0.5,
            cy=(camera.cy + 0.5 - top_px) * scale - 0.5,
        )
        width, height = round(width_px * scale), round(height_px * scale)
        return replace(self, width_px=width, height_px=height, intrinsics=intrinsics)


def looking_at(rng: np.random.Generator, position_m: NDArray, target_m: NDArray) -> SyntheticCamera:
    """A camera of random size and field of view at a place, its target near the middle."""
    sizes = list(SIZES_PX)
    width, height = sizes[rng.choice(len(sizes), p=list(SIZES_PX.values()))]
    focal = height / (2 * np.tan(np.radians(rng.uniform(*FOV_DEG)) / 2))
    fy = focal * rng.uniform(0.995, 1.005)
    cx, cy = np.array([width, height]) * rng.uniform(0.48, 0.52, 2) - 0.5
    camera = Intrinsics(fx=focal, fy=fy, cx=cx, cy=cy)
    forward = np.asarray(target_m, float) - position_m
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right = right / np.linalg.norm(right)
    level = np.column_stack([right, np.cross(forward, right)])
    axes = np.column_stack([level @ turn(rng.normal(0, np.radians(2.0))), forward])
    return SyntheticCamera(width, height, camera, np.asarray(position_m, float), axes)


# What scenes of both families share ------------------------------------------------------------


Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Lamp:
    """A lamp; the sun where `position_m` is None.

    Attributes:
        position_m: (3,) in the world.
        direction: (3,) that it shines in.
        rgb: how bright, by colour.
        shadow: whether objects throw shadows in its light.
    """

    position_m: NDArray[np.float64] | None
    direction: NDArray[np.float64]
    rgb: Colour
    shadow: bool


@dataclass(frozen=True)
class SyntheticScene:
    """All that is in a scene; the world has z up.

    Attributes:
        family: "table" or "room".
        objects: what has a name.
        backdrop: walls, floor and table: drawn, and never named.
        lamps: lights.
        ambient: light from everywhere, 0..1.
        sky: colours above and at the horizon, seen where nothing is in the way.
        reach_m: how far from the origin shadows are drawn.
        nearest_m: a camera with anything nearer than this is no good.
        views: cameras to choose from.
    """

    family: str
    objects: tuple[PlacedObject, ...]
    backdrop: tuple[Part, ...]
    lamps: tuple[Lamp, ...]
    ambient: float
    sky: tuple[Colour, Colour]
    reach_m: float
    nearest_m: float
    views: tuple[SyntheticCamera, ...]


def draw_objects(
    rng: np.random.Generator, kinds: Sequence[Kind], count: int, twins: float
) -> list[SyntheticObject]:
    """Objects of different kinds, at times two that share one label or differ by colour alone.

    Args:
        twins: chance of each object to have a second of its kind.
    """
    found: list[SyntheticObject] = []
    chosen = rng.choice(len(kinds), min(count, len(kinds)), replace=False)
    for kind in (kinds[number] for number in chosen):
        names = kind.colours or tuple(COLOURS)
        named = rng.random() < 0.5
        first, other = rng.choice(len(names), 2, replace=len(names) < 2)
        copies = 1 + (rng.random() < twins)
        for number in (first, first if rng.random() < 0.5 else other)[:copies]:
            found.append(make_object(rng, kind, names[number], named))
    return found


def some_floor(rng: np.random.Generator, half_m: NDArray, height_m: float) -> Part:
    """A floor about the z axis, with its top at a height."""
    rgb = rng.uniform(0.25, 0.8) + rng.uniform(-0.08, 0.08, 3)
    make = [lambda rng, rgb: wood(rng), tiles, cloth, stone][rng.integers(4)]
    tile_m, side_m = rng.uniform(0.8, 2.0), 2 * max(half_m)
    paint = replace(make(rng, rgb), repeat=side_m / tile_m)
    return Part(box([*(2 * half_m), 0.1], [0, 0, height_m - 0.05]), paint, shadow=False)


def some_wall(rng: np.random.Generator) -> Paint:
    """A paint for walls."""
    rgb = np.clip(rng.uniform(0.45, 0.92) + rng.uniform(-0.12, 0.12, 3), 0, 1)
    make, repeat = [(plaster, 1), (cloth, 3), (tiles, 3), (stone, 1)][
        rng.choice(4, p=[0.6, 0.15, 0.15, 0.1])
    ]
    return replace(make(rng, rgb), repeat=repeat)


def walls(half_m: NDArray, low_m: float, high_m: float, paint: Paint) -> list[Part]:
    """Four walls about the origin with their inner faces at +-`half_m` (x, y)."""
    thick_m, parts = 0.1, []
    for axis, side in ((0, 1), (0, -1), (1, 1), (1, -1)):
        size = np.array([*(2 * half_m), high_m - low_m])
        size[axis] = thick_m
        middle = np.array([0, 0, (high_m + low_m) / 2])
        middle[axis] = side * (half_m[axis] + thick_m / 2)
        parts.append(Part(box(size, middle), paint, shadow=False))
    return parts


def some_sky(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Colours for what is behind everything."""
    high, low = np.clip(rng.uniform(0.2, 0.9, (2, 1)) + rng.uniform(-0.1, 0.1, (2, 3)), 0, 1)
    return tuple(high), tuple(low)


def some_lamps(rng: np.random.Generator, suns: float, lift: float = 1.0) -> tuple[Lamp, ...]:
    """One to three lights above the origin, from warm to cool, a share of them suns.

    Args:
        suns: that share.
        lift: how much higher they are than above a table.
    """
    count = int(rng.integers(1, 4))
    bright = rng.dirichlet(np.full(count, 4.0)) * rng.uniform(0.65, 1.0)
    lamps = []
    for number in range(count):
        azimuth, height = rng.uniform(-np.pi, np.pi), lift * rng.uniform(0.7, 1.4)
        towards = np.array([np.cos(azimuth), np.sin(azimuth), height])
        position = None if rng.random() < suns else 1.5 * towards
        warmth = rng.uniform(-0.12, 0.12)
        rgb = tuple(bright[number] * np.array([1 + warmth, 1.0, 1 - warmth]))
        # The first one throws the shadows; each further shadow costs as much again.
        lamps.append(Lamp(position, -towards, rgb, shadow=number == 0))
    return tuple(lamps)


# Scenes on a table -----------------------------------------------------------------------------


VIEWS = 6
_TABLE_THICK_M, _FLOOR_Z_M = 0.035, -0.74


def table_top(rng: np.random.Generator) -> SyntheticScene:
    """A table with up to ten objects; the table's top is the plane z = 0."""
    half = rng.uniform([0.5, 0.4], [0.85, 0.6])
    objects = draw_objects(rng, ON_TABLES, int(rng.integers(3, 11)), twins=0.12)
    level = LevelPlane(np.zeros(3), tuple(half - 0.02))
    placed = place_all(rng, objects, level, stacked=0.25, spread=rng.uniform(0.3, 0.75))
    return SyntheticScene(
        family="table",
        objects=tuple(placed),
        backdrop=(*_table(rng, half), *_around(rng)),
        lamps=some_lamps(rng, suns=0.5),
        ambient=rng.uniform(0.22, 0.45),
        sky=some_sky(rng),
        reach_m=1.6,
        nearest_m=0.2,
        views=tuple(_view(rng, placed) for _ in range(VIEWS)),
    )


def _table(rng: np.random.Generator, half: NDArray) -> list[Part]:
    rgb = rng.uniform(0.2, 0.9) + rng.uniform(-0.08, 0.08, 3)
    paint = [wood(rng), stone(rng, rgb), cloth(rng, rgb)][rng.choice(3, p=[0.5, 0.25, 0.25])]
    top = box([*(2 * half), _TABLE_THICK_M], [0, 0, -_TABLE_THICK_M / 2])
    below = legs(*(half - 0.06), -_FLOOR_Z_M - _TABLE_THICK_M, 0.05, wood(rng, 64))
    down = [0, 0, _FLOOR_Z_M]
    return [Part(top, paint), *(Part(leg.surface.moved(down), leg.paint) for leg in below)]


def _around(rng: np.random.Generator) -> list[Part]:
    """A floor, and three times of four walls."""
    half = rng.uniform(2.0, 3.5, 2)
    parts = [some_floor(rng, half, _FLOOR_Z_M)]
    if rng.random() < 0.75:
        parts += walls(half, _FLOOR_Z_M, 2.2, some_wall(rng))
    return parts


def _view(rng: np.random.Generator, placed: list[PlacedObject]) -> SyntheticCamera:
    middle = np.mean([one.box.centre_m for one in placed], axis=0)
    target = middle + rng.normal(0, 0.04, 3)
    height, azimuth = np.radians(rng.uniform(15, 70)), rng.uniform(-np.pi, np.pi)
    away = [np.cos(height) * np.cos(azimuth), np.cos(height) * np.sin(azimuth), np.sin(height)]
    return looking_at(rng, target + rng.uniform(0.5, 1.6) * np.array(away), target)


# Scenes in a room ------------------------------------------------------------------------------


ROOM_VIEWS = 10
WALL_GAP_M = 0.03
# Yaw that turns the +y side of an object to the wall on this side of the axis x (0) or y (1).
_BACK_TO = {(1, 1.0): 0.0, (1, -1.0): np.pi, (0, 1.0): -np.pi / 2, (0, -1.0): np.pi / 2}


def room(rng: np.random.Generator) -> SyntheticScene:
    """A furnished room; its floor is the plane z = 0."""
    half, tall = rng.uniform(1.8, 3.2, 2), rng.uniform(2.4, 3.0)
    floor = LevelPlane(np.zeros(3), tuple(half - WALL_GAP_M))
    against = draw_objects(rng, ALONG_WALLS, int(rng.integers(2, 5)), twins=0.1)
    furniture = _along_walls(rng, floor, against)
    free = draw_objects(rng, FREE, int(rng.integers(2, 6)), twins=0.25)
    furniture += place_all(rng, free, floor, stacked=0.0, spread=0.85)
    placed = list(furniture)
    for level in (level for one in furniture for level in levels_on(one)):
        small = draw_objects(rng, ON_FURNITURE, int(rng.integers(0, 4)), twins=0.1)
        placed += place_all(rng, small, level, stacked=0.1, spread=0.9)
    return SyntheticScene(
        family="room",
        objects=tuple(placed),
        backdrop=(*_shell(rng, half, tall), *_openings(rng, half, tall)),
        # In a room the shadows of a lamp are too coarse, and those of a low sun speckled.
        lamps=some_lamps(rng, suns=1.0, lift=2.5),
        ambient=rng.uniform(0.32, 0.5),
        sky=some_sky(rng),
        reach_m=4.5,
        nearest_m=0.4,
        views=tuple(_views(rng, half, placed)),
    )


def _along_walls(
    rng: np.random.Generator, floor: LevelPlane, objects: list[SyntheticObject]
) -> list[PlacedObject]:
    """Put furniture with its back, its +y side, against a wall."""
    found = []
    for object_ in objects:
        half_deep = np.diff(object_.resting_box_m, axis=0)[0, 1] / 2
        for _ in range(12):
            axis, side = int(rng.integers(2)), rng.choice([-1.0, 1.0])
            offset = rng.uniform(-1, 1, 2) * floor.half_m
            offset[axis] = side * (floor.half_m[axis] - half_deep - 1e-6)
            placed = floor.try_at(object_, offset, _BACK_TO[axis, side], gap_m=0.02)
            if placed is not None:
                found.append(placed)
                break
    return found


def _shell(rng: np.random.Generator, half: NDArray, tall: float) -> list[Part]:
    ceiling = box([*(2 * half), 0.1], [0, 0, tall + 0.05])
    return [
        some_floor(rng, half, 0.0),
        Part(ceiling, plaster(rng, [0.9, 0.9, 0.88]), shadow=False),
        *walls(half, 0.0, tall, some_wall(rng)),
    ]


def _openings(rng: np.random.Generator, half: NDArray, tall: float) -> list[Part]:
    """A window on the wall at +y and a door at +x, as flat panels."""
    wide, high = rng.uniform([1.0, 0.9], [1.8, 1.3])
    frame, pane = Paint((0.92, 0.92, 0.92)), Paint(tuple(rng.uniform(0.75, 0.98, 3)), specular=0.9)
    x, z = rng.uniform(-0.4, 0.4) * half[0], tall - 0.35 - high / 2
    y = rng.uniform(-0.5, 0.5) * half[1]
    panels = [
        (box([wide, 0.012, high], [x, half[1], z]), frame),
        (box([wide - 0.14, 0.016, high - 0.14], [x, half[1], z]), pane),
        (box([0.016, 0.9, 2.0], [half[0], y, 1.0]), wood(rng)),
    ]
    return [Part(surface, paint, shadow=False) for surface, paint in panels]


def _views(
    rng: np.random.Generator, half: NDArray, placed: list[PlacedObject]
) -> list[SyntheticCamera]:
    """Cameras inside the room, clear of the furniture, that look at a part of it."""
    spots = np.array([one.box.centre_m for one in placed])
    middle = spots[:, :2].mean(axis=0)
    # A camera in an object, or just above it, sees nothing else.
    low = np.array([one.vertices_m.min(axis=0) for one in placed]) - 0.25
    high = np.array([one.vertices_m.max(axis=0) for one in placed]) + 0.25
    found: list[SyntheticCamera] = []
    for _ in range(40 * ROOM_VIEWS):
        place = np.array([*(rng.uniform(-1, 1, 2) * (half - 0.25)), rng.uniform(0.9, 2.1)])
        spot = spots[rng.integers(len(spots))]
        target = np.array([*(0.5 * (spot[:2] + middle)), rng.uniform(0.3, 0.9)])
        free = not ((place > low) & (place < high)).all(axis=1).any()
        if free and 1.5 <= np.linalg.norm(target - place) <= 6.0:
            found.append(looking_at(rng, place, target))
            if len(found) == ROOM_VIEWS:
                break
    return found
