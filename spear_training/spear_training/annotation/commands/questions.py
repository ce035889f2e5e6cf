"""`annotate questions`: fit the bins of the 3D tokens, and write one pass of questions as text.

Training draws its questions itself, new ones in each pass; it needs bins.json only. The file of
questions is to look at, and for other trainers. Records and pictures are never changed.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from spear_training.annotation.stages import JobError

if TYPE_CHECKING:
    from spear_training.vqa.dataset import Mixture
    from spear_training.vqa.pairs import QuestionSettings

EXAMPLE = """\
examples:
  annotate questions out/photos
  annotate questions out/photos --weights keypoints=2,box=1 --pairs-max 1
  annotate questions egoexo4d=out/ego bridge=out/bridge --mixture paper --out out/paper
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "folders",
        nargs="+",
        metavar="FOLDER",
        help="that `annotate run` has finished; NAME=FOLDER for the datasets of a mixture",
    )
    add("--out", type=Path, help="folder for bins.json (default: FOLDER)")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--mixture", metavar="NAME", help="what is asked: a name of mixtures.yaml")
    choice.add_argument(
        "--weights", metavar="W", help="of the categories, as keypoints=2,box=1 (default: all of "
        "the paper's alike)"
    )  # fmt: skip
    add("--pairs-max", type=int, help="most questions a picture (default: the mixture's, or 4)")
    add("--seed", type=int, default=0, help="of the pass (default: 0)")
    add("--bins", type=Path, metavar="FILE", help="bins of a model, in place of fitting new ones")
    add("--count", type=int, default=1024, help="number of bins to fit (default: 1024)")
    add("--scheme", choices=("normal", "empirical"), default="normal", help="of the bins to fit")
    add("--mixed-units", action="store_true", help="fit metric and unit-less lengths together")


def run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from spear_training.vqa.question_files import write_questions

    settings, named = _settings(options)
    folders = _folders(options.folders, named)
    if len(folders) > 1 and not (options.out or options.bins):
        raise JobError(f"{len(folders)} folders need --out: where bins.json for all of them goes")
    return 0 if write_questions(options, folders, settings, named, Console()) else 1


def _settings(options: argparse.Namespace) -> "tuple[QuestionSettings, Mixture | None]":
    from spear_training.vqa.dataset import mixture
    from spear_training.vqa.pairs import QuestionSettings, parse_weights

    named = mixture(options.mixture) if options.mixture else None
    settings = named.settings if named else QuestionSettings()
    try:
        if options.weights:
            settings = replace(settings, weights=parse_weights(options.weights))
        if options.pairs_max is not None:
            settings = replace(settings, pairs_max=options.pairs_max)
    except ValueError as error:
        raise JobError(str(error)) from None
    return settings, named


def _folders(given: list[str], named: "Mixture | None") -> dict[str, Path]:
    """Names and folders; one folder alone needs no name, whatever the mixture."""
    from spear_training.vqa.dataset import check_folders, load_mixtures

    if len(given) == 1 and ("=" not in given[0] or Path(given[0]).is_dir()):
        return {Path(given[0]).resolve().name: Path(given[0])}
    pairs = [part.partition("=") for part in given]
    if not all(name and folder for name, _, folder in pairs):
        raise JobError("several folders need names: write NAME=FOLDER for each")
    folders = {name: Path(folder) for name, _, folder in pairs}
    if len(folders) < len(pairs):
        raise JobError("two folders have one name")
    if named is None:
        raise JobError(f"several folders need --mixture: choose from {', '.join(load_mixtures())}")
    check_folders(named, folders)
    return folders
