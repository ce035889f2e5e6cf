"""What the recorder tells of a trial, and what it takes from the policy's status."""

from rclpy.serialization import deserialize_message

from spear_bringup.trials.recording import Recording
from spear_msgs.msg import PolicyStatus, TrialInfo
from spear_policy.nodes.messages import s_to_duration, s_to_stamp


def trial_info(recording: Recording | None, now_s: float, **fields) -> TrialInfo:
    """The TrialInfo of a trial, or of none; `fields` are state, text and outcome."""
    info = TrialInfo(seed=-1, **fields)
    info.header.stamp = s_to_stamp(now_s)
    if recording is not None:
        request = recording.request
        info.trial_id, info.instruction = request.trial_id, request.instruction
        info.seed = -1 if request.seed is None else request.seed
        info.bag, info.messages = str(recording.bag), recording.writer.messages
        info.duration = s_to_duration(recording.duration_s(now_s))
    return info


def policy_words(raw: bytes | None) -> dict[str, str]:
    """Engine, checkpoint and statistics hash of a serialized PolicyStatus; empty without one."""
    if raw is None:
        return {}
    status = deserialize_message(raw, PolicyStatus)
    return {key: getattr(status, key) for key in ("engine", "checkpoint_id", "statistics_hash")}
