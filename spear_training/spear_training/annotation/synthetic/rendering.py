"""Rendering of a scene: its colours, which object each pixel shows, and how far away that is.

First the scene as a MuJoCo model, then its rendering by OpenGL, then which objects a picture shows
well enough to be annotated, with the exact point of every pixel.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from spear_policy.inference.image_geometry import plan_fit
from spear_training.annotation.depth import backproject
from spear_training.annotation.frame import PointMap, in_picture
from spear_training.annotation.records import PICTURE_HEIGHT_PX, PICTURE_WIDTH_PX
from spear_training.annotation.stages import JobError
from spear_training.annotation.synthetic.objects import Part, PlacedObject
from spear_training.annotation.synthetic.scenes import (
    LARGEST_PX,
    Lamp,
    SyntheticCamera,
    SyntheticScene,
)
from spear_training.annotation.synthetic.textures import Paint

# A scene as a MuJoCo model ---------------------------------------------------------------------


# Depth has a float's precision in these bounds: test_scene_pictures.py says how much.
NEAREST_M, FURTHEST_M = 0.05, 13.0
BACKDROP = -1
_SHADOW_MAP_PX = 2048


def build(scene: SyntheticScene) -> tuple[mujoco.MjSpec, list[int]]:
    """Describe the scene to MuJoCo: one mesh a part, exactly the triangles of the truth.

    Returns:
        the description, and for each geom in order the index of its object, or BACKDROP.
    """
    spec = mujoco.MjSpec()
    spec.compiler.usethread = False
    spec.stat.extent = 1.0  # so that the planes and the shadow's reach below are in metres
    spec.stat.center = [0.0, 0.0, 0.0]
    visual = spec.visual
    visual.map.znear, visual.map.zfar = NEAREST_M, FURTHEST_M
    visual.map.shadowclip = scene.reach_m
    visual.quality.shadowsize, visual.quality.offsamples = _SHADOW_MAP_PX, 4
    visual.global_.offwidth, visual.global_.offheight = LARGEST_PX
    visual.headlight.ambient = [scene.ambient] * 3
    visual.headlight.diffuse = [0.1] * 3
    visual.headlight.specular = [0.0] * 3
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
    _add_parts(spec, scene.backdrop, materials)
    owners += [BACKDROP] * len(scene.backdrop)
    for index, placed in enumerate(scene.objects):
        parts = placed.object.body.parts
        moved = [part.surface.moved(placed.position_m, placed.axes) for part in parts]
        _add_parts(spec, map(Part, moved, [part.paint for part in parts]), materials)
        owners += [index] * len(parts)
    return spec, owners


def _add_parts(spec: mujoco.MjSpec, parts: Iterable[Part], materials: dict[int, str]) -> None:
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
        spec.worldbody.add_geom(
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


# Rendering with OpenGL -------------------------------------------------------------------------


SKY = -2
_SHOWN, _HIDDEN = 0, 5  # of MuJoCo's geom groups


class OffscreenRenderer:
    """OpenGL for the life of a process; belongs to the thread that made it.

    Raises:
        JobError: this machine cannot draw.
    """

    def __init__(self):
        try:
            self._gl = mujoco.GLContext(*LARGEST_PX)
            self._gl.make_current()
        except Exception as error:  # each OpenGL platform fails with a class of its own
            raise JobError(
                f"no OpenGL to draw scenes with ({type(error).__name__}: {error}): install "
                "libegl1, libegl-mesa0 and libgl1-mesa-dri and set MUJOCO_GL=egl"
            ) from error

    def close(self) -> None:
        self._gl.free()

    @contextmanager
    def load(self, scene: SyntheticScene) -> Iterator["SceneRendering"]:
        """Have a scene ready for drawing."""
        self._gl.make_current()
        rendering = SceneRendering(scene)
        try:
            yield rendering
        finally:
            rendering.close()


class SceneRendering:
    """Draws one scene. Made by `OffscreenRenderer.load`."""

    def __init__(self, scene: SyntheticScene):
        spec, owners = build(scene)
        self._model = spec.compile()
        self._owners = np.array(owners)
        data = mujoco.MjData(self._model)
        mujoco.mj_kinematics(self._model, data)
        mujoco.mj_camlight(self._model, data)
        self._data = data
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        # Near is 1 and far is 0: floats are dense near 0, so far depths stay precise.
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self._scene = mujoco.MjvScene(self._model, maxgeom=len(owners) + 64)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._options = mujoco.MjvOption()
        self._options.geomgroup[_HIDDEN] = False
        self.show(None)

    def close(self) -> None:
        self._context.free()

    def colours(self, view: SyntheticCamera) -> NDArray[np.uint8]:
        """What the camera sees, (H, W, 3) RGB."""
        return self._draw(view, by_number=False)[0]

    def objects_and_depth(
        self, view: SyntheticCamera
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """What is at the centre of each pixel.

        Returns:
            objects (H, W): index into the scene's objects, BACKDROP or SKY.
            depth_m (H, W): along the optical axis; NaN in the sky.
        """
        numbers, depth = self._draw(view, by_number=True)
        numbers = numbers @ np.array([1, 1 << 8, 1 << 16])
        drawn = self._scene.geoms[: self._scene.ngeom]
        names = np.full(max(numbers.max(), len(drawn)) + 1, SKY, np.int32)
        for geom in drawn:
            if geom.segid >= 0:
                names[geom.segid + 1] = self._owners[geom.objid]
        objects = names[numbers]
        far = FURTHEST_M - NEAREST_M
        depth_m = NEAREST_M * FURTHEST_M / (NEAREST_M + depth.astype(float) * far)
        return objects, np.where(objects == SKY, np.nan, depth_m)

    def show(self, object_: int | None) -> None:
        """Draw one object alone from now on; None: everything."""
        shown = np.full(len(self._owners), object_ is None) | (self._owners == object_)
        self._model.geom_group[:] = np.where(shown, _SHOWN, _HIDDEN)

    def _draw(
        self, view: SyntheticCamera, by_number: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        mujoco.mjv_updateScene(
            self._model,
            self._data,
            self._options,
            None,
            mujoco.MjvCamera(),
            mujoco.mjtCatBit.mjCAT_ALL.value,
            self._scene,
        )
        for eye in self._scene.camera:  # MuJoCo draws with the mean of two
            _point(eye, view)
        # Multisampling is off in this mode: numbers never mix, depth is that of pixel centres.
        for flag in (mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR):
            self._scene.flags[flag] = by_number
        area = mujoco.MjrRect(0, 0, view.width_px, view.height_px)
        mujoco.mjr_render(area, self._scene, self._context)
        colours = np.empty((view.height_px, view.width_px, 3), np.uint8)
        depth = np.empty((view.height_px, view.width_px), np.float32) if by_number else None
        mujoco.mjr_readPixels(colours, depth, area, self._context)
        return colours[::-1], None if depth is None else depth[::-1]


def _point(eye: mujoco.MjvGLCamera, view: SyntheticCamera) -> None:
    """Give an OpenGL camera the pose and the intrinsics of a view."""
    camera = view.intrinsics
    eye.pos[:] = view.position_m
    eye.forward[:] = view.axes[:, 2]
    eye.up[:] = -view.axes[:, 1]
    eye.frustum_near, eye.frustum_far = NEAREST_M, FURTHEST_M
    # The picture's edges are half a pixel outside the centres of its outermost pixels.
    eye.frustum_top = NEAREST_M * (camera.cy + 0.5) / camera.fy
    eye.frustum_bottom = -NEAREST_M * (view.height_px - 0.5 - camera.cy) / camera.fy
    left = -(camera.cx + 0.5) / camera.fx
    right = (view.width_px - 0.5 - camera.cx) / camera.fx
    eye.frustum_center = NEAREST_M * (left + right) / 2
    eye.frustum_width = NEAREST_M * (right - left) / 2  # half of it, whatever the name says


# Visible objects and exact points of a view ----------------------------------------------------


# An object counts as seen with so many pixels, and such a share of what it would cover alone.
MIN_PX, MIN_VISIBLE = 300, 0.15
_BEHIND_M = 0.1  # a corner nearer than this to the camera's plane has no place in a picture
_SMALL = 0.2
_MIN_SMALL_PX = 16


@dataclass(frozen=True)
class RenderedView:
    """What is seen.

    Attributes:
        view: the camera of the picture of 840x630.
        objects: (630, 840) index of the object at each pixel; negative where there is none.
        points: exact points of all pixels.
        visible: of each object that is seen well enough, by its index, the share of its pixels
            that is neither hidden nor outside the picture.
    """

    view: SyntheticCamera
    objects: NDArray[np.int32]
    points: PointMap
    visible: dict[int, float]


def render_view(
    rendering: SceneRendering, objects: Sequence[PlacedObject], view: SyntheticCamera
) -> RenderedView:
    """See a scene's objects through the camera of a stored picture."""
    fit = plan_fit(view.width_px, view.height_px, PICTURE_WIDTH_PX, PICTURE_HEIGHT_PX)
    fitted = view.fitted(fit)
    inside = in_picture(fit, np.ones((view.height_px, view.width_px), bool), outside=False)
    seen, depth_m = rendering.objects_and_depth(fitted)
    seen, depth_m = np.where(inside, seen, SKY), np.where(inside, depth_m, np.nan)
    counts = np.bincount(seen[seen >= 0], minlength=len(objects))
    visible = {}
    for index in np.flatnonzero(counts >= MIN_PX):
        share = counts[index] / _silhouette_px(rendering, int(index), objects[index], fitted)
        if share >= MIN_VISIBLE:
            visible[int(index)] = min(1.0, float(share))
    points = PointMap(backproject(depth_m, fitted.intrinsics), fitted.intrinsics)
    return RenderedView(fitted, seen, points, visible)


