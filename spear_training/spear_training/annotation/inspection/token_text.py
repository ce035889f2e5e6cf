"""Questions and answers for people: what their 3D tokens and <loc> tokens stand for.

24 tokens become the 8 vertices of a box, 27 the vectors between two boxes, and so on.
"""

from dataclasses import dataclass
from itertools import groupby

from spear_policy.model.answers import (
    BOX_VERTICES,
    KINDS,
    NUMBERS,
    AnswerError,
    Pixel,
    pieces_of_text,
)
from spear_policy.model.config import small
from spear_policy.model.coordinate_bins import CoordinateBins
from spear_training.annotation.records import PICTURE_HEIGHT_PX, PICTURE_WIDTH_PX
from spear_training.vqa.dataset import text_grammar

_VERTICES = [str(number) for number in range(BOX_VERTICES)]
_ROW_NAMES = {
    NUMBERS["length"]: ["length"],
    NUMBERS["point"]: ["x, y, z"],
    NUMBERS["distance"]: ["distance", "its x, y, z"],
    NUMBERS["box"]: _VERTICES,
    NUMBERS["box_vectors"]: [*(f"vector {name}" for name in _VERTICES), "vector of the centres"],
}


@dataclass(frozen=True)
class TextRun:
    """A run of words, or of tokens.

    Attributes:
        text: as it is stored.
        tokens: how many tokens it is; 0: words.
        rows: what the tokens stand for: a name ("3" for vertex 3, "distance", "x, y, z" or
            "u, v"), and numbers, in the unit of the bins or in pixels of the picture. Empty for
            words, and where it is not known.
    """

    text: str
    tokens: int = 0
    rows: tuple[tuple[str, tuple[float, ...]], ...] = ()


@dataclass(frozen=True)
class AskedPair:
    """A question and its answer.

    Attributes:
        category: of the question.
        question, answer: in parts.
        problem: why the answer is none of its kind; empty where it is one.
    """

    category: str
    question: tuple[TextRun, ...]
    answer: tuple[TextRun, ...]
    problem: str = ""

    def points_m(self) -> list[tuple[float, ...]]:
        """Points that the answer is about: it names them, or the question does."""
        return [numbers for name, numbers in self._rows() if name == "x, y, z"]

    def pixels_px(self) -> list[tuple[float, ...]]:
        """Places in the picture (u, v) in the question or the answer."""
        return [numbers for name, numbers in self._rows() if name == "u, v"]

    def _rows(self):
        return [row for part in (*self.question, *self.answer) for row in part.rows]


class TokenReader:
    """Explains the texts of one run."""

    def __init__(self, bins: CoordinateBins | None):
        """Take the bins that the texts were written with; None: 3D tokens stay unexplained."""
        self._grammar = text_grammar(bins) if bins else None
        self._words = self._grammar.tokenizer.config if bins else small().vocabulary

    def pair(self, stored: dict) -> AskedPair:
        """Explain one pair of a line of the questions' file.

        Args:
            stored: category, question, answer and kind.
        """
        question, answer = str(stored["question"]), str(stored["answer"])
        return AskedPair(
            str(stored["category"]),
            self.parts(question),
            self.parts(answer),
            self._problem(answer, stored.get("kind")),
        )

    def parts(self, text: str) -> tuple[TextRun, ...]:
        """Cut a text into words and runs of tokens; one part where it has unknown tokens."""
        try:
            pieces = pieces_of_text(text, self._words)
        except AnswerError:
            return (TextRun(text),)
        found = []
        for sort, group in groupby(pieces, lambda piece: piece.sort):
            run = list(group)
            written = "".join(piece.text for piece in run)
            if sort == "words":
                found.append(TextRun(written))
            else:
                rows = self._rows(sort, [piece.bin for piece in run])
                found.append(TextRun(written, len(run), rows))
        return tuple(found)

    def _rows(self, sort: str, bins: list[int]):
        if sort == "loc":
            return _pixel_rows(bins, self._words.loc_tokens)
        if self._grammar is None:
            return ()
        numbers = self._grammar.bins.decode(bins).tolist()
        names = _ROW_NAMES.get(len(numbers))
        if names is None:
            return (("numbers", tuple(numbers)),)
        # A length alone comes first, then points and vectors.
        starts = [0, *range(len(numbers) % 3 or 3, len(numbers), 3)]
        ends = [*starts[1:], len(numbers)]
        return tuple(
            (name, tuple(numbers[start:end]))
            for name, start, end in zip(names, starts, ends, strict=True)
        )

    def _problem(self, answer: str, kind) -> str:
        if self._grammar is None:
            return ""
        if kind not in KINDS:
            return f"there is no kind of answer {kind!r}"
        try:
            self._grammar.parse_answer(kind, answer)
        except AnswerError as error:
            return str(error)
        return ""


def _pixel_rows(bins: list[int], count: int):
    """Pixel centres (u, v) of pairs of <loc> tokens, y before x."""
    if len(bins) % 2:
        return ()
    places = [
        Pixel(y=(y + 0.5) / count, x=(x + 0.5) / count).in_pixels(
            PICTURE_WIDTH_PX, PICTURE_HEIGHT_PX
        )
        for y, x in zip(bins[::2], bins[1::2], strict=True)
    ]
    return tuple(("u, v", (u - 0.5, v - 0.5)) for u, v in places)
