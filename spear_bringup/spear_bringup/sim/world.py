"""The simulated table-top as a whole: physics, the robot's ports, cameras, objects, time.

First how simulated time keeps to the wall clock, then what a world is made with, then the world.
"""

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import mujoco
import numpy as np
from franky_sim.mujoco_simulator import MujocoSimulator

from spear_bringup.sim.franka_robot import TICK_S, add_franka
from spear_bringup.sim.franka_server import FrankaWorldServer
from spear_bringup.sim.rendering import Images, RenderThread, SceneRenderer
from spear_bringup.sim.table_top import EXTERNAL, OBJECTS, WRIST, View, furnish, layout
from spear_policy.geometry.poses import Pose
from spear_policy.geometry.quaternions import wxyz_from_xyzw, xyzw_from_wxyz

# Simulated time against the wall clock -----------------------------------------------------------

# A machine that fell behind catches up this much and no more: after a long stall the world would
# otherwise race past nodes that are still waking up.
DEBT_LIMIT_S = 0.05


class Pacer:
    """Sleeps so that simulated time advances `factor` times as fast as the wall clock.

    A factor of 0 never sleeps.
    """

    def __init__(self, factor: float, tick_s: float):
        self._period_s = tick_s / factor if factor > 0 else 0.0
        self._deadline_s = time.monotonic()

    def wait(self) -> None:
        """Sleep until the next tick is due; not at all when it is overdue."""
        if not self._period_s:
            return
        self._deadline_s += self._period_s
        ahead = self._deadline_s - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        elif ahead < -DEBT_LIMIT_S:
            self._deadline_s = time.monotonic() - DEBT_LIMIT_S


class RealTimeFactor:
    """Simulated seconds a wall second and processor time a tick, over the last `window_s`."""

    def __init__(self, window_s: float = 2.0):
        self._window_s = window_s
        self._marks: deque[tuple[float, float, float]] = deque()

    def mark(self, simulated_s: float) -> None:
        """Note the progress; called from the stepping thread now and then."""
        now = time.monotonic()
        self._marks.append((now, simulated_s, time.thread_time()))
        while len(self._marks) > 2 and self._marks[0][0] < now - self._window_s:
            self._marks.popleft()

    def clear(self) -> None:
        """Forget the past, after a pause."""
        self._marks.clear()

    @property
    def value(self) -> float:
        """Simulated seconds a wall second; 0.0 while nothing is known."""
        wall, simulated, _ = self._spans()
        return simulated / wall if wall > 0 else 0.0

    @property
    def processor_share(self) -> float:
        """Processor seconds of the stepping thread a simulated second; 0.0 while unknown."""
        _, simulated, processor = self._spans()
        return processor / simulated if simulated > 0 else 0.0

    def _spans(self) -> tuple[float, float, float]:
        marks = list(self._marks)
        if len(marks) < 2:
            return 0.0, 0.0, 0.0
        return tuple(end - start for start, end in zip(marks[0], marks[-1], strict=True))


# Settings and listener -------------------------------------------------------------------------


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
    """What is called with what, the simulated time [s] first.

    `clock` and `objects` are called by the physics thread and must return at once, `images` by the
    render thread.
    """

    clock: Callable[[float], None] = lambda time_s: None
    objects: Callable[[float, dict[str, Pose]], None] = lambda time_s, poses: None
    images: Callable[[float, Images], None] = lambda time_s, images: None


SILENT = WorldListener()


def sized(view: View, width_px: int, height_px: int) -> View:
    """The same view with another image size; the vertical field of view stays."""
    return dataclasses.replace(view, width_px=width_px, height_px=height_px)


# The world -------------------------------------------------------------------------------------

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
        robot = add_franka(self.sim)
        furnish(self.sim.scene, self.sim.worldbody)
        self.server = FrankaWorldServer(self.sim, robot, settings.host)
        self.renderer: RenderThread | None = None
        try:
            self.sim.start()
            self._place(poses)
            if settings.cameras:
                self.renderer = RenderThread(self._make_renderer, listener.images)
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
        except Exception as error:  # kept for the node to report, as nobody joins this thread
            self.failure = error
            _log.exception("physics stopped")

    def _report(self) -> None:
        now = self.time_s
        if self._due(self.settings.clock_rate_hz):
            self._listener.clock(now)
        if self._due(self.settings.object_rate_hz):
            self.rate.mark(now)
            self._listener.objects(now, self.object_poses())
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

    def _make_renderer(self) -> SceneRenderer:
        settings = self.settings
        return SceneRenderer(self.sim.model, self.views, settings.shadows, settings.mesh_detail_m)
