"""What import_episodes does once its options are known: a store, or a file for each episode."""

import argparse
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console

from spear_policy.geometry import quaternions as quat
from spear_policy.inference.episode import Episode, EpisodeError, save_episode, split_episode
from spear_training.data.reader import DataFileError, EpisodeReader, spread
from spear_training.data.report import share_words, time_words, write_report
from spear_training.data.sources import (
    ALL,
    EpisodeSource,
    make_source,
    parse_selection,
    selection_words,
)
from spear_training.data.store.format import (
    BUILDING,
    METADATA_PATH,
    REJECTS_PATH,
    StoreMetadata,
)
from spear_training.data.store.parquet import read_episodes
from spear_training.data.store.reader import FrameStore, episode_motion
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


def episode_lines(root: Path) -> Iterator[str]:
    """The numbers of each stored episode, to compare with what was recorded."""
    store = FrameStore(root)
    for episode in range(len(store.episodes)):
        motion = episode_motion(store, episode)
        poses, openings = motion.measured.poses, motion.openings
        low, high = poses[:, :3].min(axis=0), poses[:, :3].max(axis=0)
        reach = ", ".join(
            f"{axis} {a:.3f}..{b:.3f}" for axis, a, b in zip("xyz", low, high, strict=True)
        )
        turn = float(quat.angle(poses[:1, 3:], poses[:, 3:]).max())
        line = f"episode {store.episodes.source_index[episode]}: {len(poses)} frames, "
        line += f"{motion.measured.duration_s:.1f} s, {store.episodes.sentences(episode)[0]!r}; "
        line += f"measured {reach} m, turns by up to {turn:.2f} rad; "
        line += f"gripper {openings.min():.2f}..{openings.max():.2f}, "
        line += f"commanded {motion.commands.min() + 0.0:.2f}..{motion.commands.max() + 0.0:.2f}"
        if store.metadata.action_from == "commanded":
            apart = np.linalg.norm(motion.commanded.poses[:, :3] - poses[:, :3], axis=1)
            line += f"; commanded pose {1e3 * np.median(apart):.1f} mm from the measured (median)"
        yield line


def summary_lines(root: Path, metadata: StoreMetadata, page: Path) -> Iterator[str]:
    """The lines for a terminal."""
    words = time_words(metadata.frames / metadata.control_hz)
    yield f"{root}: {metadata.episodes} episodes, {metadata.frames} frames, {words}"
    if metadata.rejected:
        yield f"rejected: {metadata.rejected}, see {root / REJECTS_PATH}"
    if metadata.not_selected:
        yield f"not selected: {metadata.not_selected} sound episodes; {share_words(metadata)}"
    if holes := int(read_episodes(root).continues.sum()):
        yield f"holes in time: {holes} episodes end at one; what came after it is another episode"
    if metadata.left_out:
        yield (
            f"left out: {metadata.left_out} steps, single ones, in holes or in pieces of less than "
            "a second before one"
        )
    if metadata.black_wrist:
        yield (
            f"without wrist camera: {metadata.black_wrist} episodes; their pictures of it are black"
        )
    yield f"{page}"


# A store, and files ----------------------------------------------------------------------------

DRY_RUN_EPISODES = 5


def to_store(options: argparse.Namespace) -> int:
    """Import to a store; the exit status."""
    console, root = Console(), options.output
    try:
        with ImportProgress(console) as progress:
            source = make_source(options)
            if options.dry_run:
                root, options.episodes = _dry_run(source, root, options.episodes)
            metadata = import_to_store(
                source,
                root,
                options.episodes,
                options.workers,
                progress,
                bool(options.retry_rejected),
            )
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
    shown = episode_lines(root) if options.dry_run else ()
    for line in (*shown, *summary_lines(root, metadata, page)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 1 if metadata.rejected else 0


def _dry_run(source: EpisodeSource, output: Path, episodes: str) -> tuple[Path, str]:
    """Where a dry run goes, with what an earlier one left there removed, and which episodes."""
    root = output.with_name(f"{output.name}.dry_run")
    if (root / METADATA_PATH).exists() or (root / BUILDING).exists():
        shutil.rmtree(root)
    chosen = parse_selection(episodes, len(source.open()))
    return root, selection_words(spread(chosen, DRY_RUN_EPISODES)) if chosen else ALL


def to_episodes(options: argparse.Namespace) -> int:
    """Import to files; the exit status."""
    summary = ImportSummary()
    try:
        reader = make_source(options).open()
        chosen = parse_selection(options.episodes, len(reader))
        write_episode_files(reader, options.output, chosen, summary, options.overwrite)
    except ValueError as error:
        print(f"import_episodes: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        why = error.strerror or error
        print(f"import_episodes: {options.output}: {why}; {summary}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nimport_episodes: interrupted; {summary}", file=sys.stderr)
        return 130
    print(f"{summary}, in {options.output}")
    for reason in summary.rejected:
        print(f"  rejected {reason}", file=sys.stderr)
    return 1 if summary.rejected else 0
