"""What a trial's bag says about safety: read from the wire, not from the gate's own words."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from rosbags.highlevel import AnyReader

from spear_bringup.control.gate import Verdict
from spear_bringup.control.limits import Limits
from spear_bringup.trials.bag_reader import read_trial
from spear_bringup.trials.metrics import speeds
from spear_policy.geometry import quaternions as quat

TOGETHER_S = 0.1  # of two chunks as close as this the driver may see the newer one only
ROUNDING = 1e-6


@dataclass(frozen=True)
class Messages:
    """The messages of a bag, each topic in order.

    Attributes:
        chunks, commands: of `action_chunk` and `command`.
        chunk_times_s: when each chunk was recorded, node clock.
    """

    chunks: list
    chunk_times_s: list
    commands: list

    @classmethod
    def read(cls, bag: Path) -> "Messages":
        found = {"/action_chunk": [], "/command": []}
        with AnyReader([Path(bag)]) as reader:
            wanted = [c for c in reader.connections if c.topic in found]
            for connection, time_ns, raw in reader.messages(wanted):
                message = reader.deserialize(raw, connection.msgtype)
                found[connection.topic].append((time_ns * 1e-9, message))
        times, chunks = zip(*found["/action_chunk"], strict=True)
        return cls(list(chunks), list(times), [message for _, message in found["/command"]])


def without_verdict(messages: Messages) -> list[int]:
    """Ids of the chunks that no command answers, though the driver had time to see them."""
    judged = {(c.gate.source_id, c.gate.chunk_id) for c in messages.commands}
    room_s = [*np.diff(messages.chunk_times_s), np.inf]
    return [
        chunk.chunk_id
        for chunk, room in zip(messages.chunks, room_s, strict=True)
        if (chunk.source_id, chunk.chunk_id) not in judged and room > TOGETHER_S
    ]


def breaches(messages: Messages, limits: Limits) -> list[str]:
    """What went to the robot against a verdict, the box or a speed limit; a sentence each."""
    found = []
    for command in messages.commands:
        if not command.knots:
            continue
        name, verdict = f"chunk {command.gate.chunk_id}", Verdict(command.gate.verdict)
        if verdict not in (Verdict.PASS, Verdict.CLAMPED):
            found.append(f"{name} was {verdict.name} and sent")
        found += [f"{name}: {text}" for text in _path_breaches(command, limits)]
    return found


def _path_breaches(command, limits):
    positions = np.array([[k.position.x, k.position.y, k.position.z] for k in command.knots])
    turns = [
        quat.angle(_xyzw(before.orientation), _xyzw(after.orientation))
        for before, after in pairwise(command.knots)
    ]
    durations = np.array([d.sec + d.nanosec * 1e-9 for d in command.knot_durations])[1:]
    linear = [[t.linear.x, t.linear.y, t.linear.z] for t in command.knot_twists]
    angular = [[t.angular.x, t.angular.y, t.angular.z] for t in command.knot_twists]
    # At the knots as sent, and on average between them: no peak can be lower.
    between = np.linalg.norm(np.diff(positions, axis=0), axis=1) / durations
    linear_m_s = np.concatenate([np.linalg.norm(linear, axis=1), between])
    angular_rad_s = np.concatenate([np.linalg.norm(angular, axis=1), np.array(turns) / durations])
    low, high = np.array(limits.workspace_min_m), np.array(limits.workspace_max_m)
    outside_m = max((low - positions).max(), (positions - high).max())
    if outside_m > ROUNDING:
        yield f"{outside_m:.3f} m outside the workspace box"
    if linear_m_s.max() > limits.max_linear_speed_m_s + ROUNDING:
        yield f"{linear_m_s.max():.3f} m/s"
    if angular_rad_s.max() > limits.max_angular_speed_rad_s + ROUNDING:
        yield f"{angular_rad_s.max():.3f} rad/s"


def _xyzw(q):
    return np.array([q.x, q.y, q.z, q.w])


def check_safety(bag: Path, limits: Limits | None = None) -> Messages:
    """Fail unless every chunk was judged and neither commands nor the arm broke a limit."""
    limits, messages = limits or Limits(), Messages.read(bag)
    assert not without_verdict(messages)
    assert not breaches(messages, limits), breaches(messages, limits)[:5]
    states = read_trial(bag).states
    low, high = np.array(limits.workspace_min_m), np.array(limits.workspace_max_m)
    inside = (states.measured[:, :3] > low - 0.005) & (states.measured[:, :3] < high + 0.005)
    assert inside.all(), "the arm was outside the workspace box"
    _, linear_m_s, angular_rad_s = speeds(states)
    # The robot's own planner moves it between the knots; the driver's monitor allows it this.
    assert linear_m_s.max() < limits.monitor_factor * limits.max_linear_speed_m_s
    assert angular_rad_s.max() < limits.monitor_factor * limits.max_angular_speed_rad_s
    return messages
