"""Runs one trial in a running simulated graph: home, scene, recording, instruction, verdict."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from action_msgs.msg import GoalStatus
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.parameter import Parameter
from std_msgs.msg import Float64
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from spear_bringup.nodes.supervisor import GraphError, RunningGraph
from spear_bringup.sim.tasks import judge, task_from_instruction, task_of_seed
from spear_bringup.trials.bag_reader import StateSeries
from spear_bringup.trials.results import (
    POSITION_LIMIT_MM,
    ROTATION_LIMIT_DEG,
    ReplayedEpisode,
    following_errors,
)
from spear_msgs.action import RunInstruction
from spear_msgs.msg import ActionChunk, EndEffectorState, GateStatus, TrialInfo
from spear_msgs.srv import EndTrial, StartTrial
from spear_policy.geometry.poses import Pose
from spear_policy.nodes import messages as qos
from spear_policy.nodes.messages import (
    EVENT,
    LATCHED,
    chunk_from_msg,
    pose_array,
    pose_from_msg,
    s_to_duration,
    stamp_to_s,
)

# Judges: by the places of the objects, or by the path followed ---------------------------------


class Judge(Protocol):
    """Watches a trial and gives its verdict."""

    def instruction(self, seed: int) -> str:
        """What the policy is asked in the scene of `seed`."""

    def begin(self) -> None:
        """The instruction is about to be given: forget what came before."""

    @property
    def now_s(self) -> float:
        """Node time of the newest thing seen [s]; 0 before the first."""

    def verdict(self, instruction: str) -> tuple[bool, str]:
        """Success, and the reason in a sentence."""


class ObjectsJudge:
    """A pick-and-place task succeeds when the cube rests on or in its dish."""

    def __init__(self, node):
        self._poses: dict[str, Pose] = {}
        self.now_s = 0.0
        node.create_subscription(MarkerArray, "sim_world/objects", self._on_objects, qos.EVENT)

    def _on_objects(self, markers: MarkerArray) -> None:
        self._poses = {marker.ns: pose_from_msg(marker.pose) for marker in markers.markers}
        if markers.markers:
            self.now_s = stamp_to_s(markers.markers[0].header.stamp)

    def instruction(self, seed: int) -> str:
        """The task that goes with the scene."""
        return task_of_seed(seed).instruction

    def begin(self) -> None:
        """Nothing to forget: only the last poses count."""

    def verdict(self, instruction: str) -> tuple[bool, str]:
        """By the places of the cube and the dish that the instruction names."""
        verdict = judge(task_from_instruction(instruction), self._poses)
        return verdict.success, verdict.reason


class FollowingJudge:
    """A replay succeeds when the arm was near every recorded pose at its time."""

    def __init__(self, node, recordings: dict[int, ReplayedEpisode]):
        """`recordings` are what is repeated, by seed."""
        self._recordings = recordings
        self._seed = min(recordings)
        self._first: ActionChunk | None = None
        self._states: list[EndEffectorState] = []
        self.now_s = 0.0
        node.create_subscription(ActionChunk, "action_chunk", self._on_chunk, qos.EVENT)
        node.create_subscription(EndEffectorState, "ee_state", self._on_state, qos.SENSOR)

    def _on_chunk(self, chunk: ActionChunk) -> None:
        if chunk.kind == ActionChunk.KIND_STEPS and self._first is None:
            self._first = chunk

    def _on_state(self, state: EndEffectorState) -> None:
        self._states.append(state)
        self.now_s = stamp_to_s(state.header.stamp)

    def instruction(self, seed: int) -> str:
        """The recorded sentence; the trial is of this seed from now on."""
        self._seed = seed
        return self._recordings[seed].instruction

    def begin(self) -> None:
        """Forget the homing."""
        self._first, self._states = None, []

    def verdict(self, instruction: str) -> tuple[bool, str]:
        """By the distance from each recorded pose."""
        if self._first is None:
            return False, "no chunk was published"
        rows = list(self._states)
        states = StateSeries(
            stamps_s=np.array([stamp_to_s(row.header.stamp) for row in rows]),
            measured=np.array([pose_array(row.measured) for row in rows]),
        )
        try:
            recorded = self._recordings[self._seed].motion
            errors = following_errors(recorded, chunk_from_msg(self._first), states)
        except ValueError as error:
            return False, str(error)
        success = errors.within(POSITION_LIMIT_MM, ROTATION_LIMIT_DEG)
        return success, f"{'repeated' if success else 'strayed from'} the recording: {errors}"


# The trial -------------------------------------------------------------------------------------

_LEAD_IN_S = 0.3  # node time on record before the instruction: every motion starts from rest
_SETTLE_S = 1.0  # node time in which things let go of come to rest, and the last target is reached
_SILENCE_S = 120.0  # of wall time, in which a simulation on any machine shows a sign of life


class TrialError(Exception):
    """This trial could not be run; the graph is whole and the next one may be fine."""


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        trial_id, bag: the recorder's.
        outcome: "SUCCESS", "FAILURE" or "ABORTED".
        reason: in a sentence.
        chunks: published for the instruction.
        duration_s: of the instruction, node clock.
    """

    seed: int
    instruction: str
    outcome: str
    reason: str
    trial_id: str
    bag: str
    chunks: int
    duration_s: float


