"""What an arm driver publishes, made from what its session knows."""

import numpy as np
from sensor_msgs.msg import JointState

from spear_bringup.control.command_core import CommandCore, Decision
from spear_bringup.control.segments import Start
from spear_bringup.control.verdicts import Judgement
from spear_bringup.drivers.arm_session import Sample
from spear_bringup.drivers.gripper_worker import GripperReport
from spear_msgs.msg import ActionChunk, EndEffectorCommand, EndEffectorState, GateStatus
from spear_policy.nodes.messages import (
    pose_from_array,
    pose_to_msg,
    s_to_duration,
    s_to_stamp,
    twist_to_msg,
)


def gate_status_msg(judgement: Judgement, core: CommandCore, now_s: float) -> GateStatus:
    """A verdict with the counts so far."""
    message = GateStatus(
        verdict=int(judgement.verdict),
        reason=int(judgement.reason),
        text=judgement.text,
        source_id=judgement.source_id,
        chunk_id=int(judgement.chunk_id),
        asked=float(judgement.asked),
        allowed=float(judgement.allowed),
        time_scale=float(judgement.time_scale),
        chunk_age=float(judgement.chunk_age_s),
        counts=np.array(core.counts, np.uint64),
    )
    message.header.stamp = s_to_stamp(max(now_s, 0.0))
    return message


def command_msg(
    decision: Decision,
    sample: Sample,
    core: CommandCore,
    gripper: GripperReport,
    now_s: float,
    base_frame: str,
) -> EndEffectorCommand:
    """What was sent for one chunk; no knots when nothing was."""
    wanted = gripper.opening if core.gripper.target is None else core.gripper.target
    message = EndEffectorCommand(
        gate=gate_status_msg(decision.judgement, core, now_s),
        measured=pose_to_msg(sample.state.measured),
        commanded=pose_to_msg(sample.state.commanded),
        seam_translation=float(decision.seam_m),
        seam_rotation=float(decision.seam_rad),
        observation_age=s_to_duration(decision.observation_age_s),
        time_slip=s_to_duration(decision.time_slip_s),
        gripper_opening=float(wanted),
    )
    message.header.stamp, message.header.frame_id = s_to_stamp(max(now_s, 0.0)), base_frame
    path = decision.path
    if path is not None:
        for i in range(len(path)):
            knot = np.concatenate([path.positions_m[i], path.orientations_xyzw[i]])
            message.knots.append(pose_from_array(knot))
            message.knot_twists.append(twist_to_msg(path.linear_m_s[i], path.angular_rad_s[i]))
            message.knot_durations.append(s_to_duration(path.durations_s[i]))
    return message


def ee_state_msg(
    sample: Sample, reference: Start, gripper: GripperReport, base_frame: str, ee_frame: str
) -> EndEffectorState:
    """Where the end effector is and was told to be, the path under way, and the gripper."""
    message = EndEffectorState(
        ee_frame_id=ee_frame,
        measured=pose_to_msg(sample.state.measured),
        commanded=pose_to_msg(sample.state.commanded),
        commanded_twist=twist_to_msg(reference.linear_m_s, reference.angular_rad_s),
        gripper_width=float(gripper.width_m),
        gripper_opening=float(gripper.opening),
        gripper_holding=bool(gripper.holding),
    )
    message.header.stamp = s_to_stamp(max(sample.stamp_s, 0.0))
    message.header.frame_id = base_frame
    return message


def joint_state_msg(sample: Sample, names: tuple[str, ...], base_frame: str) -> JointState:
    """Joint positions [rad], velocities [rad/s] and torques [Nm]."""
    state = sample.state
    message = JointState(
        name=list(names),
        position=state.joint_positions_rad.tolist(),
        velocity=state.joint_velocities_rad_s.tolist(),
        effort=state.joint_torques_nm.tolist(),
    )
    message.header.stamp = s_to_stamp(max(sample.stamp_s, 0.0))
    message.header.frame_id = base_frame
    return message


def chunk_complaint(message: ActionChunk, base_frame: str, ee_frame: str) -> str | None:
    """What is wrong with the frames or the kind of a chunk, in a sentence; None when nothing is."""
    if message.kind != ActionChunk.KIND_STEPS:
        return f"kind {message.kind} is unknown; use a KIND_ constant of ActionChunk"
    if message.header.frame_id != base_frame:
        return f"header.frame_id is {message.header.frame_id!r}; it must be {base_frame!r}"
    for step in message.steps:
        if step.rotation_frame_id != ee_frame:
            return (
                f"rotation_frame_id of step {step.step} is {step.rotation_frame_id!r}; "
                f"it must be {ee_frame!r}"
            )
    return None
