"""Phrases as Grounding DINO reads them, and its tokens back to phrases.

The network gets one text, "mug. cutting board.", and says for each box and each token how sure
it is. A token belongs to the phrase that it was cut from.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.frame import JobError


class PhraseText:
    """The text of some phrases.

    Attributes:
        phrases: as given.
        inputs: of the network, tensors (1, T).
        tokens_of: for each phrase, where its tokens are among the T.
    """

    def __init__(self, phrases: tuple[str, ...], tokenizer: Any, most_tokens: int):
        """Cut the text into tokens.

        Args:
            phrases: in small letters, without full stops.
            tokenizer: of transformers, a quick one (it says where in the text a token was).
            most_tokens: that the network reads.

        Raises:
            JobError: the phrases are more than the network reads.
        """
        self.phrases = phrases
        self._text = "".join(f"{phrase}. " for phrase in phrases).rstrip()
        cut = tokenizer(self._text, return_offsets_mapping=True, return_tensors="pt")
        self._places = cut.pop("offset_mapping")[0].tolist()
        if len(self._places) > most_tokens:
            raise JobError(
                f"{len(phrases)} phrases are {len(self._places)} tokens, and the network reads "
                f"{most_tokens}: leave some out, or annotate twice"
            )
        self.inputs = dict(cut)
        self.tokens_of: list[list[int]] = []
        begin = 0
        for phrase in phrases:
            end = begin + len(phrase)
            self.tokens_of.append(
                [i for i, (a, b) in enumerate(self._places) if begin <= a < b <= end]
            )
            # transformers makes an empty tokenizer where the files of one are missing, and says
            # nothing; to it every word is unknown.
            read = {int(cut["input_ids"][0, token]) for token in self.tokens_of[-1]}
            if not read or tokenizer.unk_token_id in read:
                raise JobError(
                    f"the network's tokenizer does not know all words of {phrase!r}: find another "
                    "phrase, or if all are unknown, get the model's tokenizer files"
                )
            begin = end + len(". ")

    def words(self, tokens: list[int]) -> str:
        """The pieces of the text that tokens were cut from, in one line."""
        return " ".join(self._text[slice(*self._places[token])] for token in tokens)


@dataclass(frozen=True)
class Match:
    """A phrase that a box was found for.

    Attributes:
        query: number of the box.
        phrase: of those that are there as a whole, or else of all, the one with the token that
            the network is most sure of.
        words: its pieces that the network is sure of.
        score: of its best token.
        whole: whether every token of the phrase is above the text threshold.
    """

    query: int
    phrase: str
    words: str
    score: float
    whole: bool


def match_phrases(
    text: PhraseText, sureness: NDArray, box_threshold: float, text_threshold: float
) -> list[Match]:
    """Find the phrase of each box.

    Args:
        sureness: (Q, T or more), 0..1, of each box and token.
        box_threshold: a phrase is there if its best token is above it.
        text_threshold: a token that is not above it does not belong to the object.
    """
    matches = []
    for phrase, tokens in zip(text.phrases, text.tokens_of, strict=True):
        of_phrase = sureness[:, tokens]
        for query in np.flatnonzero(of_phrase.max(axis=1) > box_threshold).tolist():
            sure = of_phrase[query] > text_threshold
            words = text.words(
                [token for token, is_sure in zip(tokens, sure, strict=True) if is_sure]
            )
            score = float(of_phrase[query].max())
            matches.append(Match(query, phrase, words, score, bool(sure.all())))
    best: dict[int, Match] = {}
    for match in sorted(matches, key=lambda match: (match.whole, match.score)):
        best[match.query] = match
    return [best[query] for query in sorted(best)]
