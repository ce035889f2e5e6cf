"""What of stage 1 matters: variants of it with one thing changed (Table 1 of the paper).

The paper compares robots' success after stage 2. Row 5 of its table, both encoders trained, is
`vlm_3d` itself. The functions that make a variant serve the full size and the small twins alike.
"""

from collections.abc import Callable
from dataclasses import replace

from spear_training.recipes.stage1 import vlm_3d
from spear_training.train.config import TrainConfig

POINTS_OF = {"paper": "random_points", "world_boxes": "world_random_points"}


def without_depth(config: TrainConfig) -> TrainConfig:
    """No depth encoder: plain PaliGemma with 3D tokens. Its weights need a folder of their own."""
    trained = {part: scale for part, scale in config.trained.items() if part != "depth"}
    return _variant(
        config,
        "no_depth",
        "no depth encoder",
        model=replace(config.model, name=f"{config.model.name}_no_depth", depth=None),
        trained=trained,
    )


def with_random_points(config: TrainConfig) -> TrainConfig:
    """Points of random pixels are asked for, and not objects."""
    task = replace(config.task, mixture=POINTS_OF[config.task.mixture])
    return _variant(config, "random_points", "points of random pixels, no objects", task=task)


def with_frozen_encoders(config: TrainConfig) -> TrainConfig:
    """SigLIP and the depth encoder stay as they are (paper, 3.1)."""
    trained = {**config.trained, "siglip": 0.0, "depth": 0.0}
    return _variant(config, "frozen", "both encoders frozen, section 3.1", trained=trained)


def with_frozen_siglip(config: TrainConfig) -> TrainConfig:
    """SigLIP stays as it is, the depth encoder learns."""
    return _variant(
        config, "frozen_siglip", "SigLIP frozen", trained={**config.trained, "siglip": 0.0}
    )


def with_frozen_depth(config: TrainConfig) -> TrainConfig:
    """The depth encoder stays as it is, SigLIP learns."""
    return _variant(
        config, "frozen_depth", "depth encoder frozen", trained={**config.trained, "depth": 0.0}
    )


VARIANTS: tuple[Callable[[TrainConfig], TrainConfig], ...] = (
    without_depth,
    with_random_points,
    with_frozen_encoders,
    with_frozen_siglip,
    with_frozen_depth,
)


def _variant(config: TrainConfig, name: str, about: str, **changes) -> TrainConfig:
    return replace(
        config, name=f"{config.name}_{name}", about=f"{config.name} with {about}", **changes
    )


def recipes_of(base: Callable[[], TrainConfig]) -> tuple[Callable[[], TrainConfig], ...]:
    """A recipe for each variant of another recipe, by the variant's own name."""

    def recipe(variant: Callable[[TrainConfig], TrainConfig]) -> Callable[[], TrainConfig]:
        def make() -> TrainConfig:
            return variant(base())

        make.__name__, make.__doc__ = make().name, variant.__doc__
        return make

    return tuple(recipe(variant) for variant in VARIANTS)


RECIPES = recipes_of(vlm_3d)
