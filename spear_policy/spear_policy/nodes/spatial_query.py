"""spatial_query: where is the carrot? A 3D box in the newest picture of a camera.

Example:
  ros2 run spear_policy spatial_query --ros-args -p checkpoint:=out/vlm/final
  ros2 service call /spatial_query spear_msgs/srv/SpatialQuery "{label: 'red mug'}"
"""

import sys
import time
from dataclasses import dataclass

from geometry_msgs.msg import Point
from rclpy.timer import Timer
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from spear_msgs.srv import SpatialQuery
from spear_policy.geometry.poses import Pose
from spear_policy.inference.observation import InputError, rgb_of_message
from spear_policy.inference.spatial_model import Place, SpatialAnswer, SpatialModel, question_of
from spear_policy.nodes.lifecycle import OK, WARN, RefusedError, SpearNode, run
from spear_policy.nodes.messages import (
    EVENT,
    SENSOR,
    pose_to_msg,
    s_to_duration,
    stamp_to_s,
    text_to_msg,
    vector_to_msg,
)
from spear_policy.nodes.parameters import Parameters, node_help
from spear_policy.nodes.policy_topics import IMAGE_TOPICS, choose_bridge

# The model answers on the data plane's own thread: meanwhile pictures wait, and only the newest
# counts anyway. What the robot needs runs in other processes.


@dataclass(frozen=True, eq=False)
class ReceivedPicture:
    """An image message and its receipt on the steady clock [s]."""

    message: Image | CompressedImage
    received_s: float


class SpatialQueryNode(SpearNode):
    """Lifecycle shell around a `SpatialModel`: newest picture, service, markers."""

    def __init__(self, arguments: list[str] | None = None):
        """Configure and activate at once where the parameter autostart says so."""
        super().__init__("spatial_query", arguments)
        self.params = Parameters(self, "spear_policy", "spatial_query")
        self._model: SpatialModel | None = None
        self._camera_pose: Pose | None = None  # in the base frame
        self._newest: ReceivedPicture | None = None
        self._pictures = None
        self._answered = self._refused = 0
        self._text = "no question yet"
        self._bridge, bridge_text = choose_bridge()
        self.get_logger().info(bridge_text)
        self._markers = self.io.create_publisher(MarkerArray, "spatial_query/markers", EVENT)
        self._detections = _DetectionPublisher(self)
        self.io.create_service(SpatialQuery, "spatial_query", self._on_query)
        self._autostart: Timer | None = None
        if self.params["autostart"]:
            # Of the control plane: a transition takes as long as loading the model does.
            self._autostart = self.create_timer(0.0, self._start, callback_group=self.control_group)

    def configure(self) -> None:
        self.params.check()
        params = self.params
        if not params["checkpoint"]:
            raise RefusedError("checkpoint is empty; give the folder that stage 1 has left")
        if params["base_frame"]:
            try:
                self._camera_pose = Pose(
                    params["camera_position_m"], params["camera_orientation_xyzw"]
                )
            except ValueError as error:
                raise RefusedError(f"camera_position_m, camera_orientation_xyzw: {error}") from None
        try:
            self._model = SpatialModel.load(
                params["checkpoint"],
                device=params["device"],
                dtype=params["weights_dtype"],
                threads=params["torch_threads"],
            )
        except (ValueError, OSError) as error:
            raise RefusedError(f"checkpoint: {error}") from None
        self._model.warm_up()

    def activate(self) -> None:
        topic, kind = self._topic, Image
        if self.params["transport"] == "compressed":
            kind = CompressedImage
        self._pictures = self.io.create_subscription(kind, topic, self._on_picture, SENSOR)

    def deactivate(self) -> None:
        if self._pictures:
            self.io.destroy_subscription(self._pictures)
        self._pictures = self._newest = None

    def cleanup(self) -> None:
        self._model = self._camera_pose = None
        self.params.release()

    def diagnose(self):
        numbers = {"answered": self._answered, "refused": self._refused}
        if not self.active:
            return [("spatial_query", OK, "not active", numbers)]
        problem = "" if self._newest else f"no picture on {self._resolved}"
        return [("spatial_query", WARN if problem else OK, problem or self._text, numbers)]

    @property
    def _topic(self) -> str:
        compressed = self.params["transport"] == "compressed"
        return IMAGE_TOPICS[self.params["camera"]] + ("/compressed" if compressed else "")

    @property
    def _resolved(self) -> str:
        return self.io.resolve_topic_name(self._topic)

    def _start(self) -> None:
        self.destroy_timer(self._autostart)
        self.trigger_configure()
        if self._configured:
            self.trigger_activate()

    def _on_picture(self, message: Image | CompressedImage) -> None:
        self._newest = ReceivedPicture(message, time.monotonic())

    # Questions ---------------------------------------------------------------------------

    def _on_query(self, request: SpatialQuery.Request, response: SpatialQuery.Response):
        try:
            question, kind = question_of(request.label, request.question, request.kind)
            message, age_s = self._newest_message()
            picture = rgb_of_message(message, self._resolved, self._bridge)
            said = self._model.ask(picture, question, kind)
        except ValueError as error:  # an InputError or an AnswerError too
            self._refused += 1
            self._text = response.message = text_to_msg(str(error))
            return response
        self._answered += 1
        self._fill(response, said, message.header, age_s)
        if said.place:
            self._publish(request.label.strip() or question, said.place, message.header)
        self._text = text_to_msg(f"{question} {said.text}")
        self.get_logger().info(f"{question} {_in_words(said, self._model.metric)}")
        return response

    def _newest_message(self) -> tuple[Image | CompressedImage, float]:
        """The newest picture and its age [s]. Raises InputError."""
        newest = self._newest
        if not self.active:
            raise InputError("spatial_query is not active: configure and activate it")
        if newest is None:
            raise InputError(f"no picture has come on {self._resolved}: start the camera driver")
        message = newest.message
        age_s = self.now_s() - stamp_to_s(message.header.stamp)
        oldest_s = age_s
        if not self.simulated_time:  # a camera whose clock is ahead must not look fresh for ever
            oldest_s = max(age_s, time.monotonic() - newest.received_s)
        if oldest_s > self.params["max_image_age_s"]:
            raise InputError(
                f"the newest picture on {self._resolved} is {oldest_s:.1f} s old, more than "
                f"max_image_age_s ({self.params['max_image_age_s']:g} s): is the camera running, "
                "and its clock right?"
            )
        return message, age_s

    def _fill(self, response, said: SpatialAnswer, header: Header, age_s: float) -> None:
        response.success = True
        response.answer = text_to_msg(said.text)
        response.numbers = [float(number) for number in said.numbers_m]
        response.metric = self._model.metric
        response.header = header
        response.image_age = s_to_duration(age_s)
        response.inference_time = s_to_duration(said.inference_s)
        if said.place is None:
            return
        response.has_pose = True
        response.pose, response.size = (
            pose_to_msg(said.place.pose),
            vector_to_msg(said.place.size_m),
        )
        if self._camera_pose and self._model.metric:
            response.has_base_pose = True
            response.base_frame_id = self.params["base_frame"]
            response.base_pose = pose_to_msg(said.place.seen_from(self._camera_pose).pose)

    def _publish(self, label: str, place: Place, header: Header) -> None:
        """Show an answer, in the base frame where the camera's place in it is known."""
        header = Header(stamp=header.stamp, frame_id=header.frame_id)
        if self._camera_pose and self._model.metric:
            place, header.frame_id = place.seen_from(self._camera_pose), self.params["base_frame"]
        markers = markers_of(label, place)
        for marker in markers:
            marker.header = header
            marker.lifetime = s_to_duration(self.params["marker_lifetime_s"])
        self._markers.publish(MarkerArray(markers=markers))
        self._detections.publish(label, place, header)


