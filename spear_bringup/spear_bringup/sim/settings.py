"""What a world is made with, and whom it tells what."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from spear_bringup.sim.cameras import EXTERNAL, WRIST, View
from spear_bringup.sim.rendering import Images
from spear_policy.geometry.poses import Pose


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


SILENT = WorldListener()


def sized(view: View, width_px: int, height_px: int) -> View:
    """The same view with another image size; the vertical field of view stays."""
    return dataclasses.replace(view, width_px=width_px, height_px=height_px)
