"""What is asked how often, and when two objects are too alike to be compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from spear_training.vqa.pairs import CATEGORIES


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
        max_tokens: longest row of ids, see `rows.example_ids`.
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
            ValueError: names the setting and the mend.
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
