"""`annotate world`: make scenes whose truth is known, and take them through everything.

Scenes on tables and in rooms are drawn with exact masks, depth and boxes; then they are annotated
(true masks and depth, so that boxes are what is measured), asked about, compared with the truth
and shown on a page. The same command goes on where a killed one was.

  FOLDER/scenes       pictures, depth, items.jsonl, truth.jsonl
  FOLDER/truth        records of the true boxes, for a training that needs no annotation
  FOLDER/annotations  the run: records, bins, questions, the page
  FOLDER/accuracy     how far the boxes are from the truth
"""

import argparse
import time
from pathlib import Path

from spear_training.annotation.annotate import main
from spear_training.annotation.stages import JobError

EXAMPLE = """\
examples:
  annotate world --scenes 2000 --out out/world --jobs 2
  annotate world --scenes 500 --out out/train --split train --only generate --only truth
"""
STEPS = ("generate", "truth", "annotate", "questions", "accuracy", "inspect")
ACCURACY_SCENES = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    from rich.console import Console

    from spear_training.annotation.run_folder import RUN_FILE

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
    scenes, records = options.out / "scenes", options.out / "annotations"
    truth = options.out / "truth"
    accuracy = options.out / "accuracy"
    ask = ["questions", str(records), "--seed", str(options.seed)]
    measured = min(options.accuracy_scenes, options.scenes)
    measure = ["accuracy", str(scenes), "--out", str(accuracy), "--scenes", str(measured)]
    # What each step leaves behind, and what does it. To make and to annotate scenes goes on.
    steps = {
        "generate": (scenes, lambda: _generate(options, scenes, console)),
        "truth": (truth / RUN_FILE, lambda: _write_truth(scenes, truth)),
        "annotate": (records, lambda: _annotate(options, scenes, records)),
        "questions": (records / "questions.jsonl", lambda: main(ask)),
        "accuracy": (accuracy / "accuracy.html", lambda: main(measure)),
        "inspect": (records / "inspect.html", lambda: main(["inspect", str(records)])),
    }
    worst = 0
    for name, (made, do) in steps.items():
        if options.only and name not in options.only:
            continue
        console.rule(name, align="left")
        begin_s = time.monotonic()
        if made.is_file() and not options.only:
            words = f"is there; `--only {name}` makes it again"
        else:
            worst = max(worst, do())
            took_s = time.monotonic() - begin_s
            words = f"{took_s:.1f} s, {took_s / options.scenes:.2f} s a scene"
        console.print(f"{made}: {words}", markup=False, highlight=False, soft_wrap=True)
        if worst > 1:
            break
    return worst


def _generate(options: argparse.Namespace, scenes: Path, console) -> int:
    from spear_policy.shared.progress import ProgressDisplay
    from spear_training.annotation.synthetic.generate import Recipe, generate

    recipe = Recipe(options.seed, options.split)
    generate(
        scenes, options.scenes, recipe, options.jobs, ProgressDisplay(console, "scenes", "scenes")
    )
    return 0


def _write_truth(scenes: Path, records: Path) -> int:
    """What is true of the scenes as the records of a run, for questions and training."""
    from spear_policy.shared.files import write_lines
    from spear_training.annotation.accuracy.compare import read_truth
    from spear_training.annotation.accuracy.measure import ITEMS, TRUTH
    from spear_training.annotation.records import read_items
    from spear_training.annotation.run_folder import RUN_FILE, Shard, agree_on_run
    from spear_training.annotation.synthetic.generate import GENERATOR

    records.mkdir(parents=True, exist_ok=True)
    (records / RUN_FILE).unlink(missing_ok=True)
    truths = [each.annotation for each in read_truth(scenes / TRUTH).values()]
    write_lines(Shard(0, 1).file(records), (each.to_json().encode() for each in truths))
    stage = {"stage": "truth", "generator": GENERATOR}
    agree_on_run(records, [stage], read_items(scenes / ITEMS), scenes, 1, str(scenes / ITEMS))
    return 0


def _annotate(options: argparse.Namespace, scenes: Path, records: Path) -> int:
    from concurrent.futures.process import BrokenProcessPool

    from spear_policy.shared.workers import process_pool

    parts = min(options.jobs, options.scenes)
    words = ["run", "--items", str(scenes / "items.jsonl"), "--out", str(records)]
    for stage, name in (("detector", "given"), ("segmenter", "given"), ("geometry", "depth")):
        words += [f"--{stage}", name]
    calls = [[*words, "--shard", str(part), "--num-shards", str(parts)] for part in range(parts)]
    # Bars of several processes would overwrite each other; without them each prints lines.
    lines = {"TTY_COMPATIBLE": "0"} if parts > 1 else {}
    try:
        with process_pool(parts, environment=lines) as pool:
            return max(pool.map(main, calls))
    except BrokenProcessPool:
        raise JobError(
            "a process that annotates has died, perhaps for want of memory: the same command, "
            "with fewer --jobs, goes on"
        ) from None
