"""A policy node among real neighbours over DDS, in one process: cameras, robot, person, driver."""

import threading
import time
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Pose as PoseMsg
from geometry_msgs.msg import Quaternion
from rclpy.action import ActionClient
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_fixture import spinning, wait
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from visualization_msgs.msg import Marker, MarkerArray

from spear_msgs.action import RunInstruction
from spear_msgs.msg import ActionChunk, EndEffectorDelta, EndEffectorState, PolicyStatus
from spear_policy.geometry.poses import chunk_from_poses
from spear_policy.inference.engine import CameraSpec, EngineCard
from spear_policy.inference.image_codec import CvBridge
from spear_policy.nodes.messages import COMMAND, EVENT, LATCHED, SENSOR, stamp_to_s
from spear_policy.nodes.policy_node import PolicyNode

SIZES = {"external": (64, 48), "wrist": (32, 32)}
PATIENT_SENSOR = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)
PATIENT_LATCHED = QoSProfile(depth=200, durability=DurabilityPolicy.TRANSIENT_LOCAL)
CAMERAS = tuple(CameraSpec(name, *size) for name, size in SIZES.items())
BRIDGE = CvBridge(Image, CompressedImage)


class FakeEngine:
    """An engine whose every answer the test decides; it asks the arm to stay where it is."""

    def __init__(self, cameras=CAMERAS, **card):
        self.card = EngineCard("scripted", "fake-1", cameras, **card)
        self.seen, self.instructions = [], []
        self.notes = {}  # for /diagnostics
        self.now_s, self.begun_s = time.time, []  # the node clock, and when each infer began
        self.go_on = threading.Event()  # cleared: infer waits
        self.go_on.set()
        self.final_after = None
        self.error = None
        self.refuses = ""
        self.takes_s = 0.0

    def warm_up(self):
        self.warm = True

    def figures(self):
        return self.notes

    def reset(self, instruction):
        self.instructions.append(instruction)
        if self.refuses:
            raise ValueError(self.refuses)

    def infer(self, observation):
        self.begun_s.append(self.now_s())
        self.seen.append(observation)
        self.go_on.wait(60.0)
        time.sleep(self.takes_s)
        if self.error:
            raise self.error
        count = self.card.chunk_length
        chunk = chunk_from_poses(
            stamp_s=observation.stamp_s,
            dt_s=self.card.dt_s,
            measured=observation.measured,
            commanded=observation.commanded,
            targets=[observation.measured] * count,
            gripper_openings=np.ones(count),
            final=self.final_after is not None and len(self.seen) > self.final_after,
        )
        return chunk


