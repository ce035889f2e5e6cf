"""Many scenes, by several processes; what is complete is kept, so a killed run goes on.

From bottom to top: a seed and a number give a scene and a camera that sees something of it; what
is true of its picture; its files; a folder of many, with a sheet of the first ones.

    OUT/images/000012.jpg  OUT/depth/000012.png  OUT/parts/000012.json

The part holds the scene's line of either list and is written last, so a scene with its part is
complete. The parts of all scenes become OUT/items.jsonl and OUT/truth.jsonl.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from spear_policy.shared.files import (
    atomic_write,
    remove_temporary_files,
    write_atomically,
    write_lines,
    write_or_verify,
)
from spear_policy.shared.progress import ProgressDisplay
from spear_policy.shared.workers import process_pool
from spear_training.annotation.accuracy.compare import SceneTruth
from spear_training.annotation.accuracy.measure import ITEMS, TRUTH
from spear_training.annotation.boxes import OrientedBox, cloud_facts, ordered_vertices
from spear_training.annotation.frame import Candidate, Frame
from spear_training.annotation.given import box_of_mask
from spear_training.annotation.pipeline import Pipeline
from spear_training.annotation.records import (
    AnnotatedObject,
    GivenDepth,
    GivenObject,
    Item,
    Triple,
    encode_mask,
)
from spear_training.annotation.stages import JobError
from spear_training.annotation.synthetic.objects import PlacedObject
from spear_training.annotation.synthetic.rendering import (
    OffscreenRenderer,
    RenderedView,
    SceneRendering,
    count_visible,
    render_view,
)
from spear_training.annotation.synthetic.scenes import (
    SyntheticCamera,
    SyntheticScene,
    room,
    table_top,
)

# Seed and number to a scene and its camera -----------------------------------------------------


Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = get_args(Split)
TABLE_SHARE = 0.55
_ATTEMPTS = 30
_GOOD_VIEWS = 4  # to choose from
_MIN_LABELS = 2


@dataclass(frozen=True)
class ComposedScene:
    """A scene that can be drawn now, and the camera that was chosen.

    Attributes:
        scene: what is there.
        rendering: draws it.
        view: the camera of the picture to store.
        rendered: what that camera really sees.
    """

    scene: SyntheticScene
    rendering: SceneRendering
    view: SyntheticCamera
    rendered: RenderedView


@contextmanager
def composed_scene(
    renderer: OffscreenRenderer, seed: int, split: Split, number: int
) -> Iterator[ComposedScene]:
    """Compose scene `number` of a seed; the same, to the last bit, whatever came before.

    Raises:
        JobError: no camera of many scenes saw anything.
    """
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([seed, SPLITS.index(split), number, attempt])
        scene = table_top(rng) if rng.random() < TABLE_SHARE else room(rng)
        with renderer.load(scene) as rendering:
            view = _best_view(rendering, scene)
            if view is None:
                continue
            seen = render_view(rendering, scene.objects, view)
            labels = Counter(scene.objects[index].object.label for index in seen.visible)
            if sum(count == 1 for count in labels.values()) >= _MIN_LABELS:
                yield ComposedScene(scene, rendering, view, seen)
                return
    raise JobError(f"{_ATTEMPTS} scenes for {split} {number} of seed {seed} showed nothing")


def _best_view(rendering: SceneRendering, scene: SyntheticScene) -> SyntheticCamera | None:
    """Of the first few cameras with a free sight, the one that sees most."""
    good: list[tuple[int, SyntheticCamera]] = []
    for view in scene.views:
        count = count_visible(rendering, view, scene.nearest_m)
        if count >= _MIN_LABELS:
            good.append((count, view))
        if len(good) == _GOOD_VIEWS:
            break
    return max(good, key=lambda pair: pair[0])[1] if good else None


# The truth of a picture ------------------------------------------------------------------------


class TruthStage:
    """Adds what is true in place of what other stages find: points and whole boxes.

    A label that two objects share is left out, as `KeepUnique` does.
    """

    name = "truth"
    parallel = 1

    def __init__(self, objects: Sequence[PlacedObject], rendered: RenderedView):
        """Take the objects of a scene and what the camera sees of them."""
        self._objects, self._rendered = objects, rendered
        labels = Counter(objects[index].object.label for index in rendered.visible)
        self.kept = [
            index for index in rendered.visible if labels[objects[index].object.label] == 1
        ]

    @property
    def settings(self) -> dict:
        """There is nothing to set."""
        return {}

    def __call__(self, frame: Frame) -> Frame:
        """Add the points and the objects."""
        candidates = [self._candidate(index, frame) for index in self.kept]
        return replace(frame, points=self._rendered.points, candidates=tuple(candidates))

    @property
    def axes_of_symmetry(self) -> dict[str, Triple | None]:
        """By label, the axis of a round object in the camera's frame; zeros for a ball."""
        return {
            self._objects[index].object.label: self._axis(self._objects[index])
            for index in self.kept
        }

    @property
    def visible_fraction(self) -> dict[str, float]:
        """By label, the share of the object's pixels that can be seen."""
        return {
            self._objects[index].object.label: round(self._rendered.visible[index], 4)
            for index in self.kept
        }

    def _axis(self, placed: PlacedObject) -> Triple | None:
        if placed.object.symmetry == "axis":
            return _triple(self._rendered.view.axes.T @ placed.axes[:, 2])
        return (0.0, 0.0, 0.0) if placed.object.symmetry == "ball" else None

    def _candidate(self, index: int, frame: Frame) -> Candidate:
        placed, mask = self._objects[index], self._rendered.objects == index
        cloud = self._rendered.points.points_m[mask].astype(float)
        box = box_of_mask(mask)
        annotated = AnnotatedObject(
            label=placed.object.label,
            box_xyxy_px=box,
            mask=encode_mask(mask),
            score=None,
            vertices_m=tuple(map(_triple, ordered_vertices(box_in_camera(placed, self._rendered)))),
            **cloud_facts(cloud),
        )
        return Candidate(placed.object.label, box, mask=mask, cloud_m=cloud, annotated=annotated)


