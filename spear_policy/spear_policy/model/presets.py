"""Configurations by name.

spear1 and spear_vlm are the paper's; pi0_paligemma is its baseline without the depth encoder;
small and tiny have every part of spear1 at a size for one GPU and for a CPU.
"""

from dataclasses import replace

from spear_policy.model.config import (
    CameraConfig,
    DepthEncoderConfig,
    ExpertConfig,
    LanguageConfig,
    ModelConfig,
    SiglipConfig,
    VocabularyConfig,
)
from spear_policy.model.config_reading import ConfigError

_FULL_CAMERAS = (CameraConfig("external", 280, 210), CameraConfig("wrist", 112, 112))


def spear1() -> ModelConfig:
    """SPEAR-1 as the paper describes it: 3.55 billion parameters."""
    return replace(spear_vlm(), name="spear1", expert=ExpertConfig(width=1024, mlp_width=4096))


def spear_vlm() -> ModelConfig:
    """SPEAR-VLM, the model of stage 1: PaliGemma-3B with MoGe's encoder and 1024 3D tokens."""
    return ModelConfig(
        name="spear_vlm",
        patch_size=14,
        cameras=_FULL_CAMERAS,
        siglip=SiglipConfig(width=1152, layers=27, heads=16, mlp_width=4304),
        depth=DepthEncoderConfig(
            width=1024, layers=24, heads=16, mlp_width=4096, output_layers=(20, 21, 22, 23)
        ),
        fusion="average",
        language=LanguageConfig(width=2048, layers=18, mlp_width=16384, heads=8, head_dim=256),
        vocabulary=VocabularyConfig(
            size=257_152, loc_begin=256_000, loc_tokens=1024, coordinate_tokens=1024
        ),
    )


def pi0_paligemma() -> ModelConfig:
    """The paper's baseline: spear1 without a depth encoder, on plain PaliGemma."""
    return replace(spear1(), name="pi0_paligemma", depth=None, fusion="none")


def small() -> ModelConfig:
    """27 million parameters, the paper's images (`model_info --preset small`)."""
    return ModelConfig(
        name="small",
        patch_size=14,
        cameras=_FULL_CAMERAS,
        siglip=SiglipConfig(width=256, layers=6, heads=4, mlp_width=1024),
        depth=DepthEncoderConfig(
            width=256, layers=8, heads=4, mlp_width=1024, output_layers=(4, 5, 6, 7)
        ),
        fusion="average",
        language=LanguageConfig(width=384, layers=6, mlp_width=1152, heads=6, head_dim=64),
        vocabulary=VocabularyConfig(
            size=2048, loc_begin=1024, loc_tokens=1024, coordinate_tokens=1024
        ),
        expert=ExpertConfig(width=192, mlp_width=768),
    )


def tiny() -> ModelConfig:
    """5.5 million parameters and small images, for tests and the demo on a CPU."""
    return ModelConfig(
        name="tiny",
        patch_size=14,
        cameras=(CameraConfig("external", 112, 84), CameraConfig("wrist", 56, 56)),
        siglip=SiglipConfig(width=128, layers=4, heads=4, mlp_width=256),
        depth=DepthEncoderConfig(
            width=128, layers=6, heads=4, mlp_width=512, output_layers=(2, 3, 4, 5)
        ),
        fusion="average",
        language=LanguageConfig(width=192, layers=4, mlp_width=768, heads=4, head_dim=48),
        vocabulary=VocabularyConfig(size=512, loc_begin=448, loc_tokens=64, coordinate_tokens=64),
        expert=ExpertConfig(width=128, mlp_width=512),
    )


PRESETS = {make.__name__: make for make in (spear1, spear_vlm, pi0_paligemma, small, tiny)}


def preset(name: str) -> ModelConfig:
    """Return the configuration of that name.

    Raises:
        ConfigError: there is none; the message lists those that there are.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}: there are {', '.join(PRESETS)}")
    return PRESETS[name]()
