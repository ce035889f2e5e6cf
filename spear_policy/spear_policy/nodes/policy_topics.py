"""The topics of the policy node: observations in, chunks and status out, the instruction.

In: images, ee_state and objects (`PolicyInputs`). Out: chunks, their single steps when due, holds
and the status (`PolicyOutputs`). Both ways: the topic `instruction`. In place of the
cameras: the images that a recording brings (`ReplayedImages`). The coordinator in policy_node
decides what is published when.
"""

import inspect
import time
import uuid
from collections import deque
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from rclpy.duration import Duration
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from spear_msgs.msg import ActionChunk, EndEffectorDelta, EndEffectorState, PolicyStatus
from spear_policy.geometry.poses import Chunk
from spear_policy.inference.engine import EngineCard, Observation, SceneObject
from spear_policy.inference.image_codec import CvBridge
from spear_policy.inference.instruction_session import Session, StepSchedule
from spear_policy.inference.observation import (
    CameraFrame,
    InputError,
    InputLimits,
    SyncedInputs,
    Synchroniser,
    decode,
)
from spear_policy.nodes.messages import (
    COMMAND,
    LATCHED,
    SENSOR,
    chunk_to_msg,
    pose_from_msg,
    s_to_duration,
    s_to_stamp,
    stamp_to_s,
    text_to_msg,
)

IMAGE_TOPICS = {"external": "external/image_raw", "wrist": "wrist/image_raw"}


# Inputs -------------------------------------------------------------------------------------------


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
        names = [each.name for each in fields(InputLimits) if each.name != "judge_receipt"]
        limits = InputLimits(
            judge_receipt=not node.simulated_time, **{name: node.params[name] for name in names}
        )
        # Before the subscriptions: a message may come while the next one is being made.
        self._synchroniser = Synchroniser(
            self.cameras, limits, {"objects": "", **self.topics}, card.needs_objects
        )
        self._subscriptions = {
            name: node.io.create_subscription(kind, topic, callback, SENSOR)
            for name, (kind, topic, callback) in wanted.items()
        }

    def close(self) -> None:
        """Receive nothing any more."""
        for subscription in self._subscriptions.values():
            self._node.io.destroy_subscription(subscription)
        self._subscriptions = {}

    def counts(self) -> tuple[int, int]:
        """(images received, images dropped)."""
        return self._synchroniser.counts()

    def newest(self) -> SyncedInputs | None:
        """The newest inputs not given out before, or None. Raises InputError."""
        now_s = self._node.now_s()
        if self._node.simulated_time and now_s == 0.0:
            raise InputError(
                "use_sim_time is set but nothing comes on /clock; start sim_world, or set "
                "use_sim_time to false"
            )
        return self._synchroniser.newest(now_s, time.monotonic())

    def observation(self, synced: SyncedInputs, instruction: str) -> Observation:
        """The inputs with their images decoded. Raises InputError for an image of a wrong kind."""
        return Observation(
            stamp_s=synced.stamp_s,
            measured=synced.measured,
            commanded=synced.commanded,
            gripper_opening=synced.gripper_opening,
            instruction=instruction,
            images=decode(synced.frames, self.cameras, self.topics, self._bridge),
            objects=synced.objects,
        )

    def _image_subscription(self, camera: str) -> tuple:
        def on_image(message):
            frame = CameraFrame(stamp_to_s(message.header.stamp), time.monotonic(), message)
            self._synchroniser.add_frame(camera, frame)

        if self._node.params[f"{camera}_transport"] == "compressed":
            return CompressedImage, f"{IMAGE_TOPICS[camera]}/compressed", on_image
        return Image, IMAGE_TOPICS[camera], on_image

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
            self._synchroniser.reject("ee_state", f"{error}; check the robot driver")

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


def choose_bridge() -> tuple[Any, str]:
    """A converter with cv_bridge's methods, and a sentence that names it and says why it is used.

    ROS's own where it works, else ours.
    """
    try:
        bridge = _ros_bridge()
    except Exception as error:  # a broken cv_bridge fails in many ways, none of which stop us
        return CvBridge(Image, CompressedImage), f"own image converter: {error}"
    return bridge, "image converter: cv_bridge of ROS"


