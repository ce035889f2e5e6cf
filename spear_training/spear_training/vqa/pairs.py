"""What a question is, before any bins: words, with the points and pixels that it speaks of."""

from dataclasses import dataclass

from spear_policy.model.text.answer_types import Answer, ChainOfThought, Pixel, Point, Words

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
    "box_distance": "distance",
    "backprojection": "pixel",
    "comparison": "thought",
    "pixel_points": "point",
}

Question = tuple[str | Point | Pixel, ...]


class NotAsked(Exception):
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

    def told_m(self) -> list[float]:
        """Coordinates that the question tells."""
        points = (part for part in self.question if isinstance(part, Point))
        return [number for point in points for number in point.xyz_m]

    def asked_m(self) -> list[float]:
        """Coordinates that the answer says, in the order of its 3D tokens."""
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
