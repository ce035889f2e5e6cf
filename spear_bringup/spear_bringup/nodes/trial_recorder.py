"""Trial recorder: start_trial and end_trial around one bag and one score row. Never in control.

First the compression of images and the subscriptions that pass serialized messages to the bag, then
the TrialInfo that is published, then the node.
"""

import math
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path

from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.subscription import Subscription
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from spear_bringup.trials.bag_writer import (
    BagTopic,
    BagWriteError,
    Encode,
    MessageTypeError,
    compress,
    definition_of,
)
from spear_bringup.trials.recording import (
    OUTCOMES,
    Recording,
    TrialEnd,
    TrialRequest,
    git_revision,
    recover,
    shortfall,
)
from spear_msgs.msg import PolicyStatus, TrialInfo
from spear_msgs.srv import EndTrial, StartTrial
from spear_policy.nodes.lifecycle import ERROR, OK, WARN, RefusedError, SpearNode, run
from spear_policy.nodes.messages import COMMAND, LATCHED, s_to_duration, s_to_stamp, text_to_msg
from spear_policy.nodes.parameters import Parameters, node_help
from spear_policy.nodes.policy_topics import choose_bridge

# Compression of images ----------------------------------------------------------------------------

_KEPT = ("mono8", "mono16", "16UC1")  # what becomes a picture without a change of colours


class ImageCompressor:
    """Serialized Image in, serialized CompressedImage out, for cameras without a compressed topic.

    Args:
        jpeg_quality: 1 .. 100.
    """

    def __init__(self, jpeg_quality: int):
        self._bridge, _ = choose_bridge()
        self._jpeg_quality = jpeg_quality

    def __call__(self, raw: bytes) -> bytes:
        """Compress one message; raises ValueError naming what is wrong with it."""
        image = deserialize_message(raw, Image)
        wanted = "passthrough" if image.encoding in _KEPT else "bgr8"
        try:
            pixels = self._bridge.imgmsg_to_cv2(image, wanted)
        except TypeError as error:  # CvBridgeError of either converter
            raise ValueError(str(error)) from None
        message = CompressedImage(header=image.header)
        message.format, compressed = compress(pixels, image.encoding, self._jpeg_quality)
        message.data.frombytes(compressed)
        return serialize_message(message)


# Subscriptions ------------------------------------------------------------------------------------

_COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
_IMAGE_TYPE = "sensor_msgs/msg/Image"
_DEPTH = 100  # a recorder that is late for a moment must not lose what it was sent

Sink = Callable[[BagTopic, bytes, Encode | None], None]


@dataclass
class _Subscribed:
    source: str
    msgtype: str
    reliable: bool
    latched: bool
    topic: BagTopic
    encode: Encode | None
    subscription: Subscription | None = None


