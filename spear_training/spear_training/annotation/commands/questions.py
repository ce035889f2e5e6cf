"""`annotate questions`: fit the bins of the 3D tokens, and write one pass of questions as text.

Training draws its questions itself, new ones in each pass; it needs bins.json only. The file of
questions is to look at, and for other trainers. Records and pictures are never changed.
"""

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from spear_policy.shared.files import write_lines
from spear_training.annotation.stages import JobError
from spear_training.vqa.bins import COUNT, NAME, BinSource, FittedBins, fit_bins
from spear_training.vqa.dataset import (
    ASKED_ALREADY,
    Mixture,
    QuestionCounts,
    RecordFiles,
    check_folders,
    load_mixtures,
    mixture,
    question_lines,
)
from spear_training.vqa.dataset import NAME as QUESTIONS
from spear_training.vqa.pairs import QuestionSettings, parse_weights

EXAMPLE = """\
examples:
  annotate questions out/photos
  annotate questions out/photos --weights keypoints=2,box=1 --pairs-max 1
  annotate questions egoexo4d=out/ego bridge=out/bridge --mixture paper --out out/paper
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    add = parser.add_argument
    add(
        "folders",
        nargs="+",
        metavar="FOLDER",
        help="that `annotate run` has finished; NAME=FOLDER for the datasets of a mixture",
    )
    add("--out", type=Path, help=f"folder for {NAME} (default: FOLDER)")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--mixture", metavar="NAME", help="what is asked: a name of mixtures.yaml")
    choice.add_argument(
        "--weights", metavar="W", help="of the categories, as keypoints=2,box=1 (default: all of "
        "the paper's alike)"
    )  # fmt: skip
    add("--pairs-max", type=int, help="most questions a picture (default: the mixture's, or 4)")
    add("--seed", type=int, default=0, help="of the pass (default: 0)")
    add("--bins", type=Path, metavar="FILE", help="bins of a model, in place of fitting new ones")
    add("--count", type=int, default=COUNT, help=f"number of bins to fit (default: {COUNT})")
    add("--scheme", choices=("normal", "empirical"), default="normal", help="of the bins to fit")
    add("--mixed-units", action="store_true", help="fit metric and unit-less lengths together")


def run(options: argparse.Namespace) -> int:
    """Fit or read the bins, write the questions, print what they came to.

    Returns:
        0; 1 where no picture has a question.

    Raises:
        JobError, MismatchError: it cannot be done.
        OSError: a file cannot be read or written.
    """
    return 0 if _write(options, Console()) else 1


def _write(options: argparse.Namespace, console: Console) -> int:
    """Do it; returns how many questions there are."""
    settings, named = _settings(options)
    folders = _folders(options.folders, named)
    if len(folders) > 1 and not (options.out or options.bins):
        raise JobError(f"{len(folders)} folders need --out: where {NAME} for all of them goes")
    records = {name: RecordFiles(folder) for name, folder in folders.items()}
    if options.bins:
        fitted = FittedBins.load(options.bins)
    else:
        fitted = _fit(options, records, named, console)
        out = options.out or next(iter(folders.values()))
        out.mkdir(parents=True, exist_ok=True)
        fitted.save(out / NAME)
    written = 0
    for name, files in records.items():
        counts = QuestionCounts()
        numbered = track(files, f"questions, {name}", len(files), console=console)
        lines = question_lines(numbered, options.seed, settings, fitted.bins, counts)
        write_lines(files.folder / QUESTIONS, lines)
        _report(console, counts, files.folder / QUESTIONS)
        written += counts.pairs.total()
    _report_bins(console, fitted)
    return written


def _settings(options: argparse.Namespace) -> tuple[QuestionSettings, Mixture | None]:
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


def _folders(given: list[str], named: Mixture | None) -> dict[str, Path]:
    """Names and folders; one folder alone needs no name, whatever the mixture."""
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


def _fit(options, records: dict[str, RecordFiles], named: Mixture | None, console) -> FittedBins:
    shares = named.data_sets if named else {}
    sources = [
        BinSource(
            name,
            shares.get(name, 1.0),
            track(files, f"bins, {name}", len(files), console=console),
        )
        for name, files in records.items()
    ]
    return fit_bins(sources, options.count, options.scheme, options.mixed_units)


def _report(console: Console, counts: QuestionCounts, path: Path) -> None:
    table = Table("category", "questions", "draws not asked, and why")
    for category in sorted({name for name, _ in counts.draws}):
        table.add_row(category, str(counts.pairs[category]), _reasons(counts, category))
    console.print(table)
    asked = counts.pictures - counts.without.total()
    _print(console, f"{counts.pairs.total()} questions about {asked} of {counts.pictures} pictures")
    for reason, count in counts.without.most_common():
        _print(console, f"  {count} without: {reason}")
    _print(console, str(path))


def _report_bins(console: Console, fitted: FittedBins) -> None:
    edges = fitted.bins.edges_m
    _print(
        console,
        f"{fitted.bins.count} bins from {edges[0]:.3f} to {edges[-1]:.3f}; "
        f"{fitted.share_clipped:.1%} of the objects' coordinates lie outside",
    )


def _print(console: Console, words: str) -> None:
    console.print(words, markup=False, highlight=False, soft_wrap=True)


def _reasons(counts: QuestionCounts, category: str) -> str:
    of_category = Counter({why: n for (name, why), n in counts.draws.items() if name == category})
    total = of_category.total()
    del of_category["asked"], of_category[ASKED_ALREADY]
    return "; ".join(f"{why} {n / total:.1%}" for why, n in of_category.most_common())
