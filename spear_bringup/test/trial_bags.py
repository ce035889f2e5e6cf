"""Trials in bags for tests, and what independent readers see of them."""

from collections import Counter

import numpy as np
import yaml
from geometry_msgs.msg import Pose, Quaternion
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rclpy.serialization import serialize_message
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CompressedImage

from spear_bringup.trials.bag_writer import BagTopic, definition_of
from spear_msgs.msg import EndEffectorCommand

COMMAND = BagTopic("/command", definition_of("spear_msgs/msg/EndEffectorCommand"))
IMAGE = BagTopic("/external/image_raw/compressed", definition_of("sensor_msgs/msg/CompressedImage"))
TEXT = BagTopic("/instruction", definition_of("std_msgs/msg/String"))
NOISE = np.random.default_rng(0).bytes(60_000)


def command(number):
    """Return an EndEffectorCommand whose fields follow from `number`, as CDR."""
    message = EndEffectorCommand(seam_translation=number * 1e-3, gripper_opening=0.5)
    message.header.frame_id = "franka_base"
    message.gate.text = f"number {number}"
    message.gate.counts = [number, 1, 2, 3, 4]
    message.knots = [Pose(orientation=Quaternion(x=1.0, w=0.0))] * (number % 3)
    return serialize_message(message)


def image(number):
    """Return an image message of 60 kB, as CDR."""
    message = CompressedImage(format="jpeg")
    message.header.stamp.sec = number
    message.data.frombytes(NOISE)
    return serialize_message(message)


def write_trial(writer, count):
    """Write `count` images and three times as many commands, 100 ms apart, from 1 s on."""
    for number in range(count):
        writer.write(IMAGE, 10**9 + number * 10**8, image(number))
        for k in range(3):
            writer.write(COMMAND, 10**9 + number * 10**8 + k, command(3 * number + k))


def counts_by_rosbags(folder):
    """Return messages by topic, every one read and decoded by rosbags."""
    with AnyReader([folder]) as reader:
        counts = Counter()
        for connection, _, raw in reader.messages():
            reader.deserialize(raw, connection.msgtype)
            counts[connection.topic] += 1
        assert counts == Counter({c.topic: c.msgcount for c in reader.connections if c.msgcount})
    return counts


def counts_by_mcap(folder):
    """Return messages by topic, every one read and decoded by the MCAP project's own reader."""
    counts, told = Counter(), Counter()
    for name in information(folder)["relative_file_paths"]:
        with (folder / name).open("rb") as file:
            reader = make_reader(file, decoder_factories=[DecoderFactory()])
            counts.update(m.channel.topic for m in reader.iter_decoded_messages())
            summary = reader.get_summary()
            for key, count in summary.statistics.channel_message_counts.items():
                told[summary.channels[key].topic] += count
    assert counts == told
    return counts


def information(folder):
    """Return what metadata.yaml says."""
    return yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
