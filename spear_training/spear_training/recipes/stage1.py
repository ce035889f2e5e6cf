"""Stage 1 of the paper (arXiv 2511.17411): SPEAR-VLM learns where things are in 3D.

1a aligns what is new, the depth encoder's projector and the 3D tokens, to a PaliGemma that stays
as it is. 1b then trains everything. Steps and batch are the paper's; what it does not give (rates,
decay, schedule, averaging) is PaliGemma's and LLaVA's habit, see docs/training.md.
"""

from dataclasses import replace

from spear_policy.model.config import ModelConfig, spear_vlm
from spear_training.train.config import OptimiserConfig, TrainConfig
from spear_training.train.vlm_task import VlmTaskConfig

BATCH = 512
PAPER_FOLDERS = {"egoexo4d": "", "bridge": ""}

# What learns, as multiples of the learning rate. Names are beginnings of parameters' names.
ALIGNED = {
    "siglip": 0.0,
    "depth": 0.0,
    "fusion": 1.0,
    "tokens.words": 0.0,
    "tokens.coordinates": 1.0,
    "language": 0.0,
}
WHOLE = dict.fromkeys(ALIGNED, 1.0)


def one_camera(model: ModelConfig) -> ModelConfig:
    """The same model with the external camera alone: stage 1 has one picture a question."""
    return replace(model, cameras=model.cameras[:1], expert=None)


def vlm_align() -> TrainConfig:
    """Stage 1a (paper, 3.2): both projectors and the rows of the 3D tokens."""
    return TrainConfig(
        name="vlm_align",
        about="stage 1a, section 3.2: projectors and 3D tokens, the rest frozen",
        machine="16 H200, 18 h together with vlm_3d (paper)",
        model=one_camera(spear_vlm()),
        task=VlmTaskConfig(mixture="paper", folders=PAPER_FOLDERS),
        trained=ALIGNED,
        optimiser=OptimiserConfig(1e-3, warmup_steps=100),
        steps=2_000,
        batch_size=BATCH,
        checkpoint_activations=True,
        compile=True,
        workers=8,
        validate_every=500,
    )


def vlm_3d() -> TrainConfig:
    """Stage 1b (paper, 3.2): everything, 3D tokens counted twice."""
    aligned = vlm_align()
    return replace(
        aligned,
        name="vlm_3d",
        about="stage 1b, section 3.2 and Table 1: all trained, lambda 2 on 3D tokens",
        task=replace(aligned.task, coordinate_weight=2.0),
        trained=WHOLE,
        optimiser=OptimiserConfig(1e-5, weight_decay=1e-6, warmup_steps=500),
        steps=10_000,
        ema_decay=0.999,
    )


RECIPES = (vlm_align, vlm_3d)
