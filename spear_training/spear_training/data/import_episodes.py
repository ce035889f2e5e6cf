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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from spear_policy.inference.episode import Episode, EpisodeError, save_episode, split_episode
from spear_training.data.reader import DataFileError, EpisodeReader
from spear_training.data.report import share_words, time_words, write_report
from spear_training.data.sources import (
    ALL,
    FORMATS,
    add_options,
    make_source,
    option_problem,
    parse_selection,
)
from spear_training.data.store.format import REJECTS_PATH, StoreMetadata
from spear_training.data.store_import import ImportProgress, WorkerError, import_to_store

# Episodes as files of their own ----------------------------------------------------------------


@dataclass
class ImportSummary:
    """What an import came to."""

    written: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kept = f", {len(self.kept)} were there already (--overwrite writes them again)"
        return (
            f"{len(self.written)} episodes written{kept if self.kept else ''}, "
            f"{len(self.rejected)} rejected"
        )


def write_episode_files(
    reader: EpisodeReader,
    output: Path,
    episodes: Iterable[int],
    summary: ImportSummary,
    overwrite: bool = False,
    print_line: Callable[[str], object] = print,
) -> None:
    """Write `episodes` of `reader` as `output`/<name>-<index>.npz, noting each in `summary`.

    Each file is written whole or not at all. One that is there already is kept, so that a run
    that was interrupted goes on where it was.

    Raises:
        OSError: `output` cannot be written (disk full, no permission). What is there is whole.
    """
    episodes = list(episodes)
    output.mkdir(parents=True, exist_ok=True)
    for count, index in enumerate(episodes, 1):
        path = output / f"{reader.name}-{index:06d}.npz"
        begin = f"[{count}/{len(episodes)}] {path.name}"
        if path.exists() and not overwrite:
            summary.kept.append(path)
            print_line(f"{begin}: kept")
            continue
        try:
            # The first piece takes the episode's name, and is written last: all are there then.
            pieces = split_episode(reader.read(index))
            paths = [path.with_stem(f"{path.stem}-{part}") for part in range(1, len(pieces))]
            for piece, place in reversed([*zip(pieces, [path, *paths], strict=True)]):
                # Pictures that are still encoded show here whether they are sound.
                save_episode(piece, place)
        except (DataFileError, EpisodeError) as error:
            summary.rejected.append(f"episode {index}: {error}")
            print_line(f"{begin}: REJECTED, {error}")
            continue
        summary.written += [path, *paths]
        print_line(f"{begin}: {'; '.join(map(describe, pieces))}")


def describe(episode: Episode) -> str:
    """An episode in one line."""
    cameras = ", ".join(
        f"{name} {video.shape[2]}x{video.shape[1]}" for name, video in episode.images.items()
    )
    return (
        f"{len(episode)} steps, {episode.motion.duration_s:.1f} s, {cameras or 'no pictures'}, "
        f'"{episode.instruction}"'
    )


# What an import to a store came to, in a few lines ---------------------------------------------


def summary_lines(root: Path, metadata: StoreMetadata, page: Path) -> Iterator[str]:
    """The lines for a terminal."""
    words = time_words(metadata.frames / metadata.control_hz)
    yield f"{root}: {metadata.episodes} episodes, {metadata.frames} frames, {words}"
    if metadata.rejected:
        yield f"rejected: {metadata.rejected}, see {root / REJECTS_PATH}"
    if metadata.not_selected:
        yield f"not selected: {metadata.not_selected} sound episodes; {share_words(metadata)}"
    if metadata.black_wrist:
        yield (
            f"without wrist camera: {metadata.black_wrist} episodes; their pictures of it are black"
        )
    yield f"{page}"


# Turn recorded data of any known format into what trainings and robots read --------------------


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
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    return (_to_store if options.to == STORE else _to_episodes)(options)


def _interrupt(number, frame):
    """Raise KeyboardInterrupt, but later in a destructor: Python drops what is raised there."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def _to_store(options: argparse.Namespace) -> int:
    console, root = Console(), options.output
    try:
        with ImportProgress(console) as progress:
            source = make_source(options)
            metadata = import_to_store(source, root, options.episodes, options.workers, progress)
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
    for line in summary_lines(root, metadata, page):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 1 if metadata.rejected else 0


def _to_episodes(options: argparse.Namespace) -> int:
    summary = ImportSummary()
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
    add("--input", required=True, type=Path, help="folder of the dataset")
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