def box_in_camera(placed: PlacedObject, rendered: RenderedView) -> OrientedBox:
    """The box of the whole object, in the camera's frame."""
    box, view = placed.box, rendered.view
    centre = view.in_camera(box.centre_m[None])[0]
    return OrientedBox(centre, view.axes.T @ box.axes, box.extents_m)


def _triple(values: NDArray) -> Triple:
    x, y, z = (float(value) for value in values)
    return x, y, z


# Files of a scene ------------------------------------------------------------------------------


# As in the TUM dataset, as long as the depth fits into 16 bits.
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


def write_scene(renderer: OffscreenRenderer, recipe: Recipe, number: int, out: Path) -> None:
    """Make a scene and write its files.

    Raises:
        JobError: it cannot be made.
        OSError: a file cannot be written; the scene is not complete then.
    """
    name = f"{number:06d}"
    for folder in ("images", "depth", "parts"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    with composed_scene(renderer, recipe.seed, recipe.split, number) as made:
        objects, depth_m = made.rendering.objects_and_depth(made.view)
        picture = Image.fromarray(made.rendering.colours(made.view))
        with atomic_write(out / "images" / f"{name}.jpg") as temporary:
            picture.save(temporary, "JPEG", quality=_JPEG_QUALITY)
        units, units_per_m = depth_units(depth_m)
        png = cv2.imencode(".png", units, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_EFFORT])[1]
        write_atomically(out / "depth" / f"{name}.png", png.tobytes())
        item = Item(
            id=f"{made.scene.family}/{name}",
            image=f"images/{name}.jpg",
            objects=tuple(_given_objects(made, objects)),
            depth=GivenDepth(f"depth/{name}.png", units_per_m),
            intrinsics=made.view.intrinsics,
        )
        truth = truth_of(made, item, out)
    # The last one: where it is, the scene is complete.
    lines = json.dumps({"item": item.to_json(), "truth": truth.to_json()})
    write_atomically(part_file(out, number), lines)


def truth_of(made: ComposedScene, item: Item, out: Path) -> SceneTruth:
    """The truth of a picture that is written already.

    Raises:
        JobError: its file cannot be read back.
    """
    stage = TruthStage(made.scene.objects, made.rendered)
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


