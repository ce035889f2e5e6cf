"""The Franka driver as a node: chunks, services and faults over the wire; a simulated robot."""

import gc
import itertools
import struct
import threading
import time
import weakref
from functools import partial

import numpy as np
import pytest
import rclpy
from point_arm import until
from rcl_interfaces.msg import Log
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState
from simulated_franka import SimulatedFranka
from std_srvs.srv import Trigger
from walk_tracer import walk

from spear_bringup.graph import free_loopback_host
from spear_bringup.nodes.franka_driver import FrankaDriver
from spear_msgs.msg import ActionChunk, EndEffectorCommand, EndEffectorState, GateStatus
from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import Pose, chunk_from_poses, distance
from spear_policy.nodes import messages as qos
from spear_policy.nodes.messages import chunk_to_msg, pose_from_msg, stamp_to_s

HOST = free_loopback_host()
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
PASS, CLAMPED = GateStatus.VERDICT_PASS, GateStatus.VERDICT_CLAMPED
HELD, REJECTED, STOPPED = (
    GateStatus.VERDICT_HELD,
    GateStatus.VERDICT_REJECTED,
    GateStatus.VERDICT_STOPPED,
)


def driver_arguments(**parameters):
    """Command line of a driver for the simulated robot."""
    # Patient with a simulation that a busy test machine does not serve: what is tested here is not
    # how soon silence is noticed.
    parameters = {
        "robot_host": HOST,
        "realtime": "ignore",
        "robot_timeout_s": 4.0,
        "clock_stall_timeout_s": 2.0,
        "max_receive_age_s": 5.0,
        "max_chunk_age_s": 5.0,
        "max_future_s": 1.0,
        "use_sim_time": True,
        **parameters,
    }
    return ["--ros-args", *(a for k, v in parameters.items() for a in ("-p", f"{k}:={v}".lower()))]


class Lab:
    """What stands around the driver: a policy that sends chunks and someone who watches."""

    def __init__(self):
        rclpy.init(args=[])
        self.node = rclpy.create_node("lab")
        self.states, self.joints, self.commands, self.gates, self.logs = [], [], [], [], []
        listen = self.node.create_subscription
        listen(EndEffectorState, "ee_state", self.states.append, qos.SENSOR)
        listen(JointState, "joint_states", self.joints.append, qos.SENSOR)
        listen(EndEffectorCommand, "command", self.commands.append, qos.EVENT)
        listen(GateStatus, "gate_status", self.gates.append, qos.LATCHED)
        # Kept for late joiners: a node that is refused at once speaks before it is discovered.
        kept = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        listen(Log, "/rosout", self.logs.append, kept)
        self._chunks = self.node.create_publisher(ActionChunk, "action_chunk", qos.COMMAND)
        self._services = {
            name: self.node.create_client(Trigger, f"franka_driver/{name}")
            for name in ("home", "stop", "recover")
        }
        self._chunk_id = 0
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._closing = threading.Event()
        self._thread.start()

    def _spin(self):
        while not self._closing.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def close(self):
        self._closing.set()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown()

    def call(self, name):
        """The response of one of the driver's services."""
        client = self._services[name]
        assert client.wait_for_service(60.0)
        response = client.call(Trigger.Request(), timeout_sec=120.0)
        assert response is not None, f"{name} did not answer"
        return response

    def matched(self):
        return self._chunks.get_subscription_count() > 0 and self.states and self.gates

    def chunk(self, delta_m=(0.0, 0.0, 0.0), rotation=(0.0, 0.0, 0.0), opening=1.0, dt_s=0.2):
        """A chunk of five steps from the newest state, not sent yet."""
        state = self.states[-1]
        measured, commanded = pose_from_msg(state.measured), pose_from_msg(state.commanded)
        targets = []
        for share in np.arange(1, 6) / 5:
            turn = quat.from_rotation_vector(share * np.asarray(rotation))
            place = measured.position_m + share * np.asarray(delta_m)
            targets.append(Pose(place, quat.multiply(measured.orientation_xyzw, turn)))
        chunk = chunk_from_poses(
            stamp_to_s(state.header.stamp), dt_s, measured, commanded, targets, [opening] * 5
        )
        message = chunk_to_msg(chunk, "franka_base", "franka_ee")
        self._chunk_id += 1
        message.source_id, message.chunk_id = "lab", self._chunk_id
        return message

    def send(self, message):
        """Publish a chunk and return the command that answers it."""
        self._chunks.publish(message)
        return until(lambda: self._answer(message))

    def move(self, *where, change=lambda message: None, **how):
        """The command that answers a chunk of these arguments.

        Where a busy machine let it become too late on the way, another one is sent.
        """
        while True:
            message = self.chunk(*where, **how)
            change(message)
            command = self.send(message)
            if command.gate.reason != GateStatus.REASON_LATE:
                return command

    def _answer(self, message):
        found = [c for c in list(self.commands) if c.gate.chunk_id == message.chunk_id]
        return found[0] if found else None

    @property
    def pose(self):
        return pose_from_msg(self.states[-1].measured)

    def at_rest(self):
        """Whether the arm has stood still for half a second of its time."""
        newest = list(self.states)[-25:]
        if len(newest) < 25:
            return False
        return distance(pose_from_msg(newest[0].measured), self.pose)[0] < 2e-4

    def fresh(self):
        """Wait for a state that was published after this call."""
        count = len(self.states)
        until(lambda: len(self.states) > count + 1)


