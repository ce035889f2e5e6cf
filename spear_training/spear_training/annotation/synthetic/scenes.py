"""A generated scene: objects, what is around them, lamps, and where a camera might stand.

Placement: what stands on one level is kept apart by its rectangles; what stands on an object lies
within that object's support. So nothing can touch except what rests on what, and no physics is
needed. Then the cameras, what all scenes share, and the two families: table tops and rooms. The
world has z up; cameras have x right, y down, z forward.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_policy.inference.image_geometry import Fit
from spear_training.annotation.frame import intrinsics_in_picture
from spear_training.annotation.records import Intrinsics
from spear_training.annotation.synthetic.furniture import (
    ALONG_WALLS,
    FREE,
    FREE_DECOR,
    ON_FURNITURE,
    PICTURE,
    RUG,
)
from spear_training.annotation.synthetic.meshes import Footprint, box
from spear_training.annotation.synthetic.objects import (
    FOOD,
    KITCHEN,
    STATIONERY,
    Kind,
    Part,
    PlacedObject,
    Support,
    SyntheticObject,
    make_object,
    stand,
)
from spear_training.annotation.synthetic.textures import (
    COLOURS,
    Paint,
    cloth,
    colour,
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
        self,
        rng: np.random.Generator,
        object_: SyntheticObject,
        gap_m: float = GAP_M,
        spread: float = 1.0,
    ) -> PlacedObject | None:
        """Put an object somewhere free; None when no place was found.

        Args:
            gap_m: room to leave around it.
            spread: below 1 draws towards the middle.
        """
        low, high = object_.resting_box_m
        if high[2] - low[2] > self.clearance_m:
            return None
        for _ in range(_TRIES):
            offset = rng.uniform(-1, 1, 2) * self.half_m * spread
            placed = self.try_at(object_, offset, rng.uniform(-np.pi, np.pi), gap_m)
            if placed is not None:
                return placed
        return None

    def try_at(
        self, object_: SyntheticObject, offset_m: NDArray, yaw_rad: float, gap_m: float = GAP_M
    ) -> PlacedObject | None:
        """Put an object at an offset (2,) from the middle, along the level's axes, if free."""
        cos, sin = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        local = stand(object_, np.asarray(offset_m, float), yaw_rad, 0.0).footprint
        if not local.inside(self.half_m):
            return None
        spot = self.middle_m[:2] + np.array([[cos, -sin], [sin, cos]]) @ offset_m
        placed = stand(object_, spot, yaw_rad + self.yaw_rad, self.middle_m[2])
        footprint = placed.footprint
        if not all(footprint.apart_from(other, gap_m) for other in self.taken):
            return None
        self.taken.append(footprint)
        return placed


def levels_on(placed: PlacedObject) -> list[LevelPlane]:
    """The supports of an object that stands upright, in the world; none of one that lies."""
    if not np.allclose(placed.object.rest, np.eye(3)):
        return []
    return [_level(placed, support) for support in placed.object.body.supports]


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
    by_size = sorted(objects, key=lambda object_: -object_.footprint_m2)
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


def _level(placed: PlacedObject, support: Support) -> LevelPlane:
    middle = placed.axes @ np.array(support.centre_m) + placed.position_m
    return LevelPlane(middle, support.half_m, placed.yaw_rad, support.clearance_m)


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

    def project(self, points_m: ArrayLike) -> NDArray[np.float64]:
        """Pixels (N, 2) of points (N, 3) in the camera's frame, all of them in front of it."""
        return self.intrinsics.project(points_m)

    def fitted(self, fit: Fit) -> "SyntheticCamera":
        """The camera of the picture that `fit` makes from this one's, padding included."""
        camera = intrinsics_in_picture(fit, self.intrinsics)
        return replace(self, width_px=fit.width, height_px=fit.height, intrinsics=camera)

    def window(self, left_px: int, top_px: int, width_px: int, height_px: int) -> "SyntheticCamera":
        """The camera of a cut-out with the same pixels, which may reach beyond the picture."""
        camera = self.intrinsics
        moved = replace(camera, cx=camera.cx - left_px, cy=camera.cy - top_px)
        return replace(self, width_px=width_px, height_px=height_px, intrinsics=moved)

    def shrunk(self, factor: float) -> "SyntheticCamera":
        """The same picture with `factor` times the pixels a side; its sides must stay whole."""
        camera = self.intrinsics
        small = Intrinsics(
            fx=camera.fx * factor,
            fy=camera.fy * factor,
            cx=(camera.cx + 0.5) * factor - 0.5,
            cy=(camera.cy + 0.5) * factor - 0.5,
        )
        width, height = round(self.width_px * factor), round(self.height_px * factor)
        return replace(self, width_px=width, height_px=height, intrinsics=small)


