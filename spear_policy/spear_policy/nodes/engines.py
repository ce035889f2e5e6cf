"""From parameters to an engine, and the card's promises against the graph's settings."""

import math

from spear_policy.inference.engine import CameraSpec, Engine, EngineCard
from spear_policy.inference.episode import EpisodeError
from spear_policy.inference.replay import ReplayEngine
from spear_policy.inference.scripted import ScriptedEngine
from spear_policy.nodes.lifecycle import Refused
from spear_policy.nodes.policy_inputs import IMAGE_TOPICS

_SCRIPTED_CAMERAS = {"none": (), "external": ("external",), "both": ("external", "wrist")}


def make_engine(params) -> Engine:
    """The engine that the parameters name. Raises Refused when there is none."""
    if params["engine"] == "spear":
        return _spear_engine(params)
    if params["engine"] == "scripted":
        # Any size will do: it does not look at the images.
        names = _SCRIPTED_CAMERAS[params["scripted_cameras"]]
        return ScriptedEngine(cameras=tuple(CameraSpec(name, 0, 0) for name in names))
    if not params["episode_file"]:
        raise Refused("engine 'replay' needs episode_file; make one with import_episodes")
    try:
        return ReplayEngine.from_file(params["episode_file"], dt_s=params["step_dt_s"])
    except EpisodeError as error:
        raise Refused(str(error)) from None


def _spear_engine(params) -> Engine:
    # Imported only here: torch takes seconds and memory that the other engines do without.
    from spear_policy.inference.spear_engine import SpearEngine

    if not params["checkpoint"]:
        raise Refused("engine 'spear' needs checkpoint, the folder of one; see make_checkpoint")
    names = [name.strip() for name in params["absent_cameras"].split(",")]
    try:
        return SpearEngine.from_folder(
            params["checkpoint"],
            params["robot"],
            device=params["device"],
            dtype=params["weights_dtype"],
            threads=params["torch_threads"],
            seed=params["sampling_seed"],
            steps=params["denoising_steps"] or None,
            absent=tuple(name for name in names if name),
            compile=params["compile"],
            graphs=params["cuda_graphs"],
        )
    except (ValueError, OSError) as error:
        raise Refused(str(error)) from None


def check_card(card: EngineCard, step_dt_s: float, inference_period_s: float) -> None:
    """Raise Refused when the card and the settings of the graph disagree."""
    if not math.isclose(card.dt_s, step_dt_s, rel_tol=1e-6):
        raise Refused(
            f"{card.checkpoint_id} steps every {card.dt_s:g} s and step_dt_s is {step_dt_s:g} s; "
            "set step_dt_s to what the checkpoint was made with, in the driver too"
        )
    if inference_period_s > card.dt_s * card.chunk_length:
        raise Refused(
            f"inference_period_s is {inference_period_s:g} s, longer than a chunk of "
            f"{card.chunk_length} steps of {card.dt_s:g} s: the arm would stop between chunks"
        )
    unknown = sorted({spec.name for spec in card.cameras} - set(IMAGE_TOPICS))
    if unknown:
        raise Refused(
            f"{card.checkpoint_id} wants cameras named {', '.join(unknown)}; the graph has "
            f"{', '.join(IMAGE_TOPICS)}"
        )