@pytest.fixture(scope="module")
def robot(ros_domain):
    """A simulated robot that also publishes /clock."""
    with SimulatedFranka(HOST, clock=True) as robot:
        yield robot


@pytest.fixture(scope="module")
def lab(ros_domain):
    """One lab for this file."""
    lab = Lab()
    yield lab
    lab.close()
    del lab
    gc.collect()  # rclpy keeps a closed node's shared memory until its cycles are collected


@pytest.fixture(scope="module")
def make_driver(lab):
    """Make a driver node whose threads run."""
    made = []

    def make(**parameters):
        node = FrankaDriver(driver_arguments(**parameters))
        node.start_threads()
        made.append(node)
        return node

    yield make
    for node in made:
        node.close()
    made.clear()


@pytest.fixture(scope="module")
def driver(robot, lab, make_driver):
    """One active driver for this file."""
    node = make_driver()
    assert node.trigger_configure() is SUCCESS
    assert node.trigger_activate() is SUCCESS
    until(lab.matched)
    return weakref.proxy(node)  # the last test must not keep the node while it is closed


@pytest.fixture
def ready(driver, lab):
    """The driver without a latch, the arm at rest at home."""
    assert lab.call("recover").success
    answer = lab.call("home")
    assert answer.success, answer.message
    until(lab.at_rest)
    return driver


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (
            {"max_linear_acceleration_m_s2": 9.5},
            ("max_linear_acceleration_m_s2 is 9.5", "fr3", "9;"),
        ),
        ({"robot_generation": "panda"}, ("calls itself 'fr3'", "robot_generation")),
    ],
)
def test_limits_above_the_robots_own_or_of_another_robot_fail_configure(
    robot, lab, parameters, words
):
    # Before the driver of this file: a robot answers one client at a time.
    assert_refused(lab, parameters, words)


