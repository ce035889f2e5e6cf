"""Faults of a driver and its robot, each a row of the fault matrix.

Each function brings its fault about on a bench and calls `bench.inject(...)` at the moment of the
fault. The runner then waits for the verdict that the row expects and judges the robot's own
commanded motion.
"""

import copy
import math
import os
import subprocess
import sys
import time

import numpy as np
from fault_benches import PATIENCE_S, busy, row
from rclpy.serialization import serialize_message
from std_msgs.msg import Empty

from spear_msgs.msg import ActionChunk, GateStatus
from spear_policy.nodes import messages as qos
from spear_policy.nodes.messages import pose_array, stamp_to_s

# Chunks that must not move the arm ----------------------------------------------------------------


def _hostile(name, expected, change, injected, delta_m=(0.05, 0.0, 0.0)):
    """A row: one chunk, changed in one place, for an arm at rest."""

    def run(bench):
        message = bench.lab.chunk(delta_m)
        change(message)
        bench.inject(lambda: bench.lab._chunks.publish(message))

    row(name, injected, "arm", expected, 0.1, motion="unmoved")(run)


def _set(path, value):
    def change(message):
        *way, last = path.split(".")
        for part in way:
            message = message[int(part)] if part.isdigit() else getattr(message, part)
        setattr(message, last, value)

    return change


def _long(message):
    message.steps = [message.steps[0]] * 64
    message.dt.sec, message.dt.nanosec = 1, 0


def _shift_stamp(seconds):
    def change(message):
        stamp_s = stamp_to_s(message.header.stamp) + seconds
        message.header.stamp.sec = int(stamp_s)
        message.header.stamp.nanosec = int(stamp_s % 1 * 1e9)

    return change


def _stretched_too_far(message):
    message.steps = message.steps * 2
    for k, step in enumerate(message.steps):
        step.translation.x, step.translation.y, step.translation.z = 0.0, 0.09 * ((k + 1) % 2), 0.0


_hostile("NaN", "REJECTED NOT_FINITE", _set("steps.2.translation.x", math.nan), "NaN in one step")
_hostile(
    "infinity", "REJECTED NOT_FINITE", _set("steps.4.translation.z", math.inf), "inf in a step"
)
_hostile("no rotation", "REJECTED NOT_UNIT_QUATERNION", _set("steps.0.rotation.w", 0.0), "norm 0")
_hostile("10 m", "REJECTED JUMP", _set("steps.4.translation.z", 10.0), "a last step of 10 m")
_hostile("other frame", "REJECTED MALFORMED", _set("header.frame_id", "map"), "frame_id map")
_hostile("no steps", "REJECTED MALFORMED", _set("steps", []), "a chunk without steps")
_hostile("no source", "REJECTED MALFORMED", _set("source_id", ""), "an empty source_id")
_hostile("64 steps of 1 s", "REJECTED MALFORMED", _long, "a chunk that would move for a minute")
_hostile("long stretched path", "REJECTED PATH_TIME", _stretched_too_far, "10 steps too fast")
_hostile("old stamp", "REJECTED STALE", _shift_stamp(-0.82), "a stamp 0.82 s old")
_hostile("future stamp", "REJECTED FUTURE", _shift_stamp(1.0), "a stamp 1 s ahead")
_hostile(
    "wrong anchor", "REJECTED ANCHOR_MISMATCH", _set("anchor_measured.position.y", 0.1), "5 cm+"
)


@row(
    "first step of 0.2 m, 0.22 s late",
    "A first step of 0.20 m (limit 0.10) in a chunk that is 0.22 s old",
    "arm",
    "REJECTED JUMP",
    0.1,
    motion="unmoved",
)
def _jump_in_a_late_chunk(bench):
    message = bench.lab.chunk()
    for step in message.steps:
        step.translation.y = 0.2
    bench.let(0.22)
    bench.inject(lambda: bench.lab._chunks.publish(message))


