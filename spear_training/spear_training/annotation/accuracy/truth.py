"""What is really in a scene: the truth that annotations are compared with, one JSON line a scene.

    {"annotation": {...}, "axes_of_symmetry": {"mug": [0.0, -0.8, -0.6], "book": null},
     "visible_fraction": {"mug": 0.93, "book": 1.0}}

The annotation is written as any other, but its boxes are those of the whole objects, hidden
sides included, in the same order of vertices.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spear_training.annotation.records import Annotation, RecordError, Triple


@dataclass(frozen=True)
class SceneTruth:
    """The truth of one picture.

    Attributes:
        annotation: boxes of the whole objects, in the frame of the picture's camera.
        axes_of_symmetry: by label, the axis (unit vector, camera frame) about which the object
            may be turned by any angle and looks the same; (0, 0, 0): any axis, it is a ball; None,
            or not there: it has no such axis.
        visible_fraction: by label, the share 0..1 of the object's pixels that nothing hides.
    """

    annotation: Annotation
    axes_of_symmetry: dict[str, Triple | None] = field(default_factory=dict)
    visible_fraction: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line.

        Raises:
            ValueError: a number is not finite.
        """
        values = {
            "annotation": json.loads(self.annotation.to_json()),
            "axes_of_symmetry": self.axes_of_symmetry,
            "visible_fraction": self.visible_fraction,
        }
        return json.dumps(values, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "SceneTruth":
        """Read what `to_json` wrote.

        Raises:
            RecordError: it is no truth; says what about it.
        """
        try:
            values = json.loads(line)
            annotation = Annotation.from_json(json.dumps(values["annotation"]))
            axes = {
                label: None if axis is None else _unit(label, axis)
                for label, axis in values["axes_of_symmetry"].items()
            }
            visible = {label: float(part) for label, part in values["visible_fraction"].items()}
        except RecordError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RecordError(f"no truth ({type(error).__name__}: {error})") from None
        if unknown := (set(axes) | set(visible)) - {found.label for found in annotation.objects}:
            raise RecordError(f"no truth: {annotation.id} has no {', '.join(sorted(unknown))}")
        return cls(annotation, axes, visible)


def read_truth(path: Path) -> dict[str, SceneTruth]:
    """Read a file of truths by the ids of their pictures; blank lines do not count.

    Raises:
        RecordError: a line is no truth, or two have one id; says which.
        OSError: the file cannot be read.
    """
    scenes: dict[str, SceneTruth] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            scene = SceneTruth.from_json(line)
        except RecordError as error:
            raise RecordError(f"{path}, line {number}: {error}") from None
        if scene.annotation.id in scenes:
            raise RecordError(f"{path}, line {number}: {scene.annotation.id!r} is there twice")
        scenes[scene.annotation.id] = scene
    return scenes


def _unit(label: str, axis: list[float]) -> Triple:
    x, y, z = (float(part) for part in axis)
    if any((x, y, z)) and not abs(np.linalg.norm([x, y, z]) - 1) < 1e-3:
        raise ValueError(f"the axis of symmetry of {label!r} is no unit vector, nor zero")
    return x, y, z
