"""The table-top: cameras, cubes and dishes, added to a MuJoCo model and placed by a seed.

First the two views, then the objects and their meshes, then the model, then the layouts. Works on
the ElementTrees of a model that already holds the robot, so that it does not matter who drives
that robot.
"""

from dataclasses import dataclass
from itertools import combinations
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from spear_policy.geometry.poses import Pose
from spear_policy.geometry.quaternions import from_rotation_vector, wxyz_from_xyzw

# Views -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """One camera of the scene.

    Attributes:
        name: of the MuJoCo camera and of the image topic's namespace.
        frame_id: its optical frame (x right, y down, z forward).
        width_px, height_px: size of its images.
        vertical_fov_deg: field of view from the top to the bottom edge.
    """

    name: str
    frame_id: str
    width_px: int
    height_px: int
    vertical_fov_deg: float

    @property
    def intrinsics(self) -> NDArray:
        """(3, 3) pinhole matrix [px]; pixel centres have integer coordinates, as in OpenCV."""
        focal = self.height_px / (2 * np.tan(np.radians(self.vertical_fov_deg) / 2))
        cx, cy = (self.width_px - 1) / 2, (self.height_px - 1) / 2
        return np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1.0]])


# Third-person view from in front of the robot and to its left, over the whole reachable area.
EXTERNAL = View("external", "camera_external_optical_frame", 280, 210, 46.0)
EXTERNAL_POSITION_M = np.array([1.14, 0.42, 0.70])
EXTERNAL_LOOKS_AT_M = np.array([0.38, 0.00, 0.17])

# On the hand, looking between the fingers: position and axes in the hand's frame.
WRIST = View("wrist", "camera_wrist_optical_frame", 112, 112, 75.0)
WRIST_POSITION_M = np.array([0.075, 0.0, 0.03])
WRIST_TILT_RAD = 0.36


def external_orientation() -> Rotation:
    """Axes of the external camera in the world, as MuJoCo has them: x right, y up, looks at -z."""
    back = EXTERNAL_POSITION_M - EXTERNAL_LOOKS_AT_M
    back = back / np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right = right / np.linalg.norm(right)
    return Rotation.from_matrix(np.column_stack([right, np.cross(back, right), back]))


def wrist_orientation() -> Rotation:
    """Axes of the wrist camera in the hand's frame, as MuJoCo has them.

    The camera sits beside the palm (hand +x), looks along the fingers (hand +z) and leans in.
    """
    tilt = WRIST_TILT_RAD
    back = np.array([np.sin(tilt), 0.0, -np.cos(tilt)])
    right = np.array([0.0, 1.0, 0.0])
    return Rotation.from_matrix(np.column_stack([right, np.cross(back, right), back]))


# Objects: the frame of each sits in its middle -------------------------------------------------


@dataclass(frozen=True)
class Cube:
    """A cube that the gripper can take."""

    name: str
    rgb: tuple[float, float, float]
    side_m: float = 0.04
    mass_kg: float = 0.05

    @property
    def size_m(self) -> tuple[float, float, float]:
        """Extent in x, y, z [m]."""
        return (self.side_m,) * 3

    @property
    def height_m(self) -> float:
        """Height above what it stands on [m]."""
        return self.side_m


@dataclass(frozen=True)
class Dish:
    """Something round that a cube is put on or in.

    Attributes:
        preposition: "on" or "in", as the instruction says it.
        rim_radius_m: radius of the outer edge.
        floor_radius_m: radius of the flat part inside.
        floor_height_m: height of that flat part over the table.
        height_m: height of the rim over the table.
    """

    name: str
    preposition: str
    rgb: tuple[float, float, float]
    rim_radius_m: float
    floor_radius_m: float
    floor_height_m: float
    height_m: float
    mass_kg: float

    @property
    def size_m(self) -> tuple[float, float, float]:
        """Extent in x, y, z [m]."""
        return (2 * self.rim_radius_m, 2 * self.rim_radius_m, self.height_m)


CUBES = (
    Cube("red cube", (0.80, 0.09, 0.07)),
    Cube("green cube", (0.10, 0.55, 0.16)),
    Cube("blue cube", (0.08, 0.24, 0.75)),
    Cube("yellow cube", (0.95, 0.74, 0.06)),
)
PLATE = Dish("plate", "on", (0.93, 0.93, 0.90), 0.075, 0.055, 0.008, 0.014, 0.4)
BOWL = Dish("bowl", "in", (0.30, 0.52, 0.60), 0.072, 0.045, 0.008, 0.042, 0.35)
DISHES = (PLATE, BOWL)
OBJECTS = {each.name: each for each in (*CUBES, *DISHES)}


# Meshes of the dishes --------------------------------------------------------------------------

WALL_M = 0.004


def revolve(profile_m: ArrayLike, segments: int = 48) -> tuple[NDArray, NDArray]:
    """Revolve a closed profile about the z axis.

    Args:
        profile_m: (N, 2) radius and height [m] from the axis (first) along the outside back to
            the axis (last), seen so that the outside is on the right hand.
        segments: corners of the circle.

    Returns:
        vertices (V, 3) [m] and triangles (T, 3) with outward normals.
    """
    profile = np.asarray(profile_m, float)
    angles = 2 * np.pi * np.arange(segments) / segments
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    rows = [np.column_stack([r * ring, np.full(segments, z)]) for r, z in profile[1:-1]]
    poles = np.array([[0, 0, profile[0, 1]], [0, 0, profile[-1, 1]]])
    vertices = np.concatenate([*rows, poles])
    bottom, top = len(vertices) - 2, len(vertices) - 1

    here = np.arange(segments)
    there = np.roll(here, -1)
    triangles = [np.stack([np.full(segments, bottom), there, here], axis=-1)]
    for row in range(len(rows) - 1):
        a, b = row * segments + here, row * segments + there
        c, d = a + segments, b + segments
        triangles += [np.stack([a, b, d], axis=-1), np.stack([a, d, c], axis=-1)]
    last = (len(rows) - 1) * segments
    triangles.append(np.stack([last + here, last + there, np.full(segments, top)], axis=-1))
    return vertices, np.concatenate(triangles)


def dish_profile_m(dish: Dish) -> NDArray:
    """(N, 2) radius and height of a dish's outline, heights from its middle [m]."""
    rim, floor, height = dish.rim_radius_m, dish.floor_radius_m, dish.height_m
    # Up the outside, over the rim, down the inside to the floor.
    curve = np.linspace(0, 1, 7)[1:]
    bulge = 1.0 if dish is PLATE else 0.62
    outside = np.column_stack([floor + (rim - floor) * curve**bulge, height * curve])
    inner_radius = floor + (rim - WALL_M - floor) * curve**bulge
    inner_height = dish.floor_height_m + (height - dish.floor_height_m) * curve
    inside = np.column_stack([inner_radius, inner_height])
    foot = [[0, 0], [floor, 0]]
    well = [[floor, dish.floor_height_m], [0, dish.floor_height_m]]
    return np.array([*foot, *outside, *inside[::-1], *well]) - [0, height / 2]


