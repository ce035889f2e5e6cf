"""Many scenes, by several processes; what is complete is kept, so a killed run goes on."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
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
from rich.table import Table

from spear_policy.shared.files import read_json_object, write_lines, write_or_verify
from spear_policy.shared.progress import ProgressDisplay
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
from spear_training.annotation.synthetic.objects import Placed
from spear_training.annotation.synthetic.rendering import (
    OffscreenRenderer,
    RenderedView,
    SceneRendering,
    glance,
    look,
)
from spear_training.annotation.synthetic.scenes import (
    SyntheticCamera,
    SyntheticScene,
    room,
    table_top,
)

# Processes that end with their parent and leave Ctrl-C to it -----------------------------------


_LOOK_EVERY_S = 0.1


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Hold Ctrl-C back, here and in processes that are started meanwhile until `obey_parent`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_parent(on_interrupt: Callable | signal.Handlers = signal.SIG_IGN) -> None:
    """Make this process, one that `multiprocessing` has started, end when its parent does.

    Ctrl-C reaches all processes of a terminal; from now on it is the parent's alone, which tells
    its children what to do.

    Args:
        on_interrupt: what to do when the parent interrupts this process.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, on_interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def defaults_of_environment(values: dict[str, str]) -> Iterator[None]:
    """Give processes that are started meanwhile these variables, but for those the user has set."""
    missing = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in missing})
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def side_by_side(command: Callable[[list[str]], int], calls: Sequence[list[str]], jobs: int) -> int:
    """Run a command of ours with several lists of words, in processes of their own.

    After one that fails no other is begun. Ctrl-C interrupts each of them once and waits.

    Args:
        command: takes words and returns an exit status; importable by its name.
        calls: the words.
        jobs: how many may run at once.

    Returns:
        The worst exit status: the largest, 2 for one that was killed.

    Raises:
        KeyboardInterrupt: all of them have ended.
    """
    # A forked process would share OpenGL, threads and locks.
    context = multiprocessing.get_context("spawn")
    waiting, running, worst = list(calls), [], 0
    try:
        while running or (waiting and worst <= 1):
            while waiting and worst <= 1 and len(running) < jobs:
                process = context.Process(target=_call, args=(command, waiting.pop(0)))
                with ctrl_c_waits():
                    process.start()
                    running.append(process)
            time.sleep(_LOOK_EVERY_S)
            for process in [one for one in running if not one.is_alive()]:
                running.remove(process)
                worst = max(worst, process.exitcode if process.exitcode >= 0 else 2)
    except BaseException:
        for process in running:
            if process.is_alive():
                os.kill(process.pid, signal.SIGINT)
        for process in running:
            process.join()
        raise
    return worst


def _call(command: Callable[[list[str]], int], words: list[str]) -> None:
    try:
        obey_parent(signal.default_int_handler)
        status = command(words)
    except KeyboardInterrupt:
        status = 130
    raise SystemExit(status)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# From a seed and a number to a scene with a camera that sees something of it -------------------


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

    scene: SyntheticScene
    easel: SceneRendering
    view: SyntheticCamera
    look: RenderedView


@contextmanager
def composed(
    painter: OffscreenRenderer, seed: int, split: Split, number: int
) -> Iterator[Composed]:
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


def _best_view(easel: SceneRendering, scene: SyntheticScene) -> SyntheticCamera | None:
    """Of the first few cameras with a free sight, the one that sees most."""
    good: list[tuple[int, SyntheticCamera]] = []
    for view in scene.views:
        count = glance(easel, view, scene.nearest_m)
        if count >= _MIN_LABELS:
            good.append((count, view))
        if len(good) == _GOOD_VIEWS:
            break
    return max(good, key=lambda pair: pair[0])[1] if good else None


# A sheet of the first scenes of a folder -------------------------------------------------------


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
    beside = path.with_name(path.name + ".partial")
    sheet.save(beside, "JPEG", quality=88)
    beside.replace(path)


# The truth of a picture ------------------------------------------------------------------------


