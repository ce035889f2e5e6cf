"""Measures the pipeline in a world of known truth: with true depth, and with a camera's.

Masks are the true ones in all runs, so what is measured is the way from points to boxes. The
noisy depth is annotated twice, with different noise, to see how far the same picture gives the
same order of vertices.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from spear_training.annotation.accuracy.compare import ObjectAccuracy, compare_scene
from spear_training.annotation.accuracy.depth_noise import DepthNoise, NoisyDepth
from spear_training.annotation.accuracy.repeats import (
    Repeat,
    RepeatSummary,
    repeats,
    summarise_repeats,
)
from spear_training.annotation.accuracy.summary import GroupSummary, summarise
from spear_training.annotation.accuracy.truth import SceneTruth, read_truth
from spear_training.annotation.boxes.clouds import MakeClouds
from spear_training.annotation.boxes.fit import FitBoxes
from spear_training.annotation.boxes.outliers import RemoveOutliers
from spear_training.annotation.detectors.given import GivenDetector
from spear_training.annotation.detectors.unique import KeepUnique
from spear_training.annotation.frame import JobError, Stage
from spear_training.annotation.geometries.depth import DepthGeometry
from spear_training.annotation.items import Item, read_items
from spear_training.annotation.pipeline import Pipeline
from spear_training.annotation.records import Annotation, RecordError
from spear_training.annotation.segmenters.given import GivenSegmenter

ITEMS, TRUTH = "items.jsonl", "truth.jsonl"
TRUE_DEPTH, NOISY_DEPTH = "true depth", "noisy depth"


@dataclass(frozen=True)
class Condition:
    """One way to annotate the scenes, and how far the boxes were from the truth.

    Attributes:
        name: in words.
        settings: of all stages.
        objects: every true object.
    """

    name: str
    settings: list[dict]
    objects: tuple[ObjectAccuracy, ...]

    def summaries(self) -> dict[str, GroupSummary]:
        """What it comes to, by the name of the group of objects."""
        return summarise(self.objects)


@dataclass(frozen=True)
class AccuracyReport:
    """All that was measured.

    Attributes:
        scenes: number of pictures.
        conditions: ways to annotate them.
        repeated: objects of the noisy condition, annotated again with other noise.
        truths: of the pictures, by their ids.
    """

    scenes: int
    conditions: tuple[Condition, ...]
    repeated: tuple[Repeat, ...] = ()
    truths: dict[str, SceneTruth] = field(default_factory=dict, repr=False)

    def repeat_summaries(self) -> dict[str, RepeatSummary]:
        """How far a second annotation says the same, by the name of the group of objects."""
        return summarise_repeats(list(self.repeated))

    def to_dict(self) -> dict:
        """Plain values for JSON: summaries, settings and every object."""
        return {
            "scenes": self.scenes,
            "conditions": [
                {
                    "name": condition.name,
                    "summaries": {
                        name: group.to_dict() for name, group in condition.summaries().items()
                    },
                    "settings": condition.settings,
                    "objects": [entry.to_dict() for entry in condition.objects],
                }
                for condition in self.conditions
            ],
            "repeats": {name: asdict(group) for name, group in self.repeat_summaries().items()},
        }


def measure_world(
    world: Path,
    scenes: int | None = None,
    noise: DepthNoise | None = None,
    progress: Callable[[int, int], None] = lambda done, all_: None,
) -> AccuracyReport:
    """Annotate the scenes of a world's folder and compare with its truth.

    Args:
        world: a folder with items.jsonl and truth.jsonl, as `annotate world` writes it.
        scenes: how many of its scenes, from the first on; None: all.
        noise: of the noisy depth; None: a Kinect's.
        progress: is told how many scenes are done, and of how many.

    Raises:
        JobError: the folder is no world's, or its lists do not belong together.
        ItemError: its list of items cannot be read.
        OSError: a file cannot be read.
    """
    items, truths = _read(world, scenes)
    noise = noise or DepthNoise()
    again = replace(noise, seed=noise.seed + 1)
    pipelines = {
        TRUE_DEPTH: _pipeline(world),
        NOISY_DEPTH: _pipeline(world, NoisyDepth(noise)),
        "again": _pipeline(world, NoisyDepth(again)),
    }
    compared: dict[str, list[ObjectAccuracy]] = {TRUE_DEPTH: [], NOISY_DEPTH: []}
    repeated: list[Repeat] = []
    for done, item in enumerate(items):
        progress(done, len(items))
        truth = truths[item.id]
        made = {name: pipeline.annotate(item) for name, pipeline in pipelines.items()}
        for name, entries in compared.items():
            entries += compare_scene(truth, made[name])
        repeated += repeats(made[NOISY_DEPTH], made["again"], _round_labels(truth))
    progress(len(items), len(items))
    return AccuracyReport(
        len(items),
        tuple(
            Condition(name, pipelines[name].settings, tuple(entries))
            for name, entries in compared.items()
        ),
        tuple(repeated),
        {item.id: truths[item.id] for item in items},
    )


def compare_run(
    name: str,
    annotations: Sequence[Annotation],
    truths: dict[str, SceneTruth],
    settings: list[dict] | None = None,
) -> Condition:
    """Compare the records of any run (other detector, segmenter, geometry) with the truth.

    Args:
        name: of the run, in words.
        annotations: its records; pictures that it lacks count as lost.
        truths: by the id of the picture.
        settings: of the run's stages, if known.
    """
    made = {annotation.id: annotation for annotation in annotations}
    objects = [
        entry for id_, truth in truths.items() for entry in compare_scene(truth, made.get(id_))
    ]
    return Condition(name, settings or [], tuple(objects))


def _pipeline(world: Path, *noise: Stage) -> Pipeline:
    return Pipeline(
        world,
        [
            GivenDetector(),
            KeepUnique(),
            GivenSegmenter(),
            DepthGeometry(world),
            *noise,
            MakeClouds(),
            RemoveOutliers(),
            FitBoxes(),
        ],
    )


def _read(world: Path, scenes: int | None) -> tuple[list[Item], dict[str, SceneTruth]]:
    for name in (ITEMS, TRUTH):
        if not (world / name).is_file():
            raise JobError(f"{world} has no {name}: make a world with `annotate world` first")
    items = read_items(world / ITEMS)[:scenes]
    try:
        truths = read_truth(world / TRUTH)
    except RecordError as error:
        raise JobError(str(error)) from None
    if missing := [item.id for item in items if item.id not in truths]:
        raise JobError(
            f"{world / TRUTH} lacks {len(missing)} of the pictures in {ITEMS}, the first is "
            f"{missing[0]}: make the world again"
        )
    return items, truths


def _round_labels(truth: SceneTruth) -> set[str]:
    return {label for label, axis in truth.axes_of_symmetry.items() if axis is not None}
