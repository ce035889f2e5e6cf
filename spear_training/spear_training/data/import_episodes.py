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

EXAMPLE = """\
examples:
  import_episodes --to store --format oxe --row bridge --input bridge_dataset/1.0.0 \\
      --output stores/bridge
  import_episodes --to store --format bag --input out/trials --outcomes SUCCESS \\
      --output stores/our_lab
  import_episodes --to store --format lerobot --keys droid --input droid_1.0.1 \\
      --output stores/droid --workers 16
  import_episodes --to store --format bag --topics their_robot.yaml --instruction "pick the cup" \\
      --input their_bags --output stores/theirs --dry-run
  import_episodes --format bridge_rlds --input data/bridge_rlds --output out/episodes \\
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
    if problem := _option_problem(options):
        parser.error(problem)
    if options.to is None and options.format != "bridge_rlds":
        parser.error(f"--to is missing: {STORE} to train from, {EPISODES} to replay on a robot")
    if options.overwrite and options.to == STORE:
        parser.error("--overwrite is for --to episodes; a store is deleted by you")
    for name in ("dry_run", "retry_rejected"):
        if getattr(options, name) and options.to != STORE:
            parser.error(f"--{name.replace('_', '-')} is for --to {STORE}")
    if options.workers < 1:
        parser.error(f"--workers is {options.workers}: it must be at least 1")
    # A job that a script starts in the background ignores SIGINT by default.
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    try:
        # Readers and their libraries take seconds to import, which --help does without.
        from spear_training.data import import_run
    except KeyboardInterrupt:
        return 130
    return (import_run.to_store if options.to == STORE else import_run.to_episodes)(options)


def _interrupt(number, frame):
    """Raise KeyboardInterrupt, but later in a destructor: Python drops what is raised there.

    Nor while a zip file is made: the destructor of half a one complains.
    """
    while frame is not None:
        function, module = frame.f_code.co_name, frame.f_globals.get("__name__")
        if function == "__del__" or (function, module) == ("__init__", "zipfile"):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            return
        frame = frame.f_back
    raise KeyboardInterrupt


# Command-line options of a source --------------------------------------------------------------


# Which options each format has; the first is needed where it is in _NEEDED.
_OPTIONS = {
    "bag": ("outcomes", "namespace", "topics", "instruction"),
    "bridge_rlds": ("split", "partial"),
    "lerobot": ("keys",),
    "oxe": ("row", "table", "subset", "split", "partial"),
}
_NEEDED = {"oxe": "row"}
FORMATS = tuple(_OPTIONS)


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    add = parser.add_argument_group("oxe: Open X-Embodiment in RLDS form").add_argument
    add("--row", help="of the mixture table, such as bridge")
    add("--table", type=Path, metavar="MINE.yaml", help="what you confirmed or changed in it")
    add("--subset", metavar="NAME", help="a part that the row names, such as single_kitchen_sink")
    add("--split", help="of the dataset (default: train)")
    add("--partial", action="store_true", default=None, help="take the files that are there")
    add = parser.add_argument_group("bag: trials of SPEAR, or bags of other recorders").add_argument
    add("--outcomes", help='of the trials: "any", or like SUCCESS,UNKNOWN (default: SUCCESS)')
    add("--namespace", help="of the robot, if bags hold two")
    add("--topics", type=Path, metavar="MINE.yaml", help="what is where in bags of others")
    add("--instruction", metavar="TEXT", help="the sentence of bags that have none")
    add = parser.add_argument_group("lerobot: LeRobotDataset v2.0, v2.1, v3.0").add_argument
    add("--keys", help="which columns hold what: a YAML file, or droid; none for our stores")


def _option_problem(options: argparse.Namespace) -> str | None:
    """What is missing, or does not belong to the format, in a sentence; None if all is well."""
    own = _OPTIONS[options.format]
    for name in dict.fromkeys(name for names in _OPTIONS.values() for name in names):
        if getattr(options, name) is not None and name not in own:
            homes = [format_ for format_, names in _OPTIONS.items() if name in names]
            return f"--{name} is for --format {' and '.join(homes)}, not for {options.format}"
    needed = _NEEDED.get(options.format)
    if needed and getattr(options, needed) is None:
        return f"--format {options.format} needs --{needed}"
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="import_episodes",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--format", required=True, choices=FORMATS, help="what --input is")
    add("--input", required=True, type=Path, help="folder of the dataset")
    add("--to", choices=(EPISODES, STORE), help="see above; of bridge_rlds by itself: episodes")
    add("--output", required=True, type=Path, help="folder of the store, or for the .npz files")
    add("--episodes", default="all", help='"all" (default), or like 0,3,7-9')
    add(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="processes that write a store (default: one a core, %(default)s)",
    )
    add("--overwrite", action="store_true", help="write .npz files again that exist")
    add(
        "--dry-run",
        action="store_true",
        help="import some episodes to OUTPUT.dry_run, and show them",
    )
    add(
        "--retry-rejected",
        action="store_true",
        help="read the rejected episodes of a finished store again, after their source was mended",
    )
    _add_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
