"""Questions about a picture: what they ask, the answer, and the phrases they are put in.

First the phrases of `templates.yaml`; then one object and two (keypoints, boxes, distances);
comparisons of two or three; and the picture and space (backprojection, random pixels).
"""

import math
import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from spear_policy.model.answers import (
    AnswerError,
    Box,
    BoxVectors,
    ChainOfThought,
    Distance,
    Length,
    Pixel,
    Point,
    check_words,
)
from spear_policy.model.coordinate_bins import CoordinateBins
from spear_policy.model.prompts import clean
from spear_training.annotation.records import PICTURE_HEIGHT_PX, PICTURE_WIDTH_PX, Intrinsics
from spear_training.vqa.pairs import (
    Draws,
    NotAskedError,
    Pair,
    QuestionObject,
    QuestionScene,
    QuestionSettings,
)

# The phrases of `templates.yaml` ---------------------------------------------------------------


FILE = Path(__file__).with_name("templates.yaml")
FEWEST = 6

# What a phrase must speak of: category, then what is asked.
SPEAKS_OF = {
    "keypoints": {"closest": {"object"}, "furthest": {"object"}, "centre": {"object"}},
    "box": {"vertices": {"object"}},
    "object_distance": {"centres": {"start", "end"}},
    "box_distance": {"boxes": {"start", "end"}},
    "backprojection": {"point": {"point"}},
    "pixel_points": {"pixel": {"pixel"}},
}
_PLACE, _SIZE = ({"object", "point", "length"}, {"object", "length"})
_WAY, _SPOT = ({"object", "reference", "distance"}, {"object", "point"})
THOUGHT_OF_RELATION = {
    "closer": _PLACE,
    "further": _PLACE,
    "larger": _SIZE,
    "smaller": _SIZE,
    "nearer": _WAY,
    "left": _SPOT,
    "right": _SPOT,
    "higher": _SPOT,
    "lower": _SPOT,
}


class TemplateError(ValueError):
    """The file of phrases cannot be used; names the place and the fix."""


