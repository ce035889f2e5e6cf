"""Questions and answers before any bins, and what they are drawn from.

A `Pair` is words with the points and pixels that they speak of. Then which numbers the 3D tokens
can say, the random draws, the settings, and the annotated picture as questions see it.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from spear_policy.model.answers import (
    CONCLUSION,
    Answer,
    AnswerError,
    ChainOfThought,
    Pixel,
    Point,
    Words,
    check_words,
)
from spear_policy.model.coordinate_bins import CoordinateBins
from spear_policy.shared.seeds import generator
from spear_training.annotation.boxes import edges_of
from spear_training.annotation.records import AnnotatedObject, Annotation, Intrinsics, Triple

CATEGORIES = (
    "keypoints",
    "box",
    "object_distance",
    "box_distance",
    "backprojection",
    "comparison",
    "pixel_points",
)
KIND_OF_CATEGORY = {
    "keypoints": "point",
    "box": "box",
    "object_distance": "distance",
    "box_distance": "box_vectors",
    "backprojection": "pixel",
    "comparison": "thought",
    "pixel_points": "point",
}

Question = tuple[str | Point | Pixel, ...]


class NotAskedError(Exception):
    """This draw gives no question whose answer would be true and clear; says why."""


@dataclass(frozen=True)
class Pair:
    """A question and its answer.

    Attributes:
        category: one of `CATEGORIES`.
        subject: what is asked about; no example has one twice.
        question: words and what they speak of, to be joined as they are.
        answer: in the unit of the annotation.
        choices: what the answer's choice may be; empty where there is none.
    """

    category: str
    subject: tuple
    question: Question
    answer: Answer
    choices: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Kind of the answer, for `AnswerGrammar.parse_answer`."""
        return KIND_OF_CATEGORY[self.category]

    def question_m(self) -> list[float]:
        """Coordinates in the question."""
        points = (part for part in self.question if isinstance(part, Point))
        return [number for point in points for number in point.xyz_m]

    def answer_m(self) -> list[float]:
        """Coordinates in the answer, in the order of its 3D tokens."""
        if isinstance(self.answer, Pixel | Words):
            return []
        if isinstance(self.answer, ChainOfThought):
            steps = [step for step in self.answer.steps if not isinstance(step, str)]
            return [number for step in steps for number in step.coordinates_m()]
        return list(self.answer.coordinates_m())


@dataclass(frozen=True)
class Example:
    """One to four questions about one picture, in the order in which they are asked."""

    id: str
    pairs: tuple[Pair, ...]


# Which numbers the 3D tokens of a model can say ------------------------------------------------


OUTSIDE = "a number lies outside the bins"


def check_held(pair: Pair, bins: CoordinateBins) -> None:
    """Refuse a pair that 3D tokens cannot say.

    Bins end at the 1st and 99th percentile of the data; what lies outside goes to the outermost
    bin. In a question such a number would be another point, so the question is not asked. An
    answer may lie outside by as much as the outermost bin is wide: it is then off by at most one
    and a half of its width, three times what a number inside that bin may be off. Farther out it
    is not asked.

    Raises:
        NotAskedError: a number lies outside.
    """
    edges = bins.edges_m
    asked, answered = pair.question_m(), pair.answer_m()
    if asked and not (edges[0] <= min(asked) and max(asked) <= edges[-1]):
        raise NotAskedError(OUTSIDE)
    low, high = 2 * edges[0] - edges[1], 2 * edges[-1] - edges[-2]
    if answered and not (low <= min(answered) and max(answered) <= high):
        raise NotAskedError(OUTSIDE)


# Random draws that depend on names and numbers alone -------------------------------------------


T = TypeVar("T")


class Draws:
    """One stream of draws, the same on every machine and in any order of the pictures."""

    def __init__(self, *parts: str | int):
        """Take what the stream depends on: names and numbers."""
        self._next = generator(*parts).random

    def below(self, count: int) -> int:
        """One of 0 .. count - 1."""
        return int(self._next() * count)

    def pick(self, objects: Sequence[T]) -> T:
        """One of the objects."""
        return objects[self.below(len(objects))]

    def some(self, objects: Sequence[T], count: int) -> list[T]:
        """`count` different objects in any order."""
        left = list(objects)
        return [left.pop(self.below(len(left))) for _ in range(count)]

    def weighted(self, weights: dict[T, float]) -> T:
        """One of the keys, by their weights; they need not sum to 1."""
        names, ends = list(weights), list(accumulate(weights.values()))
        drawn = self._next() * ends[-1]
        return names[min(bisect_right(ends, drawn), len(names) - 1)]


# Settings: what is asked how often -------------------------------------------------------------


def even_weights() -> dict[str, float]:
    """The paper's six categories alike; it names no shares."""
    return {name: 0.0 if name == "pixel_points" else 1.0 for name in CATEGORIES}


