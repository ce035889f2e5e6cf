"""Which stages there are, in words: what the command line offers and other processes can build.

Nothing heavy is imported before a pipeline is built, so --help, which prints this table, is quick.
"""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spear_training.annotation.pipeline import Pipeline


class JobError(Exception):
    """No picture can be annotated until somebody fixes what the text names."""


class StageError(Exception):
    """This picture cannot be annotated; the text is the reason on its record."""


class ObjectError(Exception):
    """This object cannot be used; the text is the reason on the picture's record."""


@dataclass(frozen=True)
class RegisteredStage:
    """A stage that can be chosen, or that every pipeline has.

    Attributes:
        kind: detector, segmenter or geometry, of which a pipeline has one each; "" in every one.
        name: on the command line and in run.json.
        factory: MODULE.CLASS in this package.
        does: what it does, for --help.
        options: name of the dataclass, in the same module, of its settings, the factory's first
            argument; None: the settings are the factory's own arguments.
        context: arguments of the factory that the pipeline's description gives.
        network: whether it runs a neural network here, and so has a device.
    """

    kind: str
    name: str
    factory: str
    does: str
    options: str | None = None
    context: tuple[str, ...] = ()
    network: bool = False

    def build(self, settings: dict, context: dict) -> Callable:
        """Make the stage; its model is loaded at the first picture.

        Args:
            settings: names and values that differ from the defaults.
            context: what the pipeline's description knows.

        Raises:
            JobError: a setting that it does not have, or a value that cannot work.
        """
        module_name, factory_name = self.factory.split(".")
        module = importlib.import_module(f"{__package__}.{module_name}")
        factory = getattr(module, factory_name)
        more = {name: context[name] for name in self.context}
        takes_settings = getattr(module, self.options) if self.options else factory
        known = {
            name: parameter
            for name, parameter in inspect.signature(takes_settings).parameters.items()
            if self.options or name not in self.context
        }
        self._check(settings, known)
        if self.options:
            return factory(takes_settings(**settings), **more)
        return factory(**settings, **more)

    def _check(self, settings: dict, known: dict[str, inspect.Parameter]) -> None:
        if unknown := [name for name in settings if name not in known]:
            raise JobError(
                f"{self.name} has no setting {', '.join(unknown)}; it has "
                f"{', '.join(known) or 'none'}"
            )
        for name, value in settings.items():
            for kind, words in ((str, "words"), ((int, float), "a number")):
                if isinstance(known[name].default, kind) and not isinstance(value, kind):
                    raise JobError(f"{self.name}.{name} is {value!r}; it must be {words}")


STAGES = (
    RegisteredStage(
        "detector",
        "gemini",
        "gemini.GeminiDetector",
        "asks Google's service",
        options="GeminiOptions",
        context=("answers",),
    ),
    RegisteredStage(
        "detector",
        "grounding_dino",
        "grounding_dino.GroundingDinoDetector",
        "looks for --phrases",
        options="GroundingDinoOptions",
        network=True,
    ),
    RegisteredStage("detector", "given", "given.GivenDetector", "takes the list's objects"),
    RegisteredStage("", "unique", "detections.KeepUnique", "drops objects that are not unique"),
    RegisteredStage(
        "segmenter",
        "sam2",
        "sam2.Sam2Segmenter",
        "runs SAM 2 on the boxes",
        options="Sam2Options",
        network=True,
    ),
    RegisteredStage("segmenter", "given", "given.GivenSegmenter", "takes the list's masks"),
    RegisteredStage(
        "geometry",
        "moge",
        "moge.MogeGeometry",
        "runs MoGe",
        options="MogeOptions",
        network=True,
    ),
    RegisteredStage(
        "geometry", "depth", "depth.DepthGeometry", "takes the list's depth", context=("root",)
    ),
    RegisteredStage("", "clouds", "clouds.MakeClouds", "takes the points of each mask"),
    RegisteredStage("", "outliers", "clouds.RemoveOutliers", "removes points far from the others"),
    RegisteredStage("", "boxes", "boxes.FitBoxes", "fits an oriented box to each cloud"),
)


def stage_names(kind: str) -> tuple[str, ...]:
    """Names of the stages of a kind."""
    return tuple(stage.name for stage in STAGES if stage.kind == kind)


def stage_help(kind: str) -> str:
    """What the stages of a kind do: "sam2 runs SAM 2 on the boxes; given ..."."""
    return "; ".join(f"{stage.name} {stage.does}" for stage in STAGES if stage.kind == kind)


@dataclass(frozen=True)
class PipelineSpec:
    """Which stages, and their settings: small enough to send to another process.

    Attributes:
        root: folder that the items' paths are relative to.
        detector, segmenter, geometry: names.
        answers: folder for the detector gemini's answers; None: they are not kept.
        settings: stage name -> names and values that differ from the defaults.
    """

    root: Path
    detector: str
    segmenter: str
    geometry: str
    answers: Path | None = None
    settings: dict[str, dict] = field(default_factory=dict)

    def build(self) -> "Pipeline":
        """Make the stages; libraries and models are loaded when the first picture needs them.

        Raises:
            JobError: a stage or a setting that does not exist, or a value that cannot work.
        """
        from spear_training.annotation.pipeline import Pipeline

        chosen = {kind: getattr(self, kind) for kind in ("detector", "segmenter", "geometry")}
        for kind, name in chosen.items():
            if name not in stage_names(kind):
                known = ", ".join(stage_names(kind))
                raise JobError(f"there is no {kind} {name!r}; choose from {known}")
        stages = [stage for stage in STAGES if stage.name == chosen.get(stage.kind, stage.name)]
        names = list(dict.fromkeys(stage.name for stage in stages))
        if unknown := set(self.settings) - set(names):
            raise JobError(
                f"no setting for {', '.join(sorted(unknown))}: the stages are {', '.join(names)}"
            )
        context = {"root": self.root, "answers": self.answers}
        return Pipeline(
            self.root, [stage.build(self.settings.get(stage.name, {}), context) for stage in stages]
        )
