"""The recorder as a process beside publishers of ours, and a look into the bags that it leaves."""

import signal
import subprocess
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import Image

from spear_bringup.trials.recording import read_rows
from spear_msgs.msg import TrialInfo
from spear_msgs.srv import EndTrial, StartTrial
from spear_policy.nodes.messages import LATCHED

EXECUTABLE = Path(get_package_prefix("spear_bringup")) / "lib/spear_bringup/trial_recorder"
NAN = float("nan")


def wait_for(condition, what, timeout_s=60.0):
    """Return the first true value of `condition()`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what} did not happen within {timeout_s} s")


class Lab:
    """A recorder process and everything that a test says to it."""

    def __init__(self, node, directory, parameters):
        self.node, self.directory = node, directory
        options = {"directory": directory, "least_free_space_mb": 1, **parameters}
        arguments = [part for k, v in options.items() for part in ("-p", f"{k}:={v}")]
        self.process = subprocess.Popen([EXECUTABLE, "--ros-args", *arguments])
        self.infos: list[TrialInfo] = []
        self._change = node.create_client(ChangeState, "/trial_recorder/change_state")
        self._start = node.create_client(StartTrial, "start_trial")
        self._end = node.create_client(EndTrial, "end_trial")
        self._set = node.create_client(SetParameters, "/trial_recorder/set_parameters")
        self._clients = (self._change, self._start, self._end, self._set)
        self._parts = [node.create_subscription(TrialInfo, "trial", self.infos.append, LATCHED)]
        for client in self._clients:
            assert client.wait_for_service(60.0)
        # A server is seen before it sees its client; until then its answers are lost. The node is
        # not configured yet, so these calls change nothing.
        for client in (self._start, self._end, self._set):
            wait_for(partial(client.call, client.srv_type.Request(), 2.0), "an answer")

    def change(self, transition):
        """Ask for a lifecycle transition; whether it was made."""
        request = ChangeState.Request(transition=Transition(id=transition))
        # a recorder killed a moment ago still counts as a server, and never answers
        return wait_for(lambda: self._change.call(request, 5.0), "an answer").success

    def set_parameter(self, name, value):
        """Set one parameter; whether it was taken."""
        parameter = rclpy.Parameter(name, value=value).to_parameter_msg()
        answer = self._set.call(SetParameters.Request(parameters=[parameter]), 60.0)
        return answer.results[0].successful

    def activate(self):
        """Configure and activate."""
        assert self.change(Transition.TRANSITION_CONFIGURE)
        assert self.change(Transition.TRANSITION_ACTIVATE)

    def start(self, instruction="lift the red cube", seed=-1, **fields):
        """Call start_trial."""
        request = StartTrial.Request(instruction=instruction, seed=seed, **fields)
        return self._start.call(request, 60.0)

    def end(self, outcome=EndTrial.Request.OUTCOME_SUCCESS, score=NAN, **fields):
        """Call end_trial."""
        return self._end.call(EndTrial.Request(outcome=outcome, score=score, **fields), 60.0)

    def publishers(self, *wanted):
        """Return publishers, of (type, topic, QoS) each, that the recorder has found."""
        made = [self.node.create_publisher(*one) for one in wanted]
        self._parts += made
        for publisher in made:
            wait_for(publisher.get_subscription_count, f"subscription to {publisher.topic_name}")
        return made

    def publisher(self, kind, topic, qos):
        """Return one publisher that the recorder has found."""
        return self.publishers((kind, topic, qos))[0]

    def listen(self, kind, topic, qos):
        """Return the list that takes the messages of a topic."""
        heard = []
        self._parts.append(self.node.create_subscription(kind, topic, heard.append, qos))
        return heard

    def wait_for_messages(self, count):
        """Wait until the running trial has so many messages in its bag."""
        wait_for(lambda: self.infos and self.infos[-1].messages >= count, f"{count} messages")

    def rows(self):
        """Return all rows of the score sheet; none may be torn."""
        rows, warnings = read_rows(self.directory / "scores.jsonl")
        assert not warnings
        return rows

    def stop(self, number=signal.SIGINT):
        """End the process by a signal; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60.0)

    def forget(self):
        """Destroy what this lab made on the node."""
        for part in self._parts:
            destroy = "subscription" if hasattr(part, "callback") else "publisher"
            getattr(self.node, f"destroy_{destroy}")(part)
        for client in self._clients:
            self.node.destroy_client(client)


@contextmanager
def recorder(node, directory, activate=True, **parameters):
    """Run a recorder process around a test."""
    lab = Lab(node, directory, parameters)
    try:
        if activate:
            lab.activate()
        yield lab
    finally:
        if lab.process.poll() is None:
            lab.process.kill()
            lab.process.wait()
        lab.forget()


def gradient():
    """Return a smooth picture of 120 x 160, RGB."""
    rows, columns = np.mgrid[0:120, 0:160]
    return np.dstack([rows * 2, columns, rows + columns // 4]).astype(np.uint8)


def raw_image(picture):
    """Return a sensor_msgs/Image whose rows are padded by 32 bytes."""
    height, width = picture.shape[:2]
    padded = np.zeros((height, width * 3 + 32), np.uint8)
    padded[:, : width * 3] = picture.reshape(height, -1)
    message = Image(height=height, width=width, encoding="rgb8", step=width * 3 + 32)
    message.data.frombytes(padded.tobytes())
    return message


def counts_in(bag):
    """Return messages by topic as rosbags reads them, every one decoded."""
    counts = {}
    with AnyReader([Path(bag)]) as reader:
        for connection, _, raw in reader.messages():
            reader.deserialize(raw, connection.msgtype)
            counts[connection.topic] = counts.get(connection.topic, 0) + 1
    return counts
