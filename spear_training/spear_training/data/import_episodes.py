"""Turn recorded data of any known format into episode files.

Each episode becomes one .npz, written whole or not at all. An episode that cannot be used is
named with its reason and leaves the others alone. Episodes that are already there are kept, so a
run that was interrupted goes on where it was.
"""

import argparse
import re
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from spear_policy.inference.episode import Episode, EpisodeError, save_episode
from spear_training.data.bridge import BridgeReader
from spear_training.data.reader import DataFileError, EpisodeReader

# Format name -> reader of (folder, split).
READERS: dict[str, Callable[[Path, str], EpisodeReader]] = {"bridge_rlds": BridgeReader}

EXAMPLE = """\
example, three of the sample episodes:
  import_episodes --format bridge_rlds --input ../shared/data/bridge_rlds --output out/episodes \\
      --episodes 0,3,7
"""


@dataclass
class Summary:
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


def import_episodes(
    reader: EpisodeReader,
    output: Path,
    episodes: Iterable[int],
    summary: Summary,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Write `episodes` of `reader` as `output`/<name>-<index>.npz, noting each in `summary`.

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
            say(f"{begin}: kept")
            continue
        try:
            episode = reader.read(index)
        except (DataFileError, EpisodeError) as error:
            summary.rejected.append(f"episode {index}: {error}")
            say(f"{begin}: REJECTED, {error}")
            continue
        save_episode(episode, path)
        summary.written.append(path)
        say(f"{begin}: {describe(episode)}")


def describe(episode: Episode) -> str:
    """An episode in one line."""
    cameras = ", ".join(
        f"{name} {video.shape[2]}x{video.shape[1]}" for name, video in episode.images.items()
    )
    return (
        f"{len(episode)} steps, {episode.motion.duration_s:.1f} s, {cameras or 'no pictures'}, "
        f'"{episode.instruction}"'
    )


def parse_selection(text: str, count: int) -> list[int]:
    """Episode numbers from words like "0,3,7-9" or "all", for a reader of `count` episodes.

    Raises:
        ValueError: the text is no selection, or names an episode that does not exist.
    """
    if text == "all":
        return list(range(count))
    chosen: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match:
            raise ValueError(f"--episodes {text!r}: {part!r} is no number or range like 3 or 7-9")
        first, last = match.groups()
        numbers = range(int(first), int(last or first) + 1)
        if not numbers or numbers[-1] >= count:
            raise ValueError(f"--episodes {text!r}: {part!r} is outside 0 to {count - 1}")
        chosen += [number for number in numbers if number not in chosen]
    return chosen


def main(arguments: list[str] | None = None) -> int:
    """Run it; 0: all episodes are there, 1: some were rejected, 2: it could not go on."""
    parser = argparse.ArgumentParser(
        prog="import_episodes",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--format", required=True, choices=sorted(READERS), help="what --input is")
    parser.add_argument("--input", required=True, type=Path, help="folder of the data set")
    parser.add_argument("--output", required=True, type=Path, help="folder for the .npz files")
    parser.add_argument("--split", default="train", help="split of the data set (default: train)")
    parser.add_argument("--episodes", default="all", help='"all" (default), or like 0,3,7-9')
    parser.add_argument("--overwrite", action="store_true", help="write files again that exist")
    options = parser.parse_args(arguments)
    # A job that a script starts in the background ignores SIGINT by default.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    summary = Summary()
    try:
        reader = READERS[options.format](options.input, options.split)
        chosen = parse_selection(options.episodes, len(reader))
        import_episodes(reader, options.output, chosen, summary, options.overwrite)
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


if __name__ == "__main__":
    sys.exit(main())