def _given_objects(made: ComposedScene, objects: NDArray) -> Iterable[GivenObject]:
    """Masks of all objects that are seen, twins included: the pipeline must drop those itself."""
    for index in made.rendered.visible:
        mask = objects == index
        label = made.scene.objects[index].object.label
        yield GivenObject(label, box_of_mask(mask), encode_mask(mask))


def _read_part(path: Path) -> dict[str, str]:
    try:
        part = json.loads(path.read_text())
        return {key: str(part[key]) for key in ("item", "truth")}
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{path} is damaged ({error}); remove it to make the scene again") from None


# The sheet of the first scenes -----------------------------------------------------------------


SHEET = "sheet.jpg"
COLUMNS, ROWS = 4, 3
_CELL_PX = (400, 300)


def write_sheet(path: Path, pictures: Sequence[Path]) -> None:
    """Write the first twelve pictures side by side, black where they have another shape.

    Raises:
        OSError: a picture cannot be read, or the sheet not be written.
    """
    wide, high = _CELL_PX
    pictures = pictures[: COLUMNS * ROWS]
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * wide, rows * high))
    for number, picture in enumerate(pictures):
        row, column = divmod(number, COLUMNS)
        with Image.open(picture) as stored:
            sheet.paste(ImageOps.pad(stored.convert("RGB"), _CELL_PX), (column * wide, row * high))
    with atomic_write(path) as temporary:
        sheet.save(temporary, "JPEG", quality=88)


# A folder of many scenes, drawn by several processes -------------------------------------------


CARD = "scenes.json"
# To be raised when a change makes other scenes of the same seed.
GENERATOR = 2


def generate(out: Path, scenes: int, recipe: Recipe, jobs: int, progress: ProgressDisplay) -> int:
    """Bring a folder to `scenes` complete scenes and write its lists.

    Args:
        jobs: processes to draw with.

    Returns:
        How many scenes were made now.

    Raises:
        JobError: the folder holds scenes of another recipe, or they cannot be drawn.
        OSError: a file cannot be written.
        KeyboardInterrupt: all complete scenes are kept.
    """
    for name, value in (("--scenes", scenes), ("--jobs", jobs)):
        if value < 1:
            raise JobError(f"{name} is {value}; it must be at least 1")
    if recipe.seed < 0:
        raise JobError(f"--seed is {recipe.seed}; it must not be negative")
    out.mkdir(parents=True, exist_ok=True)
    card = {"generator": GENERATOR, "seed": recipe.seed, "split": recipe.split}
    write_or_verify(
        out / CARD, card, tuple(card), "choose another --out, or the same seed and split"
    )
    missing = [number for number in range(scenes) if not part_file(out, number).is_file()]
    with progress:
        progress.begin(scenes, scenes - len(missing))
        if missing:
            _draw(out, missing, recipe, min(jobs, len(missing)), progress)
    if missing or not _lists(out, scenes):
        assemble(out, range(scenes))
    return len(missing)


def _draw(
    out: Path, numbers: list[int], recipe: Recipe, jobs: int, progress: ProgressDisplay
) -> None:
    remove_temporary_files(out)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    environment = {"MUJOCO_GL": "egl", "LP_NUM_THREADS": str(threads)}
    try:
        with process_pool(jobs, environment=environment) as pool:
            waiting = [pool.submit(_draw_one, recipe, number, out) for number in numbers]
            for done in as_completed(waiting):
                done.result()
                progress.advance()
    except BrokenProcessPool:
        raise JobError(
            "a process that draws scenes has died, perhaps for want of memory: the same "
            "command, with fewer --jobs, goes on"
        ) from None


def _draw_one(recipe: Recipe, number: int, out: Path) -> None:
    write_scene(_renderer(), recipe, number, out)


@cache
def _renderer() -> OffscreenRenderer:
    """One of each process."""
    return OffscreenRenderer()


def _lists(out: Path, scenes: int) -> bool:
    """Whether both lists are there with so many lines."""
    try:
        counts = [(out / name).read_bytes().count(b"\n") for name in (ITEMS, TRUTH)]
    except FileNotFoundError:
        return False
    return counts == [scenes, scenes]
