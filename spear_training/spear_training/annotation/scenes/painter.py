"""Pictures of a scene: what a camera sees, which thing each pixel shows, and how far it is."""

from collections.abc import Iterator
from contextlib import contextmanager

import mujoco
import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.frame import JobError
from spear_training.annotation.scenes.model import FURTHEST_M, NEAREST_M, build
from spear_training.annotation.scenes.scene import Scene
from spear_training.annotation.scenes.views import LARGEST_PX, View

SKY = -2
_SHOWN, _HIDDEN = 0, 5  # of MuJoCo's geom groups


class Painter:
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
        """Free the OpenGL context."""
        self._gl.free()

    @contextmanager
    def load(self, scene: Scene) -> Iterator["Easel"]:
        """Have a scene ready for drawing."""
        self._gl.make_current()
        easel = Easel(scene)
        try:
            yield easel
        finally:
            easel.close()


class Easel:
    """Draws one scene. Made by `Painter.load`."""

    def __init__(self, scene: Scene):
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
        self._show(None)

    def close(self) -> None:
        """Free the textures and meshes."""
        self._context.free()

    def colours(self, view: View) -> NDArray[np.uint8]:
        """What the camera sees, (H, W, 3) RGB."""
        return self._draw(view, by_number=False)[0]

    def things_and_depth(self, view: View) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """What is at the centre of each pixel.

        Returns:
            things (H, W): index into the scene's things, BACKDROP or SKY.
            depth_m (H, W): along the optical axis; NaN in the sky.
        """
        numbers, depth = self._draw(view, by_number=True)
        numbers = numbers @ np.array([1, 1 << 8, 1 << 16])
        drawn = self._scene.geoms[: self._scene.ngeom]
        names = np.full(max(numbers.max(), len(drawn)) + 1, SKY, np.int32)
        for geom in drawn:
            if geom.segid >= 0:
                names[geom.segid + 1] = self._owners[geom.objid]
        things = names[numbers]
        far = FURTHEST_M - NEAREST_M
        depth_m = NEAREST_M * FURTHEST_M / (NEAREST_M + depth.astype(float) * far)
        return things, np.where(things == SKY, np.nan, depth_m)

    def silhouette_px(self, thing: int, window: View) -> int:
        """Pixels of a window that one thing would cover if it were alone."""
        self._show(thing)
        things, _ = self.things_and_depth(window)
        self._show(None)
        return int((things == thing).sum())

    def _show(self, thing: int | None) -> None:
        """Draw one thing alone from now on; None: everything."""
        shown = np.full(len(self._owners), thing is None) | (self._owners == thing)
        self._model.geom_group[:] = np.where(shown, _SHOWN, _HIDDEN)

    def _draw(self, view: View, by_number: bool) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
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


def _point(eye: mujoco.MjvGLCamera, view: View) -> None:
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
