"""Frozen and black cameras, judged on what the policy is about to look at."""

from spear_policy.inference.engine import EngineCard, Observation
from spear_policy.inference.frozen_camera import FrozenCamera, FrozenCameraLimits, Level
from spear_policy.inference.synchroniser import InputProblem, Moment


class CameraWatch:
    """Warns in the log, then refuses the observation, which makes the policy hold.

    Attributes:
        text: what is wrong at present; empty when nothing is.
    """

    def __init__(self, node, card: EngineCard):
        """Watch the cameras that the engine reads; limits are the node's parameters."""
        params = node.params
        self._logger = node.get_logger()
        self._watch = FrozenCamera(
            {
                spec.name: FrozenCameraLimits(
                    frozen_after_s=params["frozen_after_s"],
                    min_motion_m=params["frozen_motion_m"],
                    min_rotation_rad=params["frozen_rotation_rad"],
                    hold_after_s=params["frozen_hold_after_s"],
                    black_hold_after_s=params["black_hold_after_s"],
                    required=spec.required,
                    judge_frozen=params[f"watch_{spec.name}_camera"],
                )
                for spec in card.cameras
            }
        )
        self.text = ""

    def judge(self, moment: Moment, observation: Observation) -> None:
        """Look at the images of an observation.

        Raises:
            InputProblem: a camera has been frozen or black for too long.
        """
        for name, image in observation.images.items():
            stamp_s = moment.frames[name].stamp_s
            self._watch.add(name, stamp_s, image, observation.measured)
        verdict = self._watch.verdict
        before, self.text = self.text, verdict.text
        if verdict.level is Level.HOLD:
            raise InputProblem(verdict.text)
        if verdict.text and not before:
            self._logger.warning(verdict.text)
        elif before and not verdict.text:
            self._logger.info("the cameras are fine again")