class TrialClient:
    """Everything that a trial asks of the graph.

    Args:
        graph: running and active.
        judge: gives the instruction and the verdict.
        on_phase: takes the phase, such as "homing", whenever it changes.
    """

    def __init__(
        self,
        graph: RunningGraph,
        judge: Judge,
        on_phase: Callable[[str], None] = lambda phase: None,
    ):
        self._graph, self._judge, self._on_phase = graph, judge, on_phase
        self.real_time_factor = math.nan
        self.chunks = 0
        self._gate, self._info = GateStatus(), TrialInfo()
        self._alive_s = time.monotonic()
        node = graph.node
        node.create_subscription(Float64, "sim_world/real_time_factor", self._on_factor, EVENT)
        node.create_subscription(GateStatus, "gate_status", self._on_gate, LATCHED)
        node.create_subscription(TrialInfo, "trial", self._on_info, LATCHED)
        self._action = ActionClient(node, RunInstruction, "run_instruction")

    def run(self, seed: int, timeout_s: float) -> TrialResult:
        """One trial, whatever comes of it.

        Args:
            seed: of the scene.
            timeout_s: for the instruction, node clock.

        Raises:
            GraphError: the graph is broken or cannot record; no further trial makes sense.
        """
        self.chunks, trial_id, bag, duration_s = 0, "", "", 0.0
        instruction = self._judge.instruction(seed)
        try:
            self.prepare(seed)
            trial_id, bag = self._start(seed, instruction)
            self._judge.begin()
            self._let_time_pass(_LEAD_IN_S)
            result = self._instruct(instruction, timeout_s)
            outcome, reason = self._verdict(result, instruction)
            duration_s = stamp_to_s(result.elapsed)
        except TrialError as failure:
            outcome, reason = "ABORTED", str(failure)
            if not trial_id:  # it has a row in the report all the same
                trial_id, bag = self._start(seed, instruction)
        outcome, reason = self._end(trial_id, outcome, reason)
        return TrialResult(
            seed, instruction, outcome, reason, trial_id, bag, self.chunks, duration_s
        )

    def prepare(self, seed: int) -> None:
        """Bring the arm home and put the objects where `seed` says.

        Raises:
            TrialError: the arm does not come home, or the seed is refused.
        """
        self._on_phase("homing")
        if self._stopped:
            self._trigger("franka_driver/recover")
        self._trigger("franka_driver/home")
        self._on_phase("setting the scene")
        request = SetParameters.Request(
            parameters=[Parameter("seed", value=seed).to_parameter_msg()]
        )
        answer = self._graph.call(SetParameters, "sim_world/set_parameters", request).results[0]
        if not answer.successful:
            raise TrialError(f"seed {seed} was refused: {answer.reason}")
        self._trigger("sim_world/reset")

    @property
    def _stopped(self) -> bool:
        return self._gate.verdict == GateStatus.VERDICT_STOPPED

    def _trigger(self, service: str) -> None:
        response = self._graph.call(Trigger, service, Trigger.Request(), _SILENCE_S)
        if not response.success:
            raise TrialError(f"{service} failed: {response.message}")

    def _start(self, seed: int, instruction: str) -> tuple[str, str]:
        self._on_phase("recording")
        request = StartTrial.Request(instruction=instruction, seed=seed, operator_name="demo")
        response = self._graph.call(StartTrial, "start_trial", request, _SILENCE_S)
        if not response.success:
            raise GraphError(f"start_trial failed: {response.message}")
        return response.trial_id, response.bag

    def _end(self, trial_id: str, outcome: str, reason: str) -> tuple[str, str]:
        """Close the trial; the outcome and reason on record."""
        self._on_phase("closing the bag")
        request = EndTrial.Request(
            trial_id=trial_id,
            outcome=getattr(TrialInfo, f"OUTCOME_{outcome}"),
            score={"SUCCESS": 1.0, "FAILURE": 0.0}.get(outcome, math.nan),
            notes=reason,
        )
        response = self._graph.call(EndTrial, "end_trial", request, _SILENCE_S)
        if response.success:
            return outcome, reason
        stopped = trial_id, TrialInfo.STATE_ENDED  # by the recorder itself: the disk was full
        if not self._graph.wait_until(
            lambda: (self._info.trial_id, self._info.state) == stopped, 5.0
        ):
            raise GraphError(f"end_trial failed: {response.message}")
        return "ABORTED", f"the recorder stopped the trial: {self._info.text}"

    def _instruct(self, instruction: str, timeout_s: float) -> RunInstruction.Result:
        self._on_phase("following the instruction")
        self._wait(self._action.server_is_ready, "run_instruction is not offered")
        goal = RunInstruction.Goal(instruction=instruction, timeout=s_to_duration(timeout_s))
        sent = self._action.send_goal_async(goal, self._on_feedback)
        self._wait(sent.done, "run_instruction has not answered")
        handle = sent.result()
        if not handle.accepted:
            raise TrialError(f"the policy does not take the instruction {instruction!r}")
        ended = handle.get_result_async()
        try:
            self._wait(lambda: ended.done() or self._stopped, "the simulation stands still")
        finally:
            if not ended.done():
                handle.cancel_goal_async()  # the policy then publishes HOLD
                self._graph.wait_until(ended.done, 5.0)
        if self._stopped:
            raise TrialError(f"the driver stopped the robot: {self._gate.text}")
        result = ended.result().result
        self.chunks = result.chunks
        if ended.result().status == GoalStatus.STATUS_ABORTED and not result.message:
            raise TrialError("the policy gave up without a word; see its log")
        return result

    def _verdict(self, result: RunInstruction.Result, instruction: str) -> tuple[str, str]:
        if result.outcome not in (result.OUTCOME_DONE, result.OUTCOME_TIMEOUT):
            return "ABORTED", result.message or "the instruction was stopped from outside"
        self._on_phase("judging")
        self._let_time_pass(_SETTLE_S)
        success, reason = self._judge.verdict(instruction)
        late = " (out of time)" if result.outcome == result.OUTCOME_TIMEOUT else ""
        return "SUCCESS" if success else "FAILURE", reason + late

    def _let_time_pass(self, seconds: float) -> None:
        """Wait for this much node time."""
        what = "nothing comes from the simulation"
        self._wait(lambda: self._judge.now_s > 0.0, what)
        goal_s = self._judge.now_s + seconds
        self._wait(lambda: self._judge.now_s >= goal_s, what)

    def _wait(self, condition, otherwise: str) -> None:
        """Wait as long as the simulation lives; GraphError when it fell silent."""
        self._alive_s = time.monotonic()
        while not self._graph.wait_until(condition, 1.0):
            if time.monotonic() - self._alive_s > _SILENCE_S:
                raise GraphError(f"{otherwise}: no sign of life for {_SILENCE_S:.0f} s")

    # What comes in -----------------------------------------------------------------------

    def _on_factor(self, message: Float64) -> None:
        self.real_time_factor = message.data
        if message.data > 0.0:
            self._alive_s = time.monotonic()

    def _on_gate(self, message: GateStatus) -> None:
        self._gate = message

    def _on_info(self, message: TrialInfo) -> None:
        self._info = message

    def _on_feedback(self, message) -> None:
        self.chunks = message.feedback.chunks
