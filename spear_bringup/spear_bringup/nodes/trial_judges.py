"""Who says whether a simulated trial succeeded: the places of the objects, or the path followed."""

from typing import Protocol

import numpy as np
from visualization_msgs.msg import MarkerArray

from spear_bringup.sim.tasks import judge, task_from_instruction, task_of_seed
from spear_bringup.trials.following import (
    POSITION_LIMIT_MM,
    ROTATION_LIMIT_DEG,
    Recording,
    following_errors,
)
from spear_bringup.trials.series import StateSeries
from spear_msgs.msg import ActionChunk, EndEffectorState
from spear_policy.geometry.poses import Pose
from spear_policy.nodes import qos
from spear_policy.nodes.messages import chunk_from_msg, pose_array, pose_from_msg, stamp_to_s


class Judge(Protocol):
    """Watches a trial and gives its verdict."""

    def instruction(self, seed: int) -> str:
        """What the policy is told in the scene of `seed`."""

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
        node.create_subscription(MarkerArray, "sim_world/objects", self._take, qos.EVENT)

    def _take(self, markers: MarkerArray) -> None:
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

    def __init__(self, node, recordings: dict[int, Recording]):
        """`recordings` are what is repeated, by seed."""
        self._recordings = recordings
        self._seed = min(recordings)
        self._first: ActionChunk | None = None
        self._states: list[EndEffectorState] = []
        self.now_s = 0.0
        node.create_subscription(ActionChunk, "action_chunk", self._take_chunk, qos.EVENT)
        node.create_subscription(EndEffectorState, "ee_state", self._take_state, qos.SENSOR)

    def _take_chunk(self, chunk: ActionChunk) -> None:
        if chunk.kind == ActionChunk.KIND_STEPS and self._first is None:
            self._first = chunk

    def _take_state(self, state: EndEffectorState) -> None:
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
