"""Many scenes, by several processes; what is complete is kept, so a killed run goes on.

From bottom to top: a seed and a number give a scene and a camera that sees something of it; what
is true of its picture; its files; a folder of many.

    OUT/images/000012.jpg  OUT/depth/000012.png  OUT/parts/000012.json

The part holds the scene's line of either list and is written last, so a scene with its part is
complete. The parts of all scenes become OUT/items.jsonl and OUT/truth.jsonl.
"""

import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
from spear_training.annotation.given import box_of_mask
from spear_training.annotation.pipeline import PIXEL_POINTS, random_pixel_points
from spear_training.annotation.records import (
    AnnotatedObject,
    Annotation,
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


SPLITS = ("train", "held_out")
TABLE_SHARE = 0.55
_ATTEMPTS = 30
_MIN_LABELS = 2


@dataclass(frozen=True)
class Recipe:
    """Which scenes: all depends on a seed, one of SPLITS and a scene's number."""

    seed: int
    split: str


@dataclass(frozen=True)
class ComposedScene:
    """A scene that can be drawn now, and the camera that was chosen.

    Attributes:
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
    renderer: OffscreenRenderer, recipe: Recipe, number: int
) -> Iterator[ComposedScene]:
    """Compose a scene by its number; the same, to the last bit, whatever came before.

    Raises:
        JobError: no camera of many scenes saw anything.
    """
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([recipe.seed, SPLITS.index(recipe.split), number, attempt])
        scene = table_top(rng) if rng.random() < TABLE_SHARE else room(rng)
        with renderer.load(scene) as rendering:
            counts = [count_visible(rendering, view, scene.nearest_m) for view in scene.views]
            if max(counts, default=0) < _MIN_LABELS:
                continue
            view = scene.views[int(np.argmax(counts))]
            seen = render_view(rendering, scene.objects, view)
            if len(unique_objects(scene.objects, seen.visible)) >= _MIN_LABELS:
                yield ComposedScene(scene, rendering, view, seen)
                return
    raise JobError(f"{recipe}: {_ATTEMPTS} scenes for number {number} showed nothing")


def unique_objects(objects: Sequence[PlacedObject], visible: Collection[int]) -> dict[str, int]:
    """By label, the index of a visible object; labels of two are left out, as in `KeepUnique`."""
    counts = Counter(objects[index].object.label for index in visible)
    labels = {objects[index].object.label: index for index in visible}
    return {label: index for label, index in labels.items() if counts[label] == 1}


# The truth of a picture ------------------------------------------------------------------------


def truth_of(made: ComposedScene, item: Item) -> SceneTruth:
    """The truth of a picture: its record, with the boxes of whole objects."""
    rendered = made.rendered
    unique = unique_objects(made.scene.objects, rendered.visible)
    objects = {label: made.scene.objects[index] for label, index in unique.items()}
    annotation = Annotation(
        item.id,
        item.image,
        "ok",
        metric=True,
        intrinsics=rendered.points.intrinsics,
        objects=tuple(
            _true_object(objects[label], rendered.objects == index, rendered)
            for label, index in unique.items()
        ),
        pixel_points=random_pixel_points(rendered.points, item.id, PIXEL_POINTS),
    )
    axes = {label: _axis_of_symmetry(placed, rendered.view) for label, placed in objects.items()}
    shares = {label: round(rendered.visible[index], 4) for label, index in unique.items()}
    return SceneTruth(annotation, axes, shares)


def _true_object(
    placed: PlacedObject, mask: NDArray[np.bool_], rendered: RenderedView
) -> AnnotatedObject:
    vertices = ordered_vertices(box_in_camera(placed, rendered.view))
    return AnnotatedObject(
        label=placed.object.label,
        box_xyxy_px=box_of_mask(mask),
        mask=encode_mask(mask),
        score=None,
        vertices_m=tuple(map(_triple, vertices)),
        **cloud_facts(rendered.points.points_m[mask].astype(float)),
    )


def _axis_of_symmetry(placed: PlacedObject, view: SyntheticCamera) -> Triple | None:
    """The axis of a round object in the camera's frame; zeros for a ball."""
    if placed.object.symmetry == "axis":
        return _triple(view.axes.T @ placed.axes[:, 2])
    return (0.0, 0.0, 0.0) if placed.object.symmetry == "ball" else None


def box_in_camera(placed: PlacedObject, view: SyntheticCamera) -> OrientedBox:
    """The box of the whole object, in the camera's frame."""
    centre = view.in_camera(placed.box.centre_m[None])[0]
    return OrientedBox(centre, view.axes.T @ placed.box.axes, placed.box.extents_m)


def _triple(values: NDArray) -> Triple:
    x, y, z = (float(value) for value in values)
    return x, y, z


# Files of a scene ------------------------------------------------------------------------------


UNITS_PER_M = 5000.0  # as in the TUM dataset; nothing is drawn beyond what 16 bits hold
_JPEG_QUALITY = 92
_PNG_EFFORT = 3  # smaller files cost more time than they are worth


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
    with composed_scene(renderer, recipe, number) as made:
        placed = made.scene.objects
        objects, depth_m = made.rendering.objects_and_depth(made.view)
        picture = Image.fromarray(made.rendering.colours(made.view))
        with atomic_write(out / "images" / f"{name}.jpg") as temporary:
            picture.save(temporary, "JPEG", quality=_JPEG_QUALITY)
        units = np.rint(np.nan_to_num(depth_m) * UNITS_PER_M).astype(np.uint16)
        png = cv2.imencode(".png", units, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_EFFORT])[1]
        write_atomically(out / "depth" / f"{name}.png", png.tobytes())
        item = Item(
            id=f"{made.scene.family}/{name}",
            image=f"images/{name}.jpg",
            # Twins included: the pipeline must drop those itself.
            objects=tuple(
                GivenObject(placed[index].object.label, mask=encode_mask(objects == index))
                for index in made.rendered.visible
            ),
            depth=GivenDepth(f"depth/{name}.png", UNITS_PER_M),
            intrinsics=made.view.intrinsics,
        )
        truth = truth_of(made, item)
    # The last one: where it is, the scene is complete.
    lines = json.dumps({"item": item.to_json(), "truth": truth.to_json()})
    write_atomically(part_file(out, number), lines)


# A folder of many scenes, drawn by several processes -------------------------------------------


CARD = "scenes.json"
# To be raised when a change makes other scenes of the same seed.
GENERATOR = 3


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
    lists = [path for path in (out / ITEMS, out / TRUTH) if path.is_file()]
    if missing or [path.read_bytes().count(b"\n") for path in lists] != [scenes, scenes]:
        assemble(out, scenes)
    return len(missing)


def assemble(out: Path, scenes: int) -> None:
    """Join the lines of complete scenes to OUT/items.jsonl and OUT/truth.jsonl.

    Raises:
        JobError: a part is damaged.
        OSError: the disk is full.
    """
    parts = [_read_part(part_file(out, number)) for number in range(scenes)]
    for name, key in ((ITEMS, "item"), (TRUTH, "truth")):
        write_lines(out / name, (part[key].encode() for part in parts))


def _read_part(path: Path) -> dict[str, str]:
    try:
        part = json.loads(path.read_text())
        return {key: str(part[key]) for key in ("item", "truth")}
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{path} is damaged ({error}); remove it to make the scene again") from None


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


# One of each process.
_renderer = cache(OffscreenRenderer)


def _draw_one(recipe: Recipe, number: int, out: Path) -> None:
    write_scene(_renderer(), recipe, number, out)
