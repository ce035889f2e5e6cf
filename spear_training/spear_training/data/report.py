"""Pages for a person: of a store (<store>/report.html), and of what a mixture is normalised by.

First what a store's page says in words and numbers, its motions, pictures and drawings, then the
page itself; then the page of a mixture's statistics, which shares the columns of motion.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_policy.geometry import quaternions as quat
from spear_policy.inference.image_geometry import Fit
from spear_policy.inference.statistics import AXES as DELTA_AXES
from spear_policy.inference.statistics import Statistics
from spear_policy.shared.files import write_atomically
from spear_policy.shared.pages import (
    AXES,
    BLUE,
    GREEN,
    ORANGE,
    RED,
    Headline,
    jpeg_address,
    legend_above,
    render,
    svg_address,
    thin,
)
from spear_training.data.reader import DataFileError, outline, spread
from spear_training.data.statistics.motion import (
    MotionSample,
    MotionStatistics,
    Oddity,
    oddities,
    sample_motion,
)
from spear_training.data.statistics.normalisation import HIGH, LOW, Normalisation, normalisation
from spear_training.data.store.format import LOOKUP, WRIST, Reject, StoreMetadata, read_rejects
from spear_training.data.store.reader import EpisodeMotion, FrameStore, episode_motion

PAGE_NAME = "report.html"
TEMPLATES = Path(__file__).parent / "templates"

# A store in words and numbers ------------------------------------------------------------------

MOST_SENTENCES, MOST_REASONS, MOST_EXAMPLES = 25, 20, 5


def headlines(store: FrameStore) -> list[Headline]:
    """Counts, time, rate and size on disk."""
    metadata, lengths = store.metadata, store.episodes.length
    # Each frame stands for the time until the next, the last one too.
    motion_s = float(durations_s(store).sum()) + len(store.episodes) / metadata.control_hz
    folders = (store.root / "data", store.root / LOOKUP)
    size = sum(path.stat().st_size for folder in folders for path in folder.rglob("*"))
    median = f"{int(np.median(lengths))} frames (median)"
    return [
        Headline(f"{metadata.episodes:,}", "episodes", median),
        Headline(f"{metadata.frames:,}", "frames", f"at {metadata.control_hz:g} a second"),
        Headline(time_words(motion_s), "of motion"),
        Headline(_bytes(size), "on disk", f"{size / max(1, len(store)) / 1e3:.1f} kB a frame"),
        Headline(f"{metadata.rejected:,}", "rejected", "cannot be used"),
        Headline(f"{metadata.not_selected:,}", "not selected", share_words(metadata, doubt=False)),
    ]


def durations_s(store: FrameStore) -> NDArray:
    """How long each episode is, from its first to its last stamp (E,) [s]."""
    last = store.episodes.first_frame + store.episodes.length - 1
    return np.array(store.stamps_s[last], float)


def time_words(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def share_words(metadata: StoreMetadata, doubt: bool = True) -> str:
    """How much of the sound episodes was taken, and how much the table expects."""
    taken = metadata.episodes / max(1, metadata.episodes + metadata.not_selected)
    words = f"{100 * taken:.0f} % were taken"
    subset = metadata.source.get("subset") or {}
    if (expected := subset.get("expected_share")) is not None:
        words += f", about {100 * expected:.0f} % are expected"
    if doubt and subset.get("doubt"):
        words += f"; in doubt: {subset['doubt']}"
    return words


def metadata_rows(metadata: StoreMetadata) -> list[tuple[str, str]]:
    """What the store says about itself, but for notes and counts: name and words."""
    actions = {
        "commanded": "where the end effector was commanded to be",
        "reached": "not recorded: the reached pose stands for it",
    }
    grip = {"commanded": "what was commanded", "measured": "not recorded: what was measured"}
    true = "measured, in the robot's base frame"
    poses = true if metadata.state_known else "sums of deltas: only their differences are true"
    rows = [
        ("robot", metadata.robot),
        ("actions", actions[metadata.action_from]),
        ("gripper of actions", grip[metadata.gripper_from]),
        ("poses", poses),
        ("read by", metadata.reader),
    ]
    if metadata.row:
        rows.append(("row of the mixture table", f"{metadata.row} (hash {metadata.row_hash[:12]})"))
    if metadata.black_wrist:
        words = (
            f"{metadata.black_wrist} of {metadata.episodes} episodes; black pictures stand for it"
        )
        rows.append(("without wrist camera", words))
    for key, value in metadata.source.items():
        if key != "notes" and value not in (None, "", [], {}):
            words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            rows.append((key.replace("_", " "), words))
    return rows


def camera_rows(metadata: StoreMetadata) -> list[tuple[str, str, str]]:
    """Of each camera its name, its stored size, and how pictures came to it."""
    rows = []
    for camera in metadata.cameras:
        fits = [fit_words(fit) for fit in camera.fits] or ["no episode has it"]
        if camera.native_aspect is not None:
            fits.append(
                f"squashed before, from a scene {camera.native_aspect:.3g} times as wide as high"
            )
        rows.append((camera.name, "{}x{}".format(*camera.size), "; ".join(fits)))
    return rows


def fit_words(fit: Fit) -> str:
    """A fit in words."""
    words = f"from {fit.source_width}x{fit.source_height}"
    if (fit.crop_width, fit.crop_height) != (fit.source_width, fit.source_height):
        words += f", of it {fit.crop_width}x{fit.crop_height} from the middle"
    if (fit.resized_width, fit.resized_height) != (fit.width, fit.height):
        words += f", as {fit.resized_width}x{fit.resized_height} with black around it"
    return words


def sentence_counts(store: FrameStore) -> tuple[Counter[str], int]:
    """How many episodes each instruction has, and how many further sentences there are."""
    counts: Counter[str] = Counter()
    further = 0
    for episode in range(len(store.episodes)):
        first, *others = store.episodes.sentences(episode)
        counts[first] += 1
        further += len(others)
    return counts, further


class RejectGroup(NamedTuple):
    """Rejects that differ in names and numbers only: how many, the first's reason, some numbers."""

    count: int
    reason: str
    examples: tuple[int, ...]


