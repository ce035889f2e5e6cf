"""The grammar of answers: typed answers to text and ids, and strictly back.

| kind | text |
|---|---|
| length | `<coord>` |
| point | 3 `<coord>`: x y z |
| distance | 4 `<coord>`: distance, then its x y z |
| box | 24 `<coord>`: 8 vertices, x y z each |
| box_vectors | 27 `<coord>`: from each of 8 vertices to that of another box, then of the centres |
| pixel | 2 `<loc>`: y x |
| words | words |
| thought | words and numbers, then `answer:` and words |

Tokens of one number follow each other without blanks. Inside a thought a number is told by how
many 3D tokens it has, and has one blank on either side. Generated ids end with <eos>; text has
none. Parsing accepts exactly what formatting writes, so an answer has one spelling.

Lengths are in the unit of the bins: metres where the point maps are metric. Directions are the
camera's: x right, y down, z forward.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import index
from typing import Literal

from spear_policy.model.config import VocabularyConfig
from spear_policy.model.coordinate_bins import CoordinateBins
from spear_policy.model.tokenizer import (
    EOS,
    TOKEN_PATTERN,
    TextTokenizer,
    Vocabulary,
    coordinate_token,
    loc_token,
)

# Answers by kind ---------------------------------------------------------------------------------


BOX_VERTICES = 8
CONCLUSION = "answer:"  # stands between the thoughts and what follows from them


class AnswerError(ValueError):
    """An answer that is not of its kind; says what was found, where, and what was expected."""


@dataclass(frozen=True)
class Length:
    """One length or distance: a 3D token."""

    length_m: float

    def coordinates_m(self) -> tuple[float, ...]:
        """Numbers in the order of their tokens."""
        return (self.length_m,)


@dataclass(frozen=True)
class Point:
    """A keypoint (closest, furthest, centre) in the camera's frame: 3 tokens x, y, z."""

    xyz_m: tuple[float, float, float]

    def __post_init__(self):
        """Make an array a tuple.

        Raises:
            AnswerError: not three numbers.
        """
        object.__setattr__(self, "xyz_m", _triple(self.xyz_m, "a point"))

    def coordinates_m(self) -> tuple[float, ...]:
        """Numbers in the order of their tokens."""
        return self.xyz_m


@dataclass(frozen=True)
class Distance:
    """From one object to another: 4 tokens, the distance and then its components x, y, z."""

    distance_m: float
    xyz_m: tuple[float, float, float]

    def __post_init__(self):
        """Make an array a tuple.

        Raises:
            AnswerError: not three components.
        """
        object.__setattr__(self, "xyz_m", _triple(self.xyz_m, "a distance"))

    def coordinates_m(self) -> tuple[float, ...]:
        """Numbers in the order of their tokens."""
        return (self.distance_m, *self.xyz_m)


@dataclass(frozen=True)
class Box:
    """An oriented 3D box: 24 tokens, its 8 vertices with x, y, z each, in the data's order."""

    vertices_m: tuple[tuple[float, float, float], ...]

    def __post_init__(self):
        """Make an array tuples.

        Raises:
            AnswerError: another number of vertices, or a vertex without three numbers.
        """
        object.__setattr__(self, "vertices_m", _of_vertices(self.vertices_m))

    def coordinates_m(self) -> tuple[float, ...]:
        """Numbers in the order of their tokens."""
        return tuple(number for vertex in self.vertices_m for number in vertex)


@dataclass(frozen=True)
class BoxVectors:
    """From one box to another: 27 tokens (paper, A.1.1).

    Attributes:
        vertices_m: from each of its 8 vertices to the corresponding one, in the data's order.
        centre_m: from centre to centre.
    """

    vertices_m: tuple[tuple[float, float, float], ...]
    centre_m: tuple[float, float, float]

    def __post_init__(self):
        """Make arrays tuples.

        Raises:
            AnswerError: another number of vertices, or a vector without three numbers.
        """
        object.__setattr__(self, "vertices_m", _of_vertices(self.vertices_m))
        object.__setattr__(self, "centre_m", _triple(self.centre_m, "a vector"))

    def coordinates_m(self) -> tuple[float, ...]:
        """Numbers in the order of their tokens."""
        return tuple(number for each in (*self.vertices_m, self.centre_m) for number in each)


