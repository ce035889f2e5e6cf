"""`annotate world`: make scenes whose truth is known, and take them through everything.

Scenes on tables and in rooms are drawn with exact masks, depth and boxes; then they are annotated
(true masks and depth, so that boxes are what is measured), asked about, compared with the truth
and shown on a page. The same command goes on where a killed one was.

  FOLDER/scenes       pictures, depth, items.jsonl, truth.jsonl
  FOLDER/annotations  the run: records, bins, questions, the page
  FOLDER/accuracy     how far the boxes are from the truth
  FOLDER/world.json   how long each step took
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spear_policy.shared.files import read_json_object, write_atomically, write_or_verify
from spear_training.annotation.stages import JobError

EXAMPLE = """\
examples:
  annotate world --scenes 2000 --out out/world --jobs 2
  annotate world --scenes 500 --out out/train --split train --seed 7 --only generate
"""
STEPS = ("generate", "annotate", "questions", "accuracy", "inspect")
ACCURACY_SCENES = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add = parser.add_argument
    add("--scenes", type=int, required=True, metavar="N", help="how many scenes")
    add("--out", type=Path, required=True, metavar="FOLDER", help="for all that is made")
    add("--seed", type=int, default=0, help="other seeds are other scenes (default: 0)")
    add(
        "--split",
        choices=("train", "held_out"),
        default="held_out",
        help="scenes of one split are never in the other (default: held_out)",
    )
    add("--jobs", type=int, default=2, help="processes at once (default: 2)")
    add(
        "--only",
        choices=STEPS,
        action="append",
        metavar="STEP",
        help=f"do this step alone, again if need be; may be repeated: {', '.join(STEPS)}",
    )
    add(
        "--accuracy-scenes",
        type=int,
        default=ACCURACY_SCENES,
        metavar="N",
        help="scenes, from the first on, to annotate again with depth noise "
        f"(default: {ACCURACY_SCENES})",
    )


def run(options: argparse.Namespace) -> int:
    """Do the steps that are left.

    Returns:
        0; 1 where pictures failed; 2 where a step could not go on.

    Raises:
        JobError: it cannot go on; what is done is kept.
        OSError: a folder cannot be read or written.
        KeyboardInterrupt: likewise.
    """
    from rich.console import Console

    for name, value in (
        ("--scenes", options.scenes),
        ("--jobs", options.jobs),
        ("--accuracy-scenes", options.accuracy_scenes),
    ):
        if value < 1:
            raise JobError(f"{name} is {value}; it must be at least 1")
    if options.seed < 0:
        raise JobError(f"--seed is {options.seed}; it must not be negative")
    console = Console()
    shards = min(options.jobs, options.scenes)
    done_steps = WorldSteps(options.out, options.scenes, options.seed, options.split, shards)
    steps = _steps(options, done_steps.shards, console)
    worst = 0
    try:
        for step in steps:
            if step.name in options.only if options.only else not done_steps.is_done(step):
                console.rule(step.name, align="left")
                status = done_steps.do(step)
                worst = max(worst, status)
                if status > 1:
                    break
    finally:
        console.print(done_steps.table(steps))
    return worst


def _steps(options: argparse.Namespace, shards: int, console) -> "list[Step]":
    scenes, records = options.out / "scenes", options.out / "annotations"
    accuracy = options.out / "accuracy"
    return [
        Step("generate", f"{scenes}", lambda: _generate(options, scenes, console)),
        Step("annotate", f"{records}", lambda: _annotate(options, scenes, records, shards)),
        Step("questions", f"{records / 'questions.jsonl'}", lambda: _ask(options, records)),
        Step(
            "accuracy",
            f"{accuracy / 'accuracy.html'}, of {_measured(options)} scenes",
            lambda: _measure(options, scenes, accuracy),
        ),
        Step("inspect", f"{records / 'inspect.html'}", lambda: _inspect(records)),
    ]


def _generate(options: argparse.Namespace, scenes: Path, console) -> int:
    from spear_policy.shared.progress import ProgressDisplay
    from spear_training.annotation.synthetic.generate import Recipe, generate

    recipe = Recipe(options.seed, options.split)
    generate(
        scenes, options.scenes, recipe, options.jobs, ProgressDisplay(console, "scenes", "scenes")
    )
    return 0


def _annotate(options: argparse.Namespace, scenes: Path, records: Path, shards: int) -> int:
    from concurrent.futures.process import BrokenProcessPool

    from spear_policy.shared.workers import process_pool
    from spear_training.annotation.annotate import main

    words = ["run", "--items", str(scenes / "items.jsonl"), "--out", str(records)]
    for stage, name in (("detector", "given"), ("segmenter", "given"), ("geometry", "depth")):
        words += [f"--{stage}", name]
    calls = [[*words, "--shard", str(one), "--num-shards", str(shards)] for one in range(shards)]
    # Bars of several processes would overwrite each other; without them each prints lines.
    lines = {"TTY_COMPATIBLE": "0"} if min(options.jobs, shards) > 1 else {}
    try:
        with process_pool(min(options.jobs, shards), environment=lines) as pool:
            return max(pool.map(main, calls))
    except BrokenProcessPool:
        raise JobError(
            "a process that annotates has died, perhaps for want of memory: the same command, "
            "with fewer --jobs, goes on"
        ) from None


def _ask(options: argparse.Namespace, records: Path) -> int:
    from spear_training.annotation.annotate import main

    return main(["questions", str(records), "--seed", str(options.seed)])


def _measure(options: argparse.Namespace, scenes: Path, accuracy: Path) -> int:
    from spear_training.annotation.annotate import main

    words = ["accuracy", str(scenes), "--out", str(accuracy)]
    return main([*words, "--scenes", str(_measured(options))])


def _measured(options: argparse.Namespace) -> int:
    """How many scenes the accuracy is measured on."""
    return min(options.accuracy_scenes, options.scenes)


def _inspect(records: Path) -> int:
    from spear_training.annotation.annotate import main

    return main(["inspect", str(records)])


# Which steps are done --------------------------------------------------------------------------

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
    """Which steps of a world's folder are done, and their times: its world.json."""

    def __init__(self, out: Path, scenes: int, seed: int, split: str, shards: int):
        """Read the file, or begin one.

        Args:
            shards: parts of the annotation; the number of a file that is there stays.

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
        fix = "use the same numbers again, or choose another --out"
        self._values = write_or_verify(self._path, values, _BINDING, fix)
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

    def table(self, steps: list[Step]):
        """What each step took and made, as a rich.table.Table."""
        from rich.table import Table

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
        write_atomically(self._path, json.dumps(self._values, indent=1))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
