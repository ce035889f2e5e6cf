"""What the model reads as text: instructions of a robot, and questions with their answers.

PaliGemma's format: `<bos>`, the text, a newline that is tokenised on its own, and for answers
the answer and `<eos>`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spear_policy.model.config import VocabularyConfig
from spear_policy.model.tokenizer import TextTokenizer

_log = logging.getLogger(__name__)

SEPARATOR = "\n"
BUCKETS = (16, 32, 48)


@dataclass(frozen=True)
class QuestionIds:
    """Questions and answers in one row, for training.

    Attributes:
        ids: (T,) int64.
        prefix: (T,) bool: tokens that see each other in both directions. The others are causal.
        answer: (T,) bool: tokens that the model must predict, each from the tokens before it.
    """

    ids: NDArray[np.int64]
    prefix: NDArray[np.bool_]
    answer: NDArray[np.bool_]


@dataclass(frozen=True)
class QuestionBatch:
    """Padded rows, (B, T) each: `QuestionIds` and which tokens are no padding."""

    ids: NDArray[np.int64]
    valid: NDArray[np.bool_]
    prefix: NDArray[np.bool_]
    answer: NDArray[np.bool_]


def clean(text: str) -> str:
    """Remove blanks at both ends, then turn underscores and newlines into blanks, as pi0 does."""
    return text.strip().replace("_", " ").replace("\n", " ")


def prompt_ids(
    text: str, tokenizer: TextTokenizer, vocabulary: VocabularyConfig, max_text_tokens: int
) -> list[int]:
    """Ids of one instruction or question: `<bos>`, the text, newline.

    A longer text is cut at its end, with a warning that quotes it; the newline stays.

    Raises:
        ValueError: the text is empty, or nothing of it would fit.
    """
    words, newline = _words(text, tokenizer), tokenizer.encode(SEPARATOR)
    room = max_text_tokens - 1 - len(newline)
    if room < 1:
        raise ValueError(f"max_text_tokens is {max_text_tokens}: no word fits; at least 3")
    if len(words) > room:
        _log.warning(
            "the prompt has %d tokens and is cut to %d: %r...; say it in fewer words",
            len(words) + 1 + len(newline),
            max_text_tokens,
            text[:80],
        )
        words = words[:room]
    return [vocabulary.bos_id, *words, *newline]


def question_ids(
    pairs: Sequence[tuple[str, str]],
    tokenizer: TextTokenizer,
    vocabulary: VocabularyConfig,
    max_tokens: int,
) -> QuestionIds:
    """Lay out questions about one image: `<bos>` q1 newline, a1 `<eos>`, q2 newline a2 `<eos>`, ...

    The first question is the bidirectional prefix, everything after it is causal, and only the
    answers with their `<eos>` are learned.

    Args:
        pairs: question and answer; the answer as `answers` formats it.
        tokenizer: the model's.
        vocabulary: the model's.
        max_tokens: longest row.

    Raises:
        ValueError: no pair, an empty question or answer, or a row that is too long: an answer
            is never cut.
    """
    if not pairs:
        raise ValueError("there is no question: give at least one pair of question and answer")
    newline = tokenizer.encode(SEPARATOR)
    ids, prefix_length, answer = [vocabulary.bos_id], 0, [False]
    for question, reply in pairs:
        asked = _words(question, tokenizer) + newline
        replied = tokenizer.encode(reply)
        if not replied:
            raise ValueError(f"the answer to {question!r} is empty: leave out the pair")
        ids += asked + replied + [vocabulary.eos_id]
        answer += [False] * len(asked) + [True] * (len(replied) + 1)
        prefix_length = prefix_length or 1 + len(asked)
    if len(ids) > max_tokens:
        raise ValueError(
            f"{len(pairs)} questions with answers have {len(ids)} tokens, more than {max_tokens}: "
            "ask fewer at once or raise the limit"
        )
    prefix = np.arange(len(ids)) < prefix_length
    return QuestionIds(np.array(ids, np.int64), prefix, np.array(answer))


def pad(
    batch: Sequence[Sequence[int]], length: int, pad_id: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Pad rows of ids on the right.

    Returns:
        (B, length) ids and (B, length) which of them are no padding.

    Raises:
        ValueError: a row is longer than `length`.
    """
    ids = np.full((len(batch), length), pad_id, np.int64)
    valid = np.zeros((len(batch), length), bool)
    for i, row in enumerate(batch):
        if len(row) > length:
            raise ValueError(f"row {i} has {len(row)} tokens, more than the length {length}")
        ids[i, : len(row)] = row
        valid[i, : len(row)] = True
    return ids, valid


def pad_questions(rows: Sequence[QuestionIds], length: int, pad_id: int = 0) -> QuestionBatch:
    """Pad `question_ids` rows on the right; padding is neither prefix nor answer.

    Raises:
        ValueError: a row is longer than `length`.
    """
    ids, valid = pad([row.ids for row in rows], length, pad_id)
    prefix, _ = pad([row.prefix for row in rows], length)
    answer, _ = pad([row.answer for row in rows], length)
    return QuestionBatch(ids, valid, prefix.astype(bool), answer.astype(bool))


def bucket(length: int, max_text_tokens: int) -> int:
    """Smallest static length that holds a prompt: few shapes to compile, same results.

    Raises:
        ValueError: the prompt is longer than the model reads.
    """
    if length > max_text_tokens:
        raise ValueError(f"{length} tokens are more than the model reads ({max_text_tokens})")
    return min([size for size in BUCKETS if length <= size < max_text_tokens] + [max_text_tokens])


def _words(text, tokenizer):
    cleaned = clean(text)
    if not cleaned.strip():
        raise ValueError(f"the prompt {text!r} is empty: say what to do or what to find")
    return tokenizer.encode(cleaned)
