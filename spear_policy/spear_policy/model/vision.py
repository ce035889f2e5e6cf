"""From images to one token a patch: two encoders that look at the same pixels, and their fusion.

SigLIP says what is in the picture, MoGe's DINOv2 how far away it is. In order:
learned positions resampled to any image's grid, the transformer block of both encoders, the
encoders, and how their features become tokens of the language model.

Each encoder learned one square table of positions. The two projects resample it by different
rules, and the rule belongs to the weights: another one shifts every position.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_policy.model.config import DepthEncoderConfig, ModelConfig, SiglipConfig

# Learned positions, resampled to the grid of an image --------------------------------------------


def resample_to_size(table: Tensor, rows: int, columns: int, mode: str = "bicubic") -> Tensor:
    """SigLIP's rule: align the outer edges of both grids; half-pixel centres, no antialiasing.

    Args:
        table: (side * side, width), row-major.
        mode: bicubic or bilinear.

    Returns:
        (rows * columns, width) in fp32.
    """
    square = _as_picture(table)
    return _as_table(F.interpolate(square, size=(rows, columns), mode=mode, align_corners=False))


def resample_by_offset(table: Tensor, rows: int, columns: int, offset: float) -> Tensor:
    """MoGe's rule: bicubic by the factors (rows + offset) / side and (columns + offset) / side.

    The offset moves every sample a little; DINOv2 took it in to make the size round right. A
    grid of the table's own size stays as it is.

    Args:
        table: (side * side, width), row-major, without the class token.

    Returns:
        (rows * columns, width) in fp32.
    """
    square = _as_picture(table)
    side = square.shape[-1]
    if rows == columns == side:
        return table.float()
    factors = ((rows + offset) / side, (columns + offset) / side)
    return _as_table(F.interpolate(square, scale_factor=factors, mode="bicubic"))


Positions = Mapping[tuple[int, int], Tensor]  # by rows and columns, each (rows * columns, width)


class PositionTable(nn.Module):
    """A learned table of side x side positions, resampled anew for each use.

    Nothing is kept: no sign of a tensor tells reliably that its values were exchanged, as EMA
    weights and gathered shards are. Who knows that they stay, as the sampler does, resamples once
    and gives the encoders the `Positions`.
    """

    def __init__(self, side: int, width: int, resample):
        """`resample(table, rows, columns)` is one of this module's rules."""
        super().__init__()
        self.table = nn.Parameter(torch.empty(side * side, width))
        self._resample = resample

    def forward(self, rows: int, columns: int) -> Tensor:
        """Return the positions of a grid, (rows * columns, width), in the table's dtype."""
        return self._resample(self.table, rows, columns).to(self.table.dtype)


def _as_picture(table):
    side = round(table.shape[0] ** 0.5)
    if side * side != table.shape[0]:
        raise ValueError(f"a position table of {table.shape[0]} rows is not square")
    return table.float().view(1, side, side, -1).permute(0, 3, 1, 2)


def _as_table(picture):
    return picture.squeeze(0).flatten(1).T


# The transformer block of both encoders ----------------------------------------------------------

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

    The images of all cameras lie one after the other, so that one matrix product serves them all
    and the weights are read once; attention stays within each image.

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


