"""Gemma's decoder, for the language model and for the action expert alike.

Both read one KV cache: the expert's tokens attend to the keys and values of images and text. As
nothing in the prefix sees the expert's tokens, the joint attention of pi0 is exactly this: first
one stack, then the other over its cache (test_gemma.py compares it with the joint form).

In order: the embedding of tokens, the loss of answers, the KV cache of inference, multi-query
attention, the layers. A layer takes and returns keys and values as tensors and changes nothing
else, so that activation checkpointing and sharding see all that flows through it. Only where it is
given the room of a `StaticKVCache` does it write in place.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_policy.model.config import LanguageConfig, VocabularyConfig

# Embeddings of words and 3D tokens ---------------------------------------------------------------

NO_COLUMN = -100  # what cross_entropy ignores
ROWS_AT_ONCE = 16_384


class TokenEmbedding(nn.Module):
    """Embeddings of text.

    The 3D tokens have a parameter of their own, so that stage 1a can train them alone. Columns of
    the logits are the rows of both tables in turn; <image> has an id but no row, so from there on
    a column is one less than its id.

    Attributes:
        words: (size, width) of words, <loc> and control tokens.
        coordinates: (coordinate_tokens, width) of 3D tokens.
    """

    def __init__(self, vocabulary: VocabularyConfig, width: int):
        """Make tables without values."""
        super().__init__()
        self.vocabulary = vocabulary
        self.words = nn.Parameter(torch.empty(vocabulary.size, width))
        self.coordinates = nn.Parameter(torch.empty(vocabulary.coordinate_tokens, width))
        # As transformers does: rounded to the table's dtype (45.25 for bf16 and width 2048).
        self._scales = {
            dtype: torch.tensor(math.sqrt(width), dtype=dtype, device="cpu").item()
            for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        }

    def embed(self, ids: Tensor) -> Tensor:
        """Look up ids of any shape: (..., width), rows times sqrt(width).

        <image> has no row: what it gives here must be replaced by image tokens, which enter
        unscaled.
        """
        words = F.embedding(ids.clamp(max=self.vocabulary.size - 1), self.words)
        if self.vocabulary.coordinate_tokens:
            index = ids - self.vocabulary.coordinate_begin
            coordinates = F.embedding(index.clamp(min=0), self.coordinates)
            words = torch.where(index.unsqueeze(-1) >= 0, coordinates, words)
        return words * self._scales[self.words.dtype]

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token, (..., size + coordinate_tokens), from the unscaled tables."""
        scores = (F.linear(hidden, table) for table in (self.words, self.coordinates))
        return torch.cat(list(scores), dim=-1)


def ids_from_columns(columns: Tensor, vocabulary: VocabularyConfig) -> Tensor:
    """Ids of the tokens that columns of the logits stand for."""
    return torch.where(columns >= vocabulary.size, columns + 1, columns)


def columns_from_ids(ids: Tensor, vocabulary: VocabularyConfig) -> Tensor:
    """Columns of the logits that stand for ids, for use as targets.

    <image> has no column and becomes -100, which cross_entropy ignores; negative ids stay.
    """
    columns = torch.where(ids > vocabulary.image_id, ids - 1, ids)
    return torch.where(ids == vocabulary.image_id, NO_COLUMN, columns)


@torch.no_grad()
def initialise_coordinates(
    words: Tensor, count: int, scale: float = 1e-5, generator: torch.Generator | None = None
) -> Tensor:
    """Draw rows of new tokens from a normal distribution around the rows there are.

    Its mean is that of the rows, its covariance theirs times `scale`. A draw
    is a random combination of the centred rows, which has exactly this covariance. So no matrix
    is factorised, and fewer rows than their width, a singular covariance, needs no second way.

    Args:
        words: (N, width), any dtype.
        count: rows to draw.
        scale: of the covariance.
        generator: on the device of `words`.

    Returns:
        (count, width) in fp32.

    Raises:
        ValueError: no rows, NaN or infinity in them, or a negative scale.
    """
    if len(words) < 1:
        raise ValueError("there are no rows of words to draw new ones around")
    if scale < 0:
        raise ValueError(f"scale is {scale}: a covariance cannot be negative")
    mean = words.mean(0, dtype=torch.float64).float()
    if not bool(torch.isfinite(mean).all()):
        raise ValueError("the word table is not finite: load it before drawing new rows from it")
    drawn = torch.zeros_like(mean).repeat(count, 1)
    for rows in words.split(ROWS_AT_ONCE):
        weights = torch.randn(count, len(rows), device=words.device, generator=generator)
        drawn += weights @ (rows.float() - mean)
    return mean + math.sqrt(scale / len(words)) * drawn


