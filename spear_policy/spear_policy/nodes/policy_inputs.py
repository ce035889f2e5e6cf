"""The policy node's subscriptions: messages in, moments with decoded images out."""

import time

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from spear_msgs.msg import EndEffectorState
from spear_policy.inference.decoding import decode
from spear_policy.inference.engine import EngineCard, Observation, SceneObject
from spear_policy.inference.frame_buffer import Frame
from spear_policy.inference.synchroniser import InputLimits, InputProblem, Moment, Synchroniser
from spear_policy.nodes.image_bridge import choose_bridge
from spear_policy.nodes.messages import pose_from_msg, stamp_to_s
from spear_policy.nodes.qos import SENSOR

IMAGE_TOPICS = {"external": "external/image_raw", "wrist": "wrist/image_raw"}
_LIMITS = [name for name in InputLimits.__dataclass_fields__ if name != "judge_receipt"]


class PolicyInputs:
    """Subscribes to what the engine's card asks for; everything else is not even received.

    Attributes:
        base_frame, ee_frame: the frames that the newest ee_state names.
        bridge_text: which image converter is used and why.
    """

    def __init__(self, node, card: EngineCard):
        """Subscribe on the node's data plane; `close` ends it."""
        self._node = node
        self.cameras = card.cameras
        self.base_frame = self.ee_frame = ""
        self._bridge, self.bridge_text = choose_bridge()
        wanted = {"ee_state": (EndEffectorState, "ee_state", self._on_state)}
        if card.needs_objects:
            wanted["objects"] = (MarkerArray, "sim_world/objects", self._on_objects)
        for spec in self.cameras:
            wanted[spec.name] = self._image_subscription(spec.name)
        self.topics = {
            name: node.io.resolve_topic_name(topic) for name, (_, topic, _) in wanted.items()
        }
        limits = InputLimits(
            judge_receipt=not node.simulated_time, **{name: node.params[name] for name in _LIMITS}
        )
        # Before the subscriptions: a message may come while the next one is being made.
        self._synchroniser = Synchroniser(
            self.cameras, limits, {"objects": "", **self.topics}, card.needs_objects
        )
        self._subscriptions = {
            name: node.io.create_subscription(kind, topic, callback, SENSOR)
            for name, (kind, topic, callback) in wanted.items()
        }

    def _image_subscription(self, camera: str) -> tuple:
        def on_image(message):
            frame = Frame(stamp_to_s(message.header.stamp), time.monotonic(), message)
            self._synchroniser.add_frame(camera, frame)

        if self._node.params[f"{camera}_transport"] == "compressed":
            return CompressedImage, f"{IMAGE_TOPICS[camera]}/compressed", on_image
        return Image, IMAGE_TOPICS[camera], on_image

    def close(self) -> None:
        """Receive nothing any more."""
        for subscription in self._subscriptions.values():
            self._node.io.destroy_subscription(subscription)
        self._subscriptions = {}

    def counts(self) -> tuple[int, int]:
        """(images received, images dropped)."""
        return self._synchroniser.counts()

    def moment(self) -> Moment | None:
        """The newest moment not given out before, or None. Raises InputProblem."""
        now_s = self._node.now_s()
        if self._node.simulated_time and now_s == 0.0:
            raise InputProblem(
                "use_sim_time is set but nothing comes on /clock; start sim_world, or set "
                "use_sim_time to false"
            )
        return self._synchroniser.moment(now_s, time.monotonic())

    def observation(self, moment: Moment, instruction: str) -> Observation:
        """The moment with its images decoded. Raises InputProblem for an image of a wrong kind."""
        return Observation(
            stamp_s=moment.stamp_s,
            measured=moment.measured,
            commanded=moment.commanded,
            gripper_opening=moment.gripper_opening,
            instruction=instruction,
            images=decode(moment.frames, self.cameras, self.topics, self._bridge),
            objects=moment.objects,
        )

    def _on_state(self, message: EndEffectorState) -> None:
        self.base_frame, self.ee_frame = message.header.frame_id, message.ee_frame_id
        try:
            if not np.isfinite(message.gripper_opening):
                raise ValueError(f"gripper_opening is {message.gripper_opening}")
            self._synchroniser.add_state(
                stamp_to_s(message.header.stamp),
                time.monotonic(),
                pose_from_msg(message.measured),
                pose_from_msg(message.commanded),
                message.gripper_opening,
            )
        except ValueError as error:
            self._synchroniser.reject("ee_state", f"{error}; look after the robot driver")

    def _on_objects(self, message: MarkerArray) -> None:
        if not message.markers:
            return
        try:
            objects = {}
            for marker in message.markers:
                if self.base_frame and marker.header.frame_id != self.base_frame:
                    raise ValueError(
                        f"{marker.ns} is given in frame {marker.header.frame_id!r}, ee_state in "
                        f"{self.base_frame!r}; both must be the robot's base"
                    )
                size = (marker.scale.x, marker.scale.y, marker.scale.z)
                objects[marker.ns] = SceneObject(pose_from_msg(marker.pose), size)
            stamp_s = stamp_to_s(message.markers[0].header.stamp)
            self._synchroniser.add_objects(stamp_s, time.monotonic(), objects)
        except ValueError as error:
            self._synchroniser.reject("objects", str(error))
