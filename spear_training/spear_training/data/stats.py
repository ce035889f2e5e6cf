"""Work out what a mixture is normalised by, and point out what is odd about its datasets.

What is counted is kept beside each store, so a second run, another scheme or other weights cost
nothing. The result is statistics.json, which training reads and checkpoints carry, and a page
beside it for a person.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from spear_policy.shared.progress import ProgressDisplay
from spear_training.data.mixture import MixtureOrder, MixtureStore, load_mixture, open_stores
from spear_training.data.reader import DataFileError
from spear_training.data.report import write_statistics_report
from spear_training.data.statistics.motion import (
    MotionStatistics,
    gather,
    keep,
    kept_statistics,
    oddities,
)
from spear_training.data.statistics.normalisation import (
    SCHEMES,
    ConstBounds,
    Normalisation,
    normalisation,
    write_normalisation,
)
from spear_training.data.store.reader import FrameStore

EXAMPLE = """\
examples:
  spear_stats --mixture oxe --root stores --out out/statistics        the paper's 25 rows
  spear_stats --mixture our_lab.yaml --scheme mean_std --out out/statistics
"""


def main(arguments: list[str] | None = None) -> int:
    """Run it; 0: done, 1: done, with oddities to look at, 2: it could not go on."""
    options = _options(arguments)
    console = Console()
    try:
        parts = load_mixture(options.mixture, options.root, table=options.table, only=options.only)
        stores = open_stores(parts)
        motions = {
            part.name: _motion(store, part.name, options.workers, console)
            for part, store in zip(parts, stores, strict=True)
        }
        order = MixtureOrder([part.weight for part in parts], [len(s) for s in stores], seed=0)
        shares = dict(zip([part.name for part in parts], order.shares.tolist(), strict=True))
        bounds = _bounds(options)
        found = normalisation(motions, shares, options.scheme, bounds)
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / "statistics.json"
        rows = {p.name: s.metadata.row_hash for p, s in zip(parts, stores, strict=True)}
        write_normalisation(path, found, shares, rows)
        odd = oddities(motions, found.pooled)
        page = write_statistics_report(options.out, motions, shares, found, odd)
    except (DataFileError, ValueError, OSError) as error:
        print(f"stats: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstats: interrupted; run it again to go on", file=sys.stderr)
        return 130
    _show(console, parts, motions, shares, found)
    for each in odd:
        console.print(f"[yellow]{each.dataset}[/]: {each.text}", highlight=False)
    console.print(f"{path} written, hash {found.hashes()['pooled'][:12]}", highlight=False)
    console.print(f"{page}", highlight=False, markup=False, soft_wrap=True)
    return 1 if odd else 0


def _motion(store: FrameStore, name: str, workers: int, console: Console) -> MotionStatistics:
    if (kept := kept_statistics(store)) is not None:
        return kept
    motion, counted = MotionStatistics(), 0
    with ProgressDisplay(console, f"counting {name}", "episodes") as progress:
        progress.begin(len(store.episodes))
        for done, so_far in gather(store, workers):
            progress.advance(done - counted)
            motion, counted = so_far, done
    keep(store, motion)
    return motion


def _show(
    console: Console,
    parts: Sequence[MixtureStore],
    motions: dict[str, MotionStatistics],
    shares: dict[str, float],
    found: Normalisation,
) -> None:
    table = Table("dataset", title=f"scheme {found.scheme}")
    for heading in ("share", "episodes", "moments", "idle", "open", "1 s [mm]", "99 % [mm]"):
        table.add_column(heading, justify="right")
    for part in parts:
        motion = motions[part.name]
        table.add_row(
            part.name,
            f"{100 * shares[part.name]:.1f} %",
            f"{motion.episodes}",
            f"{motion.moments}",
            f"{100 * motion.idle_share:.0f} %",
            f"{100 * motion.open_share:.0f} %",
            f"{1e3 * motion.distance.quantile(0.5):.0f}",
            f"{1e3 * motion.distance.quantile(0.99):.0f}",
        )
    console.print(table)
    for kind in ("translation", "position"):
        bounds = getattr(found.pooled, kind)
        low_high = zip("xyz", bounds.low, bounds.high, strict=True)
        ends = [f"{axis} {low:.3f}..{high:.3f}" for axis, low, high in low_high]
        console.print(f"{kind} [m]: {', '.join(ends)}", highlight=False, markup=False)


def _bounds(options: argparse.Namespace) -> ConstBounds | None:
    if options.scheme != "const":
        return None
    step, reach = options.const_translation_m, options.const_position_m
    return ConstBounds((-step,) * 3, (step,) * 3, (-reach,) * 3, (reach,) * 3)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="spear_stats",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--mixture", required=True, help='"oxe" or a YAML file, see data/mixture.py'
    )
    parser.add_argument("--root", type=Path, help="folder of the stores, for oxe")
    parser.add_argument("--table", type=Path, help="a mixture table of your own, for oxe")
    parser.add_argument("--only", nargs="+", default=(), help="parts to use (default: all)")
    parser.add_argument("--scheme", choices=SCHEMES, default=SCHEMES[0], help="see the docs")
    parser.add_argument("--const-translation-m", type=float, default=0.1, help="for const")
    parser.add_argument("--const-position-m", type=float, default=1.0, help="for const")
    parser.add_argument(
        "--out", required=True, type=Path, help="folder for statistics.json and a page"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes that count")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