def test_a_chunk_moves_the_arm_and_the_command_says_what_was_sent(ready, lab):
    start = lab.pose
    command = lab.move((0.06, 0.0, 0.0), rotation=(0.0, 0.0, 0.2))
    assert command.gate.verdict in (PASS, CLAMPED)
    assert command.gate.source_id == "lab"
    assert command.header.frame_id == "franka_base"
    assert 1 <= len(command.knots) == len(command.knot_twists) == len(command.knot_durations) <= 5
    assert command.knot_twists[-1].linear.x == 0.0
    assert np.isclose(command.knots[-1].position.x, start.position_m[0] + 0.06, atol=1e-3)
    assert command.gate.counts[command.gate.verdict] >= 1
    until(lambda: lab.pose.position_m[0] > start.position_m[0] + 0.055)
    until(lab.at_rest)
    moved, turned = (
        lab.pose.position_m - start.position_m,
        quat.rotation_vector(
            quat.multiply(quat.inverse(start.orientation_xyzw), lab.pose.orientation_xyzw)
        ),
    )
    assert np.allclose(moved, (0.06, 0.0, 0.0), atol=0.003)
    assert np.allclose(turned, (0.0, 0.0, 0.2), atol=0.02)


def test_a_chunk_enters_at_most_nine_files_on_its_way_to_the_robot(ready, lab, monkeypatch):
    for _ in range(2):  # the first one may still import what it needs
        lab.fresh()
        chunk, session = lab.chunk((0.02, 0.0, 0.0)), ready.session
        # The arm thread would not be followed, nor what it does beside the chunk.
        with monkeypatch.context() as patch, walk() as followed, followed.on():
            patch.setattr(session, "_enqueue", partial(session._decide, about_chunk=True))
            ready._on_chunk(serialize_message(chunk))
    followed.show("chunk to robot", most=9)
    if until(lambda: lab._answer(chunk)).gate.verdict in (PASS, CLAMPED):
        assert "spear_bringup/spear_bringup/drivers/franka.py" in followed.files


def test_states_carry_frames_rising_stamps_and_joint_names(ready, lab):
    lab.fresh()
    count = len(lab.states)
    until(lambda: len(lab.states) > count + 50)
    states = list(lab.states)[count:]
    assert {s.header.frame_id for s in states} == {"franka_base"}
    assert {s.ee_frame_id for s in states} == {"franka_ee"}
    stamps = np.array([stamp_to_s(s.header.stamp) for s in states])
    assert np.all(np.diff(stamps) > 0)
    # 50 Hz, and fewer where the machine is too busy to look at every state.
    assert np.median(np.diff(stamps)) > 0.015 and np.min(np.diff(stamps)) < 0.035
    # A stamp is when the robot was there, on a clock that comes in steps of 10 ms.
    until(lambda: abs(ready.now_s() - stamp_to_s(lab.states[-1].header.stamp)) < 0.2)
    assert list(lab.joints[-1].name) == [f"fr3_joint{i}" for i in range(1, 8)]
    assert len(lab.joints[-1].position) == len(lab.joints[-1].effort) == 7


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        (lambda c: setattr(c.steps[2].translation, "x", np.nan), GateStatus.REASON_NOT_FINITE),
        (lambda c: setattr(c.steps[0].rotation, "w", 0.0), GateStatus.REASON_NOT_UNIT_QUATERNION),
        (lambda c: setattr(c.header, "frame_id", "map"), GateStatus.REASON_MALFORMED),
        (lambda c: setattr(c.steps[1], "rotation_frame_id", "tool"), GateStatus.REASON_MALFORMED),
        (lambda c: setattr(c, "anchor_kind", 9), GateStatus.REASON_MALFORMED),
        (lambda c: setattr(c, "kind", 9), GateStatus.REASON_MALFORMED),
        (lambda c: setattr(c.steps[4].translation, "z", 3.0), GateStatus.REASON_JUMP),
    ],
)
def test_a_bad_chunk_is_rejected_and_the_robot_does_not_move(ready, lab, poison, reason):
    start = lab.pose
    command = lab.move((0.05, 0.0, 0.0), change=poison)
    assert (command.gate.verdict, command.gate.reason) == (REJECTED, reason)
    assert command.gate.text
    assert len(command.knots) == 0
    count = len(lab.states)
    until(lambda: len(lab.states) > count + 25)
    assert distance(lab.pose, start)[0] < 3e-4
    assert lab.move((0.01, 0.0, 0.0)).gate.verdict in (PASS, CLAMPED)


