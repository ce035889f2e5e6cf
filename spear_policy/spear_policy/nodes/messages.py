"""Numbers to messages and back: stamps, poses, chunks; and the qualities of service.

Shapes are checked here, because rclpy sends uninitialised memory for a fixed array of the wrong
length when its field checks are off.
"""

import math

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Quaternion, Twist, Vector3
from geometry_msgs.msg import Pose as PoseMsg
from rclpy.clock import Clock
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from spear_msgs.msg import ActionChunk, EndEffectorDelta
from spear_policy.geometry.poses import Chunk, Pose

_ANCHOR_KINDS = {
    ActionChunk.ANCHOR_MEASURED: "measured",
    ActionChunk.ANCHOR_COMMANDED: "commanded",
}


def stamp_to_s(stamp: Time | Duration) -> float:
    """Seconds of a Time or a Duration."""
    return stamp.sec + stamp.nanosec * 1e-9


def clock_s(clock: Clock) -> float:
    """Seconds of a clock now; 0.0 under use_sim_time before the first /clock."""
    return clock.now().nanoseconds * 1e-9


def s_to_stamp(seconds: float) -> Time:
    """Time from seconds (>= 0)."""
    return Time(**_split(seconds))


def s_to_duration(seconds: float) -> Duration:
    """Duration from seconds; negative ones too."""
    return Duration(**_split(seconds))


def _split(seconds: float) -> dict:
    # Whole seconds first: a double has no room for the nanoseconds since 1970, and the stamp of an
    # image would come back as another one.
    whole = math.floor(seconds)
    carry, nanosec = divmod(round((float(seconds) - whole) * 1e9), 10**9)
    return {"sec": whole + carry, "nanosec": nanosec}


_MOST_CHARACTERS = 1000  # at most 4,000 bytes, the bound of every text on the wire


def text_to_msg(text: str) -> str:
    """The text, cut to what a text on the wire may have: a longer one could not be published."""
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."


def vector_to_msg(vector) -> Vector3:
    """(3,) to Vector3."""
    x, y, z = map(float, vector)
    return Vector3(x=x, y=y, z=z)


def quaternion_to_msg(q_xyzw) -> Quaternion:
    """(4,) xyzw to Quaternion."""
    x, y, z, w = map(float, q_xyzw)
    return Quaternion(x=x, y=y, z=z, w=w)


def pose_to_msg(pose: Pose) -> PoseMsg:
    """Pose to message."""
    x, y, z = map(float, pose.position_m)
    return PoseMsg(
        position=Point(x=x, y=y, z=z), orientation=quaternion_to_msg(pose.orientation_xyzw)
    )


def pose_from_msg(message: PoseMsg) -> Pose:
    """Message to Pose. Raises ValueError for NaN or a quaternion that is not unit."""
    return Pose(*np.split(pose_array(message), [3]))


def pose_array(message: PoseMsg) -> np.ndarray:
    """(7,) position and xyzw, unchecked: for what the gate will judge."""
    p, q = message.position, message.orientation
    return np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])


def pose_from_array(array) -> PoseMsg:
    """(7,) position and xyzw to message, unchecked."""
    x, y, z = map(float, array[:3])
    return PoseMsg(position=Point(x=x, y=y, z=z), orientation=quaternion_to_msg(array[3:]))


def twist_to_msg(linear_m_s, angular_rad_s) -> Twist:
    """(3,) and (3,) to Twist."""
    return Twist(linear=vector_to_msg(linear_m_s), angular=vector_to_msg(angular_rad_s))


def chunk_from_msg(message: ActionChunk) -> Chunk:
    """The numbers of an ActionChunk, unjudged. Raises ValueError for an unknown anchor kind."""
    if message.anchor_kind not in _ANCHOR_KINDS:
        raise ValueError(f"anchor_kind {message.anchor_kind} is unknown; use an ANCHOR_ constant")
    steps = message.steps
    translations = [[s.translation.x, s.translation.y, s.translation.z] for s in steps]
    rotations = [[s.rotation.x, s.rotation.y, s.rotation.z, s.rotation.w] for s in steps]
    return Chunk(
        stamp_s=stamp_to_s(message.header.stamp),
        dt_s=stamp_to_s(message.dt),
        translations_m=np.array(translations, float).reshape(-1, 3),
        rotations_xyzw=np.array(rotations, float).reshape(-1, 4),
        gripper_openings=np.array([s.gripper_opening for s in steps], float),
        anchor_measured=pose_array(message.anchor_measured),
        anchor_commanded=pose_array(message.anchor_commanded),
        anchor_kind=_ANCHOR_KINDS[message.anchor_kind],
        chunk_id=message.chunk_id,
        source_id=message.source_id,
        final=message.final,
    )


def chunk_to_msg(chunk: Chunk, base_frame: str, ee_frame: str) -> ActionChunk:
    """An ActionChunk of kind STEPS; instruction, ids of it and latencies are the caller's."""
    message = ActionChunk(kind=ActionChunk.KIND_STEPS)
    message.header.stamp = s_to_stamp(chunk.stamp_s)
    message.header.frame_id = base_frame
    message.source_id, message.chunk_id = chunk.source_id, int(chunk.chunk_id)
    message.anchor_kind = {name: value for value, name in _ANCHOR_KINDS.items()}[chunk.anchor_kind]
    message.anchor_measured = pose_from_array(chunk.anchor_measured)
    message.anchor_commanded = pose_from_array(chunk.anchor_commanded)
    message.dt = s_to_duration(chunk.dt_s)
    message.final = bool(chunk.final)
    for index, due_s in enumerate(chunk.due_times_s()):
        step = EndEffectorDelta(rotation_frame_id=ee_frame, step=index + 1)
        step.header.stamp = s_to_stamp(due_s)
        step.header.frame_id = base_frame
        step.anchor = pose_from_array(chunk.anchor)
        step.translation = vector_to_msg(chunk.translations_m[index])
        step.rotation = quaternion_to_msg(chunk.rotations_xyzw[index])
        step.gripper_opening = float(chunk.gripper_openings[index])
        step.chunk_source_id, step.chunk_id = chunk.source_id, int(chunk.chunk_id)
        message.steps.append(step)
    return message


def _profile(reliable: bool, depth: int, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
    )


# images, states: the newest counts, a lost one is gone
SENSOR = _profile(reliable=False, depth=5)
# action_chunk, instruction: every one must arrive, only the last counts
COMMAND = _profile(reliable=True, depth=1)
# heartbeats: only the newest counts
NEWEST = _profile(reliable=False, depth=1)
# command: every one counts
EVENT = _profile(reliable=True, depth=10)
# status: late joiners see it
LATCHED = _profile(reliable=True, depth=1, latched=True)
