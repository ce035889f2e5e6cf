"""Images of the world, rendered by a thread of its own from a private copy of the state.

First the model with fewer triangles, then the renderer of all views, then its thread.
"""

import copy
import logging
import queue
import threading
import time
from collections.abc import Callable

import mujoco
import numpy as np
from numpy.typing import NDArray

from spear_bringup.sim.table_top import COLLISION_GROUP, View

# Fewer triangles for small images ----------------------------------------------------------------


def thinned(model: mujoco.MjModel, cell_m: float) -> mujoco.MjModel:
    """A copy of `model` for drawing only, its meshes without detail below `cell_m`.

    Vertices in the same cell of a grid become one; triangles that lose a corner by it go. Normals
    stay those of the original, so surfaces still look smooth. Physics must use the original.
    A cell of 0 keeps every detail.
    """
    drawn = copy.copy(model)
    for mesh in range(drawn.nmesh if cell_m > 0 else 0):
        _thin(drawn, mesh, cell_m)
    return drawn


def _thin(model: mujoco.MjModel, mesh: int, cell_m: float) -> None:
    first, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    vertices = _rows(model.mesh_vert, model.mesh_vertadr[mesh], model.mesh_vertnum[mesh])
    cells = np.floor(vertices / cell_m).astype(np.int64)
    _, keeper, cell_of = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    middle = np.zeros((len(keeper), 3))
    np.add.at(middle, cell_of.ravel(), vertices)
    middle /= np.bincount(cell_of.ravel())[:, None]
    # The mesh ends up inside its own memory: one vertex of each cell moves to the cell's middle.
    vertices[keeper] = middle
    faces = keeper[cell_of.ravel()][_rows(model.mesh_face, first, count)]
    a, b, c = faces.T
    left = np.flatnonzero((a != b) & (b != c) & (c != a))
    for table in ("mesh_facenormal", "mesh_facetexcoord"):
        rows = _rows(getattr(model, table), first, count)
        rows[: len(left)] = rows[left]
    _rows(model.mesh_face, first, count)[: len(left)] = faces[left]
    model.mesh_facenum[mesh] = len(left)


def _rows(table: NDArray, first: int, count: int) -> NDArray:
    return table[first : first + count]


# Rendering -------------------------------------------------------------------------------------

Images = dict[str, NDArray[np.uint8]]
_log = logging.getLogger(__name__)


class RenderingError(RuntimeError):
    """No picture can be drawn on this machine; the text says what is missing."""


class SceneRenderer:
    """Draws the views of a model. Belongs to the thread that made it, as OpenGL demands."""

    def __init__(self, model, views: tuple[View, ...], shadows: bool, detail_m: float):
        """Make the OpenGL contexts.

        Args:
            views: cameras of the model, with the sizes to draw.
            shadows: three times as slow with them.
            detail_m: size of the smallest mesh detail to draw; 0 draws everything.

        Raises:
            RenderingError: OpenGL cannot be used.
        """
        self._views = views
        self._model = thinned(model, detail_m)
        self._model.vis.global_.offwidth = max(view.width_px for view in views)
        self._model.vis.global_.offheight = max(view.height_px for view in views)
        self._data = mujoco.MjData(self._model)
        self._groups = mujoco.MjvOption()
        self._groups.geomgroup[COLLISION_GROUP] = 0
        try:
            self._renderers = [
                mujoco.Renderer(self._model, view.height_px, view.width_px) for view in views
            ]
        except Exception as error:  # each OpenGL platform fails with a class of its own
            raise RenderingError(
                f"no OpenGL for the cameras ({error}): install libegl1, libegl-mesa0 and "
                f"libgl1-mesa-dri and set MUJOCO_GL=egl, or run with `cameras` false"
            ) from error
        for renderer in self._renderers:
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False

    def draw(self, joints: NDArray) -> Images:
        """Every view by name, (height, width, 3) RGB, of generalised positions `joints` (nq,)."""
        self._data.qpos[:] = joints
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        images = {}
        for view, renderer in zip(self._views, self._renderers, strict=True):
            renderer.update_scene(self._data, view.name, self._groups)
            images[view.name] = renderer.render()
        return images

    def close(self) -> None:
        """Free the OpenGL contexts."""
        for renderer in self._renderers:
            renderer.close()


class RenderThread:
    """Draws the states it is given and hands the pictures on, one state at a time."""

    # A client of the robot gives up after a second without a state, so physics never waits longer.
    BUSY_LIMIT_S = 0.5

    def __init__(
        self, make_renderer: Callable[[], SceneRenderer], on_images: Callable[[float, Images], None]
    ):
        """Start the thread. Raises RenderingError when the renderer cannot be made."""
        self._on_images = on_images
        self._states: queue.SimpleQueue = queue.SimpleQueue()
        self._idle = threading.Event()
        self._failure: BaseException | None = None
        self.skipped = 0
        self.processor_s = 0.0
        self._thread = threading.Thread(
            target=self._run, args=(make_renderer,), name="render", daemon=True
        )
        self._thread.start()
        self._idle.wait()
        if self._failure:
            raise self._failure

    def offer(self, time_s: float, joints: NDArray) -> None:
        """Have the state of simulated time `time_s` drawn.

        Waits while the one before is still in work: a slow machine shows the same frames later,
        and a picture is never older than one camera period of simulated time when it goes out.
        """
        if not self._idle.wait(self.BUSY_LIMIT_S):
            self.skipped += 1
            return
        self._idle.clear()
        self._states.put((time_s, joints.copy()))

    def stop(self) -> None:
        """End the thread after the picture in work."""
        self._states.put(None)
        self._thread.join()

    def _run(self, make_renderer) -> None:
        try:
            renderer = make_renderer()
        except BaseException as error:
            self._failure = error
            self._idle.set()
            return
        self._idle.set()
        while (item := self._states.get()) is not None:
            started = time.thread_time()
            try:
                self._on_images(item[0], renderer.draw(item[1]))
            except Exception:  # the next picture may be fine, and physics waits for this thread
                _log.exception("could not draw or hand on a picture")
            self.processor_s += time.thread_time() - started
            self._idle.set()
        renderer.close()
