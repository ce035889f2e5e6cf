"""Judge a whole chunk before its first step: is it sound, in time, ours, and near the arm?"""

import numpy as np

from spear_bringup.control.limits import Limits, Timing
from spear_bringup.control.verdicts import Judgement, Reason, Verdict
from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.chunks import Chunk
from spear_policy.geometry.pose_history import PoseHistory
from spear_policy.geometry.poses import Pose

MAX_STEPS = 64
DT_RANGE_S = (0.02, 1.0)
UNIT_TOLERANCE = 1e-3
FAR_M = 10.0  # farther than any arm reaches; keeps later arithmetic from overflowing


def judge_form(chunk: Chunk) -> Judgement | None:
    """Finite numbers, unit quaternions, sensible shape; None when nothing is wrong."""
    count = len(chunk.translations_m)
    if not 1 <= count <= MAX_STEPS or len(chunk.rotations_xyzw) != count:
        text = f"the chunk has {count} steps; it needs 1 to {MAX_STEPS}"
        return _refuse(Reason.MALFORMED, text, count, MAX_STEPS)
    numbers = (
        [chunk.stamp_s, chunk.dt_s],
        chunk.translations_m,
        chunk.rotations_xyzw,
        chunk.gripper_openings,
        chunk.anchor_measured,
        chunk.anchor_commanded,
    )
    if not all(np.all(np.isfinite(part)) for part in numbers):
        return _refuse(Reason.NOT_FINITE, "the chunk holds NaN or infinity; look at the policy")
    if not DT_RANGE_S[0] <= chunk.dt_s <= DT_RANGE_S[1]:
        text = f"dt is {chunk.dt_s:.3g} s; it must be {DT_RANGE_S[0]} to {DT_RANGE_S[1]} s"
        return _refuse(Reason.MALFORMED, text, chunk.dt_s, DT_RANGE_S[1])
    if len(chunk.gripper_openings) != count or np.any(np.abs(chunk.gripper_openings - 0.5) > 0.6):
        text = "gripper_opening must be one number from 0 (closed) to 1 (open) a step"
        return _refuse(Reason.MALFORMED, text)
    with np.errstate(over="ignore"):
        quaternions = np.vstack(
            [chunk.rotations_xyzw, chunk.anchor_measured[3:], chunk.anchor_commanded[3:]]
        )
        norms = np.linalg.norm(quaternions, axis=-1)
        if not np.all(quat.is_unit(quaternions, UNIT_TOLERANCE)):
            worst = float(norms[np.argmax(np.abs(norms - 1.0))])
            text = f"a quaternion has norm {worst:.4g}; rotations must be unit quaternions"
            return _refuse(Reason.NOT_UNIT_QUATERNION, text, worst, 1.0)
    places = np.vstack(
        [chunk.translations_m, chunk.anchor_measured[:3], chunk.anchor_commanded[:3]]
    )
    largest = float(np.max(np.abs(places)))
    if largest > FAR_M:
        text = f"a translation or an anchor is {largest:.3g} m; both are metres near the robot"
        return _refuse(Reason.JUMP, text, largest, FAR_M)
    return None


def judge_age(
    chunk: Chunk, now_s: float, received_age_s: float, timing: Timing
) -> Judgement | None:
    """Fresh by both clocks: header stamp against the node clock, receipt against the steady one."""
    age_s = now_s - chunk.stamp_s
    if age_s < -timing.max_future_s:
        text = f"the stamp is {-age_s:.3f} s in the future; synchronise the clocks of the machines"
        return _refuse(Reason.FUTURE, text, -age_s, timing.max_future_s)
    if received_age_s > timing.max_receive_age_s:
        text = f"the chunk lay unread for {received_age_s:.3f} s; the driver is overloaded"
        return _refuse(Reason.STALE, text, received_age_s, timing.max_receive_age_s)
    if now_s > chunk.due_times_s()[-1] - timing.min_lead_s:
        text = f"every step was due before the chunk came, {age_s:.3f} s after its image"
        return Judgement(Verdict.HELD, Reason.LATE, text, age_s, timing.max_chunk_age_s)
    if age_s > timing.max_chunk_age_s:
        text = f"the chunk answers an image {age_s:.3f} s old; speed up inference or the network"
        return _refuse(Reason.STALE, text, age_s, timing.max_chunk_age_s)
    return None


def judge_anchor(chunk: Chunk, history: PoseHistory, timing: Timing) -> Judgement | None:
    """The chunk's anchor lies where the driver's own history says that the arm was."""
    known = history.at(chunk.stamp_s, slack_s=timing.max_future_s)
    if known is None:
        text = "the driver has no pose at the chunk's stamp; check that ee_state stamps are used"
        return _refuse(Reason.ANCHOR_MISMATCH, text)
    mine = known[0 if chunk.anchor_kind == "measured" else 1]
    translation = float(np.linalg.norm(chunk.anchor[:3] - mine.position_m))
    rotation = float(quat.angle(chunk.anchor[3:], mine.orientation_xyzw))
    if translation > timing.anchor_tolerance_m:
        text = f"the anchor is {translation * 1000:.1f} mm from where the arm was at that stamp"
        return _refuse(Reason.ANCHOR_MISMATCH, text, translation, timing.anchor_tolerance_m)
    if rotation > timing.anchor_tolerance_rad:
        text = f"the anchor is {rotation:.3f} rad from how the arm was turned at that stamp"
        return _refuse(Reason.ANCHOR_MISMATCH, text, rotation, timing.anchor_tolerance_rad)
    return None


def judge_jumps(
    positions_m, orientations_xyzw, skipped: int, measured: Pose, limits: Limits
) -> Judgement | None:
    """No step of the way measured pose -> first target ahead -> ... is longer than a step may be.

    `skipped` steps were due before now; the first target may be one more step away for them.
    """
    way_m = np.vstack([measured.position_m, positions_m])
    way_xyzw = np.vstack([measured.orientation_xyzw, orientations_xyzw])
    moves = np.linalg.norm(np.diff(way_m, axis=0), axis=-1)
    angles = quat.angle(way_xyzw[:-1], way_xyzw[1:])
    room = np.ones(len(moves))
    room[0] = min(skipped + 1, 2)
    for values, limit, unit in (
        (moves, limits.max_step_translation_m, "m"),
        (angles, limits.max_step_rotation_rad, "rad"),
    ):
        if np.any(values > limit * room):
            index = int(np.argmax(values / room))
            text = (
                f"step {skipped + index + 1} is {values[index]:.3f} {unit} from the pose before; "
                f"{limit * room[index]:.3f} {unit} is the most"
            )
            return _refuse(Reason.JUMP, text, float(values[index]), float(limit * room[index]))
    return None


def _refuse(reason: Reason, text: str, asked: float = 0.0, allowed: float = 0.0) -> Judgement:
    return Judgement(Verdict.REJECTED, reason, text, float(asked), float(allowed))
