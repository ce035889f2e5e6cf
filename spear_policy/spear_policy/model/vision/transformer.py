"""The transformer block of both image encoders, over several images packed into one sequence.

Packing lets one matrix product serve all cameras, so the weights are read once; attention stays
within each image.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, width: int):
        """Begin with ones, as the released DINOv2 code does for training from its weights."""
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """Scale (..., width)."""
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm attention and MLP, with biases.

    SigLIP: tanh GELU, no layer scale. DINOv2: exact GELU and layer scale.
    """

    def __init__(
        self, width: int, heads: int, mlp_width: int, *, gelu: str, layer_scale: bool = False
    ):
        """`gelu` is tanh (the approximation) or none (exact)."""
        super().__init__()
        self.heads = heads
        self.gelu = gelu
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.scale1 = LayerScale(width) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.fc1 = nn.Linear(width, mlp_width)
        self.fc2 = nn.Linear(mlp_width, width)
        self.scale2 = LayerScale(width) if layer_scale else nn.Identity()

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return (B, N, width) from (B, N, width); `lengths` are the tokens of each image."""
        x = x + self.scale1(self._attend(self.norm1(x), lengths))
        hidden = F.gelu(self.fc1(self.norm2(x)), approximate=self.gelu)
        return x + self.scale2(self.fc2(hidden))

    def _attend(self, x, lengths):
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        images = qkv.split(list(lengths), dim=3)
        seen = [F.scaled_dot_product_attention(q, k, v) for q, k, v in images]
        return self.out(torch.cat(seen, dim=2).transpose(1, 2).flatten(2))


def patches(embedding: nn.Conv2d, image: Tensor) -> tuple[Tensor, int, int]:
    """Embed an image's patches, row by row.

    Args:
        embedding: a convolution whose stride is its kernel.
        image: (B, 3, H, W).

    Returns:
        (B, rows * columns, width), rows, columns.
    """
    grid = embedding(image)
    return grid.flatten(2).transpose(1, 2), *grid.shape[-2:]
