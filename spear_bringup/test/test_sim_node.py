"""sim_world on the wire: lifecycle, clock, images, objects, reset."""

import gc
import threading
import time
from collections import defaultdict

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Float64
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker, MarkerArray

from spear_bringup.graph import free_loopback_host
from spear_bringup.nodes.sim_world import SimWorld
from spear_bringup.sim import table_top as cameras
from spear_bringup.sim.table_top import OBJECTS, layout
from spear_policy.nodes.messages import EVENT, SENSOR, pose_from_msg, stamp_to_s

TOPICS = {
    "/clock": (Clock, SENSOR),
    "external/image_raw": (Image, SENSOR),
    "external/camera_info": (CameraInfo, SENSOR),
    "wrist/image_raw": (Image, SENSOR),
    "wrist/camera_info": (CameraInfo, SENSOR),
    "sim_world/objects": (MarkerArray, EVENT),
    "sim_world/real_time_factor": (Float64, EVENT),
}
DONE, REFUSED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class Listener:
    """A node in a thread that keeps the messages of every topic."""

    def __init__(self):
        self.heard = defaultdict(list)
        self.node = rclpy.create_node("listener")
        for topic, (kind, qos) in TOPICS.items():
            self.node.create_subscription(kind, topic, self.heard[topic].append, qos)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin)
        self.thread.start()

    def close(self):
        self.executor.shutdown()
        self.thread.join()
        self.node.destroy_node()

    def next(self, topic, count=1):
        """The next `count` messages of a topic."""
        already = len(self.heard[topic])
        wait_until(lambda: len(self.heard[topic]) >= already + count)
        return self.heard[topic][already : already + count]

    def trigger(self, service):
        client = self.node.create_client(Trigger, service)
        assert client.wait_for_service(60.0)
        future = client.call_async(Trigger.Request())
        wait_until(future.done)
        return future.result()


