"""Stage 2 of the paper (arXiv 2511.17411): demonstrations, then one robot's own.

`vla_pretrain` is section 3.3, the post-trainings start from its checkpoint. Steps, batch and
mixture are the paper's; what it does not give is openpi's, see docs/training.md. What matters of
stage 2 is compared on Bridge at 30k steps of 512, as the paper does (Tables 9 and 11).
"""

from collections.abc import Callable
from dataclasses import replace

from spear_policy.model.config import pi0_paligemma, spear1
from spear_training.train.config import OptimiserConfig, TrainConfig
from spear_training.train.vla_task import VlaTaskConfig

# MoGe stays as stage 1 has left it; 3D tokens are not read.
TRAINED = {
    "siglip": 1.0,
    "depth": 0.0,
    "fusion": 1.0,
    "tokens.words": 1.0,
    "tokens.coordinates": 0.0,
    "language": 1.0,
    "expert": 1.0,
}
ADAMW = OptimiserConfig(
    5e-5,
    betas=(0.9, 0.95),
    weight_decay=1e-10,
    warmup_steps=1_000,
    final_share=0.1,
)


def vla_pretrain() -> TrainConfig:
    """Pre-training on the 25 datasets of Table 4 (paper, 3.3)."""
    return TrainConfig(
        name="vla_pretrain",
        about="stage 2, section 3.3: Open X-Embodiment, MoGe frozen, SigLIP trained",
        machine="32 H200, about 6 days (paper)",
        model=spear1(),
        task=VlaTaskConfig(mixture="oxe", robots={"bridge": "widowx", "droid": "franka"}),
        trained=TRAINED,
        optimiser=ADAMW,
        steps=300_000,
        batch_size=2_048,
        ema_decay=0.999,
        checkpoint_activations=True,
        compile=True,
        workers=8,
        log_every=50,
        validate_every=5_000,
        checkpoint_every=1_000,
    )


def _post_training(name: str, dataset: str, robot: str) -> TrainConfig:
    whole = vla_pretrain()
    return replace(
        whole,
        name=name,
        about=f"post-training on {dataset}, section 3.3; start=a checkpoint of vla_pretrain",
        machine="32 H200, a sixth of the pre-training's steps (paper)",
        task=replace(whole.task, only=dataset, robots={dataset: robot}, robot_dataset=dataset),
        steps=50_000,
    )


def vla_bridge() -> TrainConfig:
    """Post-training for the WidowX of BridgeData."""
    return _post_training("vla_bridge", "bridge", "widowx")


def vla_droid() -> TrainConfig:
    """Post-training for the Franka of DROID."""
    return _post_training("vla_droid", "droid", "franka")


def finetune_trials() -> TrainConfig:
    """A lab's own recordings, imported from its bags or a LeRobot set."""
    whole = vla_pretrain()
    return replace(
        whole,
        name="finetune_trials",
        about="your own demonstrations, from a post-trained checkpoint; all but MoGe learns",
        machine="one node of 8 GPUs; not measured",
        task=VlaTaskConfig(mixture=""),
        optimiser=replace(ADAMW, peak_learning_rate=2.5e-5, warmup_steps=500),
        steps=10_000,
        batch_size=64,
        log_every=20,
        validate_every=1_000,
        checkpoint_every=500,
    )


def finetune_trials_lora() -> TrainConfig:
    """The same on one GPU: corrections of the language model, its words and SigLIP frozen."""
    whole = finetune_trials()
    return replace(
        whole,
        name="finetune_trials_lora",
        about="your own demonstrations on one GPU: LoRA on the language model; expert in full",
        machine="one GPU of 24 GB by the estimate of --dry-run; not measured",
        task=VlaTaskConfig(mixture="", lora_rank=16),
        trained={**TRAINED, "siglip": 0.0, "tokens.words": 0.0},
        batch_size=32,
        micro_batches=16,
        ema_decay=None,
    )


# What matters of stage 2 -------------------------------------------------------------------------


def vla_ablation() -> TrainConfig:
    """What the variants are compared with: Bridge alone, from stage 1."""
    return replace(
        vla_bridge(),
        name="vla_ablation",
        about="Bridge alone from stage 1, 30k steps of 512: what the variants are compared with",
        machine="the paper gives none",
        steps=30_000,
        batch_size=512,
    )


def _variant(name: str, about: str, change: Callable[[TrainConfig], TrainConfig]):
    def make() -> TrainConfig:
        base = vla_ablation()
        return replace(change(base), name=f"{base.name}_{name}", about=f"vla_ablation with {about}")

    make.__name__ = f"vla_ablation_{name}"
    make.__doc__ = f"{about}."
    return make


def _training(**scales: float) -> Callable[[TrainConfig], TrainConfig]:
    return lambda config: replace(config, trained={**config.trained, **scales})


def _flow(**changes) -> Callable[[TrainConfig], TrainConfig]:
    def change(config: TrainConfig) -> TrainConfig:
        flow = replace(config.model.flow, **changes)
        return replace(config, model=replace(config.model, flow=flow))

    return change


def _without_depth(config: TrainConfig) -> TrainConfig:
    trained = {part: scale for part, scale in config.trained.items() if part != "depth"}
    return replace(config, model=pi0_paligemma(), trained=trained)


ABLATIONS = (
    _variant("no_depth", "no depth encoder, plain PaliGemma (Table 1, row 1)", _without_depth),
    _variant("frozen_siglip", "SigLIP frozen (Table 9)", _training(siglip=0.0)),
    _variant("slow_siglip", "a tenth of the rate on SigLIP (Table 9)", _training(siglip=0.1)),
    _variant("trained_depth", "both encoders trained (Table 9)", _training(depth=1.0)),
    _variant("linear", "rotations as plain 4-vectors (Table 11)", _flow(rotation="r4")),
    _variant(
        "linear_mse",
        "rotations as plain 4-vectors, squared errors alone (Table 11)",
        _flow(rotation="r4", rotation_velocity_loss="mse", rotation_geometric_loss="none"),
    ),
    _variant(
        "mse",
        "the sphere with squared errors alone (Table 11)",
        _flow(rotation_velocity_loss="mse", rotation_geometric_loss="none"),
    ),
    _variant("matrix", "rotations as matrices (Table 11)", _flow(rotation="matrix")),
    _variant("euler", "rotations as Euler angles (Table 11)", _flow(rotation="euler")),
)
RECIPES = (
    vla_pretrain,
    vla_bridge,
    vla_droid,
    finetune_trials,
    finetune_trials_lora,
    vla_ablation,
    *ABLATIONS,
)
