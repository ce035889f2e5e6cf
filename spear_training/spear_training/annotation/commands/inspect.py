"""Show what a run has found: a page with pictures, masks, 3D boxes, questions and answers.

The page is one file that needs no other and no network, so it can be mailed; more than 60
pictures make several. Its upper part is about all records: what failed and why, sizes and
distances, labels, time. A run that is still at work can be looked at, too.
"""

import argparse
from pathlib import Path

EXAMPLE = """\
examples:
  annotate inspect out/photos
  annotate inspect out/photos --only failed --count 20 --page out/failed.html
  annotate inspect out/photos --id kitchen/0012.jpg --id kitchen/0040.jpg
"""
_STATUSES = ("all", "ok", "empty", "failed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, metavar="OUT", help="folder that `annotate run` writes to")
    add("--count", type=int, default=50, metavar="N", help="pictures to show (default: 50)")
    add("--only", choices=_STATUSES, default="all", help="pictures of one status (default: all)")
    add("--id", action="append", default=[], help="show this picture alone; may be repeated")
    add("--seed", type=int, default=0, help="another one draws other pictures (default: 0)")
    add("--page", type=Path, metavar="FILE", help="the page (default: OUT/inspect.html)")
    add("--per-page", type=int, default=60, metavar="N", help="pictures on a page (default: 60)")
    add("--images", type=Path, metavar="FOLDER", help="of the pictures, if it was moved")
    add("--bins", type=Path, metavar="FILE", help="of the 3D tokens (default: OUT/bins.json)")


def run(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import track

    from spear_training.annotation.inspection.page import (
        PAGE,
        PageOptions,
        summarise_run,
        write_pages,
    )
    from spear_training.annotation.stages import JobError

    for name, value in (("--count", options.count), ("--per-page", options.per_page)):
        if value < 1:
            raise JobError(f"{name} is {value}; it must be at least 1")
    console = Console()

    def progress(values, name, total):
        return track(values, name, total, console=console, transient=True)

    wanted = PageOptions(
        options.count,
        options.only,
        tuple(options.id),
        options.seed,
        options.images,
        options.bins,
    )
    found = summarise_run(options.folder, wanted, progress)
    files = write_pages(found, options.page or options.folder / PAGE, options.per_page, progress)
    shown = f"{len(found.shown)} of {found.tally.statuses.total()} pictures"
    size = sum(file.stat().st_size for file in files) / 1e6
    for words in (*found.notes, f"{shown}, {size:.1f} MB, in", *map(str, files)):
        console.print(words, markup=False, highlight=False, soft_wrap=True)
    return 0