def reject_groups(rejects: Sequence[Reject]) -> list[RejectGroup]:
    """Rejects by what is wrong with them, the most frequent first."""
    alike: dict[str, list[Reject]] = {}
    for reject in rejects:
        alike.setdefault(outline(reject.reason), []).append(reject)
    groups = [
        RejectGroup(len(same), same[0].reason, tuple(r.source_index for r in same[:MOST_EXAMPLES]))
        for same in alike.values()
    ]
    return sorted(groups, key=lambda group: -group.count)


# Motions of some episodes ----------------------------------------------------------------------


def _troubles(sample: MotionSample, metadata: StoreMetadata) -> list[str]:
    """What a person should look at, in sentences."""
    name, texts = metadata.name, []
    try:
        pooled = normalisation({name: sample.motion}, {name: 1.0}).pooled
        texts += [oddity.text for oddity in oddities({name: sample.motion}, pooled)]
    except ValueError as error:
        texts.append(f"its motion cannot be normalised: {error}")
    if abs(sample.interval_s * metadata.control_hz - 1) > 0.05:
        texts.append(
            f"frames are {sample.interval_s:.4f} s apart (median), but its rate is said to be "
            f"{metadata.control_hz:g} a second"
        )
    return texts


def _motion_rows(sample: MotionSample) -> list[tuple[str, list[str]]]:
    motion = sample.motion
    sketches = [
        (f"{kind} {axis} [m]", sketch)
        for kind in ("position", "translation")
        for axis, sketch in zip(DELTA_AXES, getattr(motion, kind), strict=True)
    ]
    sketches += [("motion in 1 s [m]", motion.distance), ("turn in 1 s [rad]", motion.turn)]
    marks = [(name, [s.low, *map(s.quantile, (LOW, 0.5, HIGH)), s.high]) for name, s in sketches]
    # Nothing below 0 is shown as -0.000.
    return [(name, [f"{round(value, 3) + 0.0:.3f}" for value in values]) for name, values in marks]