def test_a_hold_stops_the_arm_on_its_way(ready, lab):
    start = lab.pose
    lab.move((0.2, 0.0, 0.0))
    until(lambda: lab.pose.position_m[0] > start.position_m[0] + 0.02)
    hold = lab.chunk()
    hold.kind, hold.steps = ActionChunk.KIND_HOLD, []
    command = lab.send(hold)
    assert (command.gate.verdict, command.gate.reason) == (HELD, GateStatus.REASON_HOLD_REQUESTED)
    until(lab.at_rest)
    assert lab.pose.position_m[0] < start.position_m[0] + 0.19


def test_a_closing_chunk_closes_the_gripper_and_home_opens_it(ready, lab):
    until(lambda: lab.states[-1].gripper_opening > 0.9)
    lab.move(opening=0.0)
    until(lambda: lab.states[-1].gripper_width < 0.003)
    assert not lab.states[-1].gripper_holding
    assert lab.call("home").success
    until(lambda: lab.states[-1].gripper_opening > 0.9)


def test_states_go_on_while_home_is_on_its_way(ready, lab):
    start = lab.pose
    lab.move((0.08, 0.08, 0.0))
    until(lambda: lab.pose.position_m[0] > start.position_m[0] + 0.07)
    count = len(lab.states)
    assert lab.call("home").success
    until(lambda: distance(lab.pose, start)[0] < 0.005)
    ways_m = [distance(pose_from_msg(state.measured), start)[0] for state in lab.states[count:]]
    assert sum(0.01 < way_m < 0.1 for way_m in ways_m) > 3, "no states from the way home"


def test_a_stop_is_latched_told_to_late_joiners_and_released_by_recover(ready, lab):
    lab.move((0.1, 0.0, 0.0))
    assert lab.call("stop").success
    until(lab.at_rest)
    seen = []
    late = lab.node.create_subscription(GateStatus, "gate_status", seen.append, qos.LATCHED)
    until(lambda: seen)
    assert (seen[0].verdict, seen[0].reason) == (STOPPED, GateStatus.REASON_STOP_REQUESTED)
    lab.node.destroy_subscription(late)
    refused = lab.move((0.02, 0.0, 0.0))
    assert refused.gate.verdict == STOPPED and len(refused.knots) == 0
    assert not lab.call("home").success
    assert lab.call("recover").success
    assert lab.move((0.02, 0.0, 0.0)).gate.verdict in (PASS, CLAMPED)


