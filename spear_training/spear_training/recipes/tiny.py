"""Stage 1 at a laptop's size, on generated scenes whose truth is known.

The same tasks, loop and order of stages; sizes, steps and rates are chosen by trial
(docs/results.md has the trials). `tiny_depth` stands for MoGe's pre-training, for which a small
encoder has no public weights.
"""

from dataclasses import replace

from spear_policy.model.config import (
    CameraConfig,
    DepthEncoderConfig,
    ExpertConfig,
    FlowConfig,
    LanguageConfig,
    ModelConfig,
    SiglipConfig,
    VocabularyConfig,
)
from spear_training.recipes.ablations import recipes_of
from spear_training.recipes.stage1 import ALIGNED, WHOLE
from spear_training.recipes.stage2 import TRAINED
from spear_training.train.config import OptimiserConfig, TrainConfig
from spear_training.train.depth_task import DepthTaskConfig
from spear_training.train.vla_task import VlaTaskConfig
from spear_training.train.vlm_task import VlmTaskConfig

BATCH = 32


def tiny_vlm() -> ModelConfig:
    """About two million parameters; one camera of 112x84, 48 patches."""
    return ModelConfig(
        name="tiny_vlm",
        patch_size=14,
        cameras=(CameraConfig("external", 112, 84),),
        siglip=SiglipConfig(width=96, layers=3, heads=4, mlp_width=256, position_grid=8),
        depth=DepthEncoderConfig(
            width=96, layers=4, heads=4, mlp_width=256, output_layers=(2, 3), position_grid=8
        ),
        language=LanguageConfig(width=128, layers=4, mlp_width=384, heads=4, head_dim=32),
        vocabulary=VocabularyConfig(size=1024, loc_begin=960, loc_tokens=64, coordinate_tokens=256),
        max_text_tokens=64,
    )


def tiny_depth() -> TrainConfig:
    """The depth encoder learns rendered depth."""
    return TrainConfig(
        name="tiny_depth",
        about="depth encoder of tiny_vlm on rendered depth; in MoGe's place",
        machine="a laptop",
        model=tiny_vlm(),
        task=DepthTaskConfig(folder=""),
        trained={"depth": 1.0, "decoder": 1.0},
        optimiser=OptimiserConfig(1e-3, betas=(0.9, 0.95), weight_decay=1e-2, warmup_steps=100),
        steps=3_000,
        batch_size=BATCH,
        precision="fp32",
        workers=0,
        log_every=50,
        validate_every=500,
    )


def tiny_vlm_align() -> TrainConfig:
    """Stage 1a: as `vlm_align`, but the words learn too: no PaliGemma stands behind them."""
    return TrainConfig(
        name="tiny_vlm_align",
        about="stage 1a at a laptop's size; language and SigLIP learn too, as they begin random",
        machine="a laptop",
        model=tiny_vlm(),
        task=VlmTaskConfig(mixture="world_boxes", folders={"world": ""}),
        trained={**ALIGNED, "siglip": 1.0, "tokens.words": 1.0, "language": 1.0},
        optimiser=OptimiserConfig(
            2e-3, betas=(0.9, 0.95), weight_decay=1e-2, warmup_steps=200, decay="constant"
        ),
        steps=1_500,
        batch_size=BATCH,
        micro_batches=4,  # rows of like length: two thirds of the time of one
        precision="fp32",
        workers=0,
        log_every=50,
        validate_every=1_000,
    )


def tiny_vlm_3d() -> TrainConfig:
    """Stage 1b: everything, 3D tokens counted twice."""
    aligned = tiny_vlm_align()
    return replace(
        aligned,
        name="tiny_vlm_3d",
        about="stage 1b at a laptop's size: all trained, lambda 2 on 3D tokens",
        task=replace(aligned.task, coordinate_weight=2.0),
        trained=WHOLE,
        optimiser=replace(aligned.optimiser, decay="cosine"),
        steps=5_000,
        ema_decay=0.999,
    )


def tiny_spear() -> ModelConfig:
    """`tiny_vlm` with a wrist camera and an action expert: its stage 1 fits."""
    return replace(
        tiny_vlm(),
        name="tiny_spear",
        cameras=(CameraConfig("external", 112, 84), CameraConfig("wrist", 56, 56)),
        expert=ExpertConfig(width=128, mlp_width=256),
        flow=FlowConfig(rot_geo_scale="inv_delta", steps=5),
        max_text_tokens=32,
    )


def tiny_vla() -> TrainConfig:
    """Stage 2 at a laptop's size: everything but the depth encoder, four draws a sample."""
    return TrainConfig(
        name="tiny_vla",
        about="stage 2 at a laptop's size, on stores of your own",
        machine="a laptop",
        model=tiny_spear(),
        task=VlaTaskConfig(mixture="", draws=4),
        trained=TRAINED,
        optimiser=OptimiserConfig(1e-3, betas=(0.9, 0.95), weight_decay=1e-2, warmup_steps=200),
        steps=10_000,
        batch_size=BATCH,
        precision="fp32",
        ema_decay=0.999,
        workers=0,
        log_every=50,
        validate_every=1_000,
    )


RECIPES = (tiny_depth, tiny_vlm_align, tiny_vlm_3d, *recipes_of(tiny_vlm_3d), tiny_vla)