def _share_rows(sample: MotionSample) -> list[tuple[str, str]]:
    motion = sample.motion
    changes = motion.gripper_changes / max(1, motion.episodes)
    return [
        ("moments at which nothing moves", f"{100 * motion.idle_share:.1f} %"),
        ("steps that command an open gripper", f"{100 * motion.open_share:.1f} %"),
        ("times the gripper opens or closes", f"{changes:.2f} an episode"),
        *_lead_rows(motion),
        ("median time between frames", f"{sample.interval_s:.4f} s"),
        ("longest time between frames", f"{sample.longest_gap_s:.3f} s"),
    ]


def _lead_rows(motion: MotionStatistics) -> list[tuple[str, str]]:
    if not motion.lead.count:
        return []
    apart = f"{1e3 * motion.lead.quantile(0.5):.1f} mm, {motion.lead_turn.quantile(0.5):.3f} rad"
    return [("commanded pose from the measured one (median)", apart)]


# Picture sheet: frames as the model sees them --------------------------------------------------

SHEET_EPISODES, SHEET_FRAMES = 12, 4


class SheetRow(NamedTuple):
    """One episode of the sheet; `strips` has the addresses of some pictures by camera."""

    episode: int
    sentences: tuple[str, ...]
    strips: dict[str, list[str]]
    trouble: str  # why pictures are missing, or nothing


def picture_sheet(store: FrameStore) -> list[SheetRow]:
    """Rows for episodes from all over the store; a damaged file costs its rows only."""
    return [
        _sheet_row(store, episode) for episode in spread(range(len(store.episodes)), SHEET_EPISODES)
    ]


def _sheet_row(store: FrameStore, episode: int) -> SheetRow:
    episodes = store.episodes
    first, length = int(episodes.first_frame[episode]), int(episodes.length[episode])
    frames = spread(range(first, first + length), SHEET_FRAMES)
    cameras = [
        name
        for name in store.metadata.camera_names
        if name != WRIST or not episodes.black_wrist[episode]
    ]
    strips, trouble = {}, ""
    try:
        for camera in cameras:
            strips[camera] = [jpeg_address(store.jpeg(frame, camera)) for frame in frames]
    except DataFileError as error:
        trouble = str(error)
    if not trouble and len(cameras) < len(store.metadata.camera_names):
        trouble = "It has no wrist camera."
    return SheetRow(episode, episodes.sentences(episode), strips, trouble)


# Plots of a store ------------------------------------------------------------------------------

_LEAST_SPAN_M = 0.02  # an arm at rest is a dot and not a drawing of its noise
VIEWS = (([0, 1], "From above", "x [m]", "y [m]"), ([0, 2], "From the side", "x [m]", "z [m]"))


def draw_lengths(figure, durations_s: NDArray) -> None:
    """How long the episodes are."""
    axis = figure.subplots()
    longest = np.quantile(durations_s, 0.995)
    shown = durations_s[durations_s <= longest]
    axis.hist(shown, bins=min(40, max(5, len(set(shown.tolist())))), color=BLUE)
    title = f"Lengths, median {np.median(durations_s):.1f} s, longest {durations_s.max():.1f} s"
    axis.set(title=title, xlabel="s", ylabel="episodes")


def _two_views(figure):
    """Axes of a view from above and one from the side, and the two coordinates of each."""
    for axis, (view, title, x_label, y_label) in zip(figure.subplots(1, 2), VIEWS, strict=True):
        axis.set(title=title, xlabel=x_label, ylabel=y_label)
        axis.set_aspect("equal", adjustable="datalim")
        axis.locator_params(nbins=5)
        yield axis, view


