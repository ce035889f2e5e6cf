"""What is kept of a scene: a picture, a depth picture, and two lines of JSON.

    OUT/images/000012.jpg  OUT/depth/000012.png  OUT/parts/000012.json

The part is written last, so a scene with its part is complete. The parts of all scenes become
OUT/items.jsonl and OUT/truth.jsonl.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spear_training.annotation.accuracy.measure import ITEMS, TRUTH
from spear_training.annotation.accuracy.truth import SceneTruth
from spear_training.annotation.detectors.given import box_of_mask
from spear_training.annotation.frame import JobError
from spear_training.annotation.items import GivenDepth, GivenObject, Item
from spear_training.annotation.job.finish import write_lines
from spear_training.annotation.masks import encode_mask
from spear_training.annotation.pipeline import Pipeline
from spear_training.annotation.scenes.compose import Composed, Split, composed
from spear_training.annotation.scenes.painter import Painter
from spear_training.annotation.scenes.sheet import SHEET, write_sheet
from spear_training.annotation.scenes.truth_stage import TruthStage

# As in the TUM data set, as long as the depth fits into 16 bits.
FINE_UNITS_PER_M, COARSE_UNITS_PER_M = 5000.0, 1000.0
_MOST_UNITS = 65534
_JPEG_QUALITY = 92
_PNG_EFFORT = 3  # smaller files cost more time than they are worth


@dataclass(frozen=True)
class Recipe:
    """Which scenes: all depends on these two and a scene's number."""

    seed: int
    split: Split


def part_file(out: Path, number: int) -> Path:
    """Where a complete scene's lines are."""
    return out / "parts" / f"{number:06d}.json"


def write_scene(painter: Painter, recipe: Recipe, number: int, out: Path) -> None:
    """Make a scene and write its files.

    Raises:
        JobError: it cannot be made.
        OSError: a file cannot be written; the scene is not complete then.
    """
    name = f"{number:06d}"
    for folder in ("images", "depth", "parts"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    with composed(painter, recipe.seed, recipe.split, number) as made:
        things, depth_m = made.easel.things_and_depth(made.view)
        picture = Image.fromarray(made.easel.colours(made.view))
        _write(
            out / "images" / f"{name}.jpg",
            lambda path: picture.save(path, "JPEG", quality=_JPEG_QUALITY),
        )
        units, units_per_m = depth_units(depth_m)
        png = cv2.imencode(".png", units, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_EFFORT])[1]
        _write(out / "depth" / f"{name}.png", lambda path: path.write_bytes(png.tobytes()))
        item = Item(
            id=f"{made.scene.family}/{name}",
            image=f"images/{name}.jpg",
            objects=tuple(_given_objects(made, things)),
            depth=GivenDepth(f"depth/{name}.png", units_per_m),
            intrinsics=made.view.intrinsics,
        )
        truth = truth_of(made, item, out)
    lines = json.dumps({"item": item.to_json(), "truth": truth.to_json()})
    _write(part_file(out, number), lambda path: path.write_text(lines))


def truth_of(made: Composed, item: Item, out: Path) -> SceneTruth:
    """The truth of a picture that is written already.

    Raises:
        JobError: its file cannot be read back.
    """
    stage = TruthStage(made.scene.things, made.look)
    annotation = replace(Pipeline(out, [stage]).annotate(item), seconds={})
    if annotation.status != "ok":
        raise JobError(f"{item.id}: {annotation.reason}")
    return SceneTruth(annotation, stage.axes_of_symmetry, stage.visible_fraction)


def assemble(out: Path, numbers: Iterable[int]) -> None:
    """Join the lines of complete scenes to OUT/items.jsonl and OUT/truth.jsonl; show a few.

    Raises:
        JobError: a part is damaged, or the disk is full.
        OSError: a picture cannot be read back.
    """
    numbers = list(numbers)
    parts = [_read_part(part_file(out, number)) for number in numbers]
    write_sheet(out / SHEET, [out / "images" / f"{number:06d}.jpg" for number in numbers])
    for name, key in ((ITEMS, "item"), (TRUTH, "truth")):
        write_lines(out / name, (part[key].encode() for part in parts))


def depth_units(depth_m: NDArray) -> tuple[NDArray[np.uint16], float]:
    """Depth (H, W) as whole numbers, 0 where it is NaN, and how many of them are a metre."""
    known = np.isfinite(depth_m)
    furthest = np.max(depth_m, where=known, initial=0.0)
    fine = furthest * FINE_UNITS_PER_M <= _MOST_UNITS
    units_per_m = FINE_UNITS_PER_M if fine else COARSE_UNITS_PER_M
    units = np.rint(np.where(known, depth_m, 0.0) * units_per_m)
    return np.minimum(units, _MOST_UNITS).astype(np.uint16), units_per_m


def _given_objects(made: Composed, things: NDArray) -> Iterable[GivenObject]:
    """Masks of all things that are seen, twins included: the pipeline must drop those itself."""
    for index in made.look.visible:
        mask = things == index
        label = made.scene.things[index].thing.label
        yield GivenObject(label, box_of_mask(mask), encode_mask(mask))


def _read_part(path: Path) -> dict[str, str]:
    try:
        part = json.loads(path.read_text())
        return {key: str(part[key]) for key in ("item", "truth")}
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{path} is damaged ({error}); remove it to make the scene again") from None


def _write(path: Path, save: Callable[[Path], object]) -> None:
    """Write beside, then rename, so that the file is whole or not there."""
    beside = path.with_name(path.name + ".partial")
    save(beside)
    beside.replace(path)
