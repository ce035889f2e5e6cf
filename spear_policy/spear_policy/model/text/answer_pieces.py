"""Generated ids, or their text, as a row of pieces: numbers of tokens, and words between them."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import index
from typing import Literal

from spear_policy.model.config import VocabularyConfig
from spear_policy.model.text.answer_types import AnswerError
from spear_policy.model.text.tokenizer import TextTokenizer
from spear_policy.model.text.vocabulary import EOS, TOKEN_PATTERN, Vocabulary


@dataclass(frozen=True)
class Piece:
    """A part of an answer.

    Attributes:
        sort: control is <pad>, <bos> or <image>.
        bin: number of a coord or loc token; 0 for the others.
        text: words, or the token's string.
        place: for messages.
    """

    sort: Literal["coord", "loc", "words", "control"]
    bin: int
    text: str
    place: str

    def __str__(self):
        """Describe it for a message."""
        what = f"the words {self.text!r}" if self.sort == "words" else self.text
        return f"{what} at {self.place}"


def pieces_of_text(text: str, config: VocabularyConfig) -> list[Piece]:
    """Cut a text at its <loc> and 3D tokens.

    Raises:
        AnswerError: a token that the vocabulary does not have.
    """
    counts = {"coord": config.coordinate_tokens, "loc": config.loc_tokens}
    pieces, end = [], 0
    for found in TOKEN_PATTERN.finditer(text):
        if found.start() > end:
            pieces.append(_words_of_text(text, end, found.start()))
        sort, digits = found.groups()
        place = f"character {found.start()}"
        # a longer number is not read: a thousand digits are no reason to crash
        number = int(digits) if len(digits) <= 8 else counts[sort]
        if number >= counts[sort] or digits != f"{number:04d}":
            raise AnswerError(
                f"found {found[0][:40]} at {place}: expected <{sort}0000> .. "
                f"<{sort}{counts[sort] - 1:04d}>"
            )
        pieces.append(Piece(sort, number, found[0], place))
        end = found.end()
    if end < len(text):
        pieces.append(_words_of_text(text, end, len(text)))
    return pieces


def pieces_of_ids(
    ids: Iterable[int], config: VocabularyConfig, tokenizer: TextTokenizer
) -> list[Piece]:
    """Read generated ids up to <eos>; after it there may be padding only.

    Raises:
        AnswerError: no <eos>, something behind it, or ids that are none of this model.
    """
    vocabulary = Vocabulary(config)
    row = _checked(ids, config)
    if config.eos_id not in row:
        raise AnswerError(
            f"found no {EOS} in {len(row)} tokens: the answer is not complete; allow more tokens"
        )
    end = row.index(config.eos_id)
    for i, each in enumerate(row[end + 1 :], end + 1):
        if each != config.pad_id:
            what = vocabulary.name(each) or f"the words {tokenizer.decode([each])!r}"
            raise AnswerError(f"found {what} at token {i}: expected nothing after {EOS}")
    pieces = []
    is_word = [vocabulary.name(each) is None for each in row[:end]]
    for words, group in groupby(range(end), is_word.__getitem__):
        places = list(group)
        if words:
            text = tokenizer.decode([row[i] for i in places])
            pieces.append(Piece("words", 0, text, f"token {places[0]}"))
        else:
            pieces += [_token(row[i], i, vocabulary) for i in places]
    return pieces


def _checked(ids, config):
    row = ids.tolist() if hasattr(ids, "tolist") else ids
    row = list(row) if isinstance(row, Iterable) else [row]
    for i, each in enumerate(row):
        if not hasattr(each, "__index__"):
            raise AnswerError(f"found {str(each)[:40]} at token {i}: expected one row of ids")
        if not 0 <= index(each) < config.end:
            raise AnswerError(f"found the id {each} at token {i}: expected 0..{config.end - 1}")
    return [index(each) for each in row]


def _token(token_id, place, vocabulary):
    name, where = vocabulary.name(token_id), f"token {place}"
    if vocabulary.is_coordinate(token_id):
        return Piece("coord", vocabulary.coordinate_index(token_id), name, where)
    if vocabulary.is_loc(token_id):
        return Piece("loc", vocabulary.loc_index(token_id), name, where)
    return Piece("control", 0, name, where)


def _words_of_text(text, begin, end):
    return Piece("words", 0, text[begin:end], f"character {begin}")
