"""A bag is readable by independent readers, whole or after its writer was killed or ran out."""

import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter

import pytest
import trial_bags
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rclpy.serialization import serialize_message
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from std_msgs.msg import String
from trial_bags import (
    IMAGE,
    TEXT,
    counts_by_mcap,
    counts_by_rosbags,
    image,
    information,
    write_trial,
)

from spear_bringup.trials.bag_repair import repair
from spear_bringup.trials.bag_writer import (
    BagWriteError,
    BagWriter,
    MessageTypeError,
    definition_of,
)


def test_two_independent_readers_see_the_same_counts_and_fields(tmp_path):
    writer = BagWriter(tmp_path / "trial")
    write_trial(writer, 40)
    writer.close({"trial_id": "trial"})
    assert writer.fault is None and not writer.dropped

    folder = tmp_path / "trial"
    expected = Counter({"/command": 120, IMAGE.name: 40})
    assert counts_by_rosbags(folder) == counts_by_mcap(folder) == expected == writer.counts

    with (folder / "trial.mcap").open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        by_mcap = [m.decoded_message for m in reader.iter_decoded_messages(topics=["/command"])]
    with AnyReader([folder]) as reader:
        connections = [c for c in reader.connections if c.topic == "/command"]
        by_rosbags = [
            reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(connections)
        ]
        assert reader.start_time == 10**9
    assert information(folder)["custom_data"] == {"trial_id": "trial"}
    for number, messages in enumerate(zip(by_mcap, by_rosbags, strict=True)):
        for message in messages:
            assert message.seam_translation == pytest.approx(number * 1e-3)
            assert message.gate.text == f"number {number}"
            assert list(message.gate.counts) == [number, 1, 2, 3, 4]
            assert len(message.knots) == number % 3
            assert all(knot.orientation.x == 1.0 for knot in message.knots)


@pytest.mark.parametrize(
    "msgtype",
    [
        "spear_msgs/msg/ActionChunk",
        "spear_msgs/msg/EndEffectorCommand",
        "sensor_msgs/msg/CameraInfo",
        "diagnostic_msgs/msg/DiagnosticArray",
        "visualization_msgs/msg/MarkerArray",
    ],
)
def test_the_definition_text_hashes_to_the_hash_beside_it(msgtype):
    definition = definition_of(msgtype)
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(definition.text, msgtype))
    assert store.hash_rihs01(msgtype) == definition.type_hash


def test_a_type_that_is_not_installed_is_named():
    with pytest.raises(MessageTypeError, match="no_such_msgs is not installed"):
        definition_of("no_such_msgs/msg/Thing")
    with pytest.raises(MessageTypeError, match="std_msgs/msg/Nothing"):
        definition_of("std_msgs/msg/Nothing")


def test_an_existing_bag_is_refused_and_left_alone(tmp_path):
    writer = BagWriter(tmp_path / "trial")
    writer.write(TEXT, 1, serialize_message(String(data="first")))
    writer.close()
    before = (tmp_path / "trial/trial.mcap").read_bytes()
    with pytest.raises(BagWriteError, match="exists already; give another trial_id"):
        BagWriter(tmp_path / "trial")
    assert (tmp_path / "trial/trial.mcap").read_bytes() == before


def test_a_full_queue_counts_what_it_drops_and_the_rest_is_written(tmp_path):
    slow = []

    def encode(data):
        while not slow:  # the disk thread stands still until the queue is known to be full
            time.sleep(0.001)
        return data

    writer = BagWriter(tmp_path / "trial", queue_bytes=200_000)
    accepted = [writer.write(IMAGE, number, image(number), encode) for number in range(10)]
    slow.append("go on")
    writer.close()
    assert 1 <= sum(accepted) < 10
    assert writer.dropped == {IMAGE.name: 10 - sum(accepted)}
    assert writer.counts == {IMAGE.name: sum(accepted)}
    assert counts_by_mcap(tmp_path / "trial") == writer.counts


def test_an_image_that_cannot_be_encoded_costs_that_message_only(tmp_path):
    def refuse(data):
        raise ValueError("encoding yuv422 is not known")

    writer = BagWriter(tmp_path / "trial")
    writer.write(IMAGE, 1, image(1), refuse)
    writer.write(IMAGE, 2, image(2))
    writer.close()
    assert writer.encoding_errors == {IMAGE.name: "encoding yuv422 is not known"}
    assert writer.dropped == {IMAGE.name: 1} and writer.counts == {IMAGE.name: 1}


FILL = textwrap.dedent("""
    import resource, sys, time
    from importlib import util
    from pathlib import Path
    from spear_bringup.trials.bag_writer import BagWriter

    spec = util.spec_from_file_location("bags", sys.argv[1])
    bags = util.module_from_spec(spec)
    spec.loader.exec_module(bags)
    writer = BagWriter(Path(sys.argv[2]))
    if sys.argv[3] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
    number = 0
    while writer.fault is None:
        writer.write(bags.IMAGE, number * 10**7, bags.image(number))
        number += 1
        time.sleep(0.005)
        if number == 30:
            print("going", flush=True)
    print(writer.fault, flush=True)
    writer.close()
    print(writer.fault, flush=True)
""")


def run_writer(folder, mode):
    """Start a process that records images into `folder` for ever, or up to 3 MB of file."""
    arguments = [sys.executable, "-c", FILL, trial_bags.__file__, str(folder), mode]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_a_file_that_may_not_grow_faults_at_once_and_keeps_what_it_has(tmp_path):
    process = run_writer(tmp_path / "trial", "limit")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "the file reached its size limit; make room and repeat the trial" in output
    assert "messages before it are readable" in output.splitlines()[-1]
    counts = counts_by_mcap(tmp_path / "trial")
    assert counts == counts_by_rosbags(tmp_path / "trial")
    assert counts[IMAGE.name] >= 30  # of the 49 that fit into 3 MB
    assert (tmp_path / "trial/trial.mcap").stat().st_size <= 3_000_000


def test_a_killed_writer_leaves_a_bag_that_repair_finishes(tmp_path):
    folder = tmp_path / "trial"
    process = run_writer(folder, "for ever")
    assert process.stdout.readline() == "going\n"
    while (folder / "trial.mcap").stat().st_size < 2_000_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()

    assert not (folder / "metadata.yaml").exists()
    report = repair(folder, {"trial_id": "trial"})
    assert not report.was_whole and report.messages >= 20
    assert counts_by_rosbags(folder) == counts_by_mcap(folder) == Counter(report.counts)
    with AnyReader([folder]) as reader:
        assert reader.connections[0].digest == IMAGE.definition.type_hash
    assert information(folder)["custom_data"] == {"trial_id": "trial"}
    assert repair(folder).was_whole