class TruthStage:
    """Adds what is true in place of what other stages find: points and whole boxes.

    A label that two things share is left out, as `KeepUnique` does.
    """

    name = "truth"
    parallel = 1

    def __init__(self, things: Sequence[Placed], look: RenderedView):
        """Take the things of a scene and what the camera sees of them."""
        self._things, self._look = things, look
        labels = Counter(things[index].thing.label for index in look.visible)
        self.kept = [index for index in look.visible if labels[things[index].thing.label] == 1]

    @property
    def settings(self) -> dict:
        """There is nothing to set."""
        return {}

    def __call__(self, frame: Frame) -> Frame:
        """Add the points and the objects."""
        candidates = [self._candidate(index, frame) for index in self.kept]
        return replace(frame, points=self._look.points, candidates=tuple(candidates))

    @property
    def axes_of_symmetry(self) -> dict[str, Triple | None]:
        """By label, the axis of a round thing in the camera's frame; zeros for a ball."""
        return {
            self._things[index].thing.label: self._axis(self._things[index]) for index in self.kept
        }

    @property
    def visible_fraction(self) -> dict[str, float]:
        """By label, the share of the thing's pixels that can be seen."""
        return {
            self._things[index].thing.label: round(self._look.visible[index], 4)
            for index in self.kept
        }

    def _axis(self, placed: Placed) -> Triple | None:
        if placed.thing.symmetry == "axis":
            return _triple(self._look.view.axes.T @ placed.axes[:, 2])
        return (0.0, 0.0, 0.0) if placed.thing.symmetry == "ball" else None

    def _candidate(self, index: int, frame: Frame) -> Candidate:
        placed, mask = self._things[index], self._look.things == index
        cloud = self._look.points.points_m[mask].astype(float)
        box = box_of_mask(mask)
        annotated = AnnotatedObject(
            label=placed.thing.label,
            box_xyxy_px=box,
            mask=encode_mask(mask),
            score=None,
            vertices_m=tuple(map(_triple, ordered_vertices(box_in_camera(placed, self._look)))),
            **cloud_facts(cloud),
        )
        return Candidate(placed.thing.label, box, mask=mask, cloud_m=cloud, annotated=annotated)


def box_in_camera(placed: Placed, look: RenderedView) -> OrientedBox:
    """The box of the whole thing, in the camera's frame."""
    box, view = placed.box, look.view
    centre = view.in_camera(box.centre_m[None])[0]
    return OrientedBox(centre, view.axes.T @ box.axes, box.extents_m)


def _triple(values: NDArray) -> Triple:
    x, y, z = (float(value) for value in values)
    return x, y, z


# What is kept of a scene -----------------------------------------------------------------------


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


def write_scene(painter: OffscreenRenderer, recipe: Recipe, number: int, out: Path) -> None:
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


# The steps from nothing to an inspected world --------------------------------------------------