def draw_reach(figure, motions: Sequence[EpisodeMotion]) -> None:
    """Paths of some episodes, seen from two sides."""
    for axis, view in _two_views(figure):
        for motion in motions:
            (path,) = thin(motion.measured.poses)
            axis.plot(*path[:, view].T, color=BLUE, alpha=0.35, linewidth=0.7)
            axis.plot(*path[0, view], ".", color=GREEN, markersize=3)


def draw_path(figure, motion: EpisodeMotion) -> None:
    """The path of one episode, seen from two sides."""
    for axis, view in _two_views(figure):
        (path,) = thin(motion.measured.poses[:, view])
        if motion.commanded is not motion.measured:
            (commanded,) = thin(motion.commanded.poses[:, view])
            axis.plot(*commanded.T, color=ORANGE, label="commanded")
        axis.plot(*path.T, color=BLUE, label="measured")
        axis.plot(*path[0], "o", color=GREEN, label="start", markersize=4)
        axis.plot(*path[-1], "s", color=RED, label="end", markersize=4)
        middle = (path.max(axis=0) + path.min(axis=0)) / 2
        axis.update_datalim([middle - _LEAST_SPAN_M / 2, middle + _LEAST_SPAN_M / 2])
        axis.autoscale_view()
    figure.subplots_adjust(bottom=0.24)
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4)


def rotations_since(start: ArrayLike, poses: ArrayLike) -> NDArray:
    """Rotation from pose `start` (7,) to each of (T, 7) about the axes of `start` (T, 3) [rad].

    It goes on where an angle passes half a turn.
    """
    relative = quat.multiply(quat.inverse(np.asarray(start)[3:]), np.asarray(poses)[:, 3:])
    return quat.unwrap_rotation_vectors(quat.rotation_vector(relative))


def draw_motion(figure, motion: EpisodeMotion) -> None:
    """Position, rotation and gripper of one episode over time."""
    positions, rotations, gripper = figure.subplots(3, 1, sharex=True)
    lines = [(motion.measured, "-", 1.3)]
    if motion.commanded is not motion.measured:
        lines.append((motion.commanded, ":", 1.04))
    start = motion.measured.poses[0]
    for poses, style, width in lines:
        seconds, position, rotation = thin(
            poses.stamps_s,
            1e3 * (poses.poses[:, :3] - start[:3]),
            np.degrees(rotations_since(start, poses.poses)),
        )
        for axis, values in ((positions, position), (rotations, rotation)):
            for column, (name, colour) in enumerate(AXES):
                label = name if style == "-" else None
                drawn = {"color": colour, "label": label, "linewidth": width}
                axis.plot(seconds, values[:, column], style, **drawn)
    positions.set(title="Position since the start", ylabel="mm")
    rotations.set(title="Rotation since the start, about its axes", ylabel="degrees")
    seconds, openings, commands = thin(motion.measured.stamps_s, motion.openings, motion.commands)
    gripper.plot(seconds, openings, color=BLUE, label="measured")
    gripper.step(seconds, commands, where="post", color=ORANGE, label="commanded", linewidth=1.0)
    gripper.set(title="Gripper", ylabel="1 is open", xlabel="s", ylim=(-0.05, 1.05))
    for axis in (positions, gripper):
        legend_above(axis)


# The page of a store ---------------------------------------------------------------------------

SHOWN_EPISODES, REACH_EPISODES = 4, 60


def write_report(root: str | Path) -> Path:
    """Write the page of a finished store into its folder.

    Numbers of some episodes and few pictures are read, so a large store takes no longer.

    Returns:
        The page's path.

    Raises:
        DataFileError: the folder holds no finished store.
        OSError: the page cannot be written.
    """
    store = FrameStore(root)
    page = store.root / PAGE_NAME
    write_atomically(page, render(TEMPLATES / "store.html", **_values(store)).encode())
    return page


