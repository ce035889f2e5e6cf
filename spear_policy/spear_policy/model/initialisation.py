"""Values for a model that no checkpoint fills (facts/model.md 2.2, 4.4)."""

import math

import torch
from torch import nn

from spear_policy.model.config import ModelConfig
from spear_policy.model.language.gemma import RmsNorm
from spear_policy.model.language.token_tables import TokenTables, initialise_coordinates
from spear_policy.model.spear import SpearModel
from spear_policy.model.vision.position_tables import PositionTable
from spear_policy.model.vision.transformer import LayerScale

TABLE_STD = 0.02  # of learned positions and of the depth projector, as in PaliGemma's code


def build(
    config: ModelConfig,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> SpearModel:
    """Make a model with random values; the same seed gives the same values on one device."""
    with torch.device("meta"):
        model = SpearModel(config)
    model = model.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    initialise(model, generator)
    return model.eval()


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Give values to every parameter of a module and of what is in it.

    Linear and convolution weights are LeCun normal (variance 1 / fan in), biases and the offsets
    of RMS norms are 0, layer norms and layer scales 1.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            fan_in = part.weight[0].numel()
            part.weight.normal_(0.0, 1.0 / math.sqrt(fan_in), generator=generator)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, nn.LayerNorm):
            part.weight.fill_(1.0)
            part.bias.zero_()
        elif isinstance(part, RmsNorm):
            part.weight.zero_()
        elif isinstance(part, LayerScale):
            part.gamma.fill_(1.0)
        elif isinstance(part, PositionTable):
            part.table.normal_(0.0, TABLE_STD, generator=generator)
        elif isinstance(part, TokenTables):
            # look-ups are multiplied by sqrt(width)
            width = part.words.shape[1]
            part.words.normal_(0.0, 1.0 / math.sqrt(width), generator=generator)
            # 1e-5 of the covariance is for words that mean something; these do not yet
            count = len(part.coordinates)
            rows = initialise_coordinates(part.words, count, scale=1.0, generator=generator)
            part.coordinates.copy_(rows)
    if isinstance(module, SpearModel):
        _initialise_image_parts(module, generator)


def _initialise_image_parts(model, generator):
    if model.depth is not None:
        for token in (model.depth.class_token, model.depth.class_position):
            token.normal_(0.0, TABLE_STD, generator=generator)
        model.depth.mask_token.zero_()
        projector = model.fusion.depth_projector.weight
        if model.config.depth_projector_init == "zero":
            projector.zero_()
        else:
            projector.normal_(0.0, TABLE_STD, generator=generator)
