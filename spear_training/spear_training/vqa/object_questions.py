"""Questions about one object and about two: keypoints, boxes, distances."""

import math

from spear_policy.model.text.answer_types import Box, Distance, Point
from spear_training.vqa.draws import Draws
from spear_training.vqa.pairs import NotAsked, Pair
from spear_training.vqa.scene import Scene, Thing
from spear_training.vqa.templates import phrase

KEYPOINTS = ("closest", "furthest", "centre")
NO_THING = "there is no object that words can name"
NO_TWO_THINGS = "there are no two objects that words can name"


def ask_keypoint(scene: Scene, draws: Draws) -> Pair:
    """Ask for the closest or furthest visible point of an object, or the centre of its box.

    Raises:
        NotAsked: there is no object.
    """
    thing, what = _one(scene, draws), draws.pick(KEYPOINTS)
    question = phrase(draws, "keypoints", what).fill(object=thing.name)
    return Pair("keypoints", (what, thing.name), question, Point(keypoint_m(thing, what)))


def keypoint_m(thing: Thing, what: str) -> tuple[float, float, float]:
    """One of `KEYPOINTS` of an object."""
    if what == "centre":
        return thing.centre_m
    return thing.stored.closest_m if what == "closest" else thing.stored.furthest_m


def ask_box(scene: Scene, draws: Draws) -> Pair:
    """Ask for the vertices of an object's box.

    Raises:
        NotAsked: there is no object.
    """
    thing = _one(scene, draws)
    question = phrase(draws, "box", "vertices").fill(object=thing.name)
    return Pair("box", (thing.name,), question, Box(thing.stored.vertices_m))


def ask_object_distance(scene: Scene, draws: Draws) -> Pair:
    """Ask how far it is from one centre to another; x, y, z are those of end minus start.

    Raises:
        NotAsked: there are no two objects.
    """
    start, end = _two(scene, draws)
    return _distance_pair("object_distance", "centres", draws, start, end, way_m(start, end))


def way_m(start: Thing, end: Thing) -> Distance:
    """From the centre of one object to that of another."""
    xyz = tuple(b - a for a, b in zip(start.centre_m, end.centre_m, strict=True))
    return Distance(math.hypot(*xyz), xyz)


def ask_box_distance(scene: Scene, draws: Draws) -> Pair:
    """Ask for the gap between two boxes; 0 where they touch or overlap.

    Raises:
        NotAsked: there are no two objects, or the record has no gap of theirs.
    """
    start, end = _two(scene, draws)
    xyz = scene.gap_m(start, end)
    if xyz is None:
        raise NotAsked("the record has no gap between the two boxes")
    gap = Distance(math.hypot(*xyz), xyz)
    return _distance_pair("box_distance", "boxes", draws, start, end, gap)


def _distance_pair(category, what, draws, start, end, answer):
    question = phrase(draws, category, what).fill(start=start.name, end=end.name)
    # the way back is the same with other signs: no example has both
    return Pair(category, tuple(sorted((start.name, end.name))), question, answer)


def _one(scene, draws):
    if not scene.things:
        raise NotAsked(NO_THING)
    return draws.pick(scene.things)


def _two(scene, draws):
    if len(scene.things) < 2:
        raise NotAsked(NO_TWO_THINGS)
    return draws.some(scene.things, 2)
