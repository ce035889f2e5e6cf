"""MoGe's image encoder, a DINOv2 ViT: how far away things are (facts/model.md 1.5)."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from spear_policy.model.config import DepthEncoderConfig
from spear_policy.model.vision.position_tables import PositionTable, resample_by_offset
from spear_policy.model.vision.transformer import NORM_EPS, Block, patches

# ImageNet's, which DINOv2 was trained with.
MEAN_RGB = (0.485, 0.456, 0.406)
STD_RGB = (0.229, 0.224, 0.225)


class DepthEncoder(nn.Module):
    """ViT-L/14 in full size: 24 blocks, the outputs of several of them concatenated."""

    def __init__(self, config: DepthEncoderConfig, patch_size: int):
        """Build it without values; `initialisation.initialise` or a checkpoint gives them."""
        super().__init__()
        self.output_layers = config.output_layers
        resample = partial(resample_by_offset, offset=config.position_offset)
        self.patch = nn.Conv2d(3, config.width, patch_size, patch_size)
        self.class_token = nn.Parameter(torch.empty(config.width))
        self.class_position = nn.Parameter(torch.empty(config.width))
        # Only DINOv2's own training uses it; kept so that public weights load without remainder.
        self.mask_token = nn.Parameter(torch.empty(config.width))
        self.positions = PositionTable(config.position_grid, config.width, resample)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_width, gelu="none", layer_scale=True)
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)

    def forward(self, images: Sequence[Tensor]) -> Tensor:
        """Encode the cameras' images.

        Args:
            images: one (B, 3, H, W) a camera, RGB in [0, 1]; the sizes may differ.

        Returns:
            (B, N, width * outputs): the patches of all cameras in SigLIP's order, without class
            tokens; each output layer through the shared final norm.
        """
        tokens = [self._embed(image) for image in images]
        lengths = [each.shape[1] for each in tokens]
        x = torch.cat(tokens, dim=1)
        outputs = []
        for index, block in enumerate(self.blocks[: self.output_layers[-1] + 1]):
            x = block(x, lengths)
            if index in self.output_layers:
                images_of = x.split(lengths, dim=1)
                outputs.append(self.norm(torch.cat([each[:, 1:] for each in images_of], dim=1)))
        return torch.cat(outputs, dim=-1)

    def _embed(self, image):
        mean, std = _per_channel(MEAN_RGB, image), _per_channel(STD_RGB, image)
        embedded, rows, columns = patches(self.patch, (image - mean) / std)
        embedded = embedded + self.positions(rows, columns)
        first = (self.class_token + self.class_position).expand(embedded.shape[0], 1, -1)
        return torch.cat([first.to(embedded.dtype), embedded], dim=1)


def _per_channel(values, like):
    """(3, 1, 1), filled on the device: a copy from the host could not be part of a CUDA graph."""
    return torch.cat([like.new_full((1, 1, 1), value) for value in values])
