"""How quickly questions are made, how long they are, and what the bins cost, on a finished run.

Example, on scenes of known truth:
    python3 test/benchmark/questions.py out/world/3d --mixture world

Needs FOLDER/bins.json, which `annotate questions FOLDER` writes. Times are CPU time of one process.
The tokenizer is that of the preset `small`; PaliGemma's makes fewer tokens of the same words.
"""

import argparse
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from spear_policy.model.answers import Point
from spear_policy.model.coordinate_bins import BINS_FILE
from spear_training.annotation.records import PICTURE_HEIGHT_PX, PICTURE_WIDTH_PX
from spear_training.vqa.asking import pixel_of
from spear_training.vqa.bins import FittedBins
from spear_training.vqa.dataset import (
    ASKED_ALREADY,
    RecordFiles,
    example_ids,
    make_example,
    mixture,
    rendered,
    rendered_pair,
    text_grammar,
)
from spear_training.vqa.pairs import NotAskedError


def cpu_rate(work, count):
    """Return calls per second of CPU time."""
    began = time.process_time()
    work()
    return count / (time.process_time() - began)


def report_speed(console, records, annotations, settings, grammar, passes):
    """Print rates of each step and of all."""
    bins, count = grammar.bins, passes * len(annotations)

    def made():
        for seed in range(passes):
            for annotation in annotations:
                yield make_example(annotation, seed, settings, bins)

    def lay_out():
        for example in made():
            if example:
                example_ids(example, grammar, settings.max_tokens)

    rates = {
        "make_example": cpu_rate(lambda: Counter(map(bool, made())), count),
        "make_example + rendered": cpu_rate(
            lambda: [rendered(example, grammar) for example in made() if example], count
        ),
        "make_example + example_ids": cpu_rate(lay_out, count),
        "read and parse a record": cpu_rate(
            lambda: [records.annotation(number) for number in range(len(records))], len(records)
        ),
    }
    for name, rate in rates.items():
        console.print(f"{name}: {rate:,.0f} a second")


def report_lengths(console, annotations, settings, grammar, passes):
    """Print tokens of questions, answers and examples, and why draws were not asked."""
    encode = grammar.tokenizer.encode
    lengths, draws, rows = defaultdict(list), Counter(), []
    for seed in range(passes):
        for annotation in annotations:
            example = make_example(annotation, seed, settings, grammar.bins, draws)
            for pair in example.pairs if example else ():
                question, answer = rendered_pair(pair, grammar)
                lengths[pair.category].append((len(encode(question)), len(encode(answer))))
            if example:
                rows.append(len(example_ids(example, grammar, 1 << 20)[0].ids))
    table = Table("category", "asked", "question tokens", "answer tokens", "not asked")
    for category, pairs in lengths.items():
        asked, replied = np.array(pairs).T
        reasons = {why: n for (name, why), n in draws.items() if name == category}
        total = sum(reasons.values())
        told = [
            f"{why} {n / total:.1%}"
            for why, n in reasons.items()
            if why not in ("asked", ASKED_ALREADY)
        ]
        spread = [f"{np.median(each):.0f}, at most {each.max()}" for each in (asked, replied)]
        table.add_row(category, str(len(pairs)), *spread, "; ".join(told))
    console.print(table)
    half, most = np.percentile(rows, [50, 99])
    console.print(
        f"examples: {half:.0f} tokens, 99 of 100 up to {most:.0f}, at most {max(rows)}; "
        f"{np.mean(np.array(rows) > settings.max_tokens):.2%} above {settings.max_tokens}"
    )


def report_bin_error(console, annotations, bins):
    """Print how far the pixel of a point's tokens is from the pixel of the point."""
    errors = []
    for annotation in annotations:
        for found in annotation.objects if annotation.intrinsics else ():
            for point in found.sample_m:
                if not bins.edges_m[0] <= min(point) or not max(point) <= bins.edges_m[-1]:
                    continue
                told = Point(bins.decode(bins.encode(point)))
                try:
                    pixels = [pixel_of(xyz, annotation.intrinsics) for xyz in (point, told.xyz_m)]
                except NotAskedError:
                    continue
                (u, v), (told_u, told_v) = (
                    pixel.in_pixels(PICTURE_WIDTH_PX, PICTURE_HEIGHT_PX) for pixel in pixels
                )
                errors.append(np.hypot(u - told_u, v - told_v))
    half, most = np.percentile(errors, [50, 99])
    console.print(
        f"backprojection: what a point's tokens say lies {half:.1f} px beside it in a picture "
        f"of {PICTURE_WIDTH_PX}x{PICTURE_HEIGHT_PX} (median of {len(errors)} points; 99 of 100 "
        f"up to {most:.1f} px; a <loc> token is {PICTURE_WIDTH_PX / 1024:.2f} px wide)"
    )


def main():
    """Measure one folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="that `annotate run` has finished")
    parser.add_argument("--mixture", default="world", help="what is asked (default: world)")
    parser.add_argument("--bins", type=Path, help=f"default: FOLDER/{BINS_FILE}")
    parser.add_argument("--pictures", type=int, default=1000, help="at most (default: 1000)")
    parser.add_argument("--passes", type=int, default=3, help="over the pictures (default: 3)")
    options = parser.parse_args()
    console = Console()
    records = RecordFiles(options.folder)
    annotations = [records.annotation(n) for n in range(min(len(records), options.pictures))]
    settings = mixture(options.mixture).settings
    fitted = FittedBins.load(options.bins or options.folder / BINS_FILE)
    grammar = text_grammar(fitted.bins)
    edges = fitted.bins.edges_m
    widths = np.diff(edges)
    objects = np.mean([len(each.objects) for each in annotations])
    console.print(
        f"{len(annotations)} pictures, {objects:.1f} objects each; {fitted.bins.count} bins from "
        f"{edges[0]:.3f} to {edges[-1]:.3f}, {widths.min():.4f} to {widths.max():.4f} wide"
    )
    report_lengths(console, annotations, settings, grammar, options.passes)
    report_bin_error(console, annotations, fitted.bins)
    report_speed(console, records, annotations, settings, grammar, options.passes)


if __name__ == "__main__":
    main()
