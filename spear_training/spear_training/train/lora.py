"""Low-rank adapters: a large layer stays as it is and learns a small correction.

y = W x + B A x with A (rank x in) and B (out x rank), B zero at the start (Hu et al., "LoRA",
arXiv 2106.09685). The factor alpha / rank is 1, as in openpi. Only A and B have gradients and
optimiser state, which is what fits a fine-tuning into one GPU. For use they are added to W, so a
checkpoint is one of the plain model and costs nothing more on a robot.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_training.train.config import TrainingError


class AdaptedLinear(nn.Linear):
    """A linear layer with a correction; its own weight keeps its name.

    Attributes:
        adapter_in: A, (rank, in).
        adapter_out: B, (out, rank).
    """

    def __init__(self, plain: nn.Linear, rank: int):
        """Take over a layer's weight, and freeze it."""
        with torch.device("meta"):
            super().__init__(plain.in_features, plain.out_features, plain.bias is not None)
        self.weight, self.bias = plain.weight.requires_grad_(False), plain.bias
        like = {"device": plain.weight.device, "dtype": plain.weight.dtype}
        self.adapter_in = nn.Parameter(torch.empty(rank, plain.in_features, **like))
        self.adapter_out = nn.Parameter(torch.zeros(plain.out_features, rank, **like))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer and its correction to (..., in)."""
        return super().forward(x) + F.linear(F.linear(x, self.adapter_in), self.adapter_out)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain layer that computes the same."""
        with torch.device("meta"):
            plain = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        plain.weight = nn.Parameter(self.weight + self.adapter_out @ self.adapter_in)
        plain.bias = self.bias
        return plain


def add_adapters(model: nn.Module, part: str, rank: int, seed: int = 0) -> int:
    """Give the linear layers of a part of a model adapters, and freeze their own weights.

    Args:
        model: with values, or on the meta device.
        part: name of one of its modules, such as "language".
        rank: of the corrections.
        seed: of A; B is zero.

    Returns:
        How many layers.

    Raises:
        TrainingError: the rank is not below the width of a layer, or the part has no such layer.
    """
    generator, count = torch.Generator().manual_seed(seed), 0
    for name, owner in list(model.get_submodule(part).named_modules(prefix=part)):
        for key, layer in list(owner.named_children()):
            # What is frozen already is not read by this training.
            if type(layer) is not nn.Linear or not layer.weight.requires_grad:
                continue
            if not 0 < rank < min(layer.in_features, layer.out_features):
                raise TrainingError(
                    f"lora_rank is {rank}, and {name}.{key} is {layer.out_features} x "
                    f"{layer.in_features}: it must be smaller"
                )
            adapted = AdaptedLinear(layer, rank)
            if not layer.weight.is_meta:
                drawn = torch.randn(rank, layer.in_features, generator=generator)
                with torch.no_grad():
                    adapted.adapter_in.copy_(drawn / math.sqrt(layer.in_features))
            setattr(owner, key, adapted)
            count += 1
    if not count:
        raise TrainingError(f"{part} has no linear layer that this training reads")
    return count


def merge_adapters(model: nn.Module) -> None:
    """Make every adapted layer the plain layer that computes the same."""
    for owner in list(model.modules()):
        for key, layer in list(owner.named_children()):
            if isinstance(layer, AdaptedLinear):
                setattr(owner, key, layer.merged())