def _values(store: FrameStore) -> dict:
    metadata = store.metadata
    durations = durations_s(store)
    sentences, further = sentence_counts(store)
    rejects = read_rejects(store.root)
    troubles: list[str] = []
    sample, motions, reach = None, [], []
    try:
        sample = sample_motion(store)
        everywhere = range(len(store.episodes))
        motions = [episode_motion(store, each) for each in spread(everywhere, SHOWN_EPISODES)]
        reach = [episode_motion(store, each) for each in spread(everywhere, REACH_EPISODES)]
        troubles += _troubles(sample, metadata)
        if holes := int(store.episodes.continues.sum()):
            troubles.append(
                f"{holes} episodes end at a hole in time, such as a camera that stopped: what came "
                "after it is an episode of its own"
            )
    except DataFileError as error:
        troubles.append(str(error))
    doubt = (metadata.source.get("subset") or {}).get("doubt")
    return {
        "metadata": metadata,
        "headlines": [line for line in headlines(store) if line.value != "0"],
        "troubles": troubles,
        "metadata_rows": metadata_rows(metadata),
        "notes": list(metadata.source.get("notes") or ()) + ([doubt] if doubt else []),
        "camera_rows": camera_rows(metadata),
        "lengths": svg_address(lambda figure: draw_lengths(figure, durations), 5.4, 3.0),
        "reach": svg_address(lambda figure: draw_reach(figure, reach), 6.4, 3.4),
        "reach_episodes": len(reach),
        "sentences": sentences.most_common(MOST_SENTENCES),
        "sentence_count": len(sentences),
        "further_sentences": further,
        "sample": sample,
        "motion_rows": _motion_rows(sample) if sample else [],
        "share_rows": _share_rows(sample) if sample else [],
        "motions": [_drawn_episode(store, motion) for motion in motions],
        "sheet": picture_sheet(store),
        "rejected": reject_groups([each for each in rejects if each.selected]),
        "not_selected": reject_groups([each for each in rejects if not each.selected]),
        "most_reasons": MOST_REASONS,
    }


def _drawn_episode(store: FrameStore, motion: EpisodeMotion) -> dict:
    return {
        "episode": motion.episode,
        "sentence": store.episodes.sentences(motion.episode)[0],
        "time": svg_address(lambda figure: draw_motion(figure, motion), 5.4, 4.8),
        "path": svg_address(lambda figure: draw_path(figure, motion), 5.4, 3.4),
    }


# The page of a mixture -------------------------------------------------------------------------

KINDS = {
    "translation": "Translations of the chunks, 0.2 to 1 s ahead [m]",
    "position": "Positions of the hand in the robot's base frame [m]",
}
MEANINGS = {
    "global_quantile": "1 % and 99 % of the whole mixture become -1 and 1",
    "const": "bounds that were given become -1 and 1, the same for all datasets",
    "dataset_quantile": "1 % and 99 % of each dataset for itself become -1 and 1",
    "mean_std": "mean of the whole mixture becomes 0, deviation 1",
}


def motion_columns(motion: MotionStatistics) -> dict[str, str]:
    """What a table says of the motions of a dataset: heading -> words."""
    return {
        "episodes": f"{motion.episodes:,}",
        "moments": f"{motion.moments:,}",
        "idle": f"{100 * motion.idle_share:.1f} %",
        "open": f"{100 * motion.open_share:.1f} %",
        "gripper changes an episode": f"{motion.gripper_changes / max(1, motion.episodes):.2f}",
        "1 s, median [mm]": f"{1e3 * motion.distance.quantile(0.5):.0f}",
        "1 s, 99 % [mm]": f"{1e3 * motion.distance.quantile(0.99):.0f}",
        "too fast": f"{motion.implausible_episodes:,}",
    }


