"""Furnishes a MuJoCo model: table, floor, light, cubes, dishes and the two cameras.

Works on the ElementTrees of a model that already holds the robot, so that it does not matter who
drives that robot.
"""

from xml.etree.ElementTree import Element, SubElement

import numpy as np
from scipy.spatial.transform import Rotation

from spear_bringup.sim import cameras
from spear_bringup.sim.lathe import bowl_lean_rad, bowl_wall_m, dish_profile_m, turned
from spear_bringup.sim.objects import BOWL, CUBES, DISHES, Cube, Dish
from spear_policy.geometry.quaternions import wxyz_from_xyzw

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
    for thing in (*CUBES, *DISHES):
        SubElement(asset, "material", name=thing.name, rgba=_numbers(*thing.rgb, 1),
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
    vertices, triangles = turned(dish_profile_m(dish))
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
        (worldbody, cameras.EXTERNAL, cameras.EXTERNAL_POSITION_M, cameras.external_orientation()),
        (hand, cameras.WRIST, cameras.WRIST_POSITION_M, cameras.wrist_orientation()),
    ):
        SubElement(parent, "camera", name=view.name, pos=_numbers(*position), quat=_quat(turn),
                   fovy=str(view.vertical_fov_deg))  # fmt: skip


def _quat(turn: Rotation) -> str:
    return _numbers(*wxyz_from_xyzw(turn.as_quat()))


def _numbers(*values: float) -> str:
    return " ".join(f"{value:.9g}" for value in np.asarray(values, float))
