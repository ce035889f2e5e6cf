"""The files of `annotate questions`: bins.json, and one pass of questions as text."""

import argparse
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from spear_policy.model.coordinate_bins import BINS_FILE
from spear_policy.shared.files import write_lines
from spear_training.vqa.bins import BinSource, FittedBins, fit_bins
from spear_training.vqa.dataset import (
    ASKED_ALREADY,
    Mixture,
    QuestionCounts,
    RecordFiles,
    question_lines,
)
from spear_training.vqa.dataset import NAME as QUESTIONS
from spear_training.vqa.pairs import QuestionSettings


def write_questions(
    options: argparse.Namespace,
    folders: dict[str, Path],
    settings: QuestionSettings,
    named: Mixture | None,
    console: Console,
) -> int:
    """Fit or read the bins, write the questions, print what they came to.

    Args:
        options: of `annotate questions`.
        folders: of the runs, by the names of their data sets.
        named: the mixture of these data sets; None: one folder, or all alike.

    Returns:
        How many questions there are.

    Raises:
        JobError, MismatchError: it cannot be done.
        OSError: a file cannot be read or written.
    """
    records = {name: RecordFiles(folder) for name, folder in folders.items()}
    if options.bins:
        fitted = FittedBins.load(options.bins)
    else:
        fitted = _fit(options, records, named, console)
        out = options.out or next(iter(folders.values()))
        out.mkdir(parents=True, exist_ok=True)
        fitted.save(out / BINS_FILE)
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
