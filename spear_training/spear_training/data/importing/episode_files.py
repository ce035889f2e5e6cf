"""Episodes as files of their own, one .npz each: what the replay engine takes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from spear_policy.inference.episode import Episode, EpisodeError, save_episode
from spear_training.data.reader import DataFileError, EpisodeReader


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


def write_episode_files(
    reader: EpisodeReader,
    output: Path,
    episodes: Iterable[int],
    summary: Summary,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
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
            say(f"{begin}: kept")
            continue
        try:
            episode = reader.read(index)
            # Pictures that are still encoded show here whether they are sound.
            save_episode(episode, path)
        except (DataFileError, EpisodeError) as error:
            summary.rejected.append(f"episode {index}: {error}")
            say(f"{begin}: REJECTED, {error}")
            continue
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
