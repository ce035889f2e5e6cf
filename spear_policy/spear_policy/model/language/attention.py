"""Multi-query attention, rotary positions, and which token may see which."""

import torch
import torch.nn.functional as F
from torch import Tensor


def rotary_tables(positions: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cosines and sines in fp32, each (B, S, head_dim / 2).

    Args:
        positions: (B, S), any real dtype.
        head_dim: even.
        base: 10,000 for Gemma.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device) / head_dim
    angles = positions.float().unsqueeze(-1) * (base ** -exponents.float())
    return angles.cos(), angles.sin()


def rotate(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Turn (x1, x2), the halves of the last dimension, into (x1 c - x2 s, x2 c + x1 s).

    Args:
        x: (B, S, heads, head_dim).
        tables: from `rotary_tables`.

    Returns:
        The same shape and dtype; the arithmetic is fp32.
    """
    cos, sin = (table.unsqueeze(-2) for table in tables)
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(x.dtype)


def multi_query_attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """Attention in which all query heads share one key/value head.

    The heads of a token become rows of one query block, so keys and values are read once and no
    tensor is transposed.

    Args:
        q: (B, S, heads, head_dim).
        k: (B, T, head_dim).
        v: (B, T, head_dim).
        allowed: None, or bool (B, 1, T) for all queries alike, or (B, S, T). A row that may see
            nothing gives undefined values: nobody may read it.

    Returns:
        (B, S, heads * head_dim).
    """
    batch, length, heads, _ = q.shape
    mask = None
    if allowed is not None:
        rows = allowed if allowed.shape[1] == 1 else allowed.repeat_interleave(heads, dim=1)
        mask = rows.unsqueeze(1)
    block = q.reshape(batch, 1, length * heads, -1)
    seen = F.scaled_dot_product_attention(block, k.unsqueeze(1), v.unsqueeze(1), mask)
    return seen.reshape(batch, length, -1)


def block_mask(blocks: Tensor, valid: Tensor, query_blocks: Tensor | None = None) -> Tensor:
    """Say who sees whom: valid tokens of one's own block and of the blocks before it.

    [images, text] are block 0, [state] block 1, [actions] block 2; each token of a causal answer
    is a block of its own (facts/model.md 1.8).

    Args:
        blocks: (B, T) block number of each key, ascending.
        valid: (B, T) false for padding.
        query_blocks: (B, S) of the queries; the keys' own when not given.

    Returns:
        bool (B, S, T).
    """
    queries = blocks if query_blocks is None else query_blocks
    return (blocks.unsqueeze(1) <= queries.unsqueeze(2)) & valid.unsqueeze(1)


def positions_of(valid: Tensor) -> Tensor:
    """Number the valid tokens (B, S) from 0; padding does not move what comes after it."""
    return (valid.long().cumsum(-1) - 1).clamp_min(0)
