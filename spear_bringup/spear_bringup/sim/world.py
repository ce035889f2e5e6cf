"""The simulated table-top as a whole: physics, the robot's ports, cameras, objects, time."""

import dataclasses
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import mujoco
import numpy as np
from franky_sim.mujoco_simulator import MujocoSimulator

from spear_bringup.sim.cameras import EXTERNAL, WRIST, View
from spear_bringup.sim.franky_server import TICK_S, FrankaWorldServer
from spear_bringup.sim.layout import layout
from spear_bringup.sim.mended_robot import add_mended_robot
from spear_bringup.sim.objects import OBJECTS
from spear_bringup.sim.pacing import Pacer, RealTimeFactor
from spear_bringup.sim.rendering import Images, Painter, RenderThread
from spear_bringup.sim.scene import furnish
from spear_policy.geometry.poses import Pose
from spear_policy.geometry.quaternions import wxyz_from_xyzw, xyzw_from_wxyz

_TICKS_A_S = round(1 / TICK_S)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorldSettings:
    """What a world is made with; the defaults are those of config/sim_world.yaml.

    Attributes:
        host: address whose ports the robot listens on.
        start_time_s: simulated time at the first tick.
        real_time_factor: simulated seconds a wall second; 0 means as fast as the machine can.
        image_rate_hz, clock_rate_hz, object_rate_hz: in simulated time.
        external, wrist: the two views; `cameras` False draws none.
        mesh_detail_m: smallest detail of the robot that is drawn; 0 draws all of it.
    """

    host: str = "127.0.0.1"
    seed: int = 0
    layout: str = "random"
    start_time_s: float = 1.0
    real_time_factor: float = 1.0
    clock_rate_hz: int = 100
    object_rate_hz: int = 10
    image_rate_hz: int = 15
    cameras: bool = True
    external: View = EXTERNAL
    wrist: View = WRIST
    shadows: bool = False
    mesh_detail_m: float = 0.006


@dataclass(frozen=True)
class WorldListener:
    """Who is told what, with the simulated time [s] first.

    `clock` and `objects` are called by the physics thread and must return at once, `images` by the
    render thread.
    """

    clock: Callable[[float], None] = lambda time_s: None
    objects: Callable[[float, dict[str, Pose]], None] = lambda time_s, poses: None
    images: Callable[[float, Images], None] = lambda time_s, images: None


class World:
    """A Franka at a table. Built and bound to its ports at once, moves from `start` to `stop`."""

    def __init__(self, settings: WorldSettings, listener: WorldListener = WorldListener()):
        """
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
        # A world that stops meanwhile serves what is left.
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
        while self._requests:
            function, future = self._requests.popleft()
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


def sized(view: View, width_px: int, height_px: int) -> View:
    """The same view with another image size; the vertical field of view stays."""
    return dataclasses.replace(view, width_px=width_px, height_px=height_px)
