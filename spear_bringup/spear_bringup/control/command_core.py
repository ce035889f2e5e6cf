"""The one way from a chunk to the robot: gate, player and latch behind one object.

The ROS driver and the in-process simulation both play chunks through it. It holds no clock and no
thread: every call says what time it is.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spear_bringup.control.gate import (
    ChunkSources,
    GateDecision,
    LimitMonitor,
    OscillationMonitor,
    Reason,
    Verdict,
    judge_age,
    judge_anchor,
    judge_form,
    judge_jumps,
    judge_path,
    judge_path_time,
    judge_steps,
)
from spear_bringup.control.limits import Limits, Timing
from spear_bringup.control.path import ChunkPlayer, Path, Reference
from spear_policy.geometry.poses import Chunk, Pose, PoseHistory


class GripperLogic:
    """A policy's wavering opening becomes few, firm commands: hysteresis and a least dwell time.

    Args:
        close_below, open_above: openings (0 closed .. 1 open) that switch; between them nothing
            changes.
        min_dwell_s: least time between two switches.

    Raises:
        ValueError: thresholds out of order or out of 0..1, or a negative dwell.
    """

    def __init__(self, close_below: float = 0.4, open_above: float = 0.6, min_dwell_s: float = 0.5):
        if not 0.0 <= close_below < open_above <= 1.0:
            raise ValueError(
                f"gripper thresholds {close_below}, {open_above}: "
                "need 0 <= close_below < open_above <= 1"
            )
        if not min_dwell_s >= 0.0:
            raise ValueError(f"gripper min_dwell_s is {min_dwell_s}; it must not be negative")
        self.close_below, self.open_above, self.min_dwell_s = close_below, open_above, min_dwell_s
        self.target: float | None = None
        self._switched_s = 0.0

    def update(self, opening: float, now_s: float) -> float | None:
        """The firm target (0.0, 1.0) after one more wanted opening; None before any is clear."""
        wanted = self.target
        if opening <= self.close_below:
            wanted = 0.0
        elif opening >= self.open_above:
            wanted = 1.0
        if wanted == self.target:
            return self.target
        if self.target is None or abs(now_s - self._switched_s) >= self.min_dwell_s:
            self.target, self._switched_s = wanted, now_s
        return self.target


_SETTLE_S = 0.3  # what a robot may lag behind its path before it is stopped
_PLANNER_FAILS_AGAIN_S = 5.0


@dataclass(frozen=True, eq=False)
class Decision:
    """What to do now: send `path`, or command a stop, or neither; and what to publish of it.

    A path that was sent is reported to `CommandCore.on_sent`, with `start` where it begins.
    """

    gate: GateDecision
    path: Path | None = None
    start: Reference | None = None
    gripper_openings: NDArray | None = None
    stop: bool = False
    seam_m: float = 0.0
    seam_rad: float = 0.0
    observation_age_s: float = 0.0
    time_slip_s: float = 0.0


class CommandCore:
    """Judges chunks, keeps the running reference, times out, latches. Not thread-safe: lock it.

    Attributes:
        counts: verdicts since construction, indexed by Verdict.
        latched: the STOPPED decision in force, or None.
        busy: a word for why chunks are held (such as "homing"), or None.
        manager_lost: a sentence for why nobody watches over the driver, or None.
    """

    def __init__(self, limits: Limits, timing: Timing, gripper: GripperLogic | None = None):
        self.limits, self.timing = limits, timing
        self.player = ChunkPlayer(timing.blend_s, timing.min_lead_s)
        self.gripper = gripper or GripperLogic()
        self.monitor = LimitMonitor(limits)
        self.oscillation = OscillationMonitor(limits)
        self.counts = [0] * len(Verdict)
        self.latched: GateDecision | None = None
        self.busy: str | None = None
        self.manager_lost: str | None = None
        self._sources = ChunkSources(timing.source_release_s)
        self._chunk_ids = ("", 0)  # source and id of the chunk that is followed
        self._gripper_openings = np.zeros(0)  # one a knot of the running path, and one before it
        self._received_s = 0.0
        self._timed_out = True
        self._planner_failed_s: float | None = None

    def on_chunk(
        self,
        chunk: Chunk,
        *,
        hold: bool,
        now_s: float,
        received_age_s: float,
        measured: Pose,
        commanded: Pose,
        history: PoseHistory,
    ) -> Decision:
        """Judge a chunk whole and plan its path.

        Args:
            chunk: what came; its numbers may be hostile.
            hold: it is of kind HOLD; only its ids count.
            now_s: node clock. received_age_s: steady time since it was received.
            measured, commanded: the arm now, base frame. history: the arm's last seconds.
        """
        gate = self._judge_source(chunk, hold, now_s)
        if gate is None:
            gate = self._judge_soundness(chunk, now_s, received_age_s, history)
        if gate is not None:
            stop = gate.verdict is Verdict.HELD and gate.reason is not Reason.LATE
            return self._decide(gate, chunk, now_s, stop=stop)
        plan = self.player.plan(chunk, now_s, commanded)
        magnitudes = {
            "start": plan.start,
            "gripper_openings": np.array([np.nan, *chunk.gripper_openings])[plan.skipped :],
            "seam_m": plan.seam_m,
            "seam_rad": plan.seam_rad,
            "observation_age_s": now_s - chunk.stamp_s,
            "time_slip_s": self.player.time_slip_s(now_s, commanded),
        }
        gate = judge_jumps(
            plan.path.positions_m,
            plan.path.orientations_xyzw,
            plan.skipped,
            measured,
            self.limits,
        )
        path = plan.path
        if gate is None:
            gate, path = judge_path(path, plan.start, self.limits, measured.position_m)
            gate = judge_path_time(gate, path, self.timing)
        if not gate.moves:
            return self._decide(gate, chunk, now_s, **magnitudes)
        if self.oscillation.text:
            gate = replace(gate, reason=Reason.OSCILLATION, text=self.oscillation.text)
        return self._decide(gate, chunk, now_s, path=path, **magnitudes)

    def on_sent(self, decision: Decision, now_s: float) -> None:
        """The robot has taken the decision's path: it is the running reference from now on."""
        if self.latched is not None or decision.path is None:
            return
        self.player.commit(decision.path, decision.start, now_s)
        self._chunk_ids = decision.gate.source_id, decision.gate.chunk_id
        self._gripper_openings = decision.gripper_openings
        self._received_s, self._timed_out = now_s, False

    def on_path_refused(self, decision: Decision, text: str) -> Decision:
        """The arm cannot do the decision's path; the one before goes on."""
        self.counts[decision.gate.verdict] -= 1
        self.counts[Verdict.REJECTED] += 1
        gate = replace(
            decision.gate, verdict=Verdict.REJECTED, reason=Reason.PATH_REFUSED, text=text
        )
        return replace(decision, gate=gate, path=None)

    def on_planner_failure(self, text: str, now_s: float) -> Decision:
        """Hold when the robot's planner has failed on a path; latch when it fails again soon.

        Nothing is sent again here: the arm is no longer where that path was judged.
        """
        before_s, self._planner_failed_s = self._planner_failed_s, now_s
        if before_s is not None and abs(now_s - before_s) < _PLANNER_FAILS_AGAIN_S:
            return self.latch(Reason.ROBOT_PLANNER, text, now_s)
        return self.hold(Reason.ROBOT_PLANNER, text, now_s)

    def refuse(self, source_id: str, chunk_id: int, text: str) -> Decision:
        """Reject a chunk whose message is malformed, before its numbers are judged."""
        gate = self.latched or GateDecision(Verdict.REJECTED, Reason.MALFORMED, text)
        self.counts[gate.verdict] += 1
        return Decision(replace(gate, source_id=source_id, chunk_id=chunk_id))

    def _judge_source(self, chunk: Chunk, hold: bool, now_s: float) -> GateDecision | None:
        if self.latched is not None:
            return replace(self.latched)
        if hold:
            text = "the policy asked for a hold"
            return GateDecision(Verdict.HELD, Reason.HOLD_REQUESTED, text)
        if not chunk.source_id:
            text = "source_id is empty; each publisher of action_chunk needs a random one"
            return GateDecision(Verdict.REJECTED, Reason.MALFORMED, text)
        sources = self._sources.on_chunk(chunk.source_id, now_s)
        if len(sources) > 1:
            names = " and ".join(source[:8] for source in sources)
            text = f"{len(sources)} publishers of action_chunk ({names}); stop all but one"
            return GateDecision(Verdict.HELD, Reason.DUPLICATE_SOURCE, text, len(sources), 1)
        if not self._sources.in_order(chunk.source_id, chunk.chunk_id):
            text = f"chunk {chunk.chunk_id} came after a newer one"
            return GateDecision(Verdict.REJECTED, Reason.OUT_OF_ORDER, text)
        if self.busy is not None:
            return GateDecision(Verdict.HELD, Reason.NOT_ACTIVE, f"the driver is {self.busy}")
        if self.manager_lost is not None:
            return GateDecision(Verdict.HELD, Reason.MANAGER_LOST, self.manager_lost)
        if self.oscillation.held:
            return GateDecision(Verdict.HELD, Reason.OSCILLATION, self.oscillation.text)
        return None

    def _judge_soundness(
        self, chunk: Chunk, now_s: float, received_age_s: float, history: PoseHistory
    ) -> GateDecision | None:
        return (
            judge_form(chunk, self.timing)
            or judge_steps(chunk, self.limits)
            or judge_age(chunk, now_s, received_age_s, self.timing)
            or judge_anchor(chunk, history, self.timing)
        )

    def _decide(self, gate: GateDecision, chunk: Chunk, now_s: float, **magnitudes) -> Decision:
        age_s = now_s - chunk.stamp_s
        gate = replace(
            gate,
            source_id=chunk.source_id,
            chunk_id=chunk.chunk_id,
            chunk_age_s=age_s if np.isfinite(age_s) else 0.0,
        )
        self.counts[gate.verdict] += 1
        if magnitudes.get("stop"):
            # While busy the motion is the driver's own (homing), not the policy's to stop.
            magnitudes["stop"] = self.busy is None and self.player.running is not None
            self._halt()
        return Decision(gate, **magnitudes)

    def tick(
        self,
        now_s: float,
        *,
        measured: Pose,
        commanded: Pose,
        moving: bool,
        robot_time_s: float | None = None,
    ) -> Decision | None:
        """What time alone decides (chunk timeout, limit monitor); None when nothing is due.

        `moving` says that the robot executes a motion; `robot_time_s` is the stamp of `commanded`
        on the robot's clock (the node clock by default).
        """
        if self.latched is not None:
            return None
        robot_time_s = now_s if robot_time_s is None else robot_time_s
        broken = self.monitor.observe(robot_time_s, commanded)
        if broken is not None and moving:
            text, seen, allowed = broken
            return self.latch(Reason.LIMIT_MONITOR, text, now_s, seen, allowed)
        self.oscillation.observe(robot_time_s, commanded)
        running = self.player.running
        if self._timed_out or running is None:
            return None
        if self.oscillation.held:
            return self.hold(Reason.OSCILLATION, self.oscillation.text, now_s)
        due_s = max(self._received_s + self.timing.chunk_timeout_s, running.end_s)
        # The path ends at rest by itself; a stop at its nominal end would cut a late one short.
        if now_s < due_s or (moving and now_s < due_s + _SETTLE_S):
            return None
        text = f"no good chunk for {now_s - self._received_s:.2f} s; look at policy_status"
        return self.hold(Reason.CHUNK_TIMEOUT, text, now_s)

    def hold(self, reason: Reason, text: str, now_s: float) -> Decision:
        """Stop and rest until a good chunk comes; resumes by itself."""
        return self._decide_alone(GateDecision(Verdict.HELD, reason, text))

    def latch(
        self, reason: Reason, text: str, now_s: float, asked: float = 0.0, allowed: float = 0.0
    ) -> Decision:
        """Stop for good: every chunk is refused until `release()`. The first reason stays."""
        if self.latched is None:
            text = f"{text}; call ~/recover when the cause is fixed"
            self.latched = GateDecision(Verdict.STOPPED, reason, text, asked, allowed)
        return self._decide_alone(self.latched)

    def release(self) -> None:
        """A person called ~/recover and the robot is fine."""
        self.latched = None
        self.monitor.reset()
        self.oscillation.reset()
        self._sources = ChunkSources(self.timing.source_release_s)
        self._planner_failed_s = None
        self._halt()

    def _decide_alone(self, gate: GateDecision) -> Decision:
        source_id, chunk_id = self._chunk_ids
        gate = replace(gate, source_id=source_id, chunk_id=chunk_id)
        self.counts[gate.verdict] += 1
        self._halt()
        return Decision(gate, stop=True)

    def _halt(self) -> None:
        self.player.halt()
        self._timed_out = True
        self._chunk_ids = ("", 0)

    def gripper_opening(self, now_s: float) -> float | None:
        """The firm gripper target (0.0 closed, 1.0 open) due now; None before any was asked for.

        An opening is due when the running path, stretched as it is, is at its step's knot.
        """
        if self.player.running is not None:
            opening = float(self._gripper_openings[self.player.running.knots_passed(now_s)])
            if np.isfinite(opening):  # the step before the first one asks for nothing
                return self.gripper.update(opening, now_s)
        return self.gripper.target

    def reference(self, now_s: float, commanded: Pose) -> Reference:
        """Pose and velocity of the running reference; rest at `commanded` when there is none."""
        return self.player.reference(now_s, commanded)