def oversized(message, count):
    """The bytes of a chunk with `count` times its first step; rclpy itself would refuse to."""
    step = message.steps[0]
    message.steps = [step] * 63
    one_less = serialize_message(message)
    message.steps = [step] * 64
    raw = serialize_message(message)
    at = next(
        k
        for k in range(0, len(one_less), 4)
        if (one_less[k : k + 4], raw[k : k + 4]) == (struct.pack("<I", 63), struct.pack("<I", 64))
    )
    period = raw[at + 4 : at + 4 + 64 * (len(raw) - len(one_less))]
    tail = raw[at + 4 + len(period) :]
    return raw[:at] + struct.pack("<I", 64 * (count // 64)) + period * (count // 64) + tail


def test_a_stop_is_not_behind_a_flood_of_enormous_chunks(ready, lab):
    enormous = oversized(lab.chunk((0.05, 0.0, 0.0)), 50_000)
    assert len(enormous) > 9_000_000
    flooding = threading.Event()

    def flood():
        while not flooding.wait(0.05):
            lab._chunks.publish(enormous)

    sender = threading.Thread(target=flood)
    sender.start()
    try:
        until(lambda: "64 kB is the most" in lab.gates[-1].text)
        began_s = time.monotonic()
        assert lab.call("stop").success
        assert time.monotonic() - began_s < 2.0  # 0.02 s when idle; before, 28 s
    finally:
        flooding.set()
        sender.join()
    until(lambda: lab.gates[-1].verdict == STOPPED)


def test_a_reflex_latches_and_diagnostics_say_so(robot, ready, lab):
    lab.move((0.1, 0.0, 0.0))
    robot.inject("reflex")
    gate = until(lambda: lab.gates[-1] if lab.gates[-1].verdict == STOPPED else None)
    assert gate.reason == GateStatus.REASON_ROBOT_REFLEX
    assert "~/recover" in gate.text
    rows = {row[0]: row for row in ready.diagnose()}
    assert rows["gate"][1] == b"\x02"
    assert lab.call("recover").success


def test_a_stalled_clock_holds_and_the_status_is_repeated_without_it(robot, ready, lab):
    lab.move((0.15, 0.0, 0.0))
    robot.inject("clock_off")
    try:
        until(lambda: lab.gates[-1].reason == GateStatus.REASON_CLOCK_FAULT)
        assert lab.gates[-1].verdict == HELD
        count = len(lab.gates)
        until(lambda: len(lab.gates) > count + 1)
        assert lab.gates[-1].reason == GateStatus.REASON_CLOCK_FAULT
    finally:
        robot.inject("clock_on")


def test_a_lost_robot_latches_and_recover_brings_it_back(robot, ready, lab):
    robot.freeze()
    try:
        until(lambda: lab.gates[-1].verdict == STOPPED)
        assert lab.gates[-1].reason == GateStatus.REASON_ROBOT_LOST
    finally:
        robot.thaw()
    until(lambda: lab.call("recover").success)
    assert lab.call("home").success


def test_deactivation_stops_the_arm_and_the_node_comes_up_again(ready, lab):
    start = lab.pose
    lab.move((0.2, 0.0, 0.0))
    until(lambda: lab.pose.position_m[0] > start.position_m[0] + 0.02)
    assert ready.trigger_deactivate() is SUCCESS
    until(lab.at_rest)
    assert lab.pose.position_m[0] < start.position_m[0] + 0.19
    held = lab.move((0.02, 0.0, 0.0))
    assert (held.gate.verdict, held.gate.reason) == (HELD, GateStatus.REASON_NOT_ACTIVE)
    assert ready.trigger_cleanup() is SUCCESS
    assert ready.trigger_configure() is SUCCESS
    assert ready.trigger_activate() is SUCCESS
    lab.fresh()
    assert lab.move((-0.02, 0.0, 0.0)).gate.verdict in (PASS, CLAMPED)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"robot_timeout_s": 9.0}, ("safety parameter robot_timeout_s", "0.02 to 5.0 s")),
        ({"max_linear_speed_m_s": 3.0}, ("max_linear_speed_m_s", "m/s")),
        ({"workspace_min_m": "[0.8,-0.4,0.0]"}, ("workspace_min_m", "below")),
        ({"home_joints_rad": "[0.0,0.0]"}, ("home_joints_rad", "7")),
        ({"realtime": "maybe"}, ("realtime", "enforce")),
        ({"gripper_close_below": 0.9}, ("gripper thresholds",)),
        ({"robot_host": "127.42.0.98"}, ("127.42.0.98", "refuses", "robot_host")),
    ],
)
def test_configure_fails_with_a_sentence(lab, parameters, words):
    assert_refused(lab, parameters, words)


_refused = itertools.count()


def assert_refused(lab, parameters, words):
    """Configure fails with a sentence that has these words."""
    # By a name of its own: it would answer the services of this file's driver, and take the log of
    # that name away when it ends.
    name = f"refused_driver_{next(_refused)}"
    arguments = [*driver_arguments(use_gripper=False, **parameters), "-r", f"__node:={name}"]
    node = FrankaDriver(arguments)
    node.start_threads()
    try:
        lab.logs.clear()
        assert node.trigger_configure() is FAILURE
        said = until(lambda: [log.msg for log in lab.logs if "configure refused" in log.msg])
        assert all(word in said[-1] for word in words), said
    finally:
        node.close()
