"""The scripted expert: a privileged pick-and-place policy that reads ground truth.

It moves a reference by the rules of scripted_rules.py and plans a chunk ahead with a small model of
gripper and item. The next chunk goes on from that reference, so two chunks agree where they overlap
unless something unforeseen happened.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry.poses import (
    GRIPPER_CLOSED,
    GRIPPER_OPEN,
    Chunk,
    chunk_from_poses,
    distance,
)
from spear_policy.inference.engine import CameraSpec, EngineCard, Observation
from spear_policy.inference.scripted_rules import (
    CLOSING_S,
    OPENING_S,
    GripperOpenings,
    GripperReference,
    MotionLimits,
    PickAndPlace,
    ScriptedScene,
    Situation,
    advance,
    between,
    decide,
    grasp_offset_m,
    grasp_width_m,
    parse,
    reference_at,
)

_SUBSTEP_S = 0.04
# The robot commands this far from the reference: it was stopped or slowed, so start where it is.
_LOST_M, _LOST_RAD = 0.03, 0.2
# A decision on what is observed now must not change what the arm does before the next chunk comes.
_LEAD_S = 0.3
_STUCK_S = 5.0
_TRAILING_M = 0.06


# Cameras that the engine waits for, by the parameter scripted_cameras.
_CAMERAS = {"none": (), "external": ("external",), "both": ("external", "wrist")}


def from_parameters(params: Mapping[str, Any]) -> "ScriptedEngine":
    """The engine of policy_node's parameters."""
    # Any size will do: it does not use the images.
    names = _CAMERAS[params["scripted_cameras"]]
    return ScriptedEngine(cameras=tuple(CameraSpec(name, 0, 0) for name in names))


@dataclass(frozen=True, eq=False)
class _Ahead:
    """What the last chunk looked ahead to: situations every _SUBSTEP_S from start_s on."""

    start_s: float
    situations: list[Situation]

    def at(self, time_s: float) -> Situation | None:
        """The situation foreseen for a time; None when it was not looked at."""
        place = (time_s - self.start_s) / _SUBSTEP_S
        i = int(place + 1e-6)
        if not 0 <= i < len(self.situations) - 1:
            return None
        before, after = self.situations[i], self.situations[i + 1]
        reference = between(before.reference, after.reference, place - i)
        return replace(before, time_s=time_s, reference=reference)


