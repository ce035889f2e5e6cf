"""From a seed and a number to a scene with a camera that sees something of it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from spear_training.annotation.frame import JobError
from spear_training.annotation.scenes.look import Look, glance, look
from spear_training.annotation.scenes.painter import Easel, Painter
from spear_training.annotation.scenes.room import room
from spear_training.annotation.scenes.scene import Scene
from spear_training.annotation.scenes.table_top import table_top
from spear_training.annotation.scenes.views import View

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = get_args(Split)
TABLE_SHARE = 0.55
_ATTEMPTS = 30
_GOOD_VIEWS = 4  # to choose from
_MIN_LABELS = 2


@dataclass(frozen=True)
class Composed:
    """A scene that can be drawn now, and the camera that was chosen.

    Attributes:
        scene: what is there.
        easel: draws it.
        view: the camera of the picture to store.
        look: what that camera really sees.
    """

    scene: Scene
    easel: Easel
    view: View
    look: Look


@contextmanager
def composed(painter: Painter, seed: int, split: Split, number: int) -> Iterator[Composed]:
    """Compose scene `number` of a seed; the same, to the last bit, whatever came before.

    Raises:
        JobError: no camera of many scenes saw anything.
    """
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([seed, SPLITS.index(split), number, attempt])
        scene = table_top(rng) if rng.random() < TABLE_SHARE else room(rng)
        with painter.load(scene) as easel:
            view = _best_view(easel, scene)
            if view is None:
                continue
            seen = look(easel, scene.things, view)
            labels = Counter(scene.things[index].thing.label for index in seen.visible)
            if sum(count == 1 for count in labels.values()) >= _MIN_LABELS:
                yield Composed(scene, easel, view, seen)
                return
    raise JobError(f"{_ATTEMPTS} scenes for {split} {number} of seed {seed} showed nothing")


def _best_view(easel: Easel, scene: Scene) -> View | None:
    """Of the first few cameras with a free sight, the one that sees most."""
    good: list[tuple[int, View]] = []
    for view in scene.views:
        count = glance(easel, view, scene.nearest_m)
        if count >= _MIN_LABELS:
            good.append((count, view))
        if len(good) == _GOOD_VIEWS:
            break
    return max(good, key=lambda pair: pair[0])[1] if good else None