@dataclass(frozen=True)
class Template:
    """A phrase with gaps.

    Attributes:
        text: as it is written in the file.
        pieces: words, then the name of the gap behind them (None at the end).
    """

    text: str
    pieces: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Read a phrase.

        Raises:
            ValueError: its braces do not match or hold more than a name.
        """
        pieces = []
        for words, name, form, conversion in string.Formatter().parse(text):
            if form or conversion or (name is not None and not name.isidentifier()):
                raise ValueError(f"{{{name}}} must be a name alone")
            pieces.append((words, name))
        return cls(text, tuple(pieces))

    @property
    def names(self) -> list[str]:
        """Names of the gaps, in order."""
        return [name for _, name in self.pieces if name is not None]

    def fill(self, **values) -> tuple:
        """Put values into the gaps: words become one with the phrase, other objects stay parts."""
        parts, words = [], ""
        for before, name in self.pieces:
            words += before
            if name is None:
                continue
            value = values[name]
            if isinstance(value, str):
                words += value
            else:
                parts += [words, value] if words else [value]
                words = ""
        return tuple([*parts, words] if words else parts)


@dataclass(frozen=True)
class ComparisonPhrases:
    """How one relation is asked for, thought about and concluded.

    Attributes:
        degrees: words for two choices and for more.
    """

    degrees: tuple[str, str]
    questions: tuple[Template, ...]
    thoughts: tuple[Template, ...]
    conclusions: tuple[Template, ...]


@dataclass(frozen=True)
class Phrases:
    """All phrases: `questions[category][what]` and `comparisons[relation]`."""

    questions: dict[str, dict[str, tuple[Template, ...]]]
    comparisons: dict[str, ComparisonPhrases]


@cache
def load_phrases(path: Path = FILE) -> Phrases:
    """Read and check a file of phrases.

    Raises:
        TemplateError: the first object that is wrong with it.
        OSError: it cannot be read.
    """
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise TemplateError(f"{path.name} is no YAML: {error}") from None
    _same_names(stored, [*SPEAKS_OF, "comparison"], path.name)
    questions = {}
    for category, asked in SPEAKS_OF.items():
        _same_names(stored[category], asked, category)
        questions[category] = {
            what: _templates(stored[category][what], names, FEWEST, f"{category}, {what}")
            for what, names in asked.items()
        }
    _same_names(stored["comparison"], THOUGHT_OF_RELATION, "comparison")
    comparisons = {
        relation: _comparison(stored["comparison"][relation], relation)
        for relation in THOUGHT_OF_RELATION
    }
    return Phrases(questions, comparisons)


def phrase(draws: Draws, category: str, what: str) -> Template:
    """Draw a question of a category, see `SPEAKS_OF`."""
    return draws.pick(load_phrases().questions[category][what])


def _comparison(stored, relation) -> ComparisonPhrases:
    place = f"comparison, {relation}"
    _same_names(stored, ("degrees", "questions", "thoughts", "conclusions"), place)
    degrees = stored["degrees"]
    if not (isinstance(degrees, list) and len(degrees) == 2):
        raise TemplateError(f"{place}: degrees must be two phrases: for two choices, for more")
    asked = {"degree", "choices"} | ({"reference"} if relation == "nearer" else set())
    winner = {"winner"}
    return ComparisonPhrases(
        tuple(_words(degree, place) for degree in degrees),
        _templates(stored["questions"], asked, FEWEST, place),
        _templates(stored["thoughts"], THOUGHT_OF_RELATION[relation], 2, f"{place}, thoughts"),
        _templates(stored["conclusions"], winner, 2, f"{place}, conclusions", optional={"degree"}),
    )


def _templates(texts, names, fewest, place, optional=frozenset()) -> tuple[Template, ...]:
    if not isinstance(texts, list) or len(texts) < fewest:
        raise TemplateError(f"{place}: there must be a list of at least {fewest} phrases")
    if len(set(map(str, texts))) < len(texts):
        raise TemplateError(f"{place}: a phrase is there twice")
    found = []
    for text in texts:
        try:
            template = Template.parse(_words(text, place))
        except ValueError as error:
            raise TemplateError(f"{place}: {text!r}: {error}") from None
        gaps = template.names
        unknown = set(gaps) - names - optional
        missing = names - set(gaps)
        if unknown or missing or len(set(gaps)) < len(gaps):
            raise TemplateError(
                f"{place}: {text!r} must have each of {_gap_names(names)} once and no other gap"
            )
        found.append(template)
    return tuple(found)


def _words(text, place) -> str:
    try:
        check_words(text, "the phrase")
        if clean(text) != text:
            raise AnswerError(f"the phrase {text!r} has underscores, which become blanks")
    except (AnswerError, AttributeError) as error:
        raise TemplateError(f"{place}: {error}") from None
    return text


def _same_names(stored, names, place) -> None:
    if not isinstance(stored, dict) or set(stored) != set(names):
        raise TemplateError(f"{place}: there must be exactly {', '.join(names)}")


def _gap_names(names) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))


# Questions about one object and about two ------------------------------------------------------


KEYPOINTS = ("closest", "furthest", "centre")
NO_OBJECT = "there is no object that words can name"
NO_TWO_OBJECTS = "there are no two objects that words can name"


def ask_keypoint(scene: QuestionScene, draws: Draws) -> Pair:
    """Ask for the closest or furthest visible point of an object, or the centre of its box.

    Raises:
        NotAskedError: there is no object.
    """
    object_, what = _one(scene, draws), draws.pick(KEYPOINTS)
    question = phrase(draws, "keypoints", what).fill(object=object_.name)
    return Pair("keypoints", (what, object_.name), question, Point(keypoint_m(object_, what)))


def keypoint_m(object_: QuestionObject, what: str) -> tuple[float, float, float]:
    """One of `KEYPOINTS` of an object."""
    if what == "centre":
        return object_.centre_m
    return object_.stored.closest_m if what == "closest" else object_.stored.furthest_m


def ask_box(scene: QuestionScene, draws: Draws) -> Pair:
    """Ask for the vertices of an object's box.

    Raises:
        NotAskedError: there is no object.
    """
    object_ = _one(scene, draws)
    question = phrase(draws, "box", "vertices").fill(object=object_.name)
    return Pair("box", (object_.name,), question, Box(object_.stored.vertices_m))


def ask_object_distance(scene: QuestionScene, draws: Draws) -> Pair:
    """Ask how far it is from one centre to another; x, y, z are those of end minus start.

    Raises:
        NotAskedError: there are no two objects.
    """
    start, end = _two(scene, draws)
    return _distance_pair(
        "object_distance", "centres", draws, start, end, centre_distance(start, end)
    )


def centre_distance(start: QuestionObject, end: QuestionObject) -> Distance:
    """From the centre of one object to that of another."""
    xyz = tuple(b - a for a, b in zip(start.centre_m, end.centre_m, strict=True))
    return Distance(math.hypot(*xyz), xyz)


def ask_box_distance(scene: QuestionScene, draws: Draws) -> Pair:
    """Ask for the vectors from the vertices and the centre of a box to those of another.

    Raises:
        NotAskedError: there are no two objects.
    """
    start, end = _two(scene, draws)
    return _distance_pair("box_distance", "boxes", draws, start, end, box_vectors(start, end))


def box_vectors(start: QuestionObject, end: QuestionObject) -> BoxVectors:
    """Between corresponding vertices of two boxes and between their centres (paper, A.1.1)."""
    *vertices, centre = (end.box_points_m - start.box_points_m).tolist()
    return BoxVectors(tuple(map(tuple, vertices)), tuple(centre))


def _distance_pair(category, what, draws, start, end, answer):
    question = phrase(draws, category, what).fill(start=start.name, end=end.name)
    # the way back is the same with other signs: no example has both
    return Pair(category, tuple(sorted((start.name, end.name))), question, answer)


def _one(scene, draws):
    if not scene.objects:
        raise NotAskedError(NO_OBJECT)
    return draws.pick(scene.objects)


def _two(scene, draws):
    if len(scene.objects) < 2:
        raise NotAskedError(NO_TWO_OBJECTS)
    return draws.some(scene.objects, 2)


# Comparisons of two or three objects -----------------------------------------------------------


@dataclass(frozen=True)
class Relation:
    """What decides a comparison.

    A comparison is asked only where its answer is clear: the winner leads by a margin, a second
    measure of the same thing agrees (below), and the 3D tokens that the thought shows differ the
    right way round.

    | relation | shown | must agree |
    |---|---|---|
    | closer, further | distance of the centres from the camera | that of their closest points |
    | larger, smaller | diagonals of the boxes | volumes |
    | nearer (to a third) | distances between the centres | shortest vectors vertex to vertex |
    | left, right, higher, lower | x or y of the centres | x/z or y/z: order in the picture |

    Attributes:
        measure: what is compared; two relations with one measure tell each other's answer.
        sign: 1 where the smallest number wins, -1 where the greatest does.
        number: what the thought shows, of an object and the reference (an object, or None).
        second: must put the winner first too, ties allowed; None where it is not known.
        is_place: the number is a coordinate, not a length.
    """

    measure: str
    sign: int
    number: Callable[[QuestionObject, QuestionObject | None], float]
    second: Callable[[QuestionScene, QuestionObject, QuestionObject | None], float | None]
    is_place: bool = False


def _place(axis, sign):
    def slope(scene, one, reference):
        z = one.centre_m[2]
        return one.centre_m[axis] / z if z > 0 else None

    return Relation("xy"[axis], sign, lambda one, _: one.centre_m[axis], slope, is_place=True)


def _range(sign):
    return Relation(
        "range",
        sign,
        lambda one, _: one.range_m,
        lambda scene, one, _: one.nearest_m,
    )


def _size(sign):
    return Relation(
        "size",
        sign,
        lambda one, _: one.diagonal_m,
        lambda scene, one, _: one.volume_m3,
    )


RELATIONS = {
    "closer": _range(1),
    "further": _range(-1),
    "larger": _size(-1),
    "smaller": _size(1),
    "nearer": Relation(
        "way",
        1,
        lambda one, other: centre_distance(other, one).distance_m,
        lambda scene, one, other: min(
            math.hypot(*vector) for vector in box_vectors(other, one).vertices_m
        ),
    ),
    "left": _place(0, 1),
    "right": _place(0, -1),
    "higher": _place(1, 1),
    "lower": _place(1, -1),
}
_NAMES = tuple(RELATIONS)


def ask_comparison(
    scene: QuestionScene, draws: Draws, settings: QuestionSettings, bins: CoordinateBins | None
) -> Pair:
    """Ask which of two or three objects comes first in some respect.

    Raises:
        NotAskedError: there are too few objects, or the answer would not be clear.
    """
    name = draws.pick(_NAMES)
    needed = 2 + (name == "nearer")
    if len(scene.objects) < needed:
        raise NotAskedError(NO_TWO_OBJECTS if needed == 2 else "there is no third object")
    count = min(2 + draws.below(2), len(scene.objects) - (needed - 2))
    chosen = draws.some(scene.objects, count + needed - 2)
    reference = chosen.pop() if name == "nearer" else None
    winner = _winner(RELATIONS[name], scene, chosen, reference, settings, bins)
    return _pair(name, draws, chosen, reference, winner)


def _winner(relation, scene, chosen, reference, settings, bins) -> QuestionObject:
    numbers = [relation.number(object_, reference) for object_ in chosen]
    keys = [relation.sign * number for number in numbers]
    order = sorted(range(len(chosen)), key=keys.__getitem__)
    first, next_ = order[0], order[1]
    lead = keys[next_] - keys[first]
    if relation.is_place:
        margin = settings.place_margin * sum(object_.range_m for object_ in chosen) / len(chosen)
    else:
        margin = settings.ratio_margin * min(numbers[first], numbers[next_])
    if lead <= margin:
        raise NotAskedError("the objects are too alike")
    seconds = [relation.second(scene, object_, reference) for object_ in chosen]
    if any(
        None not in (second, seconds[first]) and relation.sign * (seconds[first] - second) > 0
        for second in seconds
    ):
        raise NotAskedError("a second measure disagrees")
    if bins is not None:
        shown = relation.sign * bins.encode(numbers)
        if (shown[order[1:]] <= shown[first]).any():
            raise NotAskedError("the tokens of the numbers are the same")
    return chosen[first]


def _pair(name, draws, chosen, reference, winner) -> Pair:
    phrases = load_phrases().comparisons[name]
    degree = phrases.degrees[len(chosen) > 2]
    others = {"reference": reference.name} if reference else {}
    question = draws.pick(phrases.questions).fill(
        degree=degree, choices=_listed([object_.name for object_ in chosen]), **others
    )
    thought = draws.pick(phrases.thoughts)
    steps: list = []
    for number, object_ in enumerate(chosen):
        shown = {
            "object": object_.name,
            "point": Point(object_.centre_m),
            "length": Length(RELATIONS[name].number(object_, reference)),
        }
        if reference:
            shown["distance"] = centre_distance(reference, object_)
        _append(steps, ("and",) if number else ())
        _append(steps, thought.fill(**shown, **others))
    conclusion = draws.pick(phrases.conclusions).fill(degree=degree, winner=winner.name)
    _append(steps, conclusion)
    choices = tuple(f"the {object_.name}" for object_ in chosen)
    subject = (RELATIONS[name].measure, reference and reference.name, *sorted(choices))
    return Pair(
        "comparison", subject, question, ChainOfThought(tuple(steps), f"the {winner.name}"), choices
    )


def _append(steps: list, parts: tuple) -> None:
    """Add parts to the steps; words that meet words are joined by a blank."""
    for part in parts:
        words = part.strip() if isinstance(part, str) else part
        if isinstance(words, str) and steps and isinstance(steps[-1], str):
            steps[-1] += " " + words
        else:
            steps.append(words)


def _listed(names: list[str]) -> str:
    *before, last = (f"the {name}" for name in names)
    return f"{', '.join(before)} or {last}"


# Questions between the image and space ---------------------------------------------------------


def ask_backprojection(scene: QuestionScene, draws: Draws) -> Pair:
    """Ask where in the image a point is: a sample point or a keypoint of an object.

    The answer is the place of the exact point; the question can only say it in 3D tokens.

    Raises:
        NotAskedError: there is no object or no camera, or the camera does not see the point.
    """
    if scene.intrinsics is None:
        raise NotAskedError("the intrinsics of the picture are not known")
    if not scene.objects:
        raise NotAskedError(NO_OBJECT)
    object_ = draws.pick(scene.objects)
    samples = object_.stored.sample_m
    if samples and draws.below(2):
        number = draws.below(len(samples))
        subject, point = (object_.name, number), samples[number]
    else:
        what = draws.pick(KEYPOINTS)
        subject, point = (object_.name, what), keypoint_m(object_, what)
    pixel = pixel_of(point, scene.intrinsics)
    question = phrase(draws, "backprojection", "point").fill(point=Point(point))
    return Pair("backprojection", subject, question, pixel)


def pixel_of(point_m: tuple[float, float, float], camera: Intrinsics) -> Pixel:
    """Where the picture of 840x630 shows a point (camera frame).

    Raises:
        NotAskedError: it is behind the camera or outside the picture.
    """
    if point_m[2] <= 0:
        raise NotAskedError("the point is behind the camera")
    return _pixel(*camera.project(point_m).tolist())


def ask_pixel_point(scene: QuestionScene, draws: Draws) -> Pair:
    """Ask which point a random pixel shows: the paper's baseline, without objects.

    Raises:
        NotAskedError: the record has no such pixels.
    """
    if not scene.pixel_points:
        raise NotAskedError("the record has no random pixels")
    number = draws.below(len(scene.pixel_points))
    u, v, *point = scene.pixel_points[number]
    question = phrase(draws, "pixel_points", "pixel").fill(pixel=_pixel(u, v))
    return Pair("pixel_points", (number,), question, Point(point))


def _pixel(u_px: float, v_px: float) -> Pixel:
    """Intrinsics count from the centre of the top left pixel, `Pixel` from its corner."""
    try:
        return Pixel.from_pixels(u_px + 0.5, v_px + 0.5, PICTURE_WIDTH_PX, PICTURE_HEIGHT_PX)
    except AnswerError:
        raise NotAskedError("the point is outside the picture") from None