def looking_at(rng: np.random.Generator, position_m: NDArray, target_m: NDArray) -> SyntheticCamera:
    """A camera of random size and field of view at a place, its target near the middle."""
    sizes = list(SIZES_PX)
    width, height = sizes[rng.choice(len(sizes), p=list(SIZES_PX.values()))]
    focal = height / (2 * np.tan(np.radians(rng.uniform(*FOV_DEG)) / 2))
    off_x, off_y = rng.uniform(-0.02, 0.02, 2)
    camera = Intrinsics(
        fx=focal,
        fy=focal * rng.uniform(0.995, 1.005),
        cx=(width - 1) / 2 + off_x * width,
        cy=(height - 1) / 2 + off_y * height,
    )
    forward = np.asarray(target_m, float) - position_m
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    roll = rng.normal(0, np.radians(2.0))
    cos, sin = np.cos(roll), np.sin(roll)
    axes = np.column_stack([cos * right + sin * down, cos * down - sin * right, forward])
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
        views: cameras to try, the best first.
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
        named = bool(kind.colours) and rng.random() < 0.5
        first, other = rng.choice(len(names), 2, replace=len(names) < 2)
        copies = 1 + (rng.random() < twins)
        for number in (first, first if rng.random() < 0.5 else other)[:copies]:
            name = names[number]
            rgb = colour(rng, name)
            found.append(make_object(rng, kind, name if kind.colours else None, rgb, named))
    return found


def some_floor(rng: np.random.Generator) -> Callable[[float], Paint]:
    """A paint for the floor; it is called with the side of the floor [m]."""
    rgb = rng.uniform(0.25, 0.8) + rng.uniform(-0.08, 0.08, 3)
    make = rng.choice(4)
    paint = wood(rng) if make == 0 else (tiles, cloth, stone)[make - 1](rng, rgb)
    tile_m = rng.uniform(0.8, 2.0)
    return lambda side_m: _repeated(paint, side_m / tile_m)


def some_wall(rng: np.random.Generator) -> Paint:
    """A paint for walls."""
    rgb = np.clip(rng.uniform(0.45, 0.92) + rng.uniform(-0.12, 0.12, 3), 0, 1)
    kind = rng.choice(["plaster", "stripes", "bricks", "stone"], p=[0.6, 0.15, 0.15, 0.1])
    if kind == "stripes":
        return _repeated(cloth(rng, rgb), 3)
    if kind == "bricks":
        return _repeated(tiles(rng, rgb), 3)
    return plaster(rng, rgb) if kind == "plaster" else stone(rng, rgb)


def walls(
    half_m: Sequence[float], low_m: float, high_m: float, paints: Sequence[Paint]
) -> list[Part]:
    """Four walls about the origin, inner faces at +-`half_m` (x, y), in the order +x -x +y -y."""
    thick, (half_x, half_y) = 0.1, half_m
    tall, middle = high_m - low_m, (high_m + low_m) / 2
    spots = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    return [
        Part(
            box(
                [thick if x else 2 * half_x, thick if y else 2 * half_y, tall],
                [x * (half_x + thick / 2), y * (half_y + thick / 2), middle],
            ),
            paint,
            shadow=False,
        )
        for (x, y), paint in zip(spots, paints, strict=True)
    ]