def bowl_wall_m(segments: int = 12) -> list[tuple[NDArray, NDArray, float]]:
    """Boxes around the bowl that stand for its wall in contacts.

    Returns:
        for each box: half sizes (3,) [m], middle (3,) [m] in the bowl's frame, yaw [rad]. Each
        leans outwards by `bowl_lean_rad`.
    """
    half_height = (BOWL.height_m - BOWL.floor_height_m) / 2
    radius = (BOWL.floor_radius_m + BOWL.rim_radius_m) / 2
    half_width = BOWL.rim_radius_m * np.tan(np.pi / segments)
    half = np.array([WALL_M / 2, half_width, half_height / np.cos(bowl_lean_rad())])
    height = BOWL.floor_height_m + half_height - BOWL.height_m / 2
    yaws = 2 * np.pi * np.arange(segments) / segments
    return [(half, np.array([radius * np.cos(a), radius * np.sin(a), height]), a) for a in yaws]


def bowl_lean_rad() -> float:
    """Angle of the bowl's wall against the vertical [rad]."""
    rise = BOWL.height_m - BOWL.floor_height_m
    return float(np.arctan2(BOWL.rim_radius_m - BOWL.floor_radius_m, rise))


# The model -------------------------------------------------------------------------------------

HAND_BODY = "robot0_hand"
# Of MuJoCo's geom groups: what only the eye sees, and what only contacts see.
VISUAL_GROUP, COLLISION_GROUP = 2, 3
TABLE_HALF_M = (0.60, 0.70, 0.02)
TABLE_CENTRE_M = (0.32, 0.0)
FLOOR_Z_M = -0.72