NAME = "world.json"
_BINDING = ("format", "scenes", "seed", "split")
_FORMAT = "spear world 1"


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: a word for `--only` and the table.
        makes: what it leaves behind, for the table.
        do: does it, or goes on with it; returns the exit status: 0, 1 where pictures failed, 2
            where it could not go on.
    """

    name: str
    makes: str
    do: Callable[[], int]


class WorldSteps:
    """The book of a world's folder: which steps are done, and their times."""

    def __init__(self, out: Path, scenes: int, seed: int, split: str, shards: int):
        """Open the book, or begin one.

        Args:
            shards: parts of the annotation; an old book's number stays.

        Raises:
            JobError: the folder is another world's.
            OSError: it cannot be written.
        """
        out.mkdir(parents=True, exist_ok=True)
        self._path = out / NAME
        values = {
            "format": _FORMAT,
            "scenes": scenes,
            "seed": seed,
            "split": split,
            "shards": shards,
            "cores": os.cpu_count(),
            "steps": {},
        }
        mend = "use the same numbers again, or choose another --out"
        self._values = write_or_verify(self._path, values, _BINDING, mend)
        if not isinstance(self._values.get("steps"), dict) or "shards" not in self._values:
            raise JobError(f"{self._path} is damaged: remove it, and what is done is kept")

    @property
    def shards(self) -> int:
        """Parts of the annotation."""
        return self._values["shards"]

    def is_done(self, step: Step) -> bool:
        """Whether the step has been brought to its end."""
        return bool(self._values["steps"].get(step.name, {}).get("done"))

    def do(self, step: Step) -> int:
        """Do a step; its time counts even if it is interrupted."""
        before = self._values["steps"].get(step.name, {})
        # A step that is done again begins anew; one that was interrupted goes on.
        earlier_s = 0.0 if before.get("done") else before.get("seconds", 0.0)
        started, status = time.monotonic(), 2
        try:
            status = step.do()
        finally:
            seconds = earlier_s + time.monotonic() - started
            self._write(step, {"seconds": round(seconds, 1), "done": status in (0, 1)})
        return status

    def table(self, steps: list[Step]) -> Table:
        """What each step took and made."""
        scenes = self._values["scenes"]
        table = Table(title=f"{scenes} scenes, {self.shards} processes", title_justify="left")
        for column, justify in (("step", "left"), ("time", "right"), ("a scene", "right")):
            table.add_column(column, justify=justify)
        table.add_column("made")
        total = 0.0
        for step in steps:
            there = self._values["steps"].get(step.name, {})
            seconds = there.get("seconds")
            if seconds is None:
                table.add_row(step.name, "-", "-", "not begun")
                continue
            total += seconds
            made = step.makes if there.get("done") else "not finished"
            table.add_row(step.name, _clock(seconds), f"{seconds / scenes:.2f} s", made)
        table.add_section()
        table.add_row("all", _clock(total), f"{total / scenes:.2f} s")
        return table

    def _write(self, step: Step, entry: dict) -> None:
        self._values = read_json_object(self._path)
        self._values["steps"][step.name] = entry
        beside = self._path.with_name(self._path.name + ".partial")
        beside.write_text(json.dumps(self._values, indent=1))
        beside.replace(self._path)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


# Many scenes -----------------------------------------------------------------------------------


CARD = "scenes.json"
# To be raised when a change makes other scenes of the same seed.
GENERATOR = 1
_ENVIRONMENT = {"MUJOCO_GL": "egl", "OMP_NUM_THREADS": "1"}


def generate(out: Path, scenes: int, recipe: Recipe, jobs: int, progress: ProgressDisplay) -> int:
    """Bring a folder to `scenes` complete scenes and write its lists.

    Args:
        jobs: processes to draw with.

    Returns:
        How many scenes were made now.

    Raises:
        JobError: the folder holds scenes of another recipe, or they cannot be drawn.
        OSError: a file cannot be written.
        KeyboardInterrupt: after the scenes in work; all complete ones are kept.
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
    # Forked processes would share the OpenGL of whoever calls this.
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with defaults_of_environment(_ENVIRONMENT | {"LP_NUM_THREADS": str(threads)}):
        pool = ProcessPoolExecutor(jobs, context, _begin_worker, (out, recipe))
        try:
            with ctrl_c_waits():
                waiting = [pool.submit(_make, one) for one in numbers]
            for done in as_completed(waiting):
                done.result()
                progress.advance()
        except BrokenProcessPool:
            raise JobError(
                "a process that draws scenes has died, perhaps for want of memory: the same "
                "command, with fewer --jobs, goes on"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _lists(out: Path, scenes: int) -> bool:
    """Whether both lists are there with so many lines."""
    try:
        counts = [(out / name).read_bytes().count(b"\n") for name in (ITEMS, TRUTH)]
    except FileNotFoundError:
        return False
    return counts == [scenes, scenes]


def _begin_worker(out: Path, recipe: Recipe) -> None:
    """Prepare a process that draws."""
    global _out, _recipe
    obey_parent()
    _out, _recipe = out, recipe


@cache
def _painter() -> OffscreenRenderer:
    return OffscreenRenderer()


def _make(number: int) -> None:
    write_scene(_painter(), _recipe, number, _out)
