"""What the recorder listens to: raw subscriptions that follow the publishers in the graph."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)

from spear_bringup.nodes.recorder_images import ImageCompressor
from spear_bringup.trials.bag_writer import BagTopic, Encode
from spear_bringup.trials.message_definitions import UnknownType, definition_of

_COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
_IMAGE_TYPE = "sensor_msgs/msg/Image"
_DEPTH = 100  # a recorder that is late for a moment must not lose what it was sent

Sink = Callable[[BagTopic, bytes, Encode | None], None]


@dataclass
class _Watched:
    source: str
    msgtype: str
    reliable: bool
    latched: bool
    topic: BagTopic
    encode: Encode | None
    subscription: Subscription | None = None


class TopicWatch:
    """Subscriptions to the wanted topics, with the types and QoS that their publishers offer.

    Every method but `latched` and `lost` belongs to the thread that spins `node`.

    Args:
        node: subscribes.
        names: topics to record as they are; they are expected.
        optional_names: topics to record when somebody publishes them.
        image_names: expected image topics; `<name>/compressed` is taken when it is published,
            else the raw image with a function that compresses it.
        sink: gets every message as raw CDR.
        complain: gets one sentence for each topic that cannot be recorded.
    """

    def __init__(
        self,
        node: Node,
        names: list[str],
        optional_names: list[str],
        image_names: list[str],
        sink: Sink,
        complain: Callable[[str], None],
        jpeg_quality: int = 90,
    ):
        self._node, self._sink, self._complain = node, sink, complain
        self._names = [node.resolve_topic_name(name) for name in names]
        self._optional_names = [node.resolve_topic_name(name) for name in optional_names]
        self._image_names = [node.resolve_topic_name(name) for name in image_names]
        self._encode = ImageCompressor(jpeg_quality)
        self._watched: dict[str, _Watched] = {}
        self._complained: set[str] = set()
        self._last: dict[str, tuple[BagTopic, bytes]] = {}
        self._lost: dict[str, int] = {}

    def match(self) -> None:
        """Follow the graph: subscribe to what appeared, again to what changed."""
        for name in self._names + self._optional_names:
            self._follow(name, name, None)
        for name in self._image_names:
            bag_name = _compressed(name)
            if self._publishers(bag_name):
                self._follow(bag_name, bag_name, None)
            else:
                self._follow(name, bag_name, self._encode)

    def close(self) -> None:
        """End all subscriptions."""
        for watched in self._watched.values():
            self._node.destroy_subscription(watched.subscription)
        self._watched.clear()

    def expected(self) -> tuple[str, ...]:
        """The topics that a whole bag has, by their names in the bag."""
        return (*self._names, *map(_compressed, self._image_names))

    def unmatched(self) -> list[str]:
        """The expected topics that nobody has published yet."""
        return [name for name in self.expected() if name not in self._watched]

    def latched(self) -> list[tuple[BagTopic, bytes]]:
        """The last message of every latched topic, in the order of arrival."""
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

    def _follow(self, source: str, bag_name: str, encode: Encode | None) -> None:
        publishers = self._publishers(source)
        if not publishers:
            return
        msgtype = publishers[0].topic_type
        if encode is not None and msgtype != _IMAGE_TYPE:
            self._complain_once(f"{source} is {msgtype} and not {_IMAGE_TYPE}; it is not recorded")
            return
        profiles = [publisher.qos_profile for publisher in publishers]
        reliable = all(p.reliability == ReliabilityPolicy.RELIABLE for p in profiles)
        latched = all(p.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in profiles)
        known = self._watched.get(bag_name)
        if known and (known.source, known.msgtype) == (source, msgtype):
            # Only publishers that offer less than was asked for make a new subscription necessary.
            if (reliable or not known.reliable) and (latched or not known.latched):
                return
        try:
            message_class = _message_class(msgtype)
            definition = definition_of(_COMPRESSED_TYPE if encode else msgtype)
        except (UnknownType, ImportError) as error:
            self._complain_once(f"{source} is not recorded: {error}")
            return
        if known:
            self._node.destroy_subscription(known.subscription)
        topic = BagTopic(bag_name, definition, tuple(_as_bag_qos(p) for p in profiles))
        watched = _Watched(source, msgtype, reliable, latched, topic, encode)
        watched.subscription = self._node.create_subscription(
            message_class,
            source,
            partial(self._receive, watched),
            _subscription_qos(reliable, latched),
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(
                message_lost=partial(self._count_lost, bag_name)
            ),
        )
        self._watched[bag_name] = watched

    def _receive(self, watched: _Watched, raw: bytes) -> None:
        if watched.latched:
            self._last.pop(watched.topic.name, None)
            self._last[watched.topic.name] = (watched.topic, raw)
        self._sink(watched.topic, raw, watched.encode)

    def _count_lost(self, name: str, info) -> None:
        self._lost[name] = self._lost.get(name, 0) + info.total_count_change

    def _complain_once(self, sentence: str) -> None:
        if sentence not in self._complained:
            self._complained.add(sentence)
            self._complain(sentence)


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
