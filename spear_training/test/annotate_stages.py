"""A stage that stands in for all of them, and pictures for it: quick, and the same every time.

What is tested with it is the job around the stages. The picture's id says what happens to it:
"unusable", "broken" and "hopeless" in it raise what their names say below.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from spear_training.annotation.frame import Candidate, PointMap
from spear_training.annotation.pipeline import Pipeline
from spear_training.annotation.records import AnnotatedObject, Intrinsics, Item, encode_mask
from spear_training.annotation.stages import JobError, StageError

CUBE = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)

TROUBLE = ("unusable", "broken", "hopeless")


class ColourStage:
    """Makes two objects out of a picture's colour; words that are `fixed` do no harm."""

    name = "colour"

    def __init__(self, seconds: float = 0.0, parallel: int = 1, shade: int = 0, fixed=()):
        self.seconds, self.parallel, self.shade = seconds, parallel, shade
        self.fixed = fixed
        self.at_once, self.most_at_once, self.calls = 0, 0, 0

    @property
    def settings(self) -> dict:
        """What the result depends on."""
        return {"shade": self.shade}

    def __call__(self, frame):
        """Fail or make the objects."""
        self.calls += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            time.sleep(self.seconds)
            return self.with_objects(frame)
        finally:
            self.at_once -= 1

    def with_objects(self, frame):
        """Do what the id says."""
        trouble = {word for word in TROUBLE if word in frame.item.id} - set(self.fixed)
        if "unusable" in trouble:
            raise StageError("the test does not like it")
        if "broken" in trouble:
            raise IndexError("list index out of range")
        if "hopeless" in trouble:
            raise JobError("the test's key is missing: set it")
        colour = frame.image[300, 400].astype(float) + self.shade
        found = [self.object_at("mug", colour / 100), self.object_at("plate", colour / 50 + 3)]
        camera = Intrinsics(700.0, 700.0, 419.5, 314.5)
        points = np.ones((9, 12, 3), np.float32)  # few, for the sake of speed
        if "nobody" in frame.item.id:
            found = []
        return replace(frame, candidates=tuple(found), points=PointMap(points, camera))

    def object_at(self, label, corner):
        """Return an object whose box is a cube at a corner."""
        vertices = tuple(tuple(point) for point in (CUBE + corner).tolist())
        mask = np.zeros((630, 840), bool)
        mask[10:20, 10:30] = True
        return Candidate(
            label,
            (10.0, 10.0, 30.0, 20.0),
            annotated=AnnotatedObject(
                label,
                (10.0, 10.0, 30.0, 20.0),
                encode_mask(mask),
                None,
                200,
                vertices[0],
                vertices[7],
                vertices,
                vertices[:4],
            ),
        )


@dataclass(frozen=True)
class ColourSpec:
    """Describes a pipeline of one `ColourStage`, as PipelineSpec describes real ones."""

    root: Path
    options: dict = field(default_factory=dict)

    def build(self) -> Pipeline:
        """Make it."""
        return Pipeline(self.root, [ColourStage(**self.options)])


def write_pictures(folder: Path, names) -> list[Item]:
    """Write small pictures, each of another colour, and return their items."""
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for number, name in enumerate(names):
        colour = [number * 7 % 256, number * 13 % 256, number * 29 % 256]
        Image.fromarray(np.full((30, 40, 3), colour, np.uint8)).save(folder / f"{name}.png")
        items.append(Item(name, f"{name}.png"))
    return items
