"""`annotate accuracy`: how far the boxes are from known truth.

The scenes of a world (`annotate world`) are annotated with their true masks: once with their true
depth, and twice with the noise of a depth camera. With --run, the records of any run over the
same list of pictures, with whatever detector, segmenter and geometry, are compared too.

  OUT/accuracy.html   curves and tables
  OUT/accuracy.json   the same numbers, and every object
"""

import argparse
from pathlib import Path

EXAMPLE = """\
examples:
  annotate accuracy out/world/scenes --out out/world/accuracy --scenes 500
  annotate accuracy out/world/scenes --out out/moge --scenes 500 --run out/world_with_moge
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("world", type=Path, metavar="WORLD", help="folder with items.jsonl and truth.jsonl")
    add("--out", type=Path, required=True, metavar="OUT", help="folder for the page")
    add("--scenes", type=int, metavar="N", help="the first N of its scenes (default: all)")
    add("--run", type=Path, metavar="FOLDER", help="of a run over WORLD/items.jsonl")
    add("--seed", type=int, default=0, help="of the noise (default: 0)")
    add("--noise", type=float, default=1.0, help="times a Kinect's noise (default: 1)")


def run(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from rich.console import Console
    from rich.progress import Progress

    from spear_training.annotation.accuracy.measure import DepthNoise, compare_run, measure_world
    from spear_training.annotation.accuracy.report import terminal_tables, write_report
    from spear_training.annotation.run_folder import read_annotations
    from spear_training.annotation.stages import JobError

    if options.scenes is not None and options.scenes < 1:
        raise JobError(f"--scenes is {options.scenes}; it must be at least 1")
    if not options.noise >= 0:
        raise JobError(f"--noise is {options.noise}; it must be at least 0")
    console = Console()
    noise = DepthNoise(axial_scale=options.noise, seed=options.seed)
    with Progress(console=console) as bar:
        task = bar.add_task("scenes", total=None)
        report = measure_world(
            options.world,
            options.scenes,
            noise,
            lambda done, all_: bar.update(task, completed=done, total=all_),
        )
    if options.run:
        other = compare_run(str(options.run), read_annotations(options.run), report.truths)
        report = replace(report, conditions=(*report.conditions, other))
    page = write_report(report, options.out)
    for table in terminal_tables(report):
        console.print(table)
    console.print(f"{page}", markup=False, soft_wrap=True)
    return 0
