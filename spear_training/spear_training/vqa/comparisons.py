"""Comparisons of two or three objects, with the numbers that decide them thought aloud.

A comparison is asked only where its answer is clear: the winner leads by a margin, a second
measure of the same thing agrees (below), and the 3D tokens that the thought shows differ the
right way round.

| relation | shown | must agree |
|---|---|---|
| closer, further | distance of the centres from the camera | that of their closest points |
| larger, smaller | diagonals of the boxes | volumes |
| nearer (to a third) | distances between the centres | gaps between the boxes, where stored |
| left, right, higher, lower | x or y of the centres | x/z or y/z: their order in the picture |
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from spear_policy.model.text.answer_types import ChainOfThought, Length, Point
from spear_policy.model.text.coordinate_bins import CoordinateBins
from spear_training.vqa.draws import Draws
from spear_training.vqa.object_questions import NO_TWO_THINGS, way_m
from spear_training.vqa.pairs import NotAsked, Pair
from spear_training.vqa.scene import Scene, Thing
from spear_training.vqa.settings import QuestionSettings
from spear_training.vqa.templates import load_phrases


@dataclass(frozen=True)
class Relation:
    """What decides a comparison.

    Attributes:
        measure: what is compared; two relations with one measure tell each other's answer.
        sign: 1 where the smallest number wins, -1 where the greatest does.
        number: what the thought shows, of a thing and the reference (a thing, or None).
        second: must put the winner first too, ties allowed; None where it is not known.
        is_place: the number is a coordinate, not a length.
    """

    measure: str
    sign: int
    number: Callable[[Thing, Thing | None], float]
    second: Callable[[Scene, Thing, Thing | None], float | None]
    is_place: bool = False


def _gap(scene, thing, reference):
    gap = scene.gap_m(reference, thing)
    return gap and math.hypot(*gap)


def _place(axis, sign):
    def slope(scene, thing, reference):
        z = thing.centre_m[2]
        return thing.centre_m[axis] / z if z > 0 else None

    return Relation("xy"[axis], sign, lambda thing, _: thing.centre_m[axis], slope, is_place=True)


def _range(sign):
    return Relation(
        "range", sign, lambda thing, _: thing.range_m, lambda scene, thing, _: thing.nearest_m
    )


def _size(sign):
    return Relation(
        "size", sign, lambda thing, _: thing.diagonal_m, lambda scene, thing, _: thing.volume_m3
    )


RELATIONS = {
    "closer": _range(1),
    "further": _range(-1),
    "larger": _size(-1),
    "smaller": _size(1),
    "nearer": Relation("way", 1, lambda thing, other: way_m(other, thing).distance_m, _gap),
    "left": _place(0, 1),
    "right": _place(0, -1),
    "higher": _place(1, 1),
    "lower": _place(1, -1),
}
_NAMES = tuple(RELATIONS)


def ask_comparison(
    scene: Scene, draws: Draws, settings: QuestionSettings, bins: CoordinateBins | None
) -> Pair:
    """Ask which of two or three objects comes first in some respect.

    Raises:
        NotAsked: there are too few objects, or the answer would not be clear.
    """
    name = draws.pick(_NAMES)
    needed = 2 + (name == "nearer")
    if len(scene.things) < needed:
        raise NotAsked(NO_TWO_THINGS if needed == 2 else "there is no third object")
    count = min(2 + draws.below(2), len(scene.things) - (needed - 2))
    chosen = draws.some(scene.things, count + needed - 2)
    reference = chosen.pop() if name == "nearer" else None
    winner = _winner(RELATIONS[name], scene, chosen, reference, settings, bins)
    return _pair(name, draws, chosen, reference, winner)


def _winner(relation, scene, chosen, reference, settings, bins) -> Thing:
    numbers = [relation.number(thing, reference) for thing in chosen]
    keys = [relation.sign * number for number in numbers]
    order = sorted(range(len(chosen)), key=keys.__getitem__)
    first, next_ = order[0], order[1]
    lead = keys[next_] - keys[first]
    if relation.is_place:
        margin = settings.place_margin * sum(thing.range_m for thing in chosen) / len(chosen)
    else:
        margin = settings.ratio_margin * min(numbers[first], numbers[next_])
    if lead <= margin:
        raise NotAsked("the objects are too alike")
    seconds = [relation.second(scene, thing, reference) for thing in chosen]
    if any(
        None not in (second, seconds[first]) and relation.sign * (seconds[first] - second) > 0
        for second in seconds
    ):
        raise NotAsked("a second measure disagrees")
    if bins is not None:
        shown = relation.sign * bins.encode(numbers)
        if (shown[order[1:]] <= shown[first]).any():
            raise NotAsked("the tokens of the numbers are the same")
    return chosen[first]


def _pair(name, draws, chosen, reference, winner) -> Pair:
    phrases = load_phrases().comparisons[name]
    degree = phrases.degrees[len(chosen) > 2]
    others = {"reference": reference.name} if reference else {}
    question = draws.pick(phrases.questions).fill(
        degree=degree, choices=_listed([thing.name for thing in chosen]), **others
    )
    thought = draws.pick(phrases.thoughts)
    steps: list = []
    for number, thing in enumerate(chosen):
        shown = {
            "object": thing.name,
            "point": Point(thing.centre_m),
            "length": Length(RELATIONS[name].number(thing, reference)),
        }
        if reference:
            shown["distance"] = way_m(reference, thing)
        _append(steps, ("and",) if number else ())
        _append(steps, thought.fill(**shown, **others))
    conclusion = draws.pick(phrases.conclusions).fill(degree=degree, winner=winner.name)
    _append(steps, conclusion)
    choices = tuple(f"the {thing.name}" for thing in chosen)
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