# Pictures for people ------------------------------------------------------------------------------

_POINT_M = 0.02  # how large a point is drawn
_EDGE_M = 0.004
_TEXT_M = 0.04
_COLOUR = (0.1, 0.7, 1.0)


def markers_of(label: str, place: Place) -> list[Marker]:
    """A box with its edges, or a ball for a point, and the label above it."""
    pose, size_m = place.pose, place.size_m
    solid = Marker(ns=label, id=0, type=Marker.CUBE, pose=pose_to_msg(pose))
    # RViz draws nothing of a box without thickness.
    solid.scale = vector_to_msg([max(float(side), 1e-3) for side in size_m])
    solid.color.a = 0.35
    edges = Marker(ns=label, id=1, type=Marker.LINE_LIST, pose=pose_to_msg(pose))
    edges.scale.x = _EDGE_M
    edges.color.a = 1.0
    half = size_m / 2
    for axis in range(3):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        for u, v in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            for end in (-1, 1):
                corner = [0.0, 0.0, 0.0]
                corner[axis], corner[a], corner[b] = end * half[axis], u * half[a], v * half[b]
                edges.points.append(Point(**dict(zip("xyz", map(float, corner), strict=True))))
    if not any(size_m):
        solid.type, solid.color.a, edges.points = Marker.SPHERE, 1.0, []
        solid.scale = vector_to_msg([_POINT_M] * 3)
    text = Marker(ns=label, id=2, type=Marker.TEXT_VIEW_FACING, text=label, pose=pose_to_msg(pose))
    text.scale.z = _TEXT_M
    text.color.a = 1.0
    for marker in (solid, edges):
        marker.color.r, marker.color.g, marker.color.b = _COLOUR
    text.color.r = text.color.g = text.color.b = 1.0
    return [solid, edges, text] if edges.points else [solid, text]


class _DetectionPublisher:
    """vision_msgs/Detection3DArray, where that package is installed."""

    def __init__(self, node: SpearNode):
        try:
            from vision_msgs import msg
        except ImportError:
            self._msg = None
            node.get_logger().info("no vision_msgs here: answers are published as markers only")
            return
        self._msg = msg
        topic = "spatial_query/detections"
        self._publisher = node.io.create_publisher(msg.Detection3DArray, topic, EVENT)

    def publish(self, label: str, place: Place, header: Header) -> None:
        if self._msg is None:
            return
        hypothesis = self._msg.ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = label
        hypothesis.hypothesis.score = 1.0  # it was said; the model gives no probability
        hypothesis.pose.pose = pose_to_msg(place.pose)
        box = self._msg.BoundingBox3D(center=pose_to_msg(place.pose))
        box.size = vector_to_msg(place.size_m)
        found = self._msg.Detection3D(header=header, results=[hypothesis], bbox=box, id=label)
        self._publisher.publish(self._msg.Detection3DArray(header=header, detections=[found]))


def _in_words(said: SpatialAnswer, metric: bool) -> str:
    if said.place is None:
        return said.text
    unit = "m" if metric else "units of its own"
    x, y, z = said.place.pose.position_m
    width, height, depth = said.place.size_m
    size = f", size {width:.3f} x {height:.3f} x {depth:.3f}" if any(said.place.size_m) else ""
    return f"at ({x:.3f}, {y:.3f}, {z:.3f}){size} {unit}, camera frame, {said.inference_s:.2f} s"


def main() -> None:
    """Run until SIGINT or SIGTERM; `--help` shows how."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(node_help("spear_policy", "spatial_query", __doc__))
        return
    sys.exit(run(SpatialQueryNode))


if __name__ == "__main__":
    main()
