"""The policy node on another machine: over UDP, with compressed images, and when the link dies."""

import os
import re
import signal
import sys

import numpy as np
import pytest
import rclpy
from graph_fixture import START_TIMEOUT_S, Watcher, simulation
from lifecycle_msgs.msg import Transition
from policy_fixture import World
from remote_link import remote_link
from ros_fixture import ros, spinning, transit, wait
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from spear_bringup.nodes.supervisor import NodeProcess, RunningGraph
from spear_bringup.sim.tasks import task_of_seed
from spear_msgs.msg import GateStatus
from spear_policy.inference.image_codec import CvBridge
from spear_policy.nodes import messages as qos
from spear_policy.nodes.messages import pose_array, stamp_to_s

pytestmark = [pytest.mark.kills_processes, pytest.mark.timeout(600)]

SEED = 3
CHUNK_TIMEOUT_S, STOPPING_S, PERIOD_S = 0.3, 0.4, 0.2
BLIND = re.compile("hold: .*/external/image_raw/compressed")
COMPRESSED = {"external_transport": "compressed", "wrist_transport": "compressed"}


@pytest.fixture(scope="module")
def link(ros_domain):
    """The network; it has to be there before any node looks for its ports."""
    with remote_link() as link, pytest.MonkeyPatch.context() as patch:
        for name, value in link.environment.items():
            patch.setenv(name, value)
        with ros():
            probe = rclpy.create_node("probe")
            opened = link.opened()
            probe.destroy_node()
        if not opened:
            pytest.skip("FastDDS read another profile in this process: run this file by itself")
        yield link


# Engine `spear` on the other machine, on system time ----------------------------------------------


