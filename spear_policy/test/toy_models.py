"""Models small enough to check by hand, with every part of the full one."""

from dataclasses import replace

import torch

from spear_policy.model.config import (
    CameraConfig,
    DepthEncoderConfig,
    ExpertConfig,
    LanguageConfig,
    ModelConfig,
    SiglipConfig,
    VocabularyConfig,
)
from spear_policy.model.spear import ModelInputs, build

MICRO = ModelConfig(
    name="micro",
    patch_size=14,
    cameras=(CameraConfig("external", 56, 42), CameraConfig("wrist", 28, 28)),
    siglip=SiglipConfig(width=64, layers=2, heads=4, mlp_width=128, position_grid=4),
    depth=DepthEncoderConfig(
        width=64, layers=5, heads=4, mlp_width=128, output_layers=(1, 2, 3, 4), position_grid=5
    ),
    language=LanguageConfig(width=64, layers=3, mlp_width=128, heads=4, head_dim=16),
    vocabulary=VocabularyConfig(size=512, loc_begin=448, loc_tokens=64, coordinate_tokens=64),
    expert=ExpertConfig(width=32, mlp_width=64),
)


def micro(seed=0, **changes):
    """A model whose every parameter is random, norms and biases too."""
    model = build(replace(MICRO, **changes), seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def observation(config=MICRO, batch=2, words=6, seed=0, **changes):
    """A batch of random but lawful inputs."""
    generator = torch.Generator().manual_seed(seed)
    images = tuple(
        torch.rand(batch, 3, camera.height, camera.width, generator=generator)
        for camera in config.cameras
    )
    rotation = torch.nn.functional.normalize(torch.randn(batch, 4, generator=generator), dim=-1)
    position, gripper = torch.rand(batch, 3, generator=generator), torch.ones(batch, 1)
    values = {
        "images": images,
        "text_ids": torch.randint(3, 440, (batch, words), generator=generator),
        "state": torch.cat([position, rotation, gripper], dim=1),
    }
    return ModelInputs(**values | changes)
