"""Many scenes, by several processes; what is complete is kept, so a killed run goes on."""

import multiprocessing
import os
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path

from spear_training.annotation.accuracy.measure import ITEMS, TRUTH
from spear_training.annotation.frame import JobError
from spear_training.annotation.job.agreement import agree
from spear_training.annotation.job.progress import JobProgress
from spear_training.annotation.scenes.child_processes import (
    ctrl_c_waits,
    defaults_of_environment,
    obey_parent,
)
from spear_training.annotation.scenes.painter import Painter
from spear_training.annotation.scenes.scene_files import (
    Recipe,
    assemble,
    part_file,
    write_scene,
)

CARD = "scenes.json"
# To be raised when a change makes other scenes of the same seed.
GENERATOR = 1
_ENVIRONMENT = {"MUJOCO_GL": "egl", "OMP_NUM_THREADS": "1"}


def generate(out: Path, scenes: int, recipe: Recipe, jobs: int, progress: JobProgress) -> int:
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
    agree(out / CARD, card, tuple(card), "choose another --out, or the same seed and split")
    missing = [number for number in range(scenes) if not part_file(out, number).is_file()]
    with progress:
        progress.begin(scenes, Counter(ok=scenes - len(missing)))
        if missing:
            _draw(out, missing, recipe, min(jobs, len(missing)), progress)
    if missing or not _lists(out, scenes):
        assemble(out, range(scenes))
    return len(missing)


def _draw(out: Path, numbers: list[int], recipe: Recipe, jobs: int, progress: JobProgress) -> None:
    # Forked processes would share the OpenGL of whoever calls this.
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with defaults_of_environment(_ENVIRONMENT | {"LP_NUM_THREADS": str(threads)}):
        pool = ProcessPoolExecutor(jobs, context, _begin_worker, (out, recipe))
        try:
            with ctrl_c_waits():
                waiting: dict[Future, int] = {pool.submit(_make, one): one for one in numbers}
            for done in as_completed(waiting):
                done.result()
                progress.add(f"scene {waiting[done]}", "ok", None)
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
def _painter() -> Painter:
    return Painter()


def _make(number: int) -> None:
    write_scene(_painter(), _recipe, number, _out)
