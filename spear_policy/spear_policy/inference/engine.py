"""What an engine is: the interface that every policy implements, and the table of all engines.

An observation goes in, a chunk comes out; the card says what an engine needs and promises. A new
engine is a class with the methods of `Engine`, a function `from_parameters` beside it, and one line
in `ENGINES`.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from spear_policy.geometry.poses import Chunk, Pose
from spear_policy.shared.programs import missing_library


@dataclass(frozen=True)
class CameraSpec:
    """A camera that an engine wants: images arrive as (height, width, 3) uint8 RGB."""

    name: str  # "external" or "wrist"
    width: int
    height: int
    required: bool = True


@dataclass(frozen=True)
class EngineCard:
    """What an engine needs from the graph and promises to it; the policy node checks both.

    Attributes:
        engine: its name in `ENGINES`.
        checkpoint_id: which weights, script or recording answers.
        cameras: the cameras that it reads; empty when it reads none.
        dt_s, chunk_length: time between steps [s] and steps in a chunk.
        anchor_kind: "measured" or "commanded": the pose that its deltas start from.
        needs_objects: it reads ground-truth object poses (simulation only).
        publishes_images: it brings its own recorded images, which replace the cameras'.
        statistics_hash: hash of its normalisation statistics; empty when it normalises nothing.
    """

    engine: str
    checkpoint_id: str
    cameras: tuple[CameraSpec, ...] = ()
    dt_s: float = 0.2
    chunk_length: int = 5
    anchor_kind: str = "measured"
    needs_objects: bool = False
    publishes_images: bool = False
    statistics_hash: str = ""


@dataclass(frozen=True)
class SceneObject:
    """A ground-truth object: its centre pose in the base frame and its size along its axes [m]."""

    pose: Pose
    size_m: tuple[float, float, float]


@dataclass(frozen=True)
class Observation:
    """What the robot sees and feels at one instant.

    Attributes:
        stamp_s: stamp of the external image, or of the state when there is no camera [s].
        measured, commanded: end-effector poses at stamp_s, base frame.
        gripper_opening: 0 closed .. 1 open, measured.
        instruction: the sentence to follow.
        images: (H, W, 3) uint8 RGB by camera name; an optional camera may be missing.
        objects: ground truth by name such as "red cube"; empty on a real robot.
    """

    stamp_s: float
    measured: Pose
    commanded: Pose
    gripper_opening: float
    instruction: str
    images: Mapping[str, NDArray] = field(default_factory=dict)
    objects: Mapping[str, SceneObject] = field(default_factory=dict)


class Engine(Protocol):
    """A policy. One worker thread calls it; it need not be thread-safe."""

    @property
    def card(self) -> EngineCard:
        """What it needs and promises; does not change after construction."""

    def warm_up(self) -> None:
        """Do every slow first-time thing now. Called once, before the node becomes active."""

    def reset(self, instruction: str) -> None:
        """Forget the past: a new instruction begins.

        Raises:
            ValueError: it cannot follow this instruction; the text says what it can follow.
        """

    def infer(self, observation: Observation) -> Chunk:
        """The next chunk, with stamp_s = observation.stamp_s; `final` when it is done.

        Raises:
            ValueError: the observation lacks something; the text names it.
        """

    def figures(self) -> Mapping[str, str]:
        """What a person should know, by name, for /diagnostics; an empty text is no news."""


@dataclass(frozen=True)
class EngineEntry:
    """An engine as the rest of the suite sees it before it is made.

    Attributes:
        module: has `from_parameters(params) -> Engine`, where `params` are those of policy_node by
            name. It is imported only then: torch takes seconds and memory that others do without.
        summary: what it is, for --help.
        needs: the parameter that it cannot do without; empty for none.
        made_by: the program that makes the file or folder which that parameter names.
        simulation_only: it reads ground truth.
        publishes_images: it brings its own images, so nobody else may publish any.
    """

    module: str
    summary: str
    needs: str = ""
    made_by: str = ""
    simulation_only: bool = False
    publishes_images: bool = False


ENGINES = {
    "spear": EngineEntry(
        "spear_policy.inference.spear_engine",
        "the model, from a checkpoint folder",
        needs="checkpoint",
        made_by="make_checkpoint",
    ),
    "scripted": EngineEntry(
        "spear_policy.inference.scripted",
        "pick and place by ground truth",
        simulation_only=True,
    ),
    "replay": EngineEntry(
        "spear_policy.inference.replay",
        "a recorded episode",
        needs="episode_file",
        made_by="import_episodes",
        publishes_images=True,
    ),
}


def make_engine(params: Mapping[str, Any]) -> Engine:
    """The engine that the parameters of policy_node ask for.

    Raises:
        ValueError: there is none of that name, or it lacks something; the text names the fix.
        OSError: one of its files cannot be read.
    """
    name = params["engine"]
    if name not in ENGINES:
        raise ValueError(f"parameter engine is {name!r}; it must be one of {', '.join(ENGINES)}")
    entry = ENGINES[name]
    if entry.needs and not params[entry.needs]:
        raise ValueError(f"engine {name!r} needs {entry.needs}; {entry.made_by} makes one")
    try:
        return importlib.import_module(entry.module).from_parameters(params)
    except ModuleNotFoundError as error:
        if not (sentence := missing_library(error, entry.module)):
            raise
        raise ValueError(sentence) from None
