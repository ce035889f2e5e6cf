"""Draw what the chunks of an episode mean, beside what was recorded, so that a person can judge.

From several moments of the episode (diamonds) a robot starts where the arm was and follows the
chunk that is to be learned there. What it reaches (rings) must lie on the dashed line of commanded
poses, or on the grey one of measured poses where no commands were recorded. A wrong frame, sign or
unit takes it off.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry.tracking import TimedPoses, TrackingErrors, tracking_errors
from spear_policy.shared.files import atomic_write
from spear_policy.shared.pages import STYLE
from spear_training.data.reader import DataFileError, spread
from spear_training.data.report import rotations_since
from spear_training.data.store.format import EXTERNAL
from spear_training.data.store.reader import EpisodeMotion, FrameStore, episode_motion
from spear_training.data.targets import DT_S, STEPS, chunk_targets, followed

EXAMPLE = "example: ros2 run spear_training replay_plot stores/bridge --episode 3 --out p.png"
COLOURS = ("#2f6fb7", "#d9822b", "#3c9a5f", "#c8443c", "#8a5fb7", "#3ca0a8")
MEASURED, COMMANDED = "#c3ccd5", "#52606d"
DPI = 120


@dataclass(frozen=True, eq=False)
class FollowedChunk:
    """What a robot does that follows the chunk of one moment.

    Attributes:
        frame: of the episode, where it starts.
        path: the start and the poses that it reaches.
        grippers: (N,) the gripper's command at each step, 0 closed or 1 open.
        errors: how far the steps that are recorded are from the commanded poses; None
            where the episode ends at once.
    """

    frame: int
    path: TimedPoses
    grippers: NDArray
    errors: TrackingErrors | None


def follow_chunks(motion: EpisodeMotion, frames: Sequence[int]) -> list[FollowedChunk]:
    """Follow the chunks of some frames of an episode, each from the measured pose."""
    moments_s = motion.measured.stamps_s[list(frames)]
    targets = chunk_targets(motion.measured, motion.commanded, motion.commands, moments_s)
    chunks = []
    for number, frame in enumerate(frames):
        start = motion.measured.poses[frame]
        reached = followed(start, targets, number)
        due_s = moments_s[number] + DT_S * np.arange(1, STEPS + 1)
        recorded = targets.recorded[number]
        errors = None
        if recorded.any():
            # What is due within rounding of the last stamp belongs to it.
            covered_s = np.minimum(due_s[recorded], motion.commanded.stamps_s[-1])
            errors = tracking_errors(TimedPoses(covered_s, reached[recorded]), motion.commanded)
        path = TimedPoses(np.append(moments_s[number], due_s), np.vstack([start, reached]))
        chunks.append(FollowedChunk(frame, path, targets.grippers[number], errors))
    return chunks


def draw_replay(
    figure,
    motion: EpisodeMotion,
    chunks: Sequence[FollowedChunk],
    pictures: Sequence[NDArray[np.uint8]],
    title: str,
) -> None:
    """Fill a matplotlib figure.

    Args:
        figure: an empty one, about as high as wide.
        motion, chunks: see `follow_chunks`.
        pictures: what the external camera saw at each chunk's moment.
        title: above all.
    """
    grid = figure.add_gridspec(5, 1, height_ratios=(1.5, 1.6, 1.6, 1.6, 1.1), hspace=0.46)
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.055, top=0.935)
    figure.suptitle(title, x=0.075, y=0.985, ha="left", fontsize=11, fontweight="bold")
    _draw_pictures(figure, grid[0], motion, chunks, pictures)
    start = motion.measured.poses[0]
    gripper = figure.add_subplot(grid[4])
    for row, name in enumerate("xyz"):
        left, right = grid[row + 1].subgridspec(1, 2, wspace=0.16).subplots()
        _draw_lines(left, motion, chunks, lambda p, i=row: 1e3 * (p[:, i] - start[i]))
        _draw_lines(
            right, motion, chunks, lambda p, i=row: np.degrees(rotations_since(start, p)[:, i])
        )
        left.set(title=f"{name} since the start, base frame", ylabel="mm")
        right.set(title=f"rotation about the hand's {name} at the start", ylabel="degrees")
    _draw_gripper(gripper, motion, chunks)


def _draw_pictures(figure, cell, motion, chunks, pictures) -> None:
    for number, axis in enumerate(
        np.atleast_1d(cell.subgridspec(1, len(chunks), wspace=0.06).subplots())
    ):
        axis.imshow(pictures[number])
        moment_s = motion.measured.stamps_s[chunks[number].frame]
        axis.set_title(f"{moment_s:.1f} s", color=COLOURS[number], fontsize=9, pad=3)
        axis.set(xticks=[], yticks=[])
        for side in axis.spines.values():
            side.set(visible=True, color=COLOURS[number], linewidth=2)


def _draw_lines(axis, motion, chunks, value) -> None:
    """Recorded lines, and on them what each chunk reaches; `value` makes numbers of poses."""
    axis.plot(motion.measured.stamps_s, value(motion.measured.poses), color=MEASURED, linewidth=4)
    if motion.commanded is not motion.measured:
        commanded = motion.commanded
        axis.plot(commanded.stamps_s, value(commanded.poses), "--", color=COMMANDED, linewidth=1)
    for number, chunk in enumerate(chunks):
        heights, seconds = value(chunk.path.poses), chunk.path.stamps_s
        axis.plot(seconds, heights, "-", color=COLOURS[number], linewidth=0.8)
        axis.plot(seconds[0], heights[0], "D", color=COLOURS[number], markersize=5)
        axis.plot(seconds[1:], heights[1:], "o", **_ring(number))
    axis.margins(y=0.12)


def _draw_gripper(axis, motion, chunks) -> None:
    stamps = motion.measured.stamps_s
    axis.plot(stamps, motion.openings, color=MEASURED, linewidth=4)
    axis.step(stamps, motion.commands, "--", where="post", color=COMMANDED, linewidth=1.0)
    for number, chunk in enumerate(chunks):
        axis.plot(chunk.path.stamps_s[1:], chunk.grippers, "o", **_ring(number))
    axis.set(ylim=(-0.15, 1.15), xlabel="s")
    axis.set_title("gripper, 1 is open; grey: measured, dashed: commanded, rings: by the chunks")


def _ring(number: int) -> dict:
    """Chunks that agree shall not hide each other: their rings lie in one another."""
    return {
        "markerfacecolor": "none",
        "markeredgecolor": COLOURS[number],
        "markersize": 3.5 + 2.2 * number,
        "markeredgewidth": 1.1,
    }


def worst(chunks: Sequence[FollowedChunk]) -> tuple[float, float]:
    """The largest distance of all chunks from what was recorded [mm], [deg]."""
    errors = [chunk.errors for chunk in chunks if chunk.errors is not None]
    return (
        max((error.worst_position_mm for error in errors), default=0.0),
        max((error.worst_rotation_deg for error in errors), default=0.0),
    )


def write_plot(store: FrameStore, episode: int, moments: int, out: Path) -> str:
    """Draw an episode to a file, whose suffix says its kind; what it shows, in words.

    Raises:
        DataFileError: the episode or a picture of it is damaged.
        IndexError: no such episode.
        ValueError: no such kind of file.
        OSError: the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    motion = episode_motion(store, episode)
    frames = spread(range(max(1, len(motion.measured) - 1)), moments)
    chunks = follow_chunks(motion, frames)
    first = int(store.episodes.first_frame[episode])
    pictures = [store.image(first + frame, EXTERNAL) for frame in frames]
    sentence = store.episodes.sentences(episode)[0]
    with rc_context(STYLE | {"axes.titlesize": 8.5, "axes.titleweight": "normal"}):
        figure = Figure(figsize=(9.0, 9.6))
        title = f"{store.metadata.name}, episode {episode}: {sentence}"
        draw_replay(figure, motion, chunks, pictures, title)
        out.parent.mkdir(parents=True, exist_ok=True)
        kind = out.suffix.lstrip(".") or "png"
        with atomic_write(out) as beside:
            figure.savefig(beside, format=kind, dpi=DPI)
    away_mm, away_deg = worst(chunks)
    return (
        f"{sentence!r}: chunks of {len(chunks)} moments end at most {away_mm:.2f} mm and "
        f"{away_deg:.2f} deg from what was recorded"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run it; 0: drawn, 2: not."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", type=Path, help="its folder")
    parser.add_argument("--episode", type=int, default=0, help="(default: 0)")
    parser.add_argument("--moments", type=int, default=5, choices=range(1, len(COLOURS) + 1))
    parser.add_argument("--out", type=Path, required=True, help="picture: .png, .jpg, .svg, .pdf")
    options = parser.parse_args(arguments)
    try:
        print(write_plot(FrameStore(options.store), options.episode, options.moments, options.out))
    except (DataFileError, IndexError, ValueError, OSError) as error:
        print(f"replay_plot: {error}", file=sys.stderr)
        return 2
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
