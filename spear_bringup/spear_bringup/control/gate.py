"""What may reach the robot: sources, the whole chunk, its path, and the robot's own motion.

`command_core` asks the judges in the order in which they stand here. One that finds something wrong
answers with a GateDecision; `LimitMonitor` goes on asking while the robot moves.
"""

from collections import deque
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from spear_bringup.control.limits import Limits, Timing
from spear_bringup.control.path import Path, Reference, turns
from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.poses import Chunk, Pose, PoseHistory

# Verdicts and reasons, in the numbers of spear_msgs/msg/GateStatus (a test compares them) ---------


class Verdict(IntEnum):
    """What became of a chunk."""

    PASS = 0
    CLAMPED = 1
    HELD = 2
    REJECTED = 3
    STOPPED = 4


class Reason(IntEnum):
    """Why; the message file says what each one means."""

    NONE = 0
    NOT_FINITE = 1
    NOT_UNIT_QUATERNION = 2
    MALFORMED = 3
    STALE = 4
    FUTURE = 5
    LATE = 6
    OUT_OF_ORDER = 7
    DUPLICATE_SOURCE = 8
    ANCHOR_MISMATCH = 9
    JUMP = 10
    OUTSIDE_WORKSPACE = 11
    OUTSIDE_REACH = 12
    LINEAR_SPEED = 13
    ANGULAR_SPEED = 14
    LINEAR_ACCELERATION = 15
    ANGULAR_ACCELERATION = 16
    LINEAR_JERK = 17
    ANGULAR_JERK = 18
    PATH_TIME = 19
    HOLD_REQUESTED = 20
    CHUNK_TIMEOUT = 21
    CLOCK_FAULT = 22
    NOT_ACTIVE = 23
    OSCILLATION = 24
    MANAGER_LOST = 25
    PATH_REFUSED = 26
    ROBOT_LOST = 30
    ROBOT_REFLEX = 31
    ROBOT_PLANNER = 32
    ROBOT_MODE = 33
    LIMIT_MONITOR = 34
    STOP_REQUESTED = 35


