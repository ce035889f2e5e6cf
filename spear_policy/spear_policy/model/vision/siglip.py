"""SigLIP's image encoder: what is in the picture (facts/model.md 1.4)."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from spear_policy.model.config import SiglipConfig
from spear_policy.model.vision.position_tables import PositionTable, resample_to_size
from spear_policy.model.vision.transformer import NORM_EPS, Block, patches


class SiglipEncoder(nn.Module):
    """So400m/14 in full size: 27 blocks, no class token, no pooling head."""

    def __init__(self, config: SiglipConfig, patch_size: int):
        """Build it without values; `initialisation.initialise` or a checkpoint gives them."""
        super().__init__()
        resample = partial(resample_to_size, mode=config.position_interpolation)
        self.patch = nn.Conv2d(3, config.width, patch_size, patch_size)
        self.positions = PositionTable(config.position_grid, config.width, resample)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_width, gelu="tanh")
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)

    def forward(self, images: Sequence[Tensor]) -> Tensor:
        """Encode the cameras' images.

        Args:
            images: one (B, 3, H, W) a camera, RGB in [0, 1]; the sizes may differ.

        Returns:
            (B, N, width): the patches of all cameras, camera after camera, row by row.
        """
        tokens = []
        for image in images:
            embedded, rows, columns = patches(self.patch, 2.0 * image - 1.0)
            tokens.append(embedded + self.positions(rows, columns))
        lengths = [each.shape[1] for each in tokens]
        x = torch.cat(tokens, dim=1)
        for block in self.blocks:
            x = block(x, lengths)
        return self.norm(x)
