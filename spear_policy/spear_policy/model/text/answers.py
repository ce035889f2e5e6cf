"""The grammar of answers: typed answers to text and ids, and strictly back.

| kind | text |
|---|---|
| length | `<coord>` |
| point | 3 `<coord>`: x y z |
| distance | 4 `<coord>`: distance, then its x y z |
| box | 24 `<coord>`: 8 vertices, x y z each |
| pixel | 2 `<loc>`: y x |
| words | words |
| thought | words and numbers, then `answer:` and words |

Tokens of one number follow each other without blanks. Inside a thought a number is told by how
many 3D tokens it has, and has one blank on either side. Generated ids end with <eos>; text has
none. Parsing accepts exactly what formatting writes, so an answer has one spelling.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

from spear_policy.model.text.answer_pieces import Piece, pieces_of_ids, pieces_of_text
from spear_policy.model.text.answer_types import (
    BOX_VERTICES,
    CONCLUSION,
    Answer,
    AnswerError,
    Box,
    ChainOfThought,
    Distance,
    Length,
    Pixel,
    Point,
    Words,
    check_finite,
)
from spear_policy.model.text.coordinate_bins import CoordinateBins
from spear_policy.model.text.tokenizer import TextTokenizer
from spear_policy.model.text.vocabulary import coordinate_token, loc_token

NUMBERS = {"length": 1, "point": 3, "distance": 4, "box": 3 * BOX_VERTICES}
KINDS = (*NUMBERS, "pixel", "words", "thought")
_KIND_OF_COUNT = {count: kind for kind, count in NUMBERS.items()}


class AnswerGrammar:
    """Writes and reads the answers of one model: its tokenizer and the bins of its 3D tokens."""

    def __init__(self, tokenizer: TextTokenizer, bins: CoordinateBins):
        """Take both from one checkpoint.

        Raises:
            ValueError: the bins are not as many as the model's 3D tokens.
        """
        if bins.count != tokenizer.config.coordinate_tokens:
            raise ValueError(
                f"{bins.count} bins do not fit {tokenizer.config.coordinate_tokens} 3D tokens: "
                "use the bins stored with this checkpoint"
            )
        self.tokenizer, self.bins = tokenizer, bins

    def format_answer(self, answer: Answer) -> str:
        """Write an answer as text; numbers outside the bins go to the outermost ones.

        Raises:
            AnswerError: it has numbers that are not finite.
        """
        if isinstance(answer, Words):
            return answer.text
        if isinstance(answer, Pixel):
            return "".join(loc_token(self._loc(side)) for side in (answer.y, answer.x))
        if isinstance(answer, ChainOfThought):
            steps = [s if isinstance(s, str) else self.format_answer(s) for s in answer.steps]
            return " ".join([*steps, CONCLUSION, answer.choice])
        numbers = answer.coordinates_m()
        check_finite(numbers)
        return "".join(coordinate_token(int(index)) for index in self.bins.encode(numbers))

    def format_ids(self, answer: Answer) -> list[int]:
        """Write an answer as ids with <eos>, which is what the model is to generate.

        Raises:
            AnswerError: it has numbers that are not finite.
        """
        return self.tokenizer.encode(self.format_answer(answer)) + [self.tokenizer.config.eos_id]

    def parse_answer(
        self, kind: str, answer: str | Iterable[int], choices: Sequence[str] | None = None
    ) -> Answer:
        """Read a generated answer.

        Args:
            kind: one of `KINDS`.
            answer: ids that end with <eos> and perhaps padding, or text without either.
            choices: what the words, or the choice after a thought, may be; None: anything.

        Returns:
            The dataclass of `answer_types` for the kind; numbers are the middles of their bins.

        Raises:
            AnswerError: says what was found, where, and what was expected.
            ValueError: there is no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"there is no kind of answer {kind!r}: choose from {', '.join(KINDS)}")
        config = self.tokenizer.config
        try:
            if isinstance(answer, str):
                pieces = pieces_of_text(answer, config)
            else:
                pieces = pieces_of_ids(answer, config, self.tokenizer)
            return self._parse(kind, pieces, choices)
        except AnswerError as error:
            raise AnswerError(f"{kind} answer: {error}") from None

    def _parse(self, kind, pieces, choices):
        if kind in NUMBERS:
            return self._number(kind, _exactly(pieces, "coord", NUMBERS[kind]))
        if kind == "pixel":
            y, x = _exactly(pieces, "loc", 2)
            sides = self.tokenizer.config.loc_tokens
            return Pixel(y=(y + 0.5) / sides, x=(x + 0.5) / sides)
        if kind == "words":
            return Words(_choose(_only_words(pieces), choices))
        return self._thought(pieces, choices)

    def _thought(self, pieces, choices):
        """Read steps; the last words hold the conclusion."""
        body, last = pieces[:-1], pieces[-1:]
        thought, mark, choice = _only_words(last).rpartition(CONCLUSION)
        if not mark:
            raise AnswerError(f"found {last[0]}: expected {CONCLUSION!r} and the choice in it")
        steps = []
        for sort, group in groupby(body, lambda piece: piece.sort):
            group = list(group)
            if sort == "coord":
                steps.append(self._embedded(group))
            elif sort == "words":
                steps.append(
                    _trimmed(group[0].text, before=bool(steps), after=True, piece=group[0])
                )
            else:
                raise AnswerError(f"found {group[0]}: expected words or 3D tokens")
        if thought.strip(" "):
            steps.append(_trimmed(thought, before=bool(steps), after=True, piece=last[0]))
        elif thought != " ":
            raise AnswerError(f"found {last[0]}: expected a blank before {CONCLUSION!r}")
        choice = _trimmed(choice, before=True, after=False, piece=last[0])
        return ChainOfThought(tuple(steps), _choose(choice, choices))

    def _embedded(self, group):
        kind = _KIND_OF_COUNT.get(len(group))
        if kind is None:
            counts = ", ".join(map(str, _KIND_OF_COUNT))
            raise AnswerError(
                f"found {len(group)} 3D tokens in a row from {group[0].place}: expected {counts}"
            )
        return self._number(kind, [piece.bin for piece in group])

    def _number(self, kind, indices):
        numbers = self.bins.decode(indices).tolist()
        if kind == "length":
            return Length(numbers[0])
        if kind == "point":
            return Point(tuple(numbers))
        if kind == "distance":
            return Distance(numbers[0], tuple(numbers[1:]))
        return Box(tuple(tuple(numbers[i : i + 3]) for i in range(0, len(numbers), 3)))

    def _loc(self, side):
        """Bin of a fraction of the image's side; the far edge belongs to the last bin."""
        bins = self.tokenizer.config.loc_tokens
        return min(int(side * bins), bins - 1)


def _exactly(pieces: list[Piece], sort: str, count: int) -> list[int]:
    name = {"coord": "3D token", "loc": "<loc> token"}[sort]
    for i, piece in enumerate(pieces):
        if i == count:
            raise AnswerError(f"found {piece}: expected the end after {count} {name}s")
        if piece.sort != sort:
            raise AnswerError(f"found {piece}: expected {name} {i + 1} of {count}")
    if len(pieces) < count:
        raise AnswerError(f"found the end after {len(pieces)} {name}s: expected {count}")
    return [piece.bin for piece in pieces]


def _only_words(pieces):
    if not pieces:
        raise AnswerError("found the end: expected words")
    for piece in pieces:
        if piece.sort != "words":
            raise AnswerError(f"found {piece}: expected words")
    return pieces[0].text


def _trimmed(text, before, after, piece):
    """Take away the blanks that formatting puts between words and their neighbours."""
    if text.startswith(" ") != before or text.endswith(" ") != after:
        raise AnswerError(f"found {piece}: expected one blank between words and numbers")
    return text[before : len(text) - after]


def _choose(text, choices):
    if choices is not None and text not in choices:
        raise AnswerError(f"found the words {text!r}: expected one of {', '.join(choices)}")
    return text