@dataclass(frozen=True)
class GateDecision:
    """A verdict with its reason and magnitudes.

    Attributes:
        asked, allowed: the magnitude that the reason names and its limit, in the reason's unit.
        time_scale: 1.0, or by how much CLAMPED stretched time.
        chunk_age_s: header stamp to verdict, node clock.
    """

    verdict: Verdict
    reason: Reason = Reason.NONE
    text: str = ""
    asked: float = 0.0
    allowed: float = 0.0
    time_scale: float = 1.0
    source_id: str = ""
    chunk_id: int = 0
    chunk_age_s: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether the motion may be sent."""
        return self.verdict in (Verdict.PASS, Verdict.CLAMPED)


# Sources: one publisher of action_chunk at a time, in order ---------------------------------------


class ChunkSources:
    """The publishers of the last `release_s` seconds, by their random source_id.

    Nobody can know which of two is the right one, so the arm holds until only one is left for
    `release_s`.
    """

    def __init__(self, release_s: float):
        self.release_s = release_s
        self._seen_s: dict[str, float] = {}
        self._last_id: dict[str, int] = {}

    def on_chunk(self, source_id: str, now_s: float) -> list[str]:
        """Note a chunk; the source ids seen within `release_s`, this one included."""
        # An absolute difference: after a backward clock jump every old entry is of another time.
        self._seen_s = {
            source: seen_s
            for source, seen_s in self._seen_s.items()
            if abs(now_s - seen_s) <= self.release_s
        }
        self._seen_s[source_id] = now_s
        return sorted(self._seen_s)

    def in_order(self, source_id: str, chunk_id: int) -> bool:
        """Whether `chunk_id` is newer than every one of this source before; remembers it."""
        newest = self._last_id.get(source_id, -1)
        if chunk_id <= newest:
            return False
        self._last_id = {source_id: chunk_id}
        return True


# The chunk as it came: form, age, anchor ----------------------------------------------------------

DT_TOLERANCE = 0.01  # share of step_dt_s
UNIT_TOLERANCE = 1e-3
FAR_M = 10.0  # farther than any arm reaches; keeps later arithmetic from overflowing


def judge_form(chunk: Chunk, timing: Timing) -> GateDecision | None:
    """Finite numbers, unit quaternions, the shape that is expected; None when nothing is wrong."""
    count, most = len(chunk.translations_m), timing.max_chunk_steps
    if not 1 <= count <= most or len(chunk.rotations_xyzw) != count:
        text = f"the chunk has {count} steps; it needs 1 to {most} (max_chunk_steps)"
        return _refuse(Reason.MALFORMED, text, count, most)
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
    if abs(chunk.dt_s - timing.step_dt_s) > DT_TOLERANCE * timing.step_dt_s:
        text = f"dt is {chunk.dt_s:.3g} s; the driver is set to {timing.step_dt_s:.3g} (step_dt_s)"
        return _refuse(Reason.MALFORMED, text, chunk.dt_s, timing.step_dt_s)
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
) -> GateDecision | None:
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
        return GateDecision(Verdict.HELD, Reason.LATE, text, age_s, timing.max_chunk_age_s)
    if age_s > timing.max_chunk_age_s:
        text = f"the chunk answers an image {age_s:.3f} s old; speed up inference or the network"
        return _refuse(Reason.STALE, text, age_s, timing.max_chunk_age_s)
    return None


def judge_anchor(chunk: Chunk, history: PoseHistory, timing: Timing) -> GateDecision | None:
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


def _refuse(reason: Reason, text: str, asked: float = 0.0, allowed: float = 0.0) -> GateDecision:
    return GateDecision(Verdict.REJECTED, reason, text, float(asked), float(allowed))


# Jumps: in the chunk itself, and on the path planned from it --------------------------------------


def judge_steps(chunk: Chunk, limits: Limits) -> GateDecision | None:
    """No step of the chunk, anchor first, is longer than a step may be; however late it came."""
    positions_m, orientations_xyzw = chunk.targets()
    way_m = np.vstack([chunk.anchor[:3], positions_m])
    way_xyzw = np.vstack([chunk.anchor[3:], orientations_xyzw])
    return _judge_way(way_m, way_xyzw, np.ones(len(positions_m)), 0, limits)


def judge_jumps(
    positions_m, orientations_xyzw, skipped: int, measured: Pose, limits: Limits
) -> GateDecision | None:
    """No step of the way measured pose -> first target ahead -> ... is longer than a step may be.

    `skipped` steps were due before now; the first target may be one more step away for them.
    """
    way_m = np.vstack([measured.position_m, positions_m])
    way_xyzw = np.vstack([measured.orientation_xyzw, orientations_xyzw])
    room = np.ones(len(positions_m))
    room[0] = min(skipped + 1, 2)
    return _judge_way(way_m, way_xyzw, room, skipped, limits)


def _judge_way(way_m, way_xyzw, room, skipped: int, limits: Limits) -> GateDecision | None:
    moves = np.linalg.norm(np.diff(way_m, axis=0), axis=-1)
    angles = quat.angle(way_xyzw[:-1], way_xyzw[1:])
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


# The path planned from it: place, speeds, time ----------------------------------------------------

_ROUNDING_M = 1e-9


def box_violation_m(positions_m: NDArray, limits: Limits) -> NDArray:
    """How far each position (N, 3) lies outside the workspace box [m], 0 inside."""
    low, high = np.asarray(limits.workspace_min_m), np.asarray(limits.workspace_max_m)
    outside = np.maximum(np.maximum(low - positions_m, positions_m - high), 0.0)
    return np.linalg.norm(outside, axis=-1)


def reach_violation_m(positions_m: NDArray, limits: Limits) -> NDArray:
    """How far each position (N, 3) lies outside the reach sphere [m], 0 inside."""
    radius = np.linalg.norm(positions_m - np.asarray(limits.reach_center_m), axis=-1)
    return np.maximum(radius - limits.reach_radius_m, 0.0)


def leaves(positions_m: NDArray, from_m: NDArray, limits: Limits) -> tuple[Reason, float] | None:
    """The reason and the worst violation [m] when the way from `from_m` through positions leaves.

    Box and ball are convex, so straight segments between points inside stay inside. A way that
    starts outside may go on as long as no point is further out than the one before it: else an
    arm that was left outside could never come back.
    """
    way = np.vstack([from_m, positions_m])
    for reason, violation in (
        (Reason.OUTSIDE_WORKSPACE, box_violation_m(way, limits)),
        (Reason.OUTSIDE_REACH, reach_violation_m(way, limits)),
    ):
        outside = violation[1:] > _ROUNDING_M
        growing = violation[1:] >= violation[:-1] - _ROUNDING_M
        if np.any(outside & growing):
            return reason, float(np.max(violation[1:]))
    return None


@dataclass(frozen=True)
class Peaks:
    """The largest magnitudes on a path: translation (m, s) and rotation (rad, s)."""

    linear_speed_m_s: float
    angular_speed_rad_s: float
    linear_acceleration_m_s2: float
    angular_acceleration_rad_s2: float
    linear_jerk_m_s3: float
    angular_jerk_rad_s3: float


_SAMPLES = 33
_U = np.linspace(0.0, 1.0, _SAMPLES)[:, None, None]


def peaks(path: Path, start: Reference) -> Peaks:
    """The largest speed, acceleration and jerk of `path` when it begins with `start`'s velocity.

    None is missed between samples. Between two knots the motion is a cubic: its jerk is constant,
    and its acceleration is linear in time, so the largest stands at a knot. Speed is sampled; added
    is the most that it can rise between two samples: jerk times their spacing squared, over eight.
    """
    durations = path.durations_s[:, None]
    moves = path.positions_m - np.vstack([start.pose.position_m, path.positions_m[:-1]])
    linear = _extremes(moves, durations, start.linear_m_s, path.linear_m_s)
    angular = _extremes(turns(path, start.pose), durations, start.angular_rad_s, path.angular_rad_s)
    return Peaks(linear[0], angular[0], linear[1], angular[1], linear[2], angular[2])


def _extremes(moves, durations, first_velocity, velocities) -> tuple[float, float, float]:
    chord = moves / durations
    v0 = np.vstack([first_velocity, velocities[:-1]])
    v1 = velocities
    # Derivative of the cubic Hermite curve in u = t / T.
    speed = 6 * _U * (1 - _U) * chord + (1 - _U) * (1 - 3 * _U) * v0 + _U * (3 * _U - 2) * v1
    a0 = (6 * chord - 4 * v0 - 2 * v1) / durations
    a1 = (-6 * chord + 2 * v0 + 4 * v1) / durations
    jerk = 6 * (v0 + v1 - 2 * chord) / durations**2
    jerks = np.linalg.norm(jerk, axis=-1)
    between = jerks * (durations[:, 0] / (_SAMPLES - 1)) ** 2 / 8
    speeds = np.linalg.norm(speed, axis=-1).max(axis=0) + between
    accelerations = np.maximum(np.linalg.norm(a0, axis=-1), np.linalg.norm(a1, axis=-1))
    return float(speeds.max()), float(accelerations.max()), float(jerks.max())


# Time scale at which a peak meets its limit: speed falls with 1/s, acceleration with 1/s^2, ...
_CHECKS = (
    ("linear_speed_m_s", Reason.LINEAR_SPEED, 1.0, "m/s"),
    ("angular_speed_rad_s", Reason.ANGULAR_SPEED, 1.0, "rad/s"),
    ("linear_acceleration_m_s2", Reason.LINEAR_ACCELERATION, 1 / 2, "m/s^2"),
    ("angular_acceleration_rad_s2", Reason.ANGULAR_ACCELERATION, 1 / 2, "rad/s^2"),
    ("linear_jerk_m_s3", Reason.LINEAR_JERK, 1 / 3, "m/s^3"),
    ("angular_jerk_rad_s3", Reason.ANGULAR_JERK, 1 / 3, "rad/s^3"),
)
_ROUNDS = 40
_NAMES = {Reason.OUTSIDE_WORKSPACE: "workspace box", Reason.OUTSIDE_REACH: "reach sphere"}


def judge_path(
    path: Path, start: Reference, limits: Limits, from_m=None
) -> tuple[GateDecision, Path]:
    """The verdict on a path and the path to send (the same one, or slowed down).

    Args:
        path: knots to judge, at rest at the end.
        start: pose and velocity at its beginning.
        from_m: (3,) measured position from which leaving the workspace is judged; start's by
            default.

    PASS or CLAMPED: no knot and no segment breaks a limit. Time is stretched by one factor over
    the whole path, which never bends it. REJECTED when the path leaves the workspace, or would
    need more than `max_time_scale`.
    """
    away = leaves(path.positions_m, start.pose.position_m if from_m is None else from_m, limits)
    if away is not None:
        reason, metres = away
        text = f"the path goes {metres * 1000:.0f} mm outside the {_NAMES[reason]}"
        return GateDecision(Verdict.REJECTED, reason, text, asked=metres), path
    if np.any(np.linalg.norm(turns(path, start.pose), axis=-1) > np.pi - 0.1):
        text = "a step turns by half a turn, so its direction is undefined; send smaller rotations"
        return GateDecision(Verdict.REJECTED, Reason.JUMP, text, np.pi, np.pi - 0.1), path
    scale, worst = 1.0, None
    for _ in range(_ROUNDS):
        slowed = path.slowed(scale)
        ratio, reason, asked, allowed, unit = _worst(peaks(slowed, start), limits)
        if ratio <= 1.0:
            break
        worst = worst or (reason, asked, allowed, unit)
        scale *= ratio * 1.001
    else:
        scale = np.inf
    if worst is None:
        return GateDecision(Verdict.PASS), path
    reason, asked, allowed, unit = worst
    gate = GateDecision(
        Verdict.CLAMPED,
        reason,
        f"asked for {asked:.3g} {unit}, the limit is {allowed:.3g}; time stretched by {scale:.2f}",
        asked,
        allowed,
        float(scale),
    )
    if scale > limits.max_time_scale:
        text = (
            f"asked for {asked:.3g} {unit}, the limit is {allowed:.3g}; slowing down by "
            f"{limits.max_time_scale:g} does not help"
        )
        gate = replace(gate, verdict=Verdict.REJECTED, text=text, time_scale=1.0)
        return gate, path
    return gate, slowed


def _worst(values: Peaks, limits: Limits) -> tuple[float, Reason, float, float, str]:
    rows = []
    for name, reason, power, unit in _CHECKS:
        asked, allowed = getattr(values, name), getattr(limits, f"max_{name}")
        rows.append(((asked / allowed) ** power, reason, asked, allowed, unit))
    return max(rows, key=lambda row: row[0])


def judge_path_time(gate: GateDecision, path: Path, timing: Timing) -> GateDecision:
    """`gate`, or a refusal when `path` would move the arm for longer than `max_path_time_s`."""
    time_s = float(np.sum(path.durations_s))
    if not gate.moves or time_s <= timing.max_path_time_s:
        return gate
    text = f"the arm would move for {time_s:.2f} s; {timing.max_path_time_s:g} s is the most"
    if gate.time_scale > 1.0:
        text += f" (time was stretched by {gate.time_scale:.2f}: {gate.text})"
    return _refuse(
        Reason.PATH_TIME, f"{text}; send smaller or fewer steps", time_s, timing.max_path_time_s
    )


# The robot's own motion: the last check, behind gate and planner ----------------------------------

WINDOW_S = 0.1
SPACING_S = 0.01
MARGIN_M = 0.02


class LimitMonitor:
    """Judges the robot's own commanded poses: speed, acceleration, and the way out of the box.

    Speed is the mean over 10 ms of the robot's time, or from one sample to the next where these are
    farther apart; acceleration is the change of two such speeds in turn. Both are means of the true
    ones, so a motion within the limits never looks faster, and one that lasts for 20 ms is seen
    whole. They count as broken above `monitor_factor` times the limit, which leaves room for how a
    robot goes from one motion to the next, and the box above a margin of 2 cm within 0.1 s.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self._poses: deque[tuple[float, Pose]] = deque()

    def reset(self) -> None:
        """Forget the past: after a recovery, or a new connection."""
        self._poses.clear()

    def observe(self, robot_time_s: float, commanded: Pose) -> tuple[str, float, float] | None:
        """(sentence, seen, allowed) when a limit is broken, else None."""
        if self._poses and robot_time_s <= self._poses[-1][0]:
            if robot_time_s < self._poses[-1][0]:
                self._poses.clear()
            else:
                return None
        self._poses.append((robot_time_s, commanded))
        while len(self._poses) > 3 and self._poses[1][0] <= robot_time_s - WINDOW_S:
            self._poses.popleft()
        return self._too_fast() or self._leaving(self._poses[0][1], commanded)

    def _too_fast(self) -> tuple[str, float, float] | None:
        """What the newest three poses at least SPACING_S apart show."""
        spaced = [self._poses[-1]]
        for sample in reversed(self._poses):
            if spaced[-1][0] - sample[0] >= SPACING_S - 1e-6:
                spaced.append(sample)
        if len(spaced) < 3:
            return None
        (third_s, third), (second_s, second), (first_s, first) = spaced[:3]
        before = _twist(first, second, second_s - first_s)
        now = _twist(second, third, third_s - second_s)
        change = (now - before) / ((third_s - first_s) / 2)
        factor, limits = self.limits.monitor_factor, self.limits
        for vector, limit, unit in (
            (now[:3], limits.max_linear_speed_m_s, "m/s"),
            (now[3:], limits.max_angular_speed_rad_s, "rad/s"),
            (change[:3], limits.max_linear_acceleration_m_s2, "m/s^2"),
            (change[3:], limits.max_angular_acceleration_rad_s2, "rad/s^2"),
        ):
            seen, allowed = float(np.linalg.norm(vector)), factor * limit
            if seen > allowed:
                text = f"the robot commands itself {seen:.3g} {unit}; {allowed:.3g} is the most"
                return text, seen, allowed
        return None

    def _leaving(self, first: Pose, commanded: Pose) -> tuple[str, float, float] | None:
        way = np.vstack([first.position_m, commanded.position_m])
        for violation in (
            box_violation_m(way, self.limits),
            reach_violation_m(way, self.limits),
        ):
            if violation[1] > MARGIN_M and violation[1] > violation[0] + 1e-4:
                text = (
                    f"the robot commands itself {violation[1] * 1000:.0f} mm out of the workspace"
                )
                return text, float(violation[1]), MARGIN_M
        return None


