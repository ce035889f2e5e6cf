"""Simulated Franka at a table: physics behind the robot's own protocol, two cameras, /clock.

Example:
    ros2 run spear_bringup sim_world --ros-args -p host:=127.0.0.1 -p seed:=3
    ros2 param set /sim_world seed 4 && ros2 service call /sim_world/reset std_srvs/srv/Trigger
"""

import array
import sys

from rclpy.clock import Clock, ClockType
from rosgraph_msgs.msg import Clock as ClockMsg
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Float64
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker, MarkerArray

from spear_bringup.sim.franka_server import AddressError
from spear_bringup.sim.rendering import Images, RenderingError
from spear_bringup.sim.table_top import EXTERNAL, OBJECTS, WRIST, Cube, View
from spear_bringup.sim.world import World, WorldListener, WorldSettings, sized
from spear_policy.geometry.poses import Pose
from spear_policy.nodes.lifecycle import ERROR, OK, WARN, RefusedError, SpearNode, run
from spear_policy.nodes.messages import (
    COMMAND,
    EVENT,
    SENSOR,
    pose_to_msg,
    s_to_stamp,
    vector_to_msg,
)
from spear_policy.nodes.parameters import Parameters, node_help

# The fields of WorldSettings that are parameters of the same name.
_SETTINGS = (
    "host",
    "seed",
    "layout",
    "real_time_factor",
    "clock_rate_hz",
    "object_rate_hz",
    "cameras",
    "image_rate_hz",
    "shadows",
    "mesh_detail_m",
)


