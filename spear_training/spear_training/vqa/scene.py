"""One annotated picture as questions see it: things that words can name, and where they are."""

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from spear_policy.model.text.answer_types import CONCLUSION, AnswerError, check_words
from spear_training.annotation.boxes.vertex_order import edges_of
from spear_training.annotation.items import Intrinsics
from spear_training.annotation.records import AnnotatedObject, Annotation, Triple

LONGEST_LABEL = 60
_ARTICLES = ("the ", "a ", "an ")


@dataclass(frozen=True)
class Thing:
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
class Scene:
    """What can be asked about.

    Attributes:
        things: the objects that words can name.
        gaps_m: (i, j) by their numbers in the record, i < j: from the box of i to that of j.
        intrinsics: of the picture; None where they are not known.
        pixel_points: (u, v, x, y, z): a pixel's centre (px) and the point seen there.
    """

    things: tuple[Thing, ...]
    gaps_m: dict[tuple[int, int], Triple]
    intrinsics: Intrinsics | None
    pixel_points: tuple[tuple[float, ...], ...]

    def gap_m(self, start: Thing, end: Thing) -> Triple | None:
        """From the closest point of one box to that of another; None where it is not stored."""
        if start.number < end.number:
            return self.gaps_m.get((start.number, end.number))
        back = self.gaps_m.get((end.number, start.number))
        return back and tuple(0.0 - number for number in back)


def scene_of(annotation: Annotation) -> Scene:
    """Prepare a record for questions. Objects whose label cannot name them are left out."""
    objects = annotation.objects
    things = []
    if objects:
        names = [name_of(found.label) for found in objects]
        uses = Counter(names)
        corners = np.array([found.vertices_m for found in objects])
        centres = corners.mean(axis=1).tolist()
        sides = np.linalg.norm([edges_of(box) for box in corners], axis=-1).tolist()
        things = [
            Thing(name, number, tuple(centres[number]), tuple(sides[number]), objects[number])
            for number, name in enumerate(names)
            if name is not None and uses[name] == 1
        ]
    return Scene(
        tuple(things),
        {(i, j): xyz for i, j, xyz in annotation.gaps_m},
        annotation.intrinsics,
        annotation.pixel_points,
    )


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