def furnish(scene: Element, worldbody: Element) -> None:
    """Add the table-top to `scene` (the <mujoco> root) and its `worldbody`, robot included there.

    The table top is the plane z = 0, the robot stands on it at the origin.

    Raises:
        ValueError: the model has no body named `HAND_BODY` to carry the wrist camera.
    """
    hand = worldbody.find(f".//body[@name='{HAND_BODY}']")
    if hand is None:
        raise ValueError(f"no body {HAND_BODY!r} in the model: add the robot before the table-top")
    _picture_quality(scene)
    _materials(scene.find("asset"))
    _room(worldbody)
    _table(worldbody)
    for cube in CUBES:
        _cube(worldbody, cube)
    for dish in DISHES:
        _dish(scene.find("asset"), worldbody, dish)
    _cameras(worldbody, hand)
    # Cubes slide slowly out of a pinch with the default pyramidal, soft friction.
    scene.find("option").attrib.update(cone="elliptic", impratio="10")


def _picture_quality(scene: Element) -> None:
    visual = scene.find("visual")
    # One shadow map of moderate size and no multisampling: all the rest costs more than it shows.
    visual.find("quality").attrib.update(shadowsize="1024", offsamples="0")
    visual.find("headlight").attrib.update(ambient="0.34 0.34 0.34", diffuse="0.10 0.10 0.10")
    SubElement(visual, "map", znear="0.01", zfar="20", shadowclip="1.2", shadowscale="0.8")


def _materials(asset: Element) -> None:
    texture = {"type": "2d", "builtin": "flat", "mark": "random", "width": "512", "height": "512"}
    SubElement(asset, "texture", name="wood", rgb1="0.62 0.49 0.36", markrgb="0.55 0.42 0.30",
               random="0.35", **texture)  # fmt: skip
    SubElement(asset, "material", name="wood", texture="wood", texrepeat="2 2", specular="0.1")
    SubElement(asset, "texture", name="sky", type="skybox", builtin="gradient",
               rgb1="0.80 0.84 0.88", rgb2="0.55 0.60 0.66", width="64", height="384")  # fmt: skip
    SubElement(asset, "material", name="floor", rgba="0.47 0.50 0.53 1", specular="0")
    SubElement(asset, "material", name="metal", rgba="0.30 0.31 0.33 1", specular="0.3")
    for item in (*CUBES, *DISHES):
        SubElement(asset, "material", name=item.name, rgba=_numbers(*item.rgb, 1),
                   specular="0.35", shininess="0.5")  # fmt: skip


def _room(worldbody: Element) -> None:
    for child in list(worldbody):
        if child.tag == "light":
            worldbody.remove(child)
    ground = worldbody.find("geom[@name='ground']")
    ground.attrib.update(material="floor", pos=f"0 0 {FLOOR_Z_M}")
    SubElement(worldbody, "light", name="key", pos="0.9 -0.9 1.9", dir="-0.35 0.6 -1.35",
               directional="true", diffuse="0.66 0.64 0.60", specular="0.15 0.15 0.15")  # fmt: skip
    SubElement(worldbody, "light", name="fill", pos="0.6 1.5 1.5", dir="-0.2 -1 -0.8",
               directional="true", diffuse="0.20 0.21 0.23", castshadow="false")  # fmt: skip