def wait_until(condition, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def listener(ros_domain):
    rclpy.init(args=[])
    listener = Listener()
    yield listener
    listener.close()
    rclpy.shutdown()
    gc.collect()  # nodes hang in reference cycles, and with them their DDS participant


@pytest.fixture(scope="module")
def node(listener):
    node = make_node(seed=2)
    yield node
    node.close()


@pytest.fixture
def active(node):
    if not node.active:
        assert node.trigger_configure() == DONE
        assert node.trigger_activate() == DONE
    return node


def make_node(**parameters):
    parameters = {"host": free_loopback_host(), **parameters}
    arguments = [f"-p {name}:={value}" for name, value in parameters.items()]
    node = SimWorld(["--ros-args", *" ".join(arguments).split()])
    node.start_threads()
    return node


def test_before_it_is_configured_a_reset_says_what_to_do(node, listener):
    answer = listener.trigger("sim_world/reset")
    assert not answer.success and "configure sim_world first" in answer.message


def test_images_carry_the_simulated_time_and_the_frame_of_their_camera(active, listener):
    listener.next("/clock")
    begun_s = stamp_to_s(listener.heard["/clock"][0].clock)
    for view in (cameras.EXTERNAL, cameras.WRIST):
        image = listener.next(f"{view.name}/image_raw")[0]
        assert image.encoding == "rgb8" and image.header.frame_id == view.frame_id
        assert (image.width, image.height, image.step) == (
            view.width_px,
            view.height_px,
            3 * view.width_px,
        )
        pixels = np.frombuffer(image.data, np.uint8)
        assert pixels.size == 3 * view.width_px * view.height_px and pixels.std() > 20
        stamp_s = stamp_to_s(image.header.stamp)
        assert begun_s - 0.1 < stamp_s <= active._world.time_s


def test_camera_info_says_where_things_are_in_the_image(active, listener):
    info = listener.next("external/camera_info")[0]
    assert np.array(info.k).reshape(3, 3) == pytest.approx(cameras.EXTERNAL.intrinsics)
    assert np.array(info.p).reshape(3, 4)[:, :3] == pytest.approx(cameras.EXTERNAL.intrinsics)
    assert info.header.frame_id == cameras.EXTERNAL.frame_id
    heard = listener.heard  # best effort: the image of this one info may have been lost

    def stamps_s(topic):
        return {stamp_to_s(message.header.stamp) for message in list(heard[topic])}

    wait_until(lambda: stamps_s("external/camera_info") & stamps_s("external/image_raw"))


def test_the_clock_never_goes_back_not_even_when_the_world_is_made_anew(active, listener):
    listener.next("/clock", 10)
    assert active.trigger_deactivate() == DONE
    assert active.trigger_cleanup() == DONE
    assert active.trigger_configure() == DONE
    assert active.trigger_activate() == DONE
    listener.next("/clock", 10)
    times = [stamp_to_s(message.clock) for message in listener.heard["/clock"]]
    assert times[0] > 0 and np.all(np.diff(times) > 0)


def test_objects_come_with_name_pose_and_size(active, listener):
    markers = listener.next("sim_world/objects")[0].markers
    assert {marker.ns for marker in markers} == set(OBJECTS)
    for marker in markers:
        thing = OBJECTS[marker.ns]
        assert marker.header.frame_id == "franka_base"
        assert (marker.scale.x, marker.scale.y, marker.scale.z) == pytest.approx(thing.size_m)
        assert marker.type == (Marker.CUBE if "cube" in marker.ns else Marker.CYLINDER)


def test_reset_puts_the_objects_where_the_parameter_seed_says(active, listener):
    for seed in (21, 22):
        assert active.set_parameters([Parameter("seed", value=seed)])[0].successful
        answer = listener.trigger("sim_world/reset")
        assert answer.success and f"scene {seed}" in answer.message
        reset_s, heard = active._world.time_s, listener.heard["sim_world/objects"]
        # Those on their way at the reset tell of the scene before.
        wait_until(lambda t=reset_s, h=heard: stamp_to_s(h[-1].markers[0].header.stamp) > t)
        markers = heard[-1].markers
        for marker in markers:
            expected = layout("random", seed)[marker.ns].position_m
            assert pose_from_msg(marker.pose).position_m == pytest.approx(expected, abs=1e-3)


def test_the_real_time_factor_is_told(active, listener):
    assert 0.0 < listener.next("sim_world/real_time_factor", 2)[1].data < 1.5


def test_a_reflex_can_be_asked_for(active, listener):
    assert listener.trigger("sim_world/trigger_reflex").success
    assert any(active._world.server.robot.errors)
    active._world.call(active._world.server.robot.recover)


def test_a_deactivated_world_stands_still(active, listener):
    assert active.trigger_deactivate() == DONE
    stopped_s = active._world.time_s
    assert listener.trigger("sim_world/reset").success
    assert active._world.time_s == stopped_s
    assert active.trigger_activate() == DONE
    wait_until(lambda: stamp_to_s(listener.heard["/clock"][-1].clock) > stopped_s)


def test_diagnostics_tell_pace_and_pictures(active):
    rows = {concern: text for concern, _, text, _ in active.diagnose()}
    assert set(rows) == {"physics", "cameras"}


def test_a_taken_port_fails_configure_with_the_fix(active, listener, capfd):
    second = make_node(host=active.params["host"])
    try:
        assert second.trigger_configure() == REFUSED
    finally:
        second.close()
    assert "is already taken" in capfd.readouterr().err


def test_a_parameter_out_of_bounds_fails_configure_by_name(listener, capfd):
    node = make_node(image_rate_hz=0)
    try:
        assert node.trigger_configure() == REFUSED
    finally:
        node.close()
    assert "image_rate_hz is 0 Hz; it must be 1 to 60 Hz" in capfd.readouterr().err


def test_without_cameras_no_image_is_sent(listener):
    node = make_node(cameras="false")
    try:
        assert node.trigger_configure() == DONE
        assert node.trigger_activate() == DONE
        wait_until(lambda: node._world.time_s > 1.3)
        assert node._world.renderer is None
    finally:
        node.close()