def ordered_coordinates(
    count: int, width: int, generator: torch.Generator | None = None, device=None
) -> Tensor:
    """Draw rows of 3D tokens for a table of random words: bins near each other have like rows.

    Each column is a wave over the bins, of random phase, from half a wave to one of 16 bins. So an
    answer that is a few bins off is nearly right from the first step on. Where words mean
    something already, the paper's draw around them counts (`initialise_coordinates`).

    Args:
        count: bins.
        width: of a row.
        generator: on `device`.

    Returns:
        (count, width) in fp32, rows of length 1 on average.
    """
    place = torch.arange(count, device=device)[:, None] / max(count, 1)
    highest = max(count / 16, 1.0)
    waves = 0.5 * (2 * highest) ** torch.linspace(0, 1, width, device=device)
    phase = torch.rand(width, generator=generator, device=device)
    return math.sqrt(2 / width) * torch.cos(2 * math.pi * (waves * place + phase))


# The loss of answers -----------------------------------------------------------------------------


def answer_loss(
    logits: Tensor,
    ids: Tensor,
    answer: Tensor,
    vocabulary: VocabularyConfig,
    *,
    coordinate_weight: float = 1.0,
    count: Tensor | float | None = None,
) -> Tensor:
    """Cross entropy of the answers' tokens, each predicted at the position before it. For stage 1.

    The sum over answer tokens, 3D tokens `coordinate_weight` times, over the number of answer
    tokens, whatever their weights are.

    Args:
        logits: (B, T, columns) from `SpearModel.text_logits`.
        ids: (B, T).
        answer: (B, T) bool, the tokens to predict, <eos> among them; see `prompts.QuestionBatch`.
        vocabulary: the model's.
        coordinate_weight: the paper's lambda: 1 in stage 1a, 2 in 1b.
        count: answer tokens of the whole step, where this batch is one of its parts (ranks,
            accumulation); those of this batch when not given.

    Returns:
        A scalar in fp32; 0 for a batch without answers.
    """
    ids, answer = ids[:, 1:], answer[:, 1:]
    targets = columns_from_ids(ids, vocabulary).where(answer, NO_COLUMN)
    scores = logits[:, :-1].flatten(0, 1).float()
    losses = F.cross_entropy(scores, targets.flatten(), ignore_index=NO_COLUMN, reduction="none")
    weights = torch.where(ids >= vocabulary.coordinate_begin, coordinate_weight, 1.0)
    count = answer.sum().clamp_min(1) if count is None else count
    return (losses * weights.flatten()).sum() / count


# Keys and values of tokens already read ----------------------------------------------------------

KeysValues = tuple[Tensor, Tensor]  # of one layer, each (B, tokens, head_dim)


class StaticKVCache:
    """Buffers made once, so that nothing is copied again. For inference only.

    Tokens that were written and not kept are replaced by the next ones, which is what ten
    denoising steps over the same prefix need.

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
        """Make buffers for `capacity` tokens, those included that are never kept."""
        self.length = 0
        shape = (layers, batch, capacity, head_dim)
        self._keys = torch.empty(shape, device=device, dtype=dtype)
        self._values = torch.empty_like(self._keys)

    def room(self, count: int) -> list[KeysValues]:
        """Views of each layer's kept tokens followed by `count` that it is to write.

        Raises:
            ValueError: the tokens do not fit; the buffers stay as they were.
        """
        end, capacity = self.length + count, self._keys.shape[2]
        if end > capacity:
            raise ValueError(f"{end} tokens do not fit a cache made for {capacity}")
        pairs = zip(self._keys[:, :, :end], self._values[:, :, :end], strict=True)
        return list(pairs)

    def keep(self, count: int) -> None:
        """Keep the first `count` tokens that every layer wrote last."""
        self.length += count


# Multi-query attention ---------------------------------------------------------------------------


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
    is a block of its own.

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


# Decoder layers ----------------------------------------------------------------------------------

NORM_EPS = 1e-6


class RmsNorm(nn.Module):
    """x / sqrt(mean x^2 + eps) * (1 + weight), computed in fp32."""

    def __init__(self, width: int):
        """The weight is an offset from one."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., width); the dtype stays."""
        normal = F.rms_norm(x.float(), x.shape[-1:], eps=NORM_EPS)
        return (normal * (1.0 + self.weight.float())).to(x.dtype)