@row(
    "out of the workspace",
    "five steps of 8 cm downwards, through the table",
    "arm",
    "REJECTED OUTSIDE_WORKSPACE",
    0.1,
    motion="unmoved",
)
def _out_of_the_workspace(bench):
    message = bench.lab.chunk((0.0, 0.0, -0.42))
    bench.inject(lambda: bench.lab._chunks.publish(message))


# Streams of chunks and people ---------------------------------------------------------------------


@row(
    "second publisher",
    "A chunk of another source while the arm moves",
    "arm",
    "HELD DUPLICATE_SOURCE",
    0.2,
)
def _second_publisher(bench):
    bench.start_motion()
    message = bench.lab.chunk()
    message.source_id = "intruder"
    bench.inject(lambda: bench.lab._chunks.publish(message))


@row("hold", "the policy asks for a hold while the arm moves", "arm", "HELD HOLD_REQUESTED", 0.1)
def _hold(bench):
    bench.start_motion()
    message = bench.lab.chunk()
    message.kind, message.steps = ActionChunk.KIND_HOLD, []
    bench.inject(lambda: bench.lab._chunks.publish(message))


@row(
    "silent policy",
    "no chunk after one of five steps; counted from its last step",
    "arm",
    "HELD CHUNK_TIMEOUT",
    0.5,
)
def _silent_policy(bench):
    bench.start_motion()
    newest = bench.lab.commands[-1]
    due_s = stamp_to_s(newest.header.stamp) + sum(map(stamp_to_s, newest.knot_durations))
    left_s = due_s - bench.robot.clock_start_s - bench.clock_jump_s - bench.robot.inject("time")
    bench.let(max(left_s, 0.0))
    bench.inject()


@row(
    "oscillating chunks",
    "+-40 mm every 0.2 s; counted from the first chunk",
    "arm",
    "HELD OSCILLATION",
    4.5,
)
def _oscillation(bench):
    bench.inject()
    side, until_s = 1.0, time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        message = bench.lab.chunk()
        for k, step in enumerate(message.steps):
            step.translation.y = 0.04 * side * (-1) ** k
        bench.send(message)
        if "OSCILLATION" in bench.said() and bench.said().startswith("HELD"):
            return
        side = -side
        bench.let(0.2)


@row("stop", "a person calls ~/stop while the arm moves", "arm", "STOPPED STOP_REQUESTED", 0.1)
def _stop(bench):
    bench.start_motion()
    bench.inject(lambda: bench.lab.call("stop"))


def _raw_chunk(message, steps):
    """Serialized `message` with more steps than its type allows."""
    shorter, longer = (
        serialize_message(_with_steps(message, [message.steps[0]] * count)) for count in (2, 3)
    )
    size = len(longer) - len(shorter)
    count_at = next(i for i in range(len(shorter)) if shorter[i] != longer[i])
    inside = count_at + 4 + 2 * size  # where one step is like the next
    raw = bytearray(longer[:inside])
    raw += longer[inside - size : inside] * (steps - 3) + longer[inside:]
    raw[count_at : count_at + 4] = steps.to_bytes(4, "little")
    return bytes(raw)


_FLOOD = """
import sys, rclpy
from spear_msgs.msg import ActionChunk
from spear_policy.nodes.messages import COMMAND
read = sys.stdin.buffer.read
messages = [read(int.from_bytes(read(4), "little")) for _ in range(2)]
rclpy.init()
publisher = rclpy.create_node("flood").create_publisher(ActionChunk, "action_chunk", COMMAND)
while True:
    for k in range(20):
        publisher.publish(messages[k == 0])
"""


def _with_steps(message, steps):
    other = copy.deepcopy(message)
    other.steps = steps
    return other