class World(Node):
    """Publishes what a policy needs and remembers what it says."""

    def __init__(self, sim_time=False):
        super().__init__("world", parameter_overrides=[Parameter("use_sim_time", value=sim_time)])
        self.cameras = set(SIZES)  # those that publish
        self.publishing_states = self.publishing_objects = True
        self.stamp_offset_s = 0.0  # of the images
        self.encoding, self.sizes = "rgb8", dict(SIZES)
        self.noisy, self.black = set(), set()  # cameras; the others show the same colour for ever
        self._noise = np.random.default_rng(0)
        self._motion, self._start_x_m = (0.0, 0.0), 0.5  # since when [s], along x [m/s]; from [m]
        self.objects = {"red cube": ([0.5, 0.1, 0.02], (0.04, 0.04, 0.04))}
        self.objects["plate"] = ([0.5, -0.1, 0.007], (0.15, 0.15, 0.014))
        self.chunks, self.deltas, self.statuses, self.said = [], [], [], []
        self.diagnoses = []  # (level, {key: value}) of the policy in /diagnostics
        self.images = {name: [] for name in SIZES}  # heard, from whoever
        self.image_stamps_s = set()  # said
        self._states = self.create_publisher(EndEffectorState, "ee_state", SENSOR)
        self._objects = self.create_publisher(MarkerArray, "sim_world/objects", SENSOR)
        self._raw, self._compressed = {}, {}
        for name in SIZES:
            topic = f"{name}/image_raw"
            self._raw[name] = self.create_publisher(Image, topic, SENSOR)
            self._compressed[name] = self.create_publisher(
                CompressedImage, f"{topic}/compressed", SENSOR
            )
            self.create_subscription(Image, topic, self.images[name].append, PATIENT_SENSOR)
        self._person = self.create_publisher(String, "instruction", LATCHED)
        self.action = ActionClient(self, RunInstruction, "run_instruction")
        self.create_subscription(ActionChunk, "action_chunk", self.chunks.append, COMMAND)
        self.create_subscription(EndEffectorDelta, "ee_delta", self.deltas.append, EVENT)
        self.create_subscription(
            PolicyStatus, "policy_status", self.statuses.append, PATIENT_LATCHED
        )
        self.create_subscription(
            String, "instruction", lambda message: self.said.append(message.data), COMMAND
        )
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, EVENT)
        self.create_timer(0.02, self._publish_state)
        self.create_timer(0.05, self._publish_images)
        self.create_timer(0.1, self._publish_objects)

    def now_s(self):
        return self.get_clock().now().nanoseconds * 1e-9

    def _publish_state(self):
        if not self.publishing_states:
            return
        message = EndEffectorState(ee_frame_id="franka_ee", gripper_opening=0.75)
        message.header.frame_id = "franka_base"
        message.header.stamp = self.get_clock().now().to_msg()
        x = self.position_x_m(stamp_to_s(message.header.stamp))
        message.measured.orientation = Quaternion(x=1.0, y=0.0, z=0.0, w=0.0)
        message.commanded.orientation = Quaternion(x=1.0, y=0.0, z=0.0, w=0.0)
        message.measured.position.x, message.commanded.position.x = x, x + 0.01
        message.measured.position.z = message.commanded.position.z = 0.3
        self._states.publish(message)

    def _publish_images(self):
        for name in self.cameras:
            width, height = self.sizes[name]
            channels = 3 if self.encoding in ("rgb8", "bgr8") else 1
            dtype = np.uint16 if self.encoding == "16UC1" else np.uint8
            picture = np.zeros((height, width, channels), dtype)
            picture[:] = np.array([0, 0, 0] if name in self.black else [200, 100, 50])[:channels]
            if name in self.noisy:
                picture += self._noise.integers(0, 4, picture.shape, dtype)
            picture = picture if channels == 3 else picture[..., 0]
            message = BRIDGE.cv2_to_imgmsg(picture, self.encoding)
            small = BRIDGE.cv2_to_compressed_imgmsg(picture[..., ::-1], "png")
            stamp_s = self.now_s() + self.stamp_offset_s
            for publisher, each in ((self._raw, message), (self._compressed, small)):
                each.header.stamp.sec = int(stamp_s)
                each.header.stamp.nanosec = int(stamp_s % 1 * 1e9)
                self.image_stamps_s.add(stamp_to_s(each.header.stamp))
                publisher[name].publish(each)

    def _publish_objects(self):
        if not self.publishing_objects:
            return
        message = MarkerArray()
        for name, (position, size) in self.objects.items():
            marker = Marker(ns=name, pose=PoseMsg())
            marker.header.frame_id = "franka_base"
            marker.header.stamp = self.get_clock().now().to_msg()
            spot, scale = marker.pose.position, marker.scale
            spot.x, spot.y, spot.z = map(float, position)
            scale.x, scale.y, scale.z = map(float, size)
            message.markers.append(marker)
        self._objects.publish(message)

    def _on_diagnostics(self, message):
        for status in message.status:
            if status.name == "policy: policy":
                values = {pair.key: pair.value for pair in status.values}
                self.diagnoses.append((status.level, values))

    # What a test does and looks at -------------------------------------------------------------

    def move(self, speed_m_s):
        """The arm moves along x from now on, or stands where it is with 0."""
        now_s = self.now_s()
        self._motion, self._start_x_m = (now_s, speed_m_s), self.position_x_m(now_s)

    def position_x_m(self, stamp_s):
        """Where the measured position is at a time since the last `move`."""
        since_s, speed_m_s = self._motion
        return self._start_x_m + speed_m_s * (stamp_s - since_s)

    def instruct(self, text):
        """A person publishes an instruction to the policy and to this world."""
        wait(lambda: self._person.get_subscription_count() >= 2)
        self._person.publish(String(data=text))

    def run_instruction(self, text, timeout_s=0.0):
        """A goal: (goal handle, list of feedbacks, future of the result)."""
        feedbacks = []
        goal = RunInstruction.Goal(instruction=text)
        goal.timeout.sec, goal.timeout.nanosec = int(timeout_s), int(timeout_s % 1 * 1e9)
        assert self.action.wait_for_server(40.0)
        sent = self.action.send_goal_async(goal, feedback_callback=feedbacks.append)
        wait(sent.done)
        handle = sent.result()
        assert handle.accepted
        return handle, feedbacks, handle.get_result_async()

    def of_kind(self, kind, since=0):
        """The chunks of a kind from index `since` on."""
        return [chunk for chunk in self.chunks[since:] if chunk.kind == kind]

    def steps(self, since=0):
        return self.of_kind(ActionChunk.KIND_STEPS, since)

    def holds(self, since=0):
        return self.of_kind(ActionChunk.KIND_HOLD, since)

    def wait_for_chunks(self, count=2):
        """Until `count` more chunks with steps are there."""
        since = len(self.chunks)
        wait(lambda: len(self.steps(since)) >= count, seen=self._newest_status)
        return self.steps(since)

    def wait_for_hold(self):
        """Until the newest chunk is a HOLD; topics do not keep the order among each other."""
        wait(lambda: self.chunks and self.chunks[-1].kind == ActionChunk.KIND_HOLD)

    def wait_for_instruction(self, text):
        """Until a chunk of an instruction came; returns it."""
        return wait(lambda: [chunk for chunk in self.steps() if chunk.instruction == text])[0]

    def wait_for_state(self, name, words=""):
        """Until policy_status says so; returns that status."""
        state = getattr(PolicyStatus, f"STATE_{name}")

        def found():
            status = self.statuses[-1] if self.statuses else None
            return status if status and status.state == state and words in status.text else None

        return wait(found, seen=self._newest_status)

    def wait_for_diagnosis(self, **words):
        """Until /diagnostics has these words under these keys; returns (level, values)."""

        def found():
            level, values = self.diagnoses[-1] if self.diagnoses else (None, {})
            told = all(word in values.get(key, "") for key, word in words.items())
            return (level, values) if told and values else None

        return wait(found, seen=lambda: self.diagnoses[-1:])

    def _newest_status(self):
        return self.statuses[-1] if self.statuses else "no status"