def _ros_bridge() -> Any:
    """The installed cv_bridge, after it has shown that it works here. Raises when it does not."""
    try:
        from cv_bridge import CvBridge as RosBridge
    except ImportError as error:
        raise ImportError(f"no cv_bridge to import ({error})") from None
    if "header" not in inspect.signature(RosBridge.cv2_to_imgmsg).parameters:
        raise ImportError("the installed cv_bridge is the one of ROS 1 (from PyPI?)")
    bridge = RosBridge()
    sample = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    message = bridge.cv2_to_imgmsg(sample, "rgb8")
    same = bridge.imgmsg_to_cv2(message, "rgb8")
    swapped = bridge.imgmsg_to_cv2(message, "bgr8")
    depth = bridge.cv2_to_imgmsg(np.full((2, 2), 40000, np.uint16), "16UC1")
    works = np.array_equal(same, sample) and np.array_equal(swapped, sample[..., ::-1])
    if not works or int(bridge.imgmsg_to_cv2(depth)[0, 0]) != 40000:
        raise ImportError("the installed cv_bridge failed its self-test")
    return bridge


# Outputs ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timings:
    """How long a chunk took [s]: image age and skew by the node clock, the others by the wall's."""

    image_age_s: float = 0.0
    image_skew_s: float = 0.0
    preprocess_s: float = 0.0
    inference_s: float = 0.0


class PolicyOutputs:
    """Publishers and the numbers that go out with them. Not thread-safe: the owner locks.

    Attributes:
        source_id: random per process, so that a driver can tell two publishers apart.
        chunk_id: of the newest chunk.
        late: chunks whose first step was due before they went out.
        timings: of the newest chunk.
    """

    def __init__(self, node):
        """Create the publishers on the node's data plane."""
        self.source_id = uuid.uuid4().hex
        self.chunk_id = 0
        self.late = 0
        self.timings = Timings()
        self._inference_s: deque[float] = deque(maxlen=100)
        self._schedule = StepSchedule()
        create = node.io.create_publisher
        self._chunks = create(ActionChunk, "action_chunk", COMMAND)
        self._deltas = create(EndEffectorDelta, "ee_delta", COMMAND)
        self._status = create(PolicyStatus, "policy_status", LATCHED)

    def publish_chunk(
        self,
        chunk: Chunk,
        session: Session,
        card: EngineCard,
        frames: tuple[str, str],
        timings: Timings,
        now_s: float,
    ) -> None:
        """Publish a chunk of the instruction in force; `frames` are those of base and hand."""
        message = self._signed(chunk_to_msg(chunk, *frames), session, card)
        for step in message.steps:
            step.chunk_source_id, step.chunk_id = message.source_id, message.chunk_id
        message.image_age = s_to_duration(timings.image_age_s)
        message.preprocess_time = s_to_duration(timings.preprocess_s)
        message.inference_time = s_to_duration(timings.inference_s)
        self._chunks.publish(message)
        self.timings = timings
        self._inference_s.append(timings.inference_s)
        due_s = chunk.due_times_s()
        self.late += bool(now_s > due_s[0])
        self._schedule.replace(due_s, message.steps, now_s)

    def publish_hold(self, session: Session, card: EngineCard, now_s: float) -> None:
        """Make the robot stop and stay, and forget the steps that were still to come."""
        self._schedule.clear()
        message = self._signed(ActionChunk(kind=ActionChunk.KIND_HOLD), session, card)
        message.header.stamp = s_to_stamp(now_s)
        message.dt = s_to_duration(card.dt_s)
        self._chunks.publish(message)

    def publish_due_steps(self, now_s: float) -> None:
        """Publish the single steps that became due."""
        for step in self._schedule.due(now_s):
            self._deltas.publish(step)

    def publish_status(
        self, session: Session, card: EngineCard, image_counts: tuple[int, int], now_s: float
    ) -> None:
        """Publish policy_status."""
        p50_s, p99_s = self.inference_percentiles_s()
        message = PolicyStatus(
            state=int(session.state),
            engine=card.engine,
            checkpoint_id=card.checkpoint_id,
            statistics_hash=card.statistics_hash,
            source_id=self.source_id,
            instruction=session.instruction,
            instruction_id=session.instruction_id,
            chunk_id=self.chunk_id,
            text=text_to_msg(session.text),
            image_age=s_to_duration(self.timings.image_age_s),
            image_skew=s_to_duration(self.timings.image_skew_s),
            preprocess_time=s_to_duration(self.timings.preprocess_s),
            inference_time=s_to_duration(self.timings.inference_s),
            inference_p50=s_to_duration(p50_s),
            inference_p99=s_to_duration(p99_s),
            images_received=image_counts[0],
            images_dropped=image_counts[1],
            chunks_late=self.late,
        )
        message.header.stamp = s_to_stamp(now_s)
        self._status.publish(message)

    def wait_until_received(self, timeout_s: float) -> None:
        """Give every subscriber of the chunks the time to acknowledge the last one."""
        self._chunks.wait_for_all_acked(Duration(seconds=timeout_s))

    def inference_percentiles_s(self) -> tuple[float, float]:
        """(p50, p99) of the inference time over the last 100 chunks [s, wall]; 0 before any."""
        if not self._inference_s:
            return 0.0, 0.0
        return tuple(float(p) for p in np.percentile(self._inference_s, (50, 99)))

    def _signed(self, message: ActionChunk, session: Session, card: EngineCard) -> ActionChunk:
        self.chunk_id += 1
        message.source_id, message.chunk_id = self.source_id, self.chunk_id
        message.instruction, message.instruction_id = session.instruction, session.instruction_id
        message.checkpoint_id, message.statistics_hash = card.checkpoint_id, card.statistics_hash
        return message