def _twist(start: Pose, end: Pose, seconds: float) -> NDArray:
    """Mean velocity (6,) [m/s, rad/s] from pose to pose, base axes."""
    turn = quat.multiply(end.orientation_xyzw, quat.inverse(start.orientation_xyzw))
    return np.concatenate([end.position_m - start.position_m, quat.rotation_vector(turn)]) / seconds


_OSCILLATION_WINDOW_S = 2.0
_OSCILLATION_HOLD_S = 1.0  # of going on after the warning


class OscillationMonitor:
    """Notices an end effector that goes back and forth: reversals of the robot's commanded pose.

    A reversal is a way back of at least `oscillation_swing_*` along one axis of the base frame, or
    about one. `oscillation_reversals` of one axis in 2 s are named; when that goes on for 1 s more,
    the arm is held until the window is empty of them.

    Attributes:
        text: what is seen, in a sentence; empty when nothing is.
        held: whether the arm is to be held for it.
    """

    def __init__(self, limits: Limits):
        self._swings = np.repeat([limits.oscillation_swing_m, limits.oscillation_swing_rad], 3)
        self._most = limits.oscillation_reversals
        self.reset()

    def reset(self) -> None:
        """Forget the past: after a recovery."""
        self.text, self.held = "", False
        self._before: tuple[float, Pose] | None = None
        self._way = np.zeros(6)  # moved and turned so far
        self._turning = np.zeros(6)  # farthest point in the present direction of each axis
        self._direction = np.ones(6)
        self._reversals_s: tuple[list[float], ...] = tuple([] for _ in range(6))
        self._since_s: float | None = None

    def observe(self, robot_time_s: float, commanded: Pose) -> None:
        """Take in the commanded pose at a time of the robot's clock."""
        before, self._before = self._before, (robot_time_s, commanded)
        if before is None or robot_time_s < before[0]:
            self.reset()
            self._before = (robot_time_s, commanded)
            return
        turn = quat.multiply(commanded.orientation_xyzw, quat.inverse(before[1].orientation_xyzw))
        move = commanded.position_m - before[1].position_m
        self._way = self._way + np.concatenate([move, quat.rotation_vector(turn)])
        ahead = self._direction * (self._way - self._turning)
        self._turning = np.where(ahead > 0.0, self._way, self._turning)
        reversed_axes = ahead < -self._swings
        self._direction = np.where(reversed_axes, -self._direction, self._direction)
        self._turning = np.where(reversed_axes, self._way, self._turning)
        counts = []
        for axis, times_s in enumerate(self._reversals_s):
            if reversed_axes[axis]:
                times_s.append(robot_time_s)
            while times_s and times_s[0] < robot_time_s - _OSCILLATION_WINDOW_S:
                times_s.pop(0)
            counts.append(len(times_s))
        self._judge(robot_time_s, counts)

    def _judge(self, robot_time_s: float, counts: list[int]) -> None:
        axis = int(np.argmax(counts))
        if self.held and counts[axis]:
            return
        if counts[axis] < self._most:
            self.text, self.held, self._since_s = "", False, None
            return
        if self._since_s is None:
            self._since_s = robot_time_s
        self.held = robot_time_s - self._since_s >= _OSCILLATION_HOLD_S
        where = f"{'along' if axis < 3 else 'about'} {'xyz'[axis % 3]} of the base frame"
        self.text = (
            f"the end effector went back and forth {counts[axis]} times in "
            f"{_OSCILLATION_WINDOW_S:g} s {where}; look at the policy's chunks and its anchor"
        )