def patches(embedding: nn.Conv2d, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Embed an image's patches, row by row.

    Args:
        embedding: a convolution whose stride is its kernel.
        image: (B, 3, H, W).

    Returns:
        (B, rows * columns, width), and (rows, columns).
    """
    grid = embedding(image)
    return grid.flatten(2).transpose(1, 2), tuple(grid.shape[-2:])


# SigLIP ------------------------------------------------------------------------------------------


class SiglipEncoder(nn.Module):
    """So400m/14 in full size: 27 blocks, no class token, no pooling head."""

    def __init__(self, config: SiglipConfig, patch_size: int):
        """Build it without values; `spear.initialise` or a checkpoint gives them."""
        super().__init__()
        resample = partial(resample_to_size, mode=config.position_interpolation)
        self.patch = nn.Conv2d(3, config.width, patch_size, patch_size)
        self.positions = PositionTable(config.position_grid, config.width, resample)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_width, gelu="tanh")
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)

    def forward(self, images: Sequence[Tensor], positions: Positions | None = None) -> Tensor:
        """Encode the cameras' images.

        Args:
            images: one (B, 3, H, W) a camera, RGB in [0, 1]; the sizes may differ.
            positions: of their grids; resampled when not given.

        Returns:
            (B, N, width): the patches of all cameras, camera after camera, row by row.
        """
        tokens = []
        for image in images:
            embedded, grid = patches(self.patch, 2.0 * image - 1.0)
            tokens.append(embedded + (positions[grid] if positions else self.positions(*grid)))
        lengths = [each.shape[1] for each in tokens]
        x = torch.cat(tokens, dim=1)
        for block in self.blocks:
            x = block(x, lengths)
        return self.norm(x)


# MoGe's DINOv2 -----------------------------------------------------------------------------------

# ImageNet's, which DINOv2 was trained with.
MEAN_RGB = (0.485, 0.456, 0.406)
STD_RGB = (0.229, 0.224, 0.225)


class DepthEncoder(nn.Module):
    """ViT-L/14 in full size: 24 blocks, outputs of several concatenated."""

    def __init__(self, config: DepthEncoderConfig, patch_size: int):
        """Build it without values; `spear.initialise` or a checkpoint gives them."""
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

    def forward(self, images: Sequence[Tensor], positions: Positions | None = None) -> Tensor:
        """Encode the cameras' images.

        Args:
            images: one (B, 3, H, W) a camera, RGB in [0, 1]; the sizes may differ.
            positions: of their grids; resampled when not given.

        Returns:
            (B, N, width * outputs): the patches of all cameras in SigLIP's order, without class
            tokens; each output layer through the shared final norm.
        """
        tokens = [self._embed(image, positions) for image in images]
        lengths = [each.shape[1] for each in tokens]
        x = torch.cat(tokens, dim=1)
        outputs = []
        for index, block in enumerate(self.blocks[: self.output_layers[-1] + 1]):
            x = block(x, lengths)
            if index in self.output_layers:
                images_of = x.split(lengths, dim=1)
                outputs.append(self.norm(torch.cat([each[:, 1:] for each in images_of], dim=1)))
        return torch.cat(outputs, dim=-1)

    def _embed(self, image, positions):
        mean, std = _per_channel(MEAN_RGB, image), _per_channel(STD_RGB, image)
        embedded, grid = patches(self.patch, (image - mean) / std)
        embedded = embedded + (positions[grid] if positions else self.positions(*grid))
        first = (self.class_token + self.class_position).expand(embedded.shape[0], 1, -1)
        return torch.cat([first.to(embedded.dtype), embedded], dim=1)


def _per_channel(values, like):
    """(3, 1, 1), filled on the device: a copy from the host could not be part of a CUDA graph."""
    return torch.cat([like.new_full((1, 1, 1), value) for value in values])


# Fusion ------------------------------------------------------------------------------------------


class Fusion(nn.Module):
    """The projectors, and how their outputs come together.

    Average is the paper's model: 0.5 * (P_s f_s + P_m f_m). It is the same family of functions as
    one linear layer on the concatenation and keeps PaliGemma's projector. Image
    tokens are never scaled by sqrt(width), word embeddings are.
    """

    def __init__(self, config: ModelConfig):
        """One projector, or two with a depth encoder."""
        super().__init__()
        width = config.language.width
        self.siglip_projector = nn.Linear(config.siglip.width, width)
        self.depth_projector = nn.Linear(config.depth.output_width, width) if config.depth else None

    def forward(self, siglip: Tensor, depth: Tensor | None = None) -> Tensor:
        """Fuse the features of the same patches.

        Args:
            siglip: (B, N, siglip width).
            depth: (B, N, depth output width), if there is a depth encoder.

        Returns:
            (B, N, language width).
        """
        tokens = self.siglip_projector(siglip)
        if self.depth_projector is not None:
            tokens = 0.5 * (tokens + self.depth_projector(depth))
        return tokens
