"""Two kinds of image features become one token a patch for the language model.

Average is the paper's model: 0.5 * (P_s f_s + P_m f_m). It is the same family of functions as
one linear layer on the concatenation and keeps PaliGemma's projector (facts/model.md 0, row 2).
Image tokens are never scaled by sqrt(width), word embeddings are (1.6).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_policy.model.config import ModelConfig

POINT_FREQUENCIES = 8


class PointEmbedding(nn.Module):
    """3D points become features to add to SigLIP's: the paper's second fusion.

    The paper does not give the form. Ours: the coordinates and their sines and cosines at
    octaves of half a metre to 64 m wavelength, then a two-layer MLP. A patch without a valid
    point (NaN or infinite) adds nothing.
    """

    def __init__(self, width: int):
        """`width` is SigLIP's."""
        super().__init__()
        self.fc1 = nn.Linear(3 * (1 + 2 * POINT_FREQUENCIES), width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, points: Tensor) -> Tensor:
        """Embed (B, N, 3), one point a patch in its camera's frame (m), to (B, N, width)."""
        valid = torch.isfinite(points).all(-1, keepdim=True)
        points = torch.where(valid, points, 0.0).float()
        wavelengths_m = 0.5 * 2.0 ** torch.arange(POINT_FREQUENCIES, device=points.device)
        phases = (2 * torch.pi * points.unsqueeze(-1) / wavelengths_m).flatten(-2)
        features = torch.cat([points, phases.sin(), phases.cos()], dim=-1)
        hidden = F.gelu(self.fc1(features.to(self.fc1.weight.dtype)), approximate="tanh")
        return torch.where(valid, self.fc2(hidden), 0.0)


class Fusion(nn.Module):
    """The projectors, and how their outputs come together."""

    def __init__(self, config: ModelConfig):
        """Build what `config.fusion` asks for."""
        super().__init__()
        width = config.language.width
        self.siglip_projector = nn.Linear(config.siglip.width, width)
        self.depth_projector = self.point_embedding = None
        if config.fusion == "average":
            self.depth_projector = nn.Linear(config.depth.output_width, width)
        elif config.fusion == "point_map":
            self.point_embedding = PointEmbedding(config.siglip.width)

    def forward(
        self, siglip: Tensor, depth: Tensor | None = None, points: Tensor | None = None
    ) -> Tensor:
        """Fuse the features of the same patches.

        Args:
            siglip: (B, N, siglip width).
            depth: (B, N, depth output width), for fusion average.
            points: (B, N, 3), for fusion point_map.

        Returns:
            (B, N, language width).
        """
        if self.point_embedding is not None:
            siglip = siglip + self.point_embedding(points)
        tokens = self.siglip_projector(siglip)
        if self.depth_projector is not None:
            tokens = 0.5 * (tokens + self.depth_projector(depth))
        return tokens