@row(
    "stop under a flood",
    "~/stop while the largest chunks that the wire takes come as fast as they can, and "
    "raw ones of 50,000 steps",
    "arm",
    "STOPPED STOP_REQUESTED",
    0.1,
)
def _stop_under_a_flood(bench):
    largest = bench.lab.chunk()
    largest.steps = [largest.steps[0]] * 64
    flood = subprocess.Popen([sys.executable, "-c", _FLOOD], stdin=subprocess.PIPE)
    try:
        for message in (serialize_message(largest), _raw_chunk(largest, 50_000)):
            flood.stdin.write(len(message).to_bytes(4, "little") + message)
        flood.stdin.flush()
        publishers = bench.lab.node.count_publishers("action_chunk")
        count = bench.lab.node.count_publishers
        bench.until(lambda: count("action_chunk") > publishers, "the flood")
        bench.start_motion()
        bench.inject(lambda: bench.lab.call("stop"))
    finally:
        flood.kill()
        flood.wait()
        flood.stdin.close()


@row(
    "stop beside a chunk",
    "~/stop in the moment in which a chunk is judged and sent: the latch is told, and stays",
    "arm",
    "STOPPED STOP_REQUESTED",
    0.1,
)
def _stop_beside_a_chunk(bench):
    bench.start_motion()
    message = bench.lab.chunk((0.03, 0.0, 0.0))

    def both():
        bench.lab._chunks.publish(message)
        return bench.lab.call("stop")

    bench.inject(both)
    late = bench.lab.chunk((0.03, 0.0, 0.0))
    assert bench.send(late).gate.verdict == GateStatus.VERDICT_STOPPED


@row(
    "lifecycle manager dies",
    "the heartbeat of the lifecycle manager ends (manager_timeout_s is 1.0) while chunks come",
    "arm",
    "HELD MANAGER_LOST",
    1.3,
    clock="steady",
)
def _manager_dies(bench):
    node = bench.lab.node
    beats = node.create_publisher(Empty, "lifecycle_manager/heartbeat", qos.NEWEST)
    timer = node.create_timer(0.1, lambda: beats.publish(Empty()))
    try:
        bench.until(beats.get_subscription_count, "the driver's interest")
        bench.start_motion()
        bench.let(0.3)
    finally:
        bench.on_end(lambda: bench.session_calls(bench.node.trigger_activate))
        bench.on_end(lambda: bench.session_calls(bench.node.trigger_deactivate))
        node.destroy_timer(timer)
        node.destroy_publisher(beats)
    bench.inject()
    while bench.robot.inject("time") < bench.fault.robot_s + 1.5:
        bench.lab._chunks.publish(bench.lab.chunk((0.0, 0.02, 0.0)))
        bench.let(0.2)


@row(
    "inactive driver",
    "A chunk and ~/home for a driver that is not active",
    "arm",
    "HELD NOT_ACTIVE",
    0.1,
    motion="unmoved",
)
def _inactive(bench):
    bench.start_motion()
    bench.until(bench.lab.at_rest, "rest")
    bench.robot.inject("record")  # the motion so far is not the row's
    bench.session_calls(bench.node.trigger_deactivate)
    try:
        message = bench.lab.chunk((0.05, 0.0, 0.0))
        bench.inject(lambda: bench.lab._chunks.publish(message))
        answer = bench.lab.call("home")
        assert not answer.success, "an inactive driver said that it went home"
        bench.let(0.5)
    finally:
        bench.session_calls(bench.node.trigger_activate)


# Clocks -------------------------------------------------------------------------------------------


@row(
    "/clock back by 30 s",
    "/clock jumps back by 30 s while the arm moves",
    "arm",
    "HELD CLOCK_FAULT",
    0.2,
)
def _clock_back(bench):
    bench.start_motion()
    bench.jump_clock(-30.0)


@row("/clock ahead by 30 s", "/clock jumps ahead by 30 s while the arm moves", "arm", "HELD", 0.5)
def _clock_ahead(bench):
    bench.start_motion()
    bench.jump_clock(30.0)


