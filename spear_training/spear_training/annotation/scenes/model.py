"""A scene as a MuJoCo model: one mesh a part, exactly the triangles that the truth is made of."""

from collections.abc import Iterable

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from spear_policy.geometry.quaternions import wxyz_from_xyzw
from spear_training.annotation.scenes.paints import Paint
from spear_training.annotation.scenes.scene import Lamp, Scene
from spear_training.annotation.scenes.things import Part
from spear_training.annotation.scenes.views import LARGEST_PX

# Depth has a float's precision in these bounds: test_scene_pictures.py says how much.
NEAREST_M, FURTHEST_M = 0.05, 30.0
BACKDROP = -1
_SHADOW_MAP_PX = 2048


def build(scene: Scene) -> tuple[mujoco.MjSpec, list[int]]:
    """Describe the scene to MuJoCo.

    Returns:
        the description, and for each geom in order the index of its thing, or BACKDROP.
    """
    spec = mujoco.MjSpec()
    spec.compiler.usethread = False
    spec.stat.extent = 1.0  # so that the planes and the shadow's reach below are in metres
    spec.stat.center = [0.0, 0.0, 0.0]
    look = spec.visual
    look.map.znear, look.map.zfar = NEAREST_M, FURTHEST_M
    look.map.shadowclip = scene.reach_m
    look.quality.shadowsize, look.quality.offsamples = _SHADOW_MAP_PX, 4
    look.global_.offwidth, look.global_.offheight = LARGEST_PX
    look.headlight.ambient = [scene.ambient] * 3
    look.headlight.diffuse = [0.1] * 3
    look.headlight.specular = [0.0] * 3
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=scene.sky[0],
        rgb2=scene.sky[1],
        width=32,
        height=192,
    )
    for lamp in scene.lamps:
        _add_lamp(spec, lamp)
    owners: list[int] = []
    materials: dict[int, str] = {}
    _add_parts(spec, spec.worldbody, scene.backdrop, materials)
    owners += [BACKDROP] * len(scene.backdrop)
    for index, placed in enumerate(scene.things):
        quaternion = wxyz_from_xyzw(Rotation.from_matrix(placed.axes).as_quat())
        body = spec.worldbody.add_body(name=f"{index}", pos=placed.position_m, quat=quaternion)
        _add_parts(spec, body, placed.thing.body.parts, materials)
        owners += [index] * len(placed.thing.body.parts)
    return spec, owners


def _add_parts(
    spec: mujoco.MjSpec, body: mujoco.MjsBody, parts: Iterable[Part], materials: dict[int, str]
) -> None:
    for part in parts:
        name = f"{len(spec.meshes)}"
        surface = part.surface
        corners = np.arange(surface.triangles.size)
        spec.add_mesh(
            name=name,
            uservert=surface.vertices_m.ravel(),
            userface=surface.triangles.ravel(),
            usernormal=surface.normals.ravel(),
            userfacenormal=surface.triangles.ravel(),
            usertexcoord=(surface.texture_uv * part.paint.repeat).ravel(),
            userfacetexcoord=corners,
            # A part may be too thin to have a volume.
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        )
        if id(part.paint) not in materials:
            materials[id(part.paint)] = _add_material(spec, part.paint)
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=name,
            material=materials[id(part.paint)],
            contype=0,
            conaffinity=0,
            castshadow=part.shadow,
        )


def _add_material(spec: mujoco.MjSpec, paint: Paint) -> str:
    name = f"{len(spec.materials)}"
    material = spec.add_material(name=name, specular=paint.specular, shininess=paint.shininess)
    if paint.texture is None:
        material.rgba = [*paint.rgb, 1.0]
        return name
    height, width, channels = paint.texture.shape
    texture = spec.add_texture(name=name, type=mujoco.mjtTexture.mjTEXTURE_2D)
    texture.width, texture.height, texture.nchannel = width, height, channels
    texture.data = paint.texture.tobytes()
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    return name


def _add_lamp(spec: mujoco.MjSpec, lamp: Lamp) -> None:
    kinds = mujoco.mjtLightType
    spec.worldbody.add_light(
        type=kinds.mjLIGHT_DIRECTIONAL if lamp.position_m is None else kinds.mjLIGHT_SPOT,
        pos=[0.0, 0.0, 5.0] if lamp.position_m is None else lamp.position_m,
        dir=lamp.direction,
        diffuse=lamp.rgb,
        specular=[0.3 * part for part in lamp.rgb],
        castshadow=lamp.shadow,
        cutoff=85.0,
        exponent=1.0,
    )
