"""Measures the pipeline on scenes of known truth: with true depth, and with a camera's.

Masks are the true ones in all runs, so what is measured is the way from points to boxes. The
noisy depth is annotated twice, with different noise, and the second annotation compared with the
first as if that were the truth: so far does the same picture give the same boxes.

In order: depth noise like a camera's; summaries of many objects; the measurement itself.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

from spear_policy.shared.seeds import seed_of
from spear_training.annotation.accuracy.compare import (
    ObjectAccuracy,
    SceneTruth,
    compare_scene,
    read_truth,
)
from spear_training.annotation.boxes import FitBoxes
from spear_training.annotation.clouds import MakeClouds, RemoveOutliers
from spear_training.annotation.depth import DepthGeometry
from spear_training.annotation.detections import KeepUnique
from spear_training.annotation.frame import Frame, Stage
from spear_training.annotation.given import GivenDetector, GivenSegmenter
from spear_training.annotation.pipeline import Pipeline
from spear_training.annotation.records import Annotation, Item, RecordError, read_items
from spear_training.annotation.stages import JobError, StageError

# Depth noise of a camera -----------------------------------------------------------------------


@dataclass(frozen=True)
class DepthNoise:
    """How bad the depth is. The default is a Kinect's, at 840x630.

    The noise along the ray grows with the square of the distance, as for all cameras that
    triangulate. Its size is that of the first Kinect: sigma = 0.0012 + 0.0019 (z - 0.4)^2 metres
    (C. Nguyen, S. Izadi, D. Lovell, "Modeling Kinect Sensor Noise for Improved 3D Reconstruction
    and Tracking", 3DIMPVT 2012). Where depth jumps, a pixel sees two surfaces and the camera
    reports something between them.

    Attributes:
        axial_scale: times the noise of the Kinect; 0: none.
        correlation_px: sigma of the Gaussian that makes neighbours err alike; 0: each pixel by
            itself. The size of the noise stays.
        edge_px: how far from a jump of depth pixels may be false; 0: nowhere.
        edge_share: the share 0..1 of the pixels there that are.
        jump_share: a jump is a change of depth by this share of it.
        hole_share: the share 0..1 of all pixels where nothing is measured.
        seed: draws the noise; pictures differ by their ids all the same.
    """

    axial_scale: float = 1.0
    correlation_px: float = 2.0
    edge_px: int = 2
    edge_share: float = 0.5
    jump_share: float = 0.02
    hole_share: float = 0.01
    seed: int = 0


def axial_sigma_m(depth_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation of the Kinect's noise at each depth (m); valid from 0.4 m."""
    return 0.0012 + 0.0019 * (depth_m - 0.4) ** 2


def noisy_depth(
    depth_m: NDArray[np.float64], noise: DepthNoise, name: str = ""
) -> NDArray[np.float64]:
    """Spoil a depth picture; the same for the same noise and name.

    Args:
        depth_m: (H, W); 0 or not finite where nothing is known.
        noise: how.
        name: of the picture.

    Returns:
        (H, W); 0 where nothing is known.
    """
    rng = np.random.default_rng(seed_of(f"{noise.seed} {name}"))
    known = np.isfinite(depth_m) & (depth_m > 0)
    found = _false_at_edges(np.where(known, depth_m, 0.0), known, noise, rng)
    error = rng.standard_normal(depth_m.shape)
    if noise.correlation_px > 0:
        error = gaussian_filter(error, noise.correlation_px, mode="wrap")
        error /= error.std()
    found = found + noise.axial_scale * axial_sigma_m(found) * error
    holes = rng.random(depth_m.shape) < noise.hole_share
    return np.where(known & ~holes & (found > 0), found, 0.0)


def _false_at_edges(depth, known, noise, rng):
    """Put pixels near a jump of depth between the two surfaces there."""
    draws = rng.random((2, *depth.shape))
    if noise.edge_px < 1:
        return depth
    size = 2 * noise.edge_px + 1
    near = minimum_filter(np.where(known, depth, np.inf), size)
    far = maximum_filter(np.where(known, depth, -np.inf), size)
    false = known & (far - near > noise.jump_share * depth) & (draws[0] < noise.edge_share)
    between = np.zeros_like(depth)
    between[false] = near[false] + draws[1][false] * (far - near)[false]
    return np.where(false, between, depth)


class NoisyDepth:
    """Stage behind the geometry's that moves each point along its ray, as `noisy_depth` says."""

    name = "noise"
    parallel = 1

    def __init__(self, noise: DepthNoise | None = None):
        """Take how bad the depth is to be; None: a Kinect's."""
        self.noise = noise or DepthNoise()

    @property
    def settings(self) -> dict:
        return asdict(self.noise)

    def __call__(self, frame: Frame) -> Frame:
        """Spoil `frame.points`."""
        if frame.points is None:
            raise StageError("there is no depth to spoil: put this stage behind the geometry's")
        points = frame.points.points_m.astype(np.float64)
        true = points[..., 2]
        spoilt = noisy_depth(true, self.noise, frame.item.id)
        with np.errstate(invalid="ignore", divide="ignore"):
            points *= np.where(spoilt > 0, spoilt / true, np.nan)[..., None]
        return replace(frame, points=replace(frame.points, points_m=points.astype(np.float32)))


# Summaries of many objects ---------------------------------------------------------------------


ALL = "all"
CLEARLY_SEEN = 0.9  # of an object's pixels, for the groups of objects that little hides


@dataclass(frozen=True)
class ErrorSpread:
    """The middle and the bad end of some numbers: median, and 90th percentile."""

    median: float
    p90: float


@dataclass(frozen=True)
class GroupSummary:
    """What became of a group of true objects; None where there is nothing to say.

    Attributes:
        objects, found: how many there are, and how many of them were annotated.
        lost: number of those that were not, by the reason.
        centre_error_m, centre_error_share, extent_error_m: see `ObjectAccuracy`.
        iou_median, iou_over_25, iou_over_50: median, and shares of those found whose IoU is
            above 0.25 and 0.5.
        ordered: how many of those found have an order of vertices, which round ones have not.
        order_kept: the share of these whose order is the true one.
    """

    objects: int
    found: int
    lost: dict[str, int]
    centre_error_m: ErrorSpread | None
    centre_error_share: ErrorSpread | None
    extent_error_m: ErrorSpread | None
    iou_median: float | None
    iou_over_25: float | None
    iou_over_50: float | None
    ordered: int
    order_kept: float | None

    @property
    def recall(self) -> float | None:
        return self.found / self.objects if self.objects else None


def summarise(objects: Sequence[ObjectAccuracy]) -> dict[str, GroupSummary]:
    """Summaries by the name of the group: all, then each kind of scene, then what is well seen.

    The kind of a scene is its id without the number at its end: `room` for `room/000012`.
    """
    kinds = sorted({kind_of_scene(entry.scene) for entry in objects})
    groups: dict[str, Callable[[ObjectAccuracy], bool]] = {ALL: lambda entry: True}
    if len(kinds) > 1:
        groups |= {
            kind: lambda entry, kind=kind: kind_of_scene(entry.scene) == kind for kind in kinds
        }
    groups |= {
        f"{CLEARLY_SEEN:.0%} visible": lambda entry: (entry.visible_fraction or 0) >= CLEARLY_SEEN,
        "not round": lambda entry: not entry.is_round,
        "round": lambda entry: entry.is_round,
    }
    return {
        name: _group([entry for entry in objects if belongs(entry)])
        for name, belongs in groups.items()
    }


def kind_of_scene(scene: str) -> str:
    """Name the kind of a scene from its id."""
    return re.sub(r"[/_\-\d]+$", "", scene) or ALL


def _group(objects: Sequence[ObjectAccuracy]) -> GroupSummary:
    found = [entry for entry in objects if entry.lost is None]
    ious = np.array([entry.iou for entry in found])
    orders = [entry.order_kept for entry in found if entry.order_kept is not None]
    # Numbers in reasons would make each of them another.
    lost = Counter(re.sub(r"\d+", "N", entry.lost) for entry in objects if entry.lost is not None)
    return GroupSummary(
        objects=len(objects),
        found=len(found),
        lost=dict(lost.most_common()),
        centre_error_m=_spread(entry.centre_error_m for entry in found),
        centre_error_share=_spread(entry.centre_error_share for entry in found),
        extent_error_m=_spread(entry.extent_error_m for entry in found),
        iou_median=float(np.median(ious)) if found else None,
        iou_over_25=float(np.mean(ious > 0.25)) if found else None,
        iou_over_50=float(np.mean(ious > 0.5)) if found else None,
        ordered=len(orders),
        order_kept=float(np.mean(orders)) if orders else None,
    )


def _spread(values: Iterable[float]) -> ErrorSpread | None:
    values = list(values)
    if not values:
        return None
    median, tail = np.percentile(values, [50, 90])
    return ErrorSpread(float(median), float(tail))


# The measurement: a folder of scenes, annotated and compared -----------------------------------


ITEMS, TRUTH = "items.jsonl", "truth.jsonl"
TRUE_DEPTH, NOISY_DEPTH = "true depth", "noisy depth"
AGAIN = "noisy depth, against other noise"


@dataclass(frozen=True)
class MeasuredCondition:
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
        truths: of the pictures, by their ids.
    """

    scenes: int
    conditions: tuple[MeasuredCondition, ...]
    truths: dict[str, SceneTruth] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict:
        return {
            "scenes": self.scenes,
            "conditions": [
                {
                    "name": condition.name,
                    "summaries": {
                        name: asdict(group) | {"recall": group.recall}
                        for name, group in condition.summaries().items()
                    },
                    "settings": condition.settings,
                    "objects": [asdict(entry) for entry in condition.objects],
                }
                for condition in self.conditions
            ],
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
        AGAIN: _pipeline(world, NoisyDepth(again)),
    }
    compared: dict[str, list[ObjectAccuracy]] = {name: [] for name in pipelines}
    for done, item in enumerate(items):
        progress(done, len(items))
        truth = truths[item.id]
        made = {name: pipeline.annotate(item) for name, pipeline in pipelines.items()}
        for name, entries in compared.items():
            known = replace(truth, annotation=made[NOISY_DEPTH]) if name == AGAIN else truth
            entries += compare_scene(known, made[name])
    progress(len(items), len(items))
    return AccuracyReport(
        len(items),
        tuple(
            MeasuredCondition(name, pipelines[name].settings, tuple(entries))
            for name, entries in compared.items()
        ),
        {item.id: truths[item.id] for item in items},
    )


def compare_run(
    name: str, annotations: Iterable[Annotation], truths: dict[str, SceneTruth]
) -> MeasuredCondition:
    """Compare the records of any run (other detector, segmenter, geometry) with the truth.

    Args:
        name: of the run, in words.
        annotations: its records; pictures that it lacks count as lost.
        truths: by the id of the picture.
    """
    made = {annotation.id: annotation for annotation in annotations}
    objects = [
        entry for id_, truth in truths.items() for entry in compare_scene(truth, made.get(id_))
    ]
    return MeasuredCondition(name, [], tuple(objects))


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
