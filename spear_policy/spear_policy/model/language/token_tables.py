"""The tables of word and 3D-token embeddings, shared by look-up and logits (facts/model.md 4.3).

The 3D tokens have a parameter of their own, so that stage 1a can train them alone. Columns of the
logits are the rows of both tables in turn; <image> has an id but no row, so from there on a
column is one less than its id.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from spear_policy.model.config import VocabularyConfig

NO_COLUMN = -100  # what cross_entropy ignores
ROWS_AT_ONCE = 16_384


class TokenTables(nn.Module):
    """Embeddings of text.

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
        unscaled (facts/model.md 1.6).
        """
        words = functional.embedding(ids.clamp(max=self.vocabulary.size - 1), self.words)
        if self.vocabulary.coordinate_tokens:
            index = ids - self.vocabulary.coordinate_begin
            coordinates = functional.embedding(index.clamp(min=0), self.coordinates)
            words = torch.where(index.unsqueeze(-1) >= 0, coordinates, words)
        return words * self._scales[self.words.dtype]

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token, (..., size + coordinate_tokens), from the unscaled tables."""
        scores = (functional.linear(hidden, table) for table in (self.words, self.coordinates))
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

    Its mean is that of the rows, its covariance theirs times `scale` (facts/model.md 4.4). A draw
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
