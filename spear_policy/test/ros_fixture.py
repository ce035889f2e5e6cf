"""ROS for tests in one process: waiting, spinning, a simulated clock, lifecycle transitions."""

import gc
import threading
import time
from contextlib import contextmanager, suppress

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock

from spear_policy.nodes.messages import SENSOR


def wait(condition, timeout_s=40.0, seen=lambda: ""):
    """The value of `condition` once it is true; fails the test, with what `seen` says, if never."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never true: {condition} {seen()}"
        time.sleep(0.005)
    return value


@contextmanager
def spinning(node):
    """Spin a node in a thread of its own."""
    executor, stop = SingleThreadedExecutor(), threading.Event()
    executor.add_node(node)

    def spin():
        while not stop.is_set():
            with suppress(Exception):  # an impossible transition raises in here
                executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield node
    finally:
        stop.set()
        thread.join()
        executor.remove_node(node)
        executor.shutdown()


class SimClock(Node):
    """Publishes /clock: from START_S on, `rate` times as fast as the steady clock."""

    START_S = 1000.0

    def __init__(self, rate):
        super().__init__("sim_clock")
        self.rate, self.now_s = rate, self.START_S
        self.back_s = 0.0  # a test says by how much to set it back; done once
        self._publisher = self.create_publisher(Clock, "/clock", SENSOR)
        self._before_s = time.monotonic()
        self.create_timer(0.01, self._publish)

    def _publish(self):
        steady_s = time.monotonic()
        back_s, self.back_s = self.back_s, 0.0
        self.now_s += self.rate * (steady_s - self._before_s) - back_s
        self._before_s = steady_s
        message = Clock()
        message.clock.sec, message.clock.nanosec = int(self.now_s), int(self.now_s % 1 * 1e9)
        self._publisher.publish(message)


@contextmanager
def sim_clock(rate):
    """A clock that runs while the test does."""
    clock = SimClock(rate)
    with spinning(clock):
        yield clock
    clock.destroy_node()


@contextmanager
def ros():
    """ROS for a test file; afterwards nothing of it is left."""
    rclpy.init()
    yield
    gc.collect()  # a lifecycle node refers to itself and keeps its DDS participant until now
    rclpy.shutdown()


def lifecycle_label(node, name):
    """The state of another process's node in a word; "" when it does not answer soon."""
    client = node.create_client(GetState, f"{name}/get_state")
    try:
        client.wait_for_service(2.0)
        future = client.call_async(GetState.Request())
        deadline = time.monotonic() + 2.0
        while not future.done() and time.monotonic() < deadline:
            time.sleep(0.005)
        return future.result().current_state.label if future.done() else ""
    finally:
        node.destroy_client(client)


def transit(node, name, number, label):
    """Ask another process's node for a transition, and wait for the state that it leads to."""
    client = node.create_client(ChangeState, f"{name}/change_state")
    assert client.wait_for_service(40.0)
    request = ChangeState.Request(transition=Transition(id=number))

    def changed():
        # Calls can be lost while two processes are still discovering each other.
        client.call_async(request)
        deadline = time.monotonic() + 3.0
        while (found := lifecycle_label(node, name)) != label and time.monotonic() < deadline:
            time.sleep(0.02)
        return found == label

    wait(changed)
    node.destroy_client(client)