@dataclass(frozen=True)
class Pixel:
    """A place in the image: 2 <loc> tokens, y then x as PaliGemma orders them.

    Attributes:
        y: 0 at the upper edge, 1 at the lower edge of the image.
        x: 0 at the left edge, 1 at the right edge.
    """

    y: float
    x: float

    def __post_init__(self):
        """Refuse a place outside the image.

        Raises:
            AnswerError: with the place.
        """
        if not (0 <= self.y <= 1 and 0 <= self.x <= 1):
            raise AnswerError(
                f"y={self.y:g}, x={self.x:g} is outside the image (0..1): do not ask for points "
                "that the camera does not see"
            )

    @classmethod
    def from_pixels(cls, u: float, v: float, width: int, height: int) -> "Pixel":
        """Column u and row v of an image; pixel (0, 0) covers 0..1, its centre is at 0.5.

        Raises:
            AnswerError: outside the image.
        """
        return cls(y=v / height, x=u / width)

    def in_pixels(self, width: int, height: int) -> tuple[float, float]:
        """Column u and row v."""
        return self.x * width, self.y * height


@dataclass(frozen=True)
class Words:
    """A choice or another answer in plain words."""

    text: str

    def __post_init__(self):
        """Refuse text that could not be read back.

        Raises:
            AnswerError: says what about it.
        """
        check_words(self.text, "the answer")


@dataclass(frozen=True)
class ChainOfThought:
    """Thoughts with the numbers they rest on, and the choice that follows.

    Attributes:
        steps: words and numbers; words lie between any two numbers. Words stand for themselves:
            they are joined by single blanks.
        choice: what follows, in words.
    """

    steps: tuple[str | Length | Point | Distance | Box, ...]
    choice: str

    def __post_init__(self):
        """Refuse thoughts that could not be read back.

        Raises:
            AnswerError: says which step.
        """
        are_words = [isinstance(step, str) for step in self.steps]
        if all(are_words):
            raise AnswerError("the thoughts have no number in them: use Words for such an answer")
        for i, step in enumerate(self.steps):
            if i and are_words[i] == are_words[i - 1]:
                fix = "join them" if are_words[i] else "put words between them"
                raise AnswerError(f"steps {i - 1} and {i} are of the same sort: {fix}")
            if isinstance(step, str):
                check_words(step, f"step {i}")
                _check_conclusion(step, f"step {i}")
        check_words(self.choice, "the choice")
        _check_conclusion(self.choice, "the choice")


Answer = Length | Point | Distance | Box | BoxVectors | Pixel | Words | ChainOfThought


def _of_vertices(vectors) -> tuple[tuple[float, float, float], ...]:
    if len(vectors) != BOX_VERTICES:
        raise AnswerError(f"a box has {len(vectors)} vertices, not {BOX_VERTICES}")
    return tuple(_triple(vector, "a vertex") for vector in vectors)


def check_words(text: str, name: str) -> None:
    """Refuse words that could not be read back.

    Raises:
        AnswerError: they are empty, have other than single blanks between them, contain the
            string of a token, or are not UTF-8.
    """
    if not text.strip(" "):
        raise AnswerError(f"{name} is empty: expected words")
    if "\n" in text or text != " ".join(filter(None, text.split(" "))):
        raise AnswerError(
            f"{name} {text!r} must have single blanks between words, none at its ends"
        )
    found = TOKEN_PATTERN.search(text)
    if found:
        raise AnswerError(f"{name} {text!r} spells out the token {found[0]}: expected words")
    if "\ufffd" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise AnswerError(f"{name} {text!r} has bytes that are not UTF-8")


def check_finite(numbers: tuple[float, ...]) -> None:
    """Refuse numbers that no token stands for.

    Raises:
        AnswerError: with the numbers.
    """
    if not all(math.isfinite(number) for number in numbers):
        raise AnswerError(f"an answer cannot say {numbers}: expected finite numbers")


def _triple(values, name):
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 3:
        raise AnswerError(f"{name} has {len(numbers)} numbers, not x, y and z")
    return numbers


def _check_conclusion(text, name):
    if CONCLUSION in text:
        raise AnswerError(f"{name} {text!r} contains {CONCLUSION!r}, which begins the choice")


# Pieces: words and tokens of an answer -----------------------------------------------------------


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


# The grammar of answers --------------------------------------------------------------------------


NUMBERS = {
    "length": 1,
    "point": 3,
    "distance": 4,
    "box": 3 * BOX_VERTICES,
    "box_vectors": 3 * (BOX_VERTICES + 1),
}
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
            The dataclass for the kind; numbers are the middles of their bins.

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
        triples = tuple(tuple(numbers[i : i + 3]) for i in range(0, len(numbers), 3))
        return Box(triples) if kind == "box" else BoxVectors(triples[:-1], triples[-1])

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
