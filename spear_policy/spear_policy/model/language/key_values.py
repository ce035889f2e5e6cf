"""What attention remembers of tokens already read: keys and values of every layer.

Both kinds have the same two verbs. `view` gives a layer's kept tokens followed by new ones;
`keep` says that the tokens viewed last belong to the memory from now on. Without `keep` the next
`view` replaces them, which is what ten denoising steps over the same prefix need.
"""

import torch
from torch import Tensor


class GrowingMemory:
    """Concatenates; gradients flow through it. For training."""

    def __init__(self, layers: int):
        """Begin empty."""
        self.length = 0
        self._kept: list[tuple[Tensor, Tensor] | None] = [None] * layers
        self._viewed = list(self._kept)

    def view(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return kept and new keys and values of a layer, each (B, length + S, head_dim)."""
        kept = self._kept[layer]
        if kept is not None:
            k, v = torch.cat([kept[0], k], dim=1), torch.cat([kept[1], v], dim=1)
        self._viewed[layer] = (k, v)
        return k, v

    def keep(self, count: int) -> None:
        """Keep the `count` tokens that every layer viewed last."""
        self._kept = list(self._viewed)
        self.length += count


class FixedMemory:
    """Writes into buffers made once; nothing is copied again. For inference only.

    Attributes:
        length: tokens kept.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        capacity: int,
        head_dim: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        """Make room for `capacity` tokens, those of the widest view included."""
        self.length = 0
        shape = (layers, batch, capacity, head_dim)
        self._keys = torch.empty(shape, device=device, dtype=dtype)
        self._values = torch.empty_like(self._keys)

    def view(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return kept and new keys and values of a layer, each (B, length + S, head_dim).

        Raises:
            ValueError: the tokens do not fit; the buffers stay as they were.
        """
        begin, end = self.length, self.length + k.shape[1]
        keys, values = self._keys[layer], self._values[layer]
        if end > keys.shape[1]:
            raise ValueError(f"{end} tokens do not fit a memory made for {keys.shape[1]}")
        keys[:, begin:end], values[:, begin:end] = k, v
        return keys[:, :end], values[:, :end]

    def keep(self, count: int) -> None:
        """Keep the `count` tokens that every layer viewed last."""
        self.length += count


KeyValues = GrowingMemory | FixedMemory