def count_visible(rendering: SceneRendering, view: SyntheticCamera, nearest_m: float) -> int:
    """How many objects a small picture shows; -1 where something stands in front of the camera."""
    fit = plan_fit(view.width_px, view.height_px, PICTURE_WIDTH_PX, PICTURE_HEIGHT_PX)
    small = view.fitted(fit).part(0, 0, fit.width, fit.height, _SMALL)
    seen, depth_m = rendering.objects_and_depth(small)
    if (depth_m < nearest_m).any():
        return -1
    return int((np.bincount(seen[seen >= 0], minlength=1) >= _MIN_SMALL_PX).sum())


def _silhouette_px(
    rendering: SceneRendering, index: int, placed: PlacedObject, view: SyntheticCamera
) -> float:
    """Pixels that an object would cover alone, beyond the picture's edges too.

    Infinite where a part of it is behind the camera.
    """
    corners = view.in_camera(placed.vertices_m)
    if corners[:, 2].min() < _BEHIND_M:
        return np.inf
    pixels = view.intrinsics.project(corners)
    left, top = np.floor(pixels.min(axis=0)).astype(int) - 1
    wide, high = np.ceil(pixels.max(axis=0)).astype(int) + 2 - (left, top)
    # What is larger than the largest picture is drawn with larger pixels.
    coarse = int(np.ceil(max(wide / LARGEST_PX[0], high / LARGEST_PX[1])))
    wide, high = (coarse * -(-int(side) // coarse) for side in (wide, high))
    window = view.part(int(left), int(top), wide, high, 1 / coarse)
    rendering.show(index)
    objects, _ = rendering.objects_and_depth(window)
    rendering.show(None)
    return int((objects == index).sum()) * coarse**2