class ScriptedEngine:
    """Pick-and-place by ground truth, as an Engine. Keeps to `limits` whatever the scene."""

    def __init__(
        self,
        cameras: tuple[CameraSpec, ...] = (),
        limits: MotionLimits | None = None,
        gripper: GripperOpenings | None = None,
        dt_s: float = 0.2,
        chunk_length: int = 5,
    ):
        """`cameras` are not looked at; with them the observations carry an image's stamp."""
        self.limits, self.gripper = limits or MotionLimits(), gripper or GripperOpenings()
        self._card = EngineCard(
            engine="scripted",
            checkpoint_id="pick-and-place-1",
            cameras=cameras,
            dt_s=dt_s,
            chunk_length=chunk_length,
            needs_objects=True,
        )
        self._task: PickAndPlace | None = None
        self._ahead: _Ahead | None = None
        self._seen: tuple[float, NDArray] | None = None  # the last commanded position

    @property
    def card(self) -> EngineCard:
        """What it needs and promises."""
        return self._card

    def figures(self) -> dict[str, str]:
        """None."""
        return {}

    def warm_up(self) -> None:
        """Nothing to do."""

    def reset(self, instruction: str) -> None:
        """Begin a new task. Raises ValueError when the sentence is none that it can follow."""
        self._task = parse(instruction)
        self._ahead = self._seen = None

    def infer(self, observation: Observation) -> Chunk:
        """The next chunk.

        Raises:
            ValueError: an object is missing or out of reach, the gripper does not obey, or the
                hand is tilted too far; the text names it.
        """
        if self._task is None:
            self.reset(observation.instruction)
        scene = ScriptedScene(self._task, observation.objects)
        now = self._situation(observation, scene)
        freed = now.gripper == GRIPPER_OPEN and now.settled and not now.other
        finished = freed and scene.is_placed(now.item_m)
        situations, done = self._look_ahead(now, scene)
        self._ahead = _Ahead(observation.stamp_s, situations)
        self._seen = (observation.stamp_s, observation.commanded.position_m)
        every = round(self.card.dt_s / _SUBSTEP_S)
        steps = situations[every::every]
        return chunk_from_poses(
            stamp_s=observation.stamp_s,
            dt_s=self.card.dt_s,
            measured=observation.measured,
            commanded=observation.commanded,
            targets=[step.reference.pose for step in steps],
            gripper_openings=[step.gripper for step in steps],
            final=finished and done,
        )

    def _look_ahead(self, now: Situation, scene: ScriptedScene) -> tuple[list[Situation], bool]:
        """Situations from now to the end of the chunk, and whether all is done by then."""
        count = self.card.chunk_length * round(self.card.dt_s / _SUBSTEP_S)
        situations, done = [now], False
        for _ in range(count):
            order = decide(now, scene)
            done = order.done
            reference = advance(
                now.reference,
                order.position_m,
                order.heading_rad,
                min(order.speed_m_s, self.limits.linear_speed_m_s),
                self.limits,
                _SUBSTEP_S,
            )
            now = self._after(now, reference, order.gripper)
            situations.append(now)
        return situations, done

    @staticmethod
    def _after(now: Situation, reference: GripperReference, gripper: float) -> Situation:
        after = replace(now, time_s=now.time_s + _SUBSTEP_S, reference=reference)
        if now.holding:
            after.item_m = now.item_m + reference.position_m - now.reference.position_m
        if gripper != now.gripper:
            after.gripper, after.commanded_s, after.other = gripper, now.time_s, ""
            closes = gripper == GRIPPER_CLOSED
            after.settled_s = now.time_s + (CLOSING_S if closes else OPENING_S)
            after.between = closes  # the rules close the fingers only around the item
        return after

    # From what is observed to a situation ----------------------------------------------------

    def _situation(self, seen: Observation, scene: ScriptedScene) -> Situation:
        """What was foreseen for this instant, corrected by what is observed."""
        foreseen = self._ahead.at(seen.stamp_s) if self._ahead else None
        velocity = foreseen.reference.velocity_m_s if foreseen else np.zeros(3)
        # Objects are seen a little late, so at full speed they seem to trail behind the hand.
        reach_m = 0.03 + 0.15 * float(np.linalg.norm(velocity)) if foreseen else _TRAILING_M
        grasp = scene.item.pose.position_m + [0.0, 0.0, grasp_offset_m(scene.item)]
        near = bool(np.linalg.norm(seen.measured.position_m - grasp) < reach_m)
        width = grasp_width_m(scene.item)
        if foreseen is None:
            now = self._first_situation(seen, scene, near)
        else:
            now = replace(foreseen, reference=self._reference(seen, foreseen.reference))
            now.between = near and not self.gripper.empty(width, seen.gripper_opening)
            self._wait_for_fingers(now, width, seen.gripper_opening)
        now.item_m = scene.item.pose.position_m
        if now.holding:
            # While it is carried its last seen place is old; the fingers know it better.
            lowered = [0.0, 0.0, grasp_offset_m(scene.item)]
            now.item_m = now.reference.position_m - lowered
        return now

    def _reference(self, seen: Observation, foreseen: GripperReference) -> GripperReference:
        """The foreseen reference, or a new one where the robot really is commanded to be."""
        translation, rotation = distance(foreseen.pose, seen.commanded)
        if translation <= _LOST_M and rotation <= _LOST_RAD:
            return foreseen
        return reference_at(seen.commanded, self._velocity(seen))

    def _velocity(self, seen: Observation) -> NDArray:
        """Mean velocity of the robot's command since the last observation, within the limits."""
        if self._seen is None or not 0.0 < seen.stamp_s - self._seen[0] < 0.5:
            return np.zeros(3)
        velocity = (seen.commanded.position_m - self._seen[1]) / (seen.stamp_s - self._seen[0])
        speed = float(np.linalg.norm(velocity))
        return velocity * min(1.0, self.limits.linear_speed_m_s / max(speed, 1e-9))

    def _first_situation(self, seen: Observation, scene: ScriptedScene, near: bool) -> Situation:
        opening, now_s = seen.gripper_opening, seen.stamp_s
        width = grasp_width_m(scene.item)
        held = near and self.gripper.holds(width, opening)
        other = "" if held else self._other_in_hand(seen, scene)
        wide = self.gripper.clears(width, opening)
        return Situation(
            time_s=now_s,
            reference=reference_at(seen.commanded, self._velocity(seen)),
            gripper=GRIPPER_CLOSED if held or other else GRIPPER_OPEN,
            commanded_s=now_s,
            settled_s=now_s if held or other or wide else now_s + OPENING_S,
            between=held,
            other=other,
            item_m=scene.item.pose.position_m,
        )

    def _other_in_hand(self, seen: Observation, scene: ScriptedScene) -> str:
        """The name of an object that is not the item and is between closed fingers."""
        for name, obj in scene.objects.items():
            grasp = obj.pose.position_m + [0.0, 0.0, grasp_offset_m(obj)]
            near = np.linalg.norm(seen.measured.position_m - grasp) < _TRAILING_M
            held = self.gripper.holds(grasp_width_m(obj), seen.gripper_opening)
            if name != scene.task.item and near and held:
                return name
        return ""

    def _wait_for_fingers(self, now: Situation, width_m: float, opening: float) -> None:
        """Put off the end of their motion when they are seen to be late.

        Raises:
            ValueError: they do not open.
        """
        if now.time_s < now.settled_s - _LEAD_S or now.other:
            return
        if now.gripper == GRIPPER_CLOSED:
            wide = not self.gripper.empty(width_m, opening)
            late = wide and not self.gripper.holds(width_m, opening)
        else:
            late = not self.gripper.clears(width_m, opening)
        if not late:
            return
        if now.time_s - now.commanded_s < _STUCK_S:
            now.settled_s = max(now.settled_s, now.time_s + _LEAD_S)
        elif now.gripper == GRIPPER_CLOSED:
            now.between = False  # so the rules open them and try again
        else:
            raise ValueError(
                f"the gripper was commanded to open {now.time_s - now.commanded_s:.0f} s ago and "
                f"is at {opening:.2f} of its width; check it"
            )
