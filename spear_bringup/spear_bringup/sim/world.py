"""The simulated table-top as a whole: physics, the robot's ports, cameras, objects, time."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

import mujoco
import numpy as np
from franky_sim.mujoco_simulator import MujocoSimulator

from spear_bringup.sim.cameras import View
from spear_bringup.sim.franky_server import FrankaWorldServer
from spear_bringup.sim.layout import layout
from spear_bringup.sim.mended_robot import TICK_S, add_mended_robot
from spear_bringup.sim.objects import OBJECTS
from spear_bringup.sim.pacing import Pacer, RealTimeFactor
from spear_bringup.sim.rendering import Painter, RenderThread
from spear_bringup.sim.scene import furnish
from spear_bringup.sim.settings import SILENT, WorldListener, WorldSettings
from spear_policy.geometry.poses import Pose
from spear_policy.geometry.quaternions import wxyz_from_xyzw, xyzw_from_wxyz

_TICKS_A_S = round(1 / TICK_S)
_log = logging.getLogger(__name__)


class World:
    """A Franka at a table. Built and bound to its ports at once, moves from `start` to `stop`."""

    def __init__(self, settings: WorldSettings, listener: WorldListener = SILENT):
        """Build the scene and bind the ports.

        Raises:
            AddressError: the robot's ports cannot be bound.
            RenderingError: cameras are wanted and this machine cannot draw.
            ValueError: unknown layout or negative seed.
        """
        self.settings = settings
        self.rate = RealTimeFactor()
        self._listener = listener
        self._ticks = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._requests: deque[tuple[Callable, Future]] = deque()
        self.failure: Exception | None = None

        poses = layout(settings.layout, settings.seed)
        self.sim = MujocoSimulator()
        self.sim.init()
        robot = add_mended_robot(self.sim)
        furnish(self.sim.scene, self.sim.worldbody)
        self.server = FrankaWorldServer(self.sim, robot, settings.host)
        self.renderer: RenderThread | None = None
        try:
            self.sim.start()
            self._place(poses)
            if settings.cameras:
                self.renderer = RenderThread(self._painter, listener.images)
        except BaseException:
            self.server.close()
            raise

    @property
    def views(self) -> tuple[View, View]:
        """The external and the wrist view."""
        return self.settings.external, self.settings.wrist

    @property
    def time_s(self) -> float:
        """Simulated time: advances by physics steps only, never goes back."""
        return self.settings.start_time_s + self._ticks * TICK_S

    @property
    def running(self) -> bool:
        """Whether physics advances."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Let time pass; clients of the robot are served from here."""
        if self.running:
            return
        self._stopping.clear()
        self.rate.clear()
        self._thread = threading.Thread(target=self._run, name="physics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Hold time; `start` goes on from the same state."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._serve_requests()

    def close(self) -> None:
        """Stop, free the ports and the OpenGL contexts."""
        self.stop()
        if self.renderer is not None:
            self.renderer.stop()
            self.renderer = None
        self.server.close()

    def reset(self, seed: int) -> None:
        """Put every object at rest where `seed` says; the robot stays as it is. Any thread.

        Raises:
            ValueError: the seed is negative.
        """
        poses = layout(self.settings.layout, seed)
        self.call(lambda: self._place(poses))

    def object_poses(self) -> dict[str, Pose]:
        """Poses of all objects in the base frame, now. Any thread."""
        return self.call(self._object_poses)

    def call(self, function: Callable):
        """The answer of `function()`, which runs between two steps of physics. Any thread."""
        if not self.running or threading.current_thread() is self._thread:
            return function()
        future: Future = Future()
        self._requests.append((function, future))
        if not self.running:  # it has stopped meanwhile
            self._serve_requests()
        return future.result(timeout=10.0)

    # The physics thread ------------------------------------------------------------------

    def _run(self) -> None:
        settings = self.settings
        pacer = Pacer(settings.real_time_factor, TICK_S)
        try:
            while not self._stopping.is_set():
                if self._requests:
                    self._serve_requests()
                self.server.tick()
                self._ticks += 1
                self._report()
                pacer.wait()
        except Exception as error:  # kept for the node to tell, as nobody joins this thread
            self.failure = error
            _log.exception("physics stopped")

    def _report(self) -> None:
        now = self.time_s
        if self._due(self.settings.clock_rate_hz):
            self._listener.clock(now)
        if self._due(self.settings.object_rate_hz):
            self.rate.mark(now)
            self._listener.objects(now, self._object_poses())
        if self.renderer is not None and self._due(self.settings.image_rate_hz):
            self.renderer.offer(now, self.sim.data.qpos)

    def _due(self, rate_hz: int) -> bool:
        return self._ticks * rate_hz // _TICKS_A_S != (self._ticks - 1) * rate_hz // _TICKS_A_S

    def _serve_requests(self) -> None:
        while True:
            try:
                function, future = self._requests.popleft()
            except IndexError:
                return
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

    def _object_poses(self) -> dict[str, Pose]:
        data = self.sim.data
        return {
            name: Pose(data.body(name).xpos, xyzw_from_wxyz(data.body(name).xquat))
            for name in OBJECTS
        }

    def _place(self, poses: dict[str, Pose]) -> None:
        data = self.sim.data
        for name, pose in poses.items():
            joint = data.joint(name)
            joint.qpos = np.concatenate([pose.position_m, wxyz_from_xyzw(pose.orientation_xyzw)])
            joint.qvel = 0.0
        mujoco.mj_forward(self.sim.model, data)

    def _painter(self) -> Painter:
        settings = self.settings
        return Painter(self.sim.model, self.views, settings.shadows, settings.mesh_detail_m)