@row(
    "/clock stands still",
    "/clock stops while the arm moves (clock_stall_timeout_s is 1.0)",
    "arm",
    "HELD CLOCK_FAULT",
    1.2,
    clock="steady",
)
def _clock_off(bench):
    bench.start_motion()
    bench.inject("clock_off")
    bench.on_end(lambda: bench.robot.inject("clock_on"))


# The robot ----------------------------------------------------------------------------------------


@row(
    "reflex",
    "the robot stops itself with a Cartesian reflex",
    "arm",
    "STOPPED ROBOT_REFLEX",
    0.1,
    until_fault=True,
)
def _reflex(bench):
    bench.start_motion()
    bench.inject("reflex")


@row("user stop", "the user stop is pressed", "arm", "STOPPED ROBOT_MODE", 0.1, until_fault=True)
def _user_stop(bench):
    bench.start_motion()
    bench.inject("mode UserStopped")
    bench.on_end(lambda: bench.robot.inject("mode Idle"))


class _FailingPlanner:
    """franky's robot, but its planner fails once when it is asked next."""

    def __init__(self, client):
        self._client, self._due = client, True

    def __getattr__(self, name):
        return getattr(self._client, name)

    def poll_motion(self):
        if self._due:
            self._due = False
            raise RuntimeError("Motion planner failed with error code -100")
        return self._client.poll_motion()


@row(
    "planner fails late",
    "franky reports a planner failure while the motion is under way: the arm rests, and "
    "no old path is sent again",
    "arm",
    "HELD ROBOT_PLANNER",
    0.1,
)
def _late_planner_failure(bench):
    bench.start_motion()
    connection = bench.node.session.arm._connection
    client = connection.client
    bench.on_end(lambda: setattr(connection, "client", client))
    bench.inject(lambda: setattr(connection, "client", _FailingPlanner(client)))


def _gripper_fault(bench):
    return next(text for name, _, text, _ in bench.node.diagnose() if name == "gripper")


@row(
    "gripper hangs",
    "the hand never answers a call while chunks come: each chunk is sent, the fault is "
    "told, and ~/recover ends it for good",
    "arm",
    "",
    4.5,
    motion="goes on",
)
def _gripper_hangs(bench):
    bench.robot.inject("gripper_silent")
    bench.on_end(lambda: bench.robot.inject("gripper_answers"))
    opening = 0.0 if bench.node.session.core.gripper.target != 0.0 else 1.0
    bench.inject()
    while bench.seen_s is None:
        command = bench.send(bench.lab.chunk(opening=opening))
        assert command.gate.verdict <= GateStatus.VERDICT_CLAMPED, bench.said()
        if "answered" in _gripper_fault(bench):
            bench.found()
        bench.let(0.2)
        assert bench.robot.inject("time") - bench.fault.robot_s < 10.0, "the fault was not told"
    assert bench.lab.call("recover").success
    bench.let(1.0)
    assert _gripper_fault(bench) == "fine", _gripper_fault(bench)


@row(
    "stretched path",
    "three steps of 8 cm in 0.2 s each, slowed down by the gate; the gripper closes at "
    "the last: at the end of the path and not before it",
    "arm",
    "",
    2.5,
    motion="ends",
)
def _stretched_path(bench):
    bench.until(lambda: bench.lab.call("home").success, "the way home")
    bench.until(lambda: bench.lab.states[-1].gripper_opening > 0.9, "an open gripper")
    bench.until(bench.lab.at_rest, "rest")
    bench.robot.inject("record")
    message = bench.lab.chunk((0.0, 0.4, 0.0))
    message.steps = message.steps[:3]
    message.steps[2].gripper_opening = 0.0
    end_m = bench.lab.pose.position_m + (0.0, 0.24, 0.0)
    bench.inject()
    gate = bench.send(message).gate
    assert gate.time_scale > 1.1, bench.said()
    open_m = bench.lab.states[-1].gripper_width
    state = bench.until(
        lambda: (s := bench.lab.states[-1]).gripper_width < open_m - 0.002 and s, "closing"
    )
    bench.found()
    left_m = np.linalg.norm(pose_array(state.commanded)[:3] - end_m)
    assert left_m < 0.01, f"the gripper closed {1e3 * left_m:.0f} mm before its place"


