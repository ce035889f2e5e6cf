"""What an answer of the vision-language model says, in metres and fractions of the image.

Lengths are in the unit of the bins: metres where the point maps are metric. Directions are the
camera's: x right, y down, z forward.
"""

import math
from dataclasses import dataclass

from spear_policy.model.text.vocabulary import TOKEN_PATTERN

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
    """From one object or box to another: 4 tokens, the distance and then its components x, y, z.

    Between boxes it is taken between their closest points.
    """

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
        if len(self.vertices_m) != BOX_VERTICES:
            raise AnswerError(f"a box has {len(self.vertices_m)} vertices, not {BOX_VERTICES}")
        vertices = tuple(_triple(vertex, "a vertex") for vertex in self.vertices_m)
        object.__setattr__(self, "vertices_m", vertices)

    def coordinates_m(self) -> tuple[float, ...]:
        """Numbers in the order of their tokens."""
        return tuple(number for vertex in self.vertices_m for number in vertex)


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
                mend = "join them" if are_words[i] else "put words between them"
                raise AnswerError(f"steps {i - 1} and {i} are of the same sort: {mend}")
            if isinstance(step, str):
                check_words(step, f"step {i}")
                _check_conclusion(step, f"step {i}")
        check_words(self.choice, "the choice")
        _check_conclusion(self.choice, "the choice")


Answer = Length | Point | Distance | Box | Pixel | Words | ChainOfThought


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