class TopicSubscriber:
    """Subscriptions to the wanted topics, with the types and QoS that their publishers offer.

    Every method but `latched` and `lost` belongs to the thread that spins `node`.

    Args:
        node: subscribes.
        names: topics to record as they are; they are expected.
        optional_names: topics to record when somebody publishes them.
        image_names: expected image topics; `<name>/compressed` is taken when it is published,
            else the raw image with a function that compresses it.
        sink: gets every message as raw CDR.
        warn: gets one sentence for each topic that cannot be recorded.
    """

    def __init__(
        self,
        node: Node,
        names: list[str],
        optional_names: list[str],
        image_names: list[str],
        sink: Sink,
        warn: Callable[[str], None],
        jpeg_quality: int = 90,
    ):
        self._node, self._sink, self._warn = node, sink, warn
        self._names = [node.resolve_topic_name(name) for name in names]
        self._optional_names = [node.resolve_topic_name(name) for name in optional_names]
        self._image_names = [node.resolve_topic_name(name) for name in image_names]
        self._instruction_name = node.resolve_topic_name("instruction")
        self._encode = ImageCompressor(jpeg_quality)
        self._subscribed: dict[str, _Subscribed] = {}
        self._warned_of: set[str] = set()
        self._last: dict[str, tuple[BagTopic, bytes]] = {}
        self._lost: dict[str, int] = {}

    def match(self) -> None:
        """Follow the graph: subscribe to what appeared, again to what changed."""
        for name in self._names + self._optional_names:
            self._subscribe(name, name, None)
        for name in self._image_names:
            bag_name = _compressed(name)
            if self._publishers(bag_name):
                self._subscribe(bag_name, bag_name, None)
            else:
                self._subscribe(name, bag_name, self._encode)

    def close(self) -> None:
        """End all subscriptions."""
        for subscribed in self._subscribed.values():
            self._node.destroy_subscription(subscribed.subscription)
        self._subscribed.clear()

    def expected(self) -> tuple[str, ...]:
        """The topics that a whole bag has, by their names in the bag."""
        return (*self._names, *map(_compressed, self._image_names))

    def unmatched(self) -> list[str]:
        """The expected topics that nobody has published yet."""
        return [name for name in self.expected() if name not in self._subscribed]

    def latched(self) -> list[tuple[BagTopic, bytes]]:
        """The last message of every latched topic and the last instruction, by arrival."""
        return list(self._last.values())

    def last(self, name: str) -> bytes | None:
        """The last message of one latched topic as raw CDR."""
        found = self._last.get(self._node.resolve_topic_name(name))
        return found[1] if found else None

    def lost(self) -> dict[str, int]:
        """Messages that the middleware lost on the way since `forget_lost`, by topic in the bag."""
        return dict(self._lost)

    def forget_lost(self) -> None:
        """Count lost messages from here on."""
        self._lost.clear()

    def _publishers(self, name: str) -> list:
        return self._node.get_publishers_info_by_topic(name)

    def _subscribe(self, source: str, bag_name: str, encode: Encode | None) -> None:
        publishers = self._publishers(source)
        if not publishers:
            return
        msgtype = publishers[0].topic_type
        if encode is not None and msgtype != _IMAGE_TYPE:
            self._warn_once(f"{source} is {msgtype} and not {_IMAGE_TYPE}; it is not recorded")
            return
        profiles = [publisher.qos_profile for publisher in publishers]
        reliable = all(p.reliability == ReliabilityPolicy.RELIABLE for p in profiles)
        latched = all(p.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in profiles)
        known = self._subscribed.get(bag_name)
        if known and (known.source, known.msgtype) == (source, msgtype):
            # Only publishers that offer less than was asked for make a new subscription necessary.
            if (reliable or not known.reliable) and (latched or not known.latched):
                return
        try:
            message_class = _message_class(msgtype)
            definition = definition_of(_COMPRESSED_TYPE if encode else msgtype)
        except (MessageTypeError, ImportError) as error:
            self._warn_once(f"{source} is not recorded: {error}")
            return
        if known:
            self._node.destroy_subscription(known.subscription)
        topic = BagTopic(bag_name, definition, tuple(_as_bag_qos(p) for p in profiles))
        subscribed = _Subscribed(source, msgtype, reliable, latched, topic, encode)
        subscribed.subscription = self._node.create_subscription(
            message_class,
            source,
            partial(self._receive, subscribed),
            _subscription_qos(reliable, latched),
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(
                message_lost=partial(self._count_lost, bag_name)
            ),
        )
        self._subscribed[bag_name] = subscribed

    def _receive(self, subscribed: _Subscribed, raw: bytes) -> None:
        # An instruction is not latched, and yet in force until the next one.
        if subscribed.latched or subscribed.topic.name == self._instruction_name:
            self._last.pop(subscribed.topic.name, None)
            self._last[subscribed.topic.name] = (subscribed.topic, raw)
        self._sink(subscribed.topic, raw, subscribed.encode)

    def _count_lost(self, name: str, info) -> None:
        self._lost[name] = self._lost.get(name, 0) + info.total_count_change

    def _warn_once(self, sentence: str) -> None:
        if sentence not in self._warned_of:
            self._warned_of.add(sentence)
            self._warn(sentence)


def _compressed(name: str) -> str:
    return f"{name}/compressed"