def write_statistics_report(
    folder: Path,
    motions: Mapping[str, MotionStatistics],
    shares: Mapping[str, float],
    found: Normalisation,
    odd: Sequence[Oddity],
) -> Path:
    """Write the page into `folder`, whole or not at all.

    Args:
        folder: where statistics.json is.
        motions, shares: of each dataset, in the order in which they are shown.
        found: what the mixture is normalised by.
        odd: what a person should look at.

    Returns:
        The page's path.

    Raises:
        OSError: it cannot be written.
    """
    values = {
        "scheme": found.scheme,
        "meaning": MEANINGS[found.scheme],
        "pooled_hash": found.hashes()["pooled"],
        "moments": sum(motion.moments for motion in motions.values()),
        "columns": ("dataset", "share", *motion_columns(next(iter(motions.values())))),
        "rows": [
            (name, f"{100 * shares[name]:.1f} %", *motion_columns(motion).values())
            for name, motion in motions.items()
        ],
        "odd": odd,
        "plots": [
            (title, _ranges_plot(motions, found.pooled, kind)) for kind, title in KINDS.items()
        ],
        "ranges": _ranges(found),
        "hashes": found.hashes() if found.scheme == "dataset_quantile" else {},
    }
    page = folder / PAGE_NAME
    write_atomically(page, render(TEMPLATES / "statistics.html", **values).encode())
    return page


def _ranges(found: Normalisation) -> dict[str, list[tuple[str, ...]]]:
    """By kind: whose, which axis, and the numbers, of each dataset too if they differ."""
    owners = found.by_dataset if found.scheme == "dataset_quantile" else {}
    result = {}
    for kind, title in KINDS.items():
        rows = result[title] = []
        for whose, statistics in {**owners, "whole mixture": found.pooled}.items():
            ranges = getattr(statistics, kind)
            numbers = np.round([ranges.low, ranges.high, ranges.mean, ranges.std], 4) + 0.0
            for axis, values in zip(DELTA_AXES, numbers.T, strict=True):
                rows.append((whose, axis, *(f"{value:.4f}" for value in values)))
    return result


def _ranges_plot(motions: Mapping[str, MotionStatistics], pooled: Statistics, kind: str) -> str:
    height_in = 1.1 + 0.24 * len(motions)
    return svg_address(lambda figure: draw_ranges(figure, motions, pooled, kind), 11.0, height_in)


def draw_ranges(
    figure, motions: Mapping[str, MotionStatistics], pooled: Statistics, kind: str
) -> None:
    """1 %, median and 99 % of the "translation" or "position" of each dataset, a row each."""
    names, bounds = list(motions), getattr(pooled, kind)
    axes = figure.subplots(1, 3, sharey=True)
    longest = max(len(name) for name in names)
    inch = figure.get_size_inches()
    left = min(0.4, (0.075 * longest + 0.2) / inch[0])
    edge = 0.45 / inch[1]
    figure.subplots_adjust(left=left, right=0.99, wspace=0.06, bottom=edge, top=1 - edge)
    for axis, name, low, high in zip(axes, DELTA_AXES, bounds.low, bounds.high, strict=True):
        axis.axvspan(low, high, color=ORANGE, alpha=0.15, linewidth=0)
        for row, motion in enumerate(motions.values()):
            sketch = getattr(motion, kind)[DELTA_AXES.index(name)]
            ends = sketch.quantile(LOW), sketch.quantile(HIGH)
            axis.plot(ends, (row, row), "-", color=BLUE, linewidth=3, solid_capstyle="butt")
            axis.plot(sketch.quantile(0.5), row, "o", color=BLUE, markersize=4.5)
        axis.set(title=name, ylim=(len(names) - 0.5, -0.5))
        axis.locator_params(axis="x", nbins=6)
    axes[0].set_yticks(range(len(names)), names)


def main(arguments: list[str] | None = None) -> int:
    """Run it; 0: written, 2: there is no store, or the page cannot be written."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: ros2 run spear_training store_report stores/bridge",
    )
    parser.add_argument("stores", nargs="+", type=Path, metavar="STORE", help="its folder")
    for store in parser.parse_args(arguments).stores:
        try:
            print(write_report(store))
        except (DataFileError, OSError) as error:
            print(f"report: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