# The instruction, and the images of a recording ---------------------------------------------------


class InstructionTopic:
    """The instructions of others, and those of goals published on, so that bags have every one.

    Volatile on purpose: nothing that was said before this node was there reaches it, so a policy
    that was restarted waits until somebody instructs it again, and publishers of either durability
    (`ros2 topic pub` too) are received.
    """

    def __init__(self, node, on_instruction):
        """Call `on_instruction(text)` on the data plane for each instruction of somebody else."""
        self._node, self._on_instruction = node, on_instruction
        self._echoes: list[str] = []
        self._publisher = node.io.create_publisher(String, "instruction", COMMAND)
        self._subscription = node.io.create_subscription(
            String, "instruction", self._on_message, COMMAND
        )

    def close(self) -> None:
        """Receive and publish nothing any more."""
        self._node.io.destroy_subscription(self._subscription)
        self._node.io.destroy_publisher(self._publisher)

    def publish(self, text: str) -> None:
        """Publish the instruction of a goal."""
        self._echoes.append(text)
        self._publisher.publish(String(data=text))

    def _on_message(self, message: String) -> None:
        text = message.data
        if text not in self._echoes:
            self._on_instruction(text)
            return
        # The topic keeps the last message only, so earlier echoes may never come.
        del self._echoes[: self._echoes.index(text) + 1]


class ReplayedImages:
    """Recorded frames on the camera topics, rgb8, stamped when they are due [node clock]."""

    def __init__(self, node, engine):
        """Make a publisher for each recorded camera."""
        self._node, self._engine = node, engine
        self._bridge = CvBridge(Image, CompressedImage)
        self._publishers = {
            camera: node.io.create_publisher(Image, IMAGE_TOPICS[camera], SENSOR)
            for camera in engine.camera_sizes
        }

    def close(self) -> None:
        """Publish nothing any more."""
        for publisher in self._publishers.values():
            self._node.io.destroy_publisher(publisher)
        self._publishers = {}

    def publish_due(self, now_s: float) -> None:
        """Publish what became due since the last call."""
        for stamp_s, images in self._engine.frames_due(now_s):
            for camera, image in images.items():
                message = self._bridge.cv2_to_imgmsg(image, "rgb8")
                message.header.stamp = s_to_stamp(stamp_s)
                message.header.frame_id = f"camera_{camera}_optical_frame"
                self._publishers[camera].publish(message)
