"""Turn recorded data of any known format into what trainings and robots read.

  --to store      one folder in the layout of LeRobotDataset v3.0, fitted pictures as JPEG, to train
                  from; written by several processes, the same for any number of them
  --to episodes   one .npz an episode, to replay on a robot

An episode that cannot be used is named with its reason and leaves the others alone. A run may be
stopped or killed at any moment: the same command goes on where it was.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from rich.console import Console

from spear_training.data.importing.episode_files import Summary, write_episode_files
from spear_training.data.importing.progress import ImportProgress
from spear_training.data.importing.selection import ALL, parse_selection
from spear_training.data.importing.source_options import (
    FORMATS,
    add_options,
    make_source,
    option_problem,
)
from spear_training.data.importing.store_import import import_to_store
from spear_training.data.importing.summary import summary_lines
from spear_training.data.importing.workers import WorkerError
from spear_training.data.reader import DataFileError
from spear_training.data.report.store_page import write_report

EXAMPLE = """\
examples:
  import_episodes --to store --format oxe --row bridge --input bridge_dataset/1.0.0 \\
      --output stores/bridge
  import_episodes --to store --format bag --input out/trials --outcomes SUCCESS \\
      --output stores/our_lab
  import_episodes --to store --format lerobot --keys droid --input droid_1.0.1 \\
      --output stores/droid --workers 16
  import_episodes --format bridge_rlds --input ../shared/data/bridge_rlds --output out/episodes \\
      --episodes 0,3,7
"""
EPISODES, STORE = "episodes", "store"


def main(arguments: list[str] | None = None) -> int:
    """Run it.

    Returns:
        0: all episodes are there; 1: some were rejected; 2: it could not go on; 130: interrupted.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if problem := option_problem(options):
        parser.error(problem)
    if options.to is None and options.format != "bridge_rlds":
        parser.error(f"--to is missing: {STORE} to train from, {EPISODES} to replay on a robot")
    if options.overwrite and options.to == STORE:
        parser.error("--overwrite is for --to episodes; a store is deleted by you")
    if options.workers < 1:
        parser.error(f"--workers is {options.workers}: it must be at least 1")
    # A job that a script starts in the background ignores SIGINT by default.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return (_to_store if options.to == STORE else _to_episodes)(options)


def _to_store(options: argparse.Namespace) -> int:
    console, root = Console(), options.output
    try:
        with ImportProgress(console) as progress:
            source = make_source(options)
            facts = import_to_store(source, root, options.episodes, options.workers, progress)
        page = write_report(root)
    except KeyboardInterrupt:
        print("\nimport_episodes: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except (DataFileError, ValueError, WorkerError) as error:
        print(f"import_episodes: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(
            f"import_episodes: {where}{error.strerror or error}; what is written stays, the same "
            "command goes on from here",
            file=sys.stderr,
        )
        return 2
    for line in summary_lines(root, facts, page):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 1 if facts.rejected else 0


def _to_episodes(options: argparse.Namespace) -> int:
    summary = Summary()
    try:
        reader = make_source(options).open()
        chosen = parse_selection(options.episodes, len(reader))
        write_episode_files(reader, options.output, chosen, summary, options.overwrite)
    except ValueError as error:
        print(f"import_episodes: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"import_episodes: {options.output}: {error}; {summary}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nimport_episodes: interrupted; {summary}", file=sys.stderr)
        return 130
    print(f"{summary}, in {options.output}")
    for reason in summary.rejected:
        print(f"  rejected {reason}", file=sys.stderr)
    return 1 if summary.rejected else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="import_episodes",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--format", required=True, choices=FORMATS, help="what --input is")
    add("--input", required=True, type=Path, help="folder of the data set")
    add("--to", choices=(EPISODES, STORE), help="see above; of bridge_rlds by itself: episodes")
    add("--output", required=True, type=Path, help="folder of the store, or for the .npz files")
    add("--episodes", default=ALL, help='"all" (default), or like 0,3,7-9')
    add(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="processes that write a store (default: one a core, %(default)s)",
    )
    add("--overwrite", action="store_true", help="write .npz files again that exist")
    add_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