@dataclass(frozen=True)
class QuestionSettings:
    """How examples are drawn.

    Attributes:
        weights: of the categories, of any sum; a category that is not named is not asked. Among
            the categories that a picture has questions of, each pair draws one by these weights.
        pairs_max: an example has 1 .. pairs_max pairs, each number as often.
        max_tokens: longest row of ids, see `dataset.example_ids`.
        ratio_margin: compared lengths must differ by this share of the smaller.
        place_margin: compared places (left, right, higher, lower) must differ by this share of
            the objects' mean distance from the camera.
    """

    weights: Mapping[str, float] = field(default_factory=even_weights)
    pairs_max: int = 4
    max_tokens: int = 384
    ratio_margin: float = 0.1
    place_margin: float = 0.05

    def __post_init__(self):
        """Refuse what cannot be drawn by.

        Raises:
            ValueError: names the setting and the fix.
        """
        unknown = set(self.weights) - set(CATEGORIES)
        if unknown:
            raise ValueError(
                f"there is no category {', '.join(sorted(unknown))}: "
                f"choose from {', '.join(CATEGORIES)}"
            )
        for name, weight in self.weights.items():
            if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
                raise ValueError(f"the weight of {name} is {weight!r}: it must be 0 or more")
        if not any(self.weights.values()):
            raise ValueError("all weights are 0: give at least one category a weight above 0")
        for name in ("pairs_max", "max_tokens"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}: it must be 1 or more")
        for name in ("ratio_margin", "place_margin"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)!r}: it must be 0 or more")


def parse_weights(text: str) -> dict[str, float]:
    """Weights from words like "keypoints=2,box=1"; categories that are not named get 0.

    Raises:
        ValueError: says which part is no weight.
    """
    weights = dict.fromkeys(CATEGORIES, 0.0)
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        try:
            if not equals:
                raise ValueError
            value = float(number)
        except ValueError:
            raise ValueError(f"{part!r} is no weight: write keypoints=2,box=1") from None
        if name not in weights:
            raise ValueError(f"there is no category {name!r}: choose from {', '.join(CATEGORIES)}")
        weights[name] = value
    QuestionSettings(weights)
    return weights


# One annotated picture as questions see it -----------------------------------------------------


LONGEST_LABEL = 60
_ARTICLES = ("the ", "a ", "an ")


@dataclass(frozen=True)
class QuestionObject:
    """An object of the picture, by a name that no other has.

    Attributes:
        name: its label in clean words, without an article.
        number: of the object in the record.
        centre_m: of its box.
        sides_m: of its box.
        stored: the object of the record.
    """

    name: str
    number: int
    centre_m: Triple
    sides_m: Triple
    stored: AnnotatedObject

    @cached_property
    def box_points_m(self) -> NDArray[np.float64]:
        """The vertices of the box in their order, then its centre (9, 3)."""
        return np.vstack([self.stored.vertices_m, self.centre_m])

    @cached_property
    def range_m(self) -> float:
        """Distance of the centre from the camera."""
        return math.hypot(*self.centre_m)

    @cached_property
    def nearest_m(self) -> float:
        """Distance of the closest point from the camera."""
        return math.hypot(*self.stored.closest_m)

    @cached_property
    def diagonal_m(self) -> float:
        """Diagonal of the box."""
        return math.hypot(*self.sides_m)

    @cached_property
    def volume_m3(self) -> float:
        """Volume of the box."""
        return math.prod(self.sides_m)


@dataclass(frozen=True)
class QuestionScene:
    """What can be asked about.

    Attributes:
        objects: the objects that words can name.
        intrinsics: of the picture; None where they are not known.
        pixel_points: (u, v, x, y, z): a pixel's centre (px) and the point seen there.
    """

    objects: tuple[QuestionObject, ...]
    intrinsics: Intrinsics | None
    pixel_points: tuple[tuple[float, ...], ...]


def scene_of(annotation: Annotation) -> QuestionScene:
    """Prepare a record for questions. Objects whose label cannot name them are left out."""
    named: list[QuestionObject] = []
    if annotation.objects:
        names = [name_of(stored.label) for stored in annotation.objects]
        uses = Counter(names)
        corners = np.array([stored.vertices_m for stored in annotation.objects])
        centres = corners.mean(axis=1).tolist()
        sides = np.linalg.norm([edges_of(box) for box in corners], axis=-1).tolist()
        named = [
            QuestionObject(name, number, tuple(centres[number]), tuple(sides[number]), stored)
            for number, (name, stored) in enumerate(zip(names, annotation.objects, strict=True))
            if name is not None and uses[name] == 1
        ]
    return QuestionScene(tuple(named), annotation.intrinsics, annotation.pixel_points)


@lru_cache(maxsize=4096)
def name_of(label: str) -> str | None:
    """Words that name an object in questions and answers; None where a label has none.

    Underscores and runs of blanks become one blank, a leading article goes away. A label is no
    name if it is empty, longer than `LONGEST_LABEL` letters, or spells tokens or the mark that
    ends a thought.
    """
    name = " ".join(label.replace("_", " ").split())
    for article in _ARTICLES:
        if name.lower().startswith(article):
            name = name[len(article) :]
            break
    try:
        check_words(name, "the label")
    except AnswerError:
        return None
    return None if len(name) > LONGEST_LABEL or CONCLUSION in name else name