def _message_class(msgtype: str):
    package, _, name = msgtype.split("/")
    try:
        return getattr(import_module(f"{package}.msg"), name)
    except AttributeError:
        raise ImportError(f"{package}.msg has no {name}") from None


def _subscription_qos(reliable: bool, latched: bool) -> QoSProfile:
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        history=HistoryPolicy.KEEP_LAST,
        depth=_DEPTH,
    )


def _as_bag_qos(profile: QoSProfile) -> Qos:
    return Qos(
        history=QosHistory(int(profile.history)),
        depth=profile.depth,
        reliability=QosReliability(int(profile.reliability)),
        durability=QosDurability(int(profile.durability)),
        deadline=_as_bag_time(profile.deadline),
        lifespan=_as_bag_time(profile.lifespan),
        liveliness=QosLiveliness(int(profile.liveliness)),
        liveliness_lease_duration=_as_bag_time(profile.liveliness_lease_duration),
        avoid_ros_namespace_conventions=profile.avoid_ros_namespace_conventions,
    )


def _as_bag_time(duration) -> QosTime:
    return QosTime(*divmod(duration.nanoseconds, 10**9))


# What is published about a trial, and read of its policy ------------------------------------------


def trial_info(recording: Recording | None, now_s: float, **fields) -> TrialInfo:
    """The TrialInfo of a trial, or of none; `fields` are state, text and outcome."""
    info = TrialInfo(seed=-1, **fields)
    info.header.stamp = s_to_stamp(now_s)
    if recording is not None:
        request = recording.request
        info.trial_id, info.instruction = request.trial_id, request.instruction
        info.seed = -1 if request.seed is None else request.seed
        info.bag, info.messages = str(recording.bag), recording.writer.messages
        info.duration = s_to_duration(recording.duration_s(now_s))
    return info


def policy_words(raw: bytes | None) -> dict[str, str]:
    """Engine, checkpoint and statistics hash of a serialized PolicyStatus; empty without one."""
    if raw is None:
        return {}
    status = deserialize_message(raw, PolicyStatus)
    return {key: getattr(status, key) for key in ("engine", "checkpoint_id", "statistics_hash")}


# The node --------------------------------------------------------------------------------------

HELP = """\
Record trials: one bag and one score row each.

Example:
  ros2 run spear_bringup trial_recorder --ros-args -p directory:=out/trials
  ros2 service call /start_trial spear_msgs/srv/StartTrial "{instruction: 'lift the red cube'}"
  ros2 service call /end_trial spear_msgs/srv/EndTrial "{outcome: 1, score: .nan}"
"""