def _table(worldbody: Element) -> None:
    x, y = TABLE_CENTRE_M
    half_x, half_y, half_z = TABLE_HALF_M
    SubElement(worldbody, "geom", name="table", type="box", size=_numbers(*TABLE_HALF_M),
               pos=_numbers(x, y, -half_z), material="wood", friction="1.0 0.01 0.001")  # fmt: skip
    half_leg = (-FLOOR_Z_M - 2 * half_z) / 2
    for i, (sx, sy) in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1))):
        spot = (x + sx * (half_x - 0.05), y + sy * (half_y - 0.05), FLOOR_Z_M + half_leg)
        SubElement(worldbody, "geom", name=f"leg {i}", type="box", pos=_numbers(*spot),
                   size=_numbers(0.025, 0.025, half_leg), material="metal",
                   contype="0", conaffinity="0")  # fmt: skip


def _cube(worldbody: Element, cube: Cube) -> None:
    body = SubElement(worldbody, "body", name=cube.name, pos=_numbers(0, 0, cube.side_m / 2))
    SubElement(body, "freejoint", name=cube.name)
    # MuJoCo's friction forgets that the hand moves on an arc, and lets a held cube creep by
    # speed^2 / radius * solref: 8 mm/s at 0.6 m/s with the default solref of 0.02.
    SubElement(body, "geom", type="box", size=_numbers(*[cube.side_m / 2] * 3),
               mass=str(cube.mass_kg), material=cube.name, priority="1", condim="4",
               friction="1.0 0.01 0.001", solref="0.003 1")  # fmt: skip


def _dish(asset: Element, worldbody: Element, dish: Dish) -> None:
    vertices, triangles = revolve(dish_profile_m(dish))
    SubElement(asset, "mesh", name=dish.name, vertex=_numbers(*vertices.ravel()),
               face=" ".join(map(str, triangles.ravel())))  # fmt: skip
    body = SubElement(worldbody, "body", name=dish.name, pos=_numbers(0, 0, dish.height_m / 2))
    SubElement(body, "freejoint", name=dish.name)
    SubElement(body, "geom", type="mesh", mesh=dish.name, material=dish.name, mass="0",
               group=str(VISUAL_GROUP), contype="0", conaffinity="0")  # fmt: skip
    # A disc stands for the foot and the floor of the dish in contacts, boxes for a wall.
    radius = dish.rim_radius_m if dish is not BOWL else dish.floor_radius_m
    half = dish.floor_height_m / 2
    SubElement(body, "geom", type="cylinder", size=_numbers(radius, half), mass=str(dish.mass_kg),
               pos=_numbers(0, 0, half - dish.height_m / 2), group=str(COLLISION_GROUP),
               friction="1.0 0.01 0.001")  # fmt: skip
    if dish is BOWL:
        for half_m, middle_m, yaw_rad in bowl_wall_m():
            turn = Rotation.from_euler("ZY", [yaw_rad, bowl_lean_rad()])
            SubElement(body, "geom", type="box", size=_numbers(*half_m), pos=_numbers(*middle_m),
                       quat=_quat(turn), mass="0", group=str(COLLISION_GROUP))  # fmt: skip


def _cameras(worldbody: Element, hand: Element) -> None:
    for parent, view, position, turn in (
        (worldbody, EXTERNAL, EXTERNAL_POSITION_M, external_orientation()),
        (hand, WRIST, WRIST_POSITION_M, wrist_orientation()),
    ):
        SubElement(parent, "camera", name=view.name, pos=_numbers(*position), quat=_quat(turn),
                   fovy=str(view.vertical_fov_deg))  # fmt: skip


def _quat(turn: Rotation) -> str:
    return _numbers(*wxyz_from_xyzw(turn.as_quat()))