@row(
    "end of a path on a busy machine",
    "a busy process for each core: the path ends within 0.5 mm of its place all the same",
    "arm",
    "",
    2.5,
    motion="ends",
)
def _end_of_path(bench):
    with busy(os.cpu_count()):
        bench.inject()
        end_m = bench.start_motion()
        bench.let(1.2)
        bench.until(bench.lab.at_rest, "rest")
    left_m = np.linalg.norm(pose_array(bench.lab.states[-1].commanded)[:3] - end_m)
    assert left_m < 5e-4, f"the path ended {1e3 * left_m:.1f} mm short"


# Calm motions, whose commanded pose must keep the limits ------------------------------------------


@row(
    "hold of a diagonal line",
    "a diagonal line at 0.15 m/s from rest and a hold in the middle of it",
    "arm",
    "HELD HOLD_REQUESTED",
    0.1,
)
def _diagonal_line(bench):
    _move_and_hold(bench, np.array([1.0, 1.0, 1.0]) * 0.15 / 3**0.5, (0.0, 0.0, 0.0))


@row(
    "hold of a diagonal turn",
    "a diagonal turn at 0.5 rad/s from rest and a hold in the middle of it",
    "arm",
    "HELD HOLD_REQUESTED",
    0.1,
)
def _diagonal_turn(bench):
    _move_and_hold(bench, (0.0, 0.0, 0.0), np.array([1.0, 1.0, 1.0]) * 0.4 / 3**0.5)


@row(
    "hold at 0.2 m/s",
    "a line at 0.2 m/s from rest and a hold in the middle of it",
    "arm",
    "HELD HOLD_REQUESTED",
    0.1,
)
def _fast_line(bench):
    _move_and_hold(bench, (0.0, 0.2, 0.0), (0.0, 0.0, 0.0))


def _move_and_hold(bench, delta_m, rotation):
    bench.until(lambda: bench.lab.call("home").success, "the way home")
    bench.until(bench.lab.at_rest, "rest")
    bench.robot.inject("record")
    command = bench.send(bench.lab.chunk(delta_m, rotation))
    assert command.gate.verdict <= GateStatus.VERDICT_CLAMPED, bench.said()
    bench.let(0.5)
    message = bench.lab.chunk()
    message.kind, message.steps = ActionChunk.KIND_HOLD, []
    bench.inject(lambda: bench.lab._chunks.publish(message))


@row("turns back and forth", "+-0.25 rad every 0.2 s for 1.2 s", "arm", "", 1.5, motion="goes on")
def _reversing_turns(bench):
    bench.inject()
    side = 1.0
    for _ in range(6):
        message = bench.lab.chunk()
        for k, step in enumerate(message.steps):
            half = 0.125 * side * (-1) ** k
            step.rotation.z, step.rotation.w = math.sin(half), math.cos(half)
        bench.send(message)
        side = -side
        bench.let(0.2)


# A lost robot -------------------------------------------------------------------------------------


@row(
    "cable cut at rest",
    "the robot's process is stopped (SIGSTOP) with the arm at rest",
    "arm at 0.1 s",
    "STOPPED ROBOT_LOST",
    0.15,
    clock="steady",
)
def _cable_cut_at_rest(bench):
    bench.inject(bench.robot.freeze)


@row(
    "cable cut in motion",
    "the robot's process is stopped (SIGSTOP) while the arm moves",
    "arm at 0.1 s",
    "STOPPED ROBOT_LOST",
    0.15,
    clock="steady",
    until_fault=True,
)
def _cable_cut_in_motion(bench):
    bench.start_motion()
    bench.inject(bench.robot.freeze)