def test_chunks_of_a_remote_model_come_again_when_the_link_does(link, checkpoint, tmp_path):
    parameters = {"engine": "spear", "checkpoint": checkpoint, "device": "cpu", **COMPRESSED}
    parameters |= {"max_image_age_s": 3.0, "max_state_age_s": 3.0, "max_image_skew_s": 1.0}
    parameters |= {"startup_timeout_s": 60.0}  # with a busy machine
    command = [*link.prefix, sys.executable, "-m", "spear_policy.nodes.policy_node", "--ros-args"]
    command += [part for name, v in parameters.items() for part in ("-p", f"{name}:={v}")]
    with ros():
        world = World()
        process = NodeProcess(
            "policy", command, tmp_path / "policy.log", {**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        try:
            with spinning(world):
                transit(world, "/policy", Transition.TRANSITION_CONFIGURE, "inactive")
                transit(world, "/policy", Transition.TRANSITION_ACTIVATE, "active")
                assert not process.shared_memory(), "it must not be reached but by UDP"
                world.instruct("put the red cube on the plate")
                first = world.wait_for_chunks(3)[0]
                link.cut(process)
                if link.is_network:  # it runs on over there, and notices by itself
                    wait(lambda: BLIND.search(process.log_path.read_text()), 60.0)
                count = len(world.chunks)
                link.restore(process)
                wait(lambda: len(world.steps(count)) > 2, 120.0)
                world.wait_for_state("RUNNING", "following")
        finally:
            log = process.log_path.read_text()
            took = process.end()
            world.action.destroy()
            world.destroy_node()
    assert first.checkpoint_id == "tiny-untrained-0" and len(first.steps) == 5
    assert took == "SIGINT", log


# A whole robot here, its policy there -------------------------------------------------------------

# A busy machine is slow to draw, to compress and to answer: that is not what is tried here.
PATIENT = {
    "policy": COMPRESSED | {f"max_{what}_age_s": 10.0 for what in ("image", "state", "objects")},
    "franka_driver": {"max_chunk_age_s": 5.0},
}


class RemotePolicy(RunningGraph):
    """The simulated graph with the policy at the other end of the link."""

    def _command(self, spec):
        command = super()._command(spec)
        return [*self.link.prefix, *command] if spec.name == "policy" else command


class Compressor:
    """What image_transport does in a camera driver: JPEG beside the raw images."""

    def __init__(self, node):
        self._bridge, self._publishers = CvBridge(Image, CompressedImage), {}
        for name in ("external", "wrist"):
            topic = f"{name}/image_raw"
            publisher = node.create_publisher(CompressedImage, f"{topic}/compressed", qos.SENSOR)
            self._publishers[name] = publisher
            node.create_subscription(
                Image, topic, lambda image, name=name: self._on_image(name, image), qos.SENSOR
            )

    def _on_image(self, name, image):
        bgr = self._bridge.imgmsg_to_cv2(image, "bgr8")
        message = self._bridge.cv2_to_compressed_imgmsg(bgr, "jpg")
        message.header = image.header
        self._publishers[name].publish(message)


@pytest.fixture(scope="module")
def graph(tmp_path_factory, ros_domain, link):
    """Simulated robot and driver here, the policy there."""
    folder = tmp_path_factory.mktemp("remote")
    local = simulation(folder, ros_domain, seed=SEED, parameters=PATIENT)
    graph = RemotePolicy(local.specs, local.log_dir, ros_domain, timeouts=local._timeouts)
    graph.link = link
    with graph:
        graph.compressor = Compressor(graph.node)
        graph.wait_active(START_TIMEOUT_S)
        yield graph


@pytest.fixture(scope="module")
def watcher(graph):
    """What is heard on the robot's side, where the person is too, who gives an instruction."""
    watcher = Watcher(graph)
    watcher.person = graph.node.create_publisher(String, "instruction", qos.COMMAND)
    watcher.until(watcher.person.get_subscription_count, "a policy that listens")
    watcher.person.publish(String(data=task_of_seed(SEED).instruction))
    return watcher


def check_stop_and_return(watcher, cut, restore):
    """The arm moves; `cut` brings it to rest in time; after `restoring` it moves on by itself."""
    watcher.until(lambda: watcher.states, "a state")
    start, heard = watcher.position(), len(watcher.chunks)
    watcher.until(lambda: len(watcher.chunks) > heard + 3, "chunks")
    watcher.until(lambda: np.linalg.norm(watcher.position() - start) > 0.02, "motion")
    cut()
    timeout = GateStatus.REASON_CHUNK_TIMEOUT
    watcher.until(lambda: watcher.gate[-1].reason == timeout, "a hold after the last chunk")
    assert watcher.gate[-1].verdict == GateStatus.VERDICT_HELD

    def late():
        last = [chunk for chunk in watcher.chunks if chunk.steps][-1]
        # The driver may have got one more chunk than the watcher.
        due_s = stamp_to_s(last.steps[-1].header.stamp) + PERIOD_S
        rest_s = due_s + CHUNK_TIMEOUT_S + STOPPING_S
        return [s for s in list(watcher.states) if stamp_to_s(s.header.stamp) > rest_s]

    watcher.until(lambda: len(late()) > 20, "states after the stop")
    places = np.array([pose_array(state.measured)[:3] for state in late()])
    assert np.ptp(places, axis=0).max() < 1e-3
    assert watcher.graph.states()["franka_driver"] == "active"
    rest, heard = watcher.position(), len(watcher.chunks)
    restore()
    watcher.until(lambda: len(watcher.chunks) > heard + 3, "chunks after the break")
    watcher.until(lambda: np.linalg.norm(watcher.position() - rest) > 0.01, "motion again")
    good = (GateStatus.VERDICT_PASS, GateStatus.VERDICT_CLAMPED)
    watcher.until(lambda: watcher.gate[-1].verdict in good, "a chunk that is sent on")


def test_an_arm_whose_link_to_the_policy_dies_rests_in_time_and_goes_on_when_it_is_back(
    graph, watcher, link
):
    policy = graph.processes["policy"]
    assert not policy.shared_memory(), "it must not be reached but by UDP"
    check_stop_and_return(watcher, lambda: link.cut(policy), lambda: link.restore(policy))
    assert not policy.shared_memory()


@pytest.mark.slow  # a policy that dies is tried in test_faults
def test_an_arm_whose_policy_hangs_rests_in_time_and_goes_on_when_it_wakes(graph, watcher):
    check_stop_and_return(
        watcher,
        lambda: graph.kill("policy", signal.SIGSTOP),
        lambda: graph.kill("policy", signal.SIGCONT),
    )