def some_sky(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Colours for what is behind everything."""
    high = np.clip(rng.uniform(0.2, 0.9) + rng.uniform(-0.12, 0.12, 3), 0, 1)
    low = np.clip(rng.uniform(0.3, 0.95) + rng.uniform(-0.08, 0.08, 3), 0, 1)
    return tuple(high), tuple(low)


def tint(rng: np.random.Generator, brightness: float) -> Colour:
    """A light from warm to cool."""
    warmth = rng.uniform(-0.12, 0.12)
    return tuple(brightness * np.array([1 + warmth, 1.0, 1 - warmth]))


def _repeated(paint: Paint, copies: float) -> Paint:
    return Paint(paint.rgb, paint.texture, copies, paint.specular, paint.shininess)


# Scenes on a table -----------------------------------------------------------------------------


KINDS = (*KITCHEN, *FOOD, *STATIONERY)
VIEWS = 10
_TABLE_THICK_M, _FLOOR_Z_M = 0.035, -0.74


def table_top(rng: np.random.Generator) -> SyntheticScene:
    """A table with up to ten objects; the table's top is the plane z = 0."""
    half = rng.uniform([0.5, 0.4], [0.85, 0.6])
    objects = draw_objects(rng, KINDS, int(rng.integers(3, 11)), twins=0.12)
    level = LevelPlane(np.zeros(3), tuple(half - 0.02))
    placed = place_all(rng, objects, level, stacked=0.25, spread=rng.uniform(0.3, 0.75))
    return SyntheticScene(
        family="table",
        objects=tuple(placed),
        backdrop=(*_table(rng, half), *_around(rng)),
        lamps=_lamps(rng),
        ambient=rng.uniform(0.22, 0.45),
        sky=some_sky(rng),
        reach_m=1.6,
        nearest_m=0.2,
        views=tuple(_view(rng, placed) for _ in range(VIEWS)),
    )


def _table(rng: np.random.Generator, half: NDArray) -> list[Part]:
    rgb = rng.uniform(0.2, 0.9) + rng.uniform(-0.08, 0.08, 3)
    paint = [wood(rng), wood(rng), stone(rng, rgb), cloth(rng, rgb)][rng.integers(4)]
    top = box([2 * half[0], 2 * half[1], _TABLE_THICK_M], [0, 0, -_TABLE_THICK_M / 2])
    tall = -_FLOOR_Z_M - _TABLE_THICK_M
    legs = [
        box([0.05, 0.05, tall], [x * (half[0] - 0.06), y * (half[1] - 0.06), _FLOOR_Z_M + tall / 2])
        for x in (-1, 1)
        for y in (-1, 1)
    ]
    under = wood(rng, 64)
    return [Part(top, paint), *(Part(leg, under) for leg in legs)]


def _around(rng: np.random.Generator) -> list[Part]:
    """A floor, and three times of four walls."""
    half = rng.uniform(2.0, 3.5, 2)
    ground = box([2 * half[0], 2 * half[1], 0.1], [0, 0, _FLOOR_Z_M - 0.05])
    parts = [Part(ground, some_floor(rng)(2 * half.max()), shadow=False)]
    if rng.random() < 0.75:
        paint = some_wall(rng)
        parts += walls(half, _FLOOR_Z_M, 2.2, [paint] * 4)
    return parts


def _lamps(rng: np.random.Generator) -> tuple[Lamp, ...]:
    count = int(rng.integers(1, 4))
    bright = rng.dirichlet(np.full(count, 4.0)) * rng.uniform(0.65, 1.0)
    lamps = []
    for number in range(count):
        azimuth, height = rng.uniform(-np.pi, np.pi), rng.uniform(0.7, 1.4)
        towards = np.array([np.cos(azimuth), np.sin(azimuth), height])
        position = None if rng.random() < 0.5 else 1.5 * towards
        # The first one throws the shadows; each further shadow costs as much again.
        lamps.append(Lamp(position, -towards, tint(rng, bright[number]), number == 0))
    return tuple(lamps)


def _view(rng: np.random.Generator, placed: list[PlacedObject]) -> SyntheticCamera:
    spots = np.array([one.box.centre_m for one in placed])
    target = spots.mean(axis=0) + rng.normal(0, 0.04, 3)
    distance, height = rng.uniform(0.5, 1.6), np.radians(rng.uniform(15, 70))
    azimuth = rng.uniform(-np.pi, np.pi)
    level = [np.cos(height) * np.cos(azimuth), np.cos(height) * np.sin(azimuth), np.sin(height)]
    return looking_at(rng, target + distance * np.array(level), target)


# Scenes in a room ------------------------------------------------------------------------------


ROOM_VIEWS = 24
WALL_GAP_M = 0.03
# Yaw that turns the +y side of an object to the wall on this side of the axis x (0) or y (1).
_BACK_TO = {(1, 1.0): 0.0, (1, -1.0): np.pi, (0, 1.0): -np.pi / 2, (0, -1.0): np.pi / 2}
# Of the small kinds, those that one can still make out from across a room.
_SMALL_WORDS = {"book", "box", "ball", "bowl", "bottle", "cereal box", "frying pan"}
SMALL = (*ON_FURNITURE, *(kind for kind in KINDS if kind.word in _SMALL_WORDS))


def room(rng: np.random.Generator) -> SyntheticScene:
    """A furnished room; its floor is the plane z = 0."""
    half, tall = rng.uniform(1.8, 3.2, 2), rng.uniform(2.4, 3.0)
    floor = LevelPlane(np.zeros(3), tuple(half - WALL_GAP_M))
    against = draw_objects(rng, ALONG_WALLS, int(rng.integers(2, 5)), twins=0.1)
    furniture = _along_walls(rng, floor, against)
    rugs = _rugs(rng, floor)
    furniture += _free(rng, floor, rugs)
    small = [object_ for one in furniture for object_ in _upon(rng, one)]
    placed = [*rugs, *furniture, *small]
    placed += _pictures(rng, half, placed)
    paint = some_wall(rng)
    return SyntheticScene(
        family="room",
        objects=tuple(placed),
        backdrop=(*_shell(rng, half, tall, paint), *_openings(rng, half, tall)),
        lamps=_room_lamps(rng, half, tall),
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


def _rugs(rng: np.random.Generator, floor: LevelPlane) -> list[PlacedObject]:
    """A rug in the middle, or none."""
    if rng.random() > 0.45:
        return []
    rug = floor.place(rng, draw_objects(rng, [RUG], 1, 0.0)[0], spread=0.5)
    return [] if rug is None else [rug]


def _free(
    rng: np.random.Generator, floor: LevelPlane, rugs: list[PlacedObject]
) -> list[PlacedObject]:
    """Furniture in the middle; if there is a rug, some of it stands on that."""
    objects = draw_objects(rng, (*FREE, *FREE_DECOR), int(rng.integers(2, 6)), twins=0.25)
    upon = len(objects) // 2 if rugs else 0
    found = []
    for rug in rugs:
        found += place_all(rng, objects[:upon], levels_on(rug)[0], stacked=0.0, spread=0.9)
    return found + place_all(rng, objects[upon:], floor, stacked=0.0, spread=0.85)


def _upon(rng: np.random.Generator, furniture: PlacedObject) -> list[PlacedObject]:
    """Small objects on a piece of furniture."""
    found = []
    for level in levels_on(furniture):
        objects = draw_objects(rng, SMALL, int(rng.integers(0, 4)), twins=0.1)
        found += place_all(rng, objects, level, stacked=0.1, spread=0.9)
    return found


def _pictures(
    rng: np.random.Generator, half: NDArray, placed: list[PlacedObject]
) -> list[PlacedObject]:
    """Pictures on the walls without an opening, where nothing stands in front of them."""
    found: list[PlacedObject] = []
    for _ in range(int(rng.integers(0, 4))):
        object_ = draw_objects(rng, [PICTURE], 1, 0.0)[0]
        axis, low = int(rng.integers(2)), rng.uniform(1.1, 1.6)
        spot = rng.uniform(-0.7, 0.7, 2) * half
        spot[axis] = 0.015 - half[axis]
        picture = stand(object_, spot, _BACK_TO[axis, -1.0], low)
        high_ones = [one for one in placed if one.vertices_m[:, 2].max() > low]
        if all(picture.footprint.apart_from(one.footprint, 0.02) for one in (*high_ones, *found)):
            found.append(picture)
    return found


def _shell(rng: np.random.Generator, half: NDArray, tall: float, paint: Paint) -> list[Part]:
    """Floor, ceiling, walls and skirting boards."""
    sides = [2 * half[0], 2 * half[1]]
    accent = some_wall(rng) if rng.random() < 0.4 else paint
    ceiling = plaster(rng, [0.9, 0.9, 0.88])
    parts = [
        Part(box([*sides, 0.1], [0, 0, -0.05]), some_floor(rng)(max(sides)), shadow=False),
        Part(box([*sides, 0.1], [0, 0, tall + 0.05]), ceiling, shadow=False),
    ]
    parts += walls(half, 0.0, tall, [accent, paint, paint, paint])
    board = Paint(tuple(np.full(3, rng.uniform(0.6, 0.95))))
    return parts + walls(half - 0.012, 0.0, 0.08, [board] * 4)


def _openings(rng: np.random.Generator, half: NDArray, tall: float) -> list[Part]:
    """A window on the wall at +y and a door at +x, as flat panels."""
    size = rng.uniform([1.0, 0.9], [1.8, 1.3])
    frame, pane = Paint((0.92, 0.92, 0.92)), Paint(tuple(rng.uniform(0.75, 0.98, 3)), specular=0.9)
    x, middle = rng.uniform(-0.4, 0.4) * half[0], tall - 0.35 - size[1] / 2
    parts = [Part(box([size[0], 0.012, size[1]], [x, half[1], middle]), frame, shadow=False)]
    for side in (-1, 1):
        spot = [x + side * size[0] / 4, half[1], middle]
        glass = box([size[0] / 2 - 0.09, 0.016, size[1] - 0.14], spot)
        parts.append(Part(glass, pane, shadow=False))
    y = rng.uniform(-0.5, 0.5) * half[1]
    parts.append(Part(box([0.016, 0.9, 2.0], [half[0], y, 1.0]), wood(rng), shadow=False))
    return parts


def _room_lamps(rng: np.random.Generator, half: NDArray, tall: float) -> tuple[Lamp, ...]:
    ceiling = np.array([*(rng.uniform(-0.5, 0.5, 2) * half), tall - 0.1])
    sun = np.array([rng.uniform(-1, 1), rng.uniform(-1, 1), -rng.uniform(0.8, 2.0)])
    bright = rng.uniform(0.4, 0.65)
    return (
        Lamp(ceiling, np.array([0.0, 0.0, -1.0]), tint(rng, bright), True),
        Lamp(None, sun, tint(rng, 0.85 - bright), False),
    )


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