class TrialRecorder(SpearNode):
    """Records the topics that its parameters name, from start_trial to end_trial."""

    def __init__(self, arguments: list[str] | None = None):
        super().__init__("trial_recorder", arguments)
        self.params = Parameters(self, "spear_bringup", "trial_recorder")
        self._lock = threading.RLock()  # transitions and services come from two threads
        self._recording: Recording | None = None
        self._topics: TopicSubscriber | None = None
        self._matched = threading.Event()
        self._subscribing = False
        self._reported_fault, self._published_s = "", 0.0
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._info_publisher = self.io.create_publisher(TrialInfo, "trial", LATCHED)
        self._instruction_publisher = self.io.create_publisher(String, "instruction", COMMAND)
        self.io.create_service(StartTrial, "start_trial", self._on_start)
        self.io.create_service(EndTrial, "end_trial", self._on_end)
        self.io.create_timer(0.25, self._match, clock=steady)
        self.io.create_timer(0.1, self._report, clock=steady)

    # Lifecycle ---------------------------------------------------------------------------

    def configure(self) -> None:
        self.params.check()
        self._directory = Path(self.params["directory"]).expanduser().absolute()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RefusedError(f"directory {self._directory}: {error.strerror}") from None
        git_revision()  # asked for once, while nobody waits for it

    def activate(self) -> None:
        try:
            for row in recover(self._directory):
                self.get_logger().warning(f"trial {row.trial_id}: {row.fault}")
        except OSError as error:
            self.get_logger().error(f"cannot write rows of earlier trials: {error}")
        ended = self.wait_until(lambda: self._topics is None, 5.0)  # of an earlier activation
        self._matched.clear()
        self._subscribing = True
        if not (ended and self.wait_until(self._matched.is_set, 5.0)):
            raise RefusedError("the data thread of the recorder does not run")
        self._publish(None, TrialInfo.STATE_IDLE)

    def deactivate(self) -> None:
        with self._lock:
            if self._recording is not None:
                self._finish(TrialEnd("ABORTED", notes="the recorder was stopped during the trial"))
            self._subscribing = False

    def cleanup(self) -> None:
        self.params.release()

    def diagnose(self):
        recording = self._recording
        if recording is None:
            return [("recording", OK, "no trial", {})]
        writer = recording.writer
        values = {"trial_id": recording.request.trial_id, "messages": writer.messages}
        dropped = sum(writer.dropped.values())
        if writer.fault:
            return [("recording", ERROR, writer.fault, values)]
        if low := shortfall(self._directory, self.params["least_free_space_mb"]):
            return [("recording", WARN, low, values)]
        if dropped:
            why = writer.encoding_errors or "the disk is too slow"
            text = f"{dropped} messages were dropped: {why}"
            return [("recording", WARN, text, values)]
        return [("recording", OK, "recording", values)]

    # Services ----------------------------------------------------------------------------

    def _on_start(self, request, response):
        with self._lock:
            try:
                self._start(request, response)
            except (RefusedError, BagWriteError, ValueError) as refusal:
                response.message = text_to_msg(str(refusal))
            except OSError as error:
                response.message = text_to_msg(f"cannot record into {self._directory}: {error}")
        if not response.success:
            self.get_logger().error(f"start_trial refused: {response.message}")
        return response

    def _start(self, request, response) -> None:
        if not self.active:
            raise RefusedError("the recorder is not active; configure and activate it first")
        if self._recording is not None:
            running = self._recording.request.trial_id
            raise RefusedError(f"trial {running} is being recorded; call end_trial first")
        now_s = self.now_s()
        if self.simulated_time and now_s == 0.0:
            raise RefusedError(
                "use_sim_time is set and no /clock has come; start the simulation first"
            )
        if low := shortfall(self._directory, self.params["least_free_space_mb"]):
            raise RefusedError(low)
        trial = TrialRequest(
            instruction=request.instruction,
            seed=None if request.seed < 0 else request.seed,
            operator=request.operator_name,
            trial_id=request.trial_id,
        )
        recording = Recording(
            self._directory,
            trial,
            now_s,
            queue_bytes=self.params["queue_mb"] << 20,
            flush_period_s=self.params["flush_period_s"],
        )
        for topic, raw in self._topics.latched():
            recording.writer.write(topic, round(now_s * 1e9), raw)
        self._topics.forget_lost()
        self._reported_fault = ""
        self._recording = recording
        response.success, response.trial_id = True, trial.trial_id
        response.bag = str(recording.bag)
        response.message = "recording"
        if silent := self._topics.unmatched():
            response.message += f"; nobody publishes yet: {', '.join(silent)}"
        self.get_logger().info(f"trial {trial.trial_id}: {response.message}")
        self._publish(recording, TrialInfo.STATE_RECORDING)

    def _on_end(self, request, response):
        with self._lock:
            try:
                self._end(request, response)
            except RefusedError as refusal:
                response.message = text_to_msg(str(refusal))
                self.get_logger().error(f"end_trial refused: {refusal}")
        return response

    def _end(self, request, response) -> None:
        if self._recording is None:
            raise RefusedError("no trial is being recorded; call start_trial first")
        running = self._recording.request.trial_id
        if request.trial_id not in ("", running):
            raise RefusedError(
                f"trial {request.trial_id} is not the running one, which is {running}"
            )
        if request.outcome >= len(OUTCOMES):
            raise RefusedError(f"outcome {request.outcome} is unknown; use an OUTCOME_ constant")
        score = None if math.isnan(request.score) else round(float(request.score), 6)
        if score is not None and not 0.0 <= score <= 1.0:
            raise RefusedError(f"score is {score}; it must be 0 to 1, or NaN when not scored")
        bag = self._recording.bag
        duration_s, text = self._finish(TrialEnd(OUTCOMES[request.outcome], score, request.notes))
        response.success, response.message, response.bag = True, text, str(bag)
        response.duration = s_to_duration(duration_s)

    def _finish(self, end: TrialEnd) -> tuple[float, str]:
        """Close the bag, write the row, publish its end; (duration [s], what went wrong)."""
        recording, now_s = self._recording, self.now_s()
        self._recording = None
        end = replace(
            end,
            **policy_words(self._topics.last("policy_status")),
            expected=self._topics.expected(),
            lost=self._topics.lost(),
        )
        try:
            problems = recording.end(end, now_s).problems()
        except OSError as error:
            problems = [f"the row is not on the score sheet ({error}); make room and restart me"]
        text = "; ".join(problems)
        said = f"trial {recording.request.trial_id}: {'; '.join([end.outcome, *problems])}"
        if problems:  # two calls: rclpy refuses one place in the code with two severities
            self.get_logger().warning(said)
        else:
            self.get_logger().info(said)
        self._publish(recording, TrialInfo.STATE_ENDED, text, OUTCOMES.index(end.outcome))
        return recording.duration_s(now_s), text

    # Data plane --------------------------------------------------------------------------

    def _match(self) -> None:
        """Follow the graph while active; all subscriptions are made and ended in this thread."""
        if not self._subscribing:
            if self._topics is not None:
                self._topics.close()
            self._topics = None
            return
        if self._topics is None:
            names = (self.params[f"{kind}topics"] for kind in ("", "optional_", "image_"))
            log = self.get_logger().warning
            self._topics = TopicSubscriber(
                self.io, *names, self._receive, log, self.params["jpeg_quality"]
            )
        self._topics.match()
        self._matched.set()

    def _receive(self, topic: BagTopic, raw: bytes, encode: Encode | None) -> None:
        recording = self._recording
        if recording is not None:
            recording.writer.write(topic, self.io.get_clock().now().nanoseconds, raw, encode)

    def _report(self) -> None:
        """Publish the trial once a second, and at once when its recording broke."""
        with self._lock:
            recording = self._recording
            if recording is None:
                return
            fault = recording.writer.fault or ""
            if self.params["stop_unrecorded_trial"]:
                least_mb = self.params["least_free_space_mb"]
                cause = fault or shortfall(self._directory, least_mb, running=True)
                if cause:
                    self._stop_trial(cause)
                    return
            if fault != self._reported_fault:
                self._reported_fault = fault
                self.get_logger().error(fault)
            elif time.monotonic() - self._published_s < 1.0:
                return
            state = TrialInfo.STATE_FAULT if fault else TrialInfo.STATE_RECORDING
            self._publish(recording, state, fault)

    def _stop_trial(self, cause: str) -> None:
        """End what is not on record: no instruction any more, and a row that says so."""
        self._instruction_publisher.publish(String())  # an empty one stops the policy and the arm
        self.get_logger().error(f"the trial is stopped: {cause}")
        # Said before the bag is closed, which may take its time on a full disk.
        self._publish(self._recording, TrialInfo.STATE_FAULT, cause)
        self._finish(TrialEnd("ABORTED", notes="the recorder stopped the trial", fault=cause))

    def _publish(self, recording: Recording | None, state: int, text: str = "", outcome: int = 0):
        self._published_s = time.monotonic()
        info = trial_info(
            recording, self.now_s(), state=state, text=text_to_msg(text), outcome=outcome
        )
        self._info_publisher.publish(info)


def main() -> int:
    """Run the recorder until SIGINT or SIGTERM. Returns the exit status."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(node_help("spear_bringup", "trial_recorder", HELP))
        return 0
    return run(TrialRecorder)