class Bench:
    """One policy node and its world; `events` are the log lines of errors and warnings."""

    def __init__(self, world, engine=None, /, **parameters):
        self.world = world
        # Patient with a busy machine; a test of staleness asks for less.
        patient = {"max_image_age_s": 10.0, "max_state_age_s": 10.0, "max_objects_age_s": 10.0}
        patient |= {"startup_timeout_s": 40.0, "inference_period_s": 0.1}
        patient |= {"max_image_skew_s": 1.0, "blocked_limit_s": 60.0, "clock_stall_s": 10.0}
        parameters = patient | parameters
        arguments = ["--ros-args", "--log-level", "fatal"]
        for name, value in parameters.items():
            arguments += ["-p", f"{name}:={value}"]
        self.node = PolicyNode(arguments, engine)
        self.node.start_threads()

    def configure(self):
        return self.node.trigger_configure() is TransitionCallbackReturn.SUCCESS

    def activate(self):
        return self.node.trigger_activate() is TransitionCallbackReturn.SUCCESS

    def deactivate(self):
        return self.node.trigger_deactivate() is TransitionCallbackReturn.SUCCESS

    def up(self):
        """Configured, active and heard by the world."""
        assert self.configure()
        assert self.activate()
        for topic in ("action_chunk", "ee_delta", "policy_status"):
            wait(lambda topic=topic: self.world.count_publishers(topic) == 1)
        publishers = (
            self.node._coordinator._outputs._chunks,
            self.node._coordinator._outputs._deltas,
        )
        wait(lambda: all(p.get_subscription_count() == 1 for p in publishers))
        self.world.wait_for_state("WAITING")
        return self


@contextmanager
def policy_fixture(engine=None, /, up=True, **parameters):
    """A bench that closes in order whatever the test does."""
    world = World(sim_time=parameters.get("use_sim_time", False))
    try:
        with spinning(world):
            bench = Bench(world, engine, **parameters)
            try:
                yield bench.up() if up else bench
            finally:
                if engine is not None:
                    engine.go_on.set()
                bench.node.close()
    finally:
        world.action.destroy()
        world.destroy_node()


def refused(bench, transition, *words):
    """Expect a transition to be refused in one sentence with these words; returns it.

    It asks again when other words came: on a busy machine the inputs that are fine may not have
    been discovered within `startup_timeout_s` either, and are named first.
    """
    said = []

    def refuse():
        said.clear()
        assert not getattr(bench, transition)()
        return all(word in said[0] for word in words)

    logger = type(bench.node.get_logger())
    with patch.object(logger, "error", lambda _, text: said.append(text)):
        wait(refuse, seen=lambda: said)
    assert len(said) == 1 and "\n" not in said[0], said
    return said[0]