def _numbers(*values: float) -> str:
    return " ".join(f"{value:.9g}" for value in np.asarray(values, float))


# Layouts: the same for the same seed, on every machine ------------------------------------------

# Centres of all objects, base frame [m]: where a Franka reaches the table with the gripper down.
REACH_X_M = (0.35, 0.62)
REACH_Y_M = (-0.25, 0.25)
# A finger of the open gripper ends this far from the middle of the cube between the fingers.
FINGER_REACH_M = 0.055
_TRIES_AN_OBJECT, _ATTEMPTS = 50, 1000


def clearance_m(a: str, b: str) -> float:
    """Least distance between the centres of two objects, so that the fingers fit between [m].

    The fingers come down around a cube; two dishes only must not touch.
    """
    radii = [_radius_m(name) for name in (a, b)]
    if OBJECTS[a] in DISHES and OBJECTS[b] in DISHES:
        return sum(radii) + 0.01
    if OBJECTS[a] in CUBES and OBJECTS[b] in CUBES:
        return FINGER_REACH_M + radii[0]
    return FINGER_REACH_M + max(radii)


def _radius_m(name: str) -> float:
    item = OBJECTS[name]
    # The corner of a cube, as its yaw is free.
    return item.side_m / np.sqrt(2) if item in CUBES else item.rim_radius_m


def random_layout(seed: int) -> dict[str, Pose]:
    """Poses of every object in the base frame, drawn from `seed` alone.

    Raises:
        ValueError: the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"the scene seed must be 0 or more, got {seed}")
    draws = np.random.default_rng(seed)
    for _ in range(_ATTEMPTS):
        if placed := _place_all(draws):
            return placed
    raise RuntimeError(f"no layout found for seed {seed} in {_ATTEMPTS} attempts")


def _place_all(draws: np.random.Generator) -> dict[str, Pose] | None:
    low, high = np.array([REACH_X_M, REACH_Y_M]).T
    placed: dict[str, Pose] = {}
    for item in (*DISHES, *CUBES):  # the largest first, or they find no room
        for _ in range(_TRIES_AN_OBJECT):
            pose = _standing(item.name, draws.uniform(low, high), draws.uniform(-np.pi, np.pi))
            if not too_close({**placed, item.name: pose}):
                placed[item.name] = pose
                break
        else:
            return None
    return placed


def fixed_layout() -> dict[str, Pose]:
    """The arrangement of the pictures: every object in its place, no chance involved."""
    spots = {
        PLATE.name: (0.54, 0.13, 0.0),
        BOWL.name: (0.53, -0.15, 0.0),
        "red cube": (0.42, 0.02, 0.3),
        "green cube": (0.38, -0.10, -0.5),
        "blue cube": (0.40, 0.16, 0.9),
        "yellow cube": (0.60, 0.0, 0.1),
    }
    return {name: _standing(name, (x, y), yaw) for name, (x, y, yaw) in spots.items()}


LAYOUTS = ("random", "fixed")


def layout(kind: str, seed: int) -> dict[str, Pose]:
    """The layout named `kind`, one of LAYOUTS. Raises ValueError for any other."""
    if kind == "random":
        return random_layout(seed)
    if kind == "fixed":
        return fixed_layout()
    raise ValueError(f"unknown layout {kind!r}: choose one of {', '.join(LAYOUTS)}")


def too_close(poses: dict[str, Pose]) -> list[tuple[str, str]]:
    """Pairs that stand nearer to each other than `clearance_m` allows."""

    def distance_m(a: str, b: str) -> float:
        return np.linalg.norm((poses[a].position_m - poses[b].position_m)[:2])

    return [(a, b) for a, b in combinations(poses, 2) if distance_m(a, b) < clearance_m(a, b)]


def _standing(name: str, spot_xy_m: ArrayLike, yaw_rad: float) -> Pose:
    position = (*spot_xy_m, OBJECTS[name].height_m / 2)
    return Pose(position, from_rotation_vector([0.0, 0.0, yaw_rad]))
