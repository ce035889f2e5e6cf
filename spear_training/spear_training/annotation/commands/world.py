"""`annotate world`: make scenes whose truth is known, and take them through everything.

Scenes on tables and in rooms are drawn with exact masks, depth and boxes; then they are annotated
(true masks and depth, so that boxes are what is measured), asked about, compared with the truth
and shown on a page. The same command goes on where a killed one was.

  FOLDER/scenes       pictures, depth, items.jsonl, truth.jsonl; sheet.jpg shows a few
  FOLDER/annotations  the run: records, bins, questions, the page
  FOLDER/accuracy     how far the boxes are from the truth
  FOLDER/world.json   how long each step took
"""

import argparse
import os
from pathlib import Path

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

    from spear_training.annotation.synthetic.generate import WorldSteps

    for name, value in (
        ("--scenes", options.scenes),
        ("--jobs", options.jobs),
        ("--accuracy-scenes", options.accuracy_scenes),
    ):
        if value < 1:
            raise JobError(f"{name} is {value}; it must be at least 1")
    console = Console()
    shards = min(options.jobs, options.scenes)
    book = WorldSteps(options.out, options.scenes, options.seed, options.split, shards)
    steps = _steps(options, book.shards, console)
    worst = 0
    try:
        for step in steps:
            if step.name in options.only if options.only else not book.is_done(step):
                console.rule(step.name, align="left")
                status = book.do(step)
                worst = max(worst, status)
                if status > 1:
                    break
    finally:
        console.print(book.table(steps))
    return worst


def _steps(options: argparse.Namespace, shards: int, console) -> list:
    from spear_training.annotation.synthetic.generate import Step

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
    from spear_training.annotation.annotate import main
    from spear_training.annotation.synthetic.generate import defaults_of_environment, side_by_side

    words = ["run", "--items", str(scenes / "items.jsonl"), "--out", str(records)]
    for stage, name in (("detector", "given"), ("segmenter", "given"), ("geometry", "depth")):
        words += [f"--{stage}", name]
    calls = [[*words, "--shard", str(one), "--num-shards", str(shards)] for one in range(shards)]
    # Bars of several processes would overwrite each other; without them each prints lines.
    lines = {"TTY_COMPATIBLE": "0"} if min(options.jobs, shards) > 1 else {}
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // options.jobs))}
    with defaults_of_environment(threads | lines):
        return side_by_side(main, calls, options.jobs)


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
