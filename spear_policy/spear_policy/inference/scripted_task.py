"""What the scripted expert is asked to do: one object, one place, read from a sentence."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from spear_policy.inference.engine import SceneObject

_SENTENCE = re.compile(
    r"(?:please )?(?:put|place|set|move|drop|stack)(?: down)? (?P<item>.+?) "
    r"(?P<how>on top of|onto|on|upon|inside|into|in) (?P<place>.+?)(?: please)?"
)
_INSIDE = ("inside", "into", "in")


@dataclass(frozen=True)
class PickAndPlace:
    """Put `item` on `place`, or into it."""

    item: str
    place: str
    inside: bool


def parse(instruction: str) -> PickAndPlace:
    """The task in a sentence such as "Put the red cube on the plate."; case does not matter.

    Raises:
        ValueError: the sentence has another form; the text shows one that works.
    """
    words = " ".join(re.sub(r"[.,!]", " ", instruction.lower()).split())
    match = _SENTENCE.fullmatch(words)
    if match is None:
        raise ValueError(
            f"the scripted expert cannot follow {instruction!r}; say it like "
            "'put the red cube on the plate' or 'put the red cube in the bowl'"
        )
    item, place = (re.sub(r"^(the|a|an) ", "", match[part]) for part in ("item", "place"))
    if item == place:
        raise ValueError(f"{instruction!r} names {item!r} twice; name an object and its place")
    return PickAndPlace(item, place, match["how"] in _INSIDE)


def find(objects: Mapping[str, SceneObject], name: str) -> SceneObject:
    """The object of that name.

    Raises:
        ValueError: there is none; the text names those that are there.
    """
    if name not in objects:
        known = ", ".join(sorted(objects)) or "nothing at all"
        raise ValueError(f"there is no {name!r} in the scene; it has {known}")
    return objects[name]