class GemmaLayer(nn.Module):
    """One layer: multi-query attention and a gated MLP, no biases."""

    def __init__(self, width: int, mlp_width: int, heads: int, head_dim: int):
        """The query, key and value matrices are one, and so are gate and up."""
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.norm1 = RmsNorm(width)
        self.qkv = nn.Linear(width, (heads + 2) * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, width, bias=False)
        self.norm2 = RmsNorm(width)
        self.gate_up = nn.Linear(width, 2 * mlp_width, bias=False)
        self.down = nn.Linear(mlp_width, width, bias=False)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        allowed: Tensor | None,
        keys: Tensor | None = None,
        values: Tensor | None = None,
        in_place: bool = False,
        keys_only: bool = False,
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Run new tokens through the layer.

        Args:
            x: (B, S, width).
            rotary: from `rotary_tables`.
            allowed: see `multi_query_attention`; keys are the tokens before, then these.
            keys, values: (B, P, head_dim) of the tokens before; None: there are none.
            in_place: keys and values are `StaticKVCache.room`: write into their last S tokens.
            keys_only: compute nothing but the new tokens' keys and values.

        Returns:
            (B, S, width), or None for `keys_only`; keys and values, each (B, P + S, head_dim).
        """
        # flat arguments and results: reentrant checkpointing loses gradients inside of tuples
        heads = 0 if keys_only else self.heads
        found = _outputs(self.qkv, self.norm1(x), (self.heads - heads) * self.head_dim)
        qkv = found.unflatten(-1, (-1, self.head_dim))
        q, k, v = qkv.split([heads, 1, 1], dim=-2)
        k, v = rotate(k, rotary).squeeze(-2), v.squeeze(-2)
        if in_place:
            keys[:, -k.shape[1] :], values[:, -k.shape[1] :] = k, v
        elif keys is not None:
            keys, values = torch.cat([keys, k], dim=1), torch.cat([values, v], dim=1)
        else:
            keys, values = k, v
        if keys_only:
            return None, keys, values
        x = x + self.out(multi_query_attention(rotate(q, rotary), keys, values, allowed))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.gelu(gate, approximate="tanh") * up), keys, values


def _outputs(layer: nn.Linear, x: Tensor, first: int) -> Tensor:
    """The outputs of a linear layer without bias from number `first` on."""
    if type(layer) is nn.Linear:
        return F.linear(x, layer.weight[first:])
    return layer(x)[..., first:]  # in a training it may be more than its weight


class GemmaStack(nn.Module):
    """The layers and the final norm."""

    def __init__(self, language: LanguageConfig, width: int, mlp_width: int):
        """Build it without values; `spear.initialise` or a checkpoint gives them.

        Args:
            language: layers, heads, head_dim and rope_base, which both stacks share.
            width, mlp_width: of this stack.
        """
        super().__init__()
        self.head_dim, self.rope_base = language.head_dim, language.rope_base
        self.layers = nn.ModuleList(
            GemmaLayer(width, mlp_width, language.heads, language.head_dim)
            for _ in range(language.layers)
        )
        self.norm = RmsNorm(width)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        allowed: Tensor | None,
        kept: Sequence[KeysValues] | StaticKVCache | None = None,
        keys_only: bool = False,
    ) -> tuple[Tensor | None, list[KeysValues]]:
        """Run new tokens through all layers.

        Args:
            x: (B, S, width) embeddings.
            positions: (B, S).
            allowed: see `multi_query_attention`; keys are the kept tokens, then these.
            kept: each layer's keys and values of the tokens before, or the cache that holds them
                and takes the new ones in, but does not keep them.
            keys_only: what only the output needs is not computed. In the last layer that is
                everything but keys and values, and the final norm: 109.1 of Gemma-2B's 1,981.9
                million parameters.

        Returns:
            (B, S, width) after the final norm, or None for `keys_only`; each layer's keys and
            values of the tokens before and the new ones.
        """
        rotary = rotary_tables(positions, self.head_dim, self.rope_base)
        in_place, found = isinstance(kept, StaticKVCache), []
        if in_place:
            kept = kept.room(x.shape[1])
        for index, layer in enumerate(self.layers):
            before = kept[index] if kept else (None, None)
            last = index == len(self.layers) - 1
            x, *pair = layer(x, rotary, allowed, *before, in_place, keys_only and last)
            found.append(tuple(pair))
        return None if keys_only else self.norm(x), found