class SimWorld(SpearNode):
    """Configure builds the scene and binds the robot's ports; active means that time passes."""

    def __init__(self, arguments: list[str] | None = None):
        super().__init__("sim_world", arguments)
        self.params = Parameters(self, "spear_bringup", "sim_world")
        self._world: World | None = None
        self._time_s = 1.0  # a clock at zero means "no clock yet" to ROS
        self._infos: dict[str, CameraInfo] = {}
        publisher = self.io.create_publisher
        self._clock_out = publisher(ClockMsg, "/clock", COMMAND)
        self._objects = publisher(MarkerArray, "sim_world/objects", EVENT)
        self._factor = publisher(Float64, "sim_world/real_time_factor", EVENT)
        self._cameras = {
            view.name: (
                publisher(Image, f"{view.name}/image_raw", SENSOR),
                publisher(CameraInfo, f"{view.name}/camera_info", SENSOR),
            )
            for view in (EXTERNAL, WRIST)
        }
        self.io.create_service(Trigger, "sim_world/reset", self._on_reset)
        self.io.create_service(Trigger, "sim_world/trigger_reflex", self._on_trigger_reflex)
        # The wall clock judges the simulated one.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.io.create_timer(1.0, self._publish_factor, clock=steady)

    # Lifecycle ---------------------------------------------------------------------------

    def configure(self) -> None:
        self.params.check()
        views = {
            view.name: sized(
                view, self.params[f"{view.name}_width_px"], self.params[f"{view.name}_height_px"]
            )
            for view in (EXTERNAL, WRIST)
        }
        settings = WorldSettings(
            start_time_s=self._time_s,
            **views,
            **{name: self.params[name] for name in _SETTINGS},
        )
        self._infos = {name: _camera_info(view) for name, view in views.items()}
        listener = WorldListener(self._on_clock, self._on_objects, self._on_images)
        try:
            self._world = World(settings, listener)
        except (AddressError, RenderingError, ValueError) as error:
            raise RefusedError(str(error)) from error
        self.get_logger().info(f"simulated Franka at {settings.host}, scene {settings.seed}")

    def activate(self) -> None:
        self._world.start()

    def deactivate(self) -> None:
        if self._world is not None:
            self._world.stop()

    def cleanup(self) -> None:
        if self._world is not None:
            self._world.close()
            self._time_s = self._world.time_s  # the next world's clock goes on from here
            self._world = None
        self.params.release()

    def diagnose(self) -> list[tuple[str, bytes, str, dict]]:
        world = self._world
        if world is None or not self.active:
            return super().diagnose()
        if world.failure is not None:
            return [("physics", ERROR, f"physics stopped: {world.failure}", {})]
        rate = world.rate
        behind = rate.value < 0.9 * self.params["real_time_factor"]
        values = {
            "real_time_factor": f"{rate.value:.3f}",
            "processor_us_per_tick": f"{1000 * rate.processor_share:.0f}",
        }
        text = "slower than the wall clock: the machine is busy" if behind else "keeps its pace"
        rows = [("physics", WARN if behind else OK, text, values)]
        if world.renderer is not None:
            lost = world.renderer.skipped
            text = f"{lost} pictures were not drawn in time" if lost else "every picture is drawn"
            rows.append(("cameras", WARN if lost else OK, text, {"skipped": lost}))
        return rows

    # From the world's own threads --------------------------------------------------------

    def _on_clock(self, time_s: float) -> None:
        self._clock_out.publish(ClockMsg(clock=s_to_stamp(time_s)))

    def _on_objects(self, time_s: float, poses: dict[str, Pose]) -> None:
        stamp, frame = s_to_stamp(time_s), self.params["base_frame"]
        markers = [_marker(number, *item) for number, item in enumerate(poses.items())]
        for marker in markers:
            marker.header.stamp, marker.header.frame_id = stamp, frame
        self._objects.publish(MarkerArray(markers=markers))

    def _on_images(self, time_s: float, images: Images) -> None:
        stamp = s_to_stamp(time_s)
        for name, pixels in images.items():
            image_publisher, info_publisher = self._cameras[name]
            info = self._infos[name]
            info.header.stamp = stamp
            height, width, channels = pixels.shape
            image = Image(
                header=info.header,
                height=height,
                width=width,
                encoding="rgb8",
                step=width * channels,
                data=array.array("B", pixels.tobytes()),
            )
            image_publisher.publish(image)
            info_publisher.publish(info)

    # Requests ----------------------------------------------------------------------------

    def _on_reset(self, _request, response: Trigger.Response) -> Trigger.Response:
        seed = self.params["seed"]
        return self._answer(response, lambda world: world.reset(seed), f"scene {seed} is set")

    def _on_trigger_reflex(self, _request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(
            response,
            lambda world: world.call(world.server.robot.trigger_reflex),
            "the robot stopped as if it had felt a collision",
        )

    def _answer(self, response: Trigger.Response, order, done: str) -> Trigger.Response:
        world = self._world
        if world is None:
            response.message = "there is no world yet: configure sim_world first"
            return response
        try:
            order(world)
        except Exception as error:
            response.message = f"{type(error).__name__}: {error}"
            return response
        response.success, response.message = True, done
        return response

    def _publish_factor(self) -> None:
        if self.active and self._world is not None:
            self._factor.publish(Float64(data=self._world.rate.value))


def _marker(number: int, name: str, pose: Pose) -> Marker:
    item = OBJECTS[name]
    marker = Marker(ns=name, id=number, action=Marker.ADD, pose=pose_to_msg(pose))
    marker.type = Marker.CUBE if isinstance(item, Cube) else Marker.CYLINDER
    marker.scale = vector_to_msg(item.size_m)
    marker.color.r, marker.color.g, marker.color.b = item.rgb
    marker.color.a = 1.0
    return marker


def _camera_info(view: View) -> CameraInfo:
    k = view.intrinsics
    info = CameraInfo(width=view.width_px, height=view.height_px, distortion_model="plumb_bob")
    info.header.frame_id = view.frame_id
    info.d = [0.0] * 5
    info.k = [float(value) for value in k.ravel()]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [float(value) for row in k for value in (*row, 0.0)]
    return info


def main() -> None:
    """Run the node; `--help` shows how."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(node_help("spear_bringup", "sim_world", __doc__))
        return
    sys.exit(run(SimWorld))


if __name__ == "__main__":
    main()
