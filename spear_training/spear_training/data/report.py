"""The page of a store: <store>/report.html, one file."""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from spear_training.data.reader import DataFileError
from spear_training.data.sources import spread
from spear_training.data.statistics.motion import (
    MotionStatistics,
    Oddity,
    kept_statistics,
    oddities,
)
from spear_training.data.statistics.normalisation import HIGH, LOW, Normalisation, normalisation
from spear_training.data.store.format import LOOKUP, WRIST, Reject, StoreMetadata, read_rejects
from spear_training.data.store.reader import EpisodeMotion, FrameStore, episode_motion

# Orientations as three angles that a person can follow in a drawing ----------------------------


def turned(poses: ArrayLike, start: ArrayLike) -> NDArray:
    """Rotation from pose `start` (7,) to each of (T, 7) about the axes of `start` (T, 3) [rad].

    It goes on where an angle passes half a turn.
    """
    relative = quat.multiply(quat.inverse(np.asarray(start)[3:]), np.asarray(poses)[:, 3:])
    return unwrapped(quat.rotation_vector(relative))


def unwrapped(vectors: ArrayLike) -> NDArray:
    """Rotation vectors (T, 3) [rad] of the same rotations, each near the one before."""
    result = np.array(vectors, float)
    for step in range(1, len(result)):
        before, angle = result[step - 1], np.linalg.norm(result[step])
        # No rotation has every axis: take the one that it had.
        along = result[step] if angle > 0 else before
        if not along.any():
            continue
        axis = along / np.linalg.norm(along)
        turns = np.round((before @ axis - angle) / (2 * np.pi))
        result[step] = axis * (angle + 2 * np.pi * turns)
    return result


# The drawings of a mixture's statistics --------------------------------------------------------


def draw_ranges(
    figure, motions: Mapping[str, MotionStatistics], pooled: Statistics, kind: str
) -> None:
    """1 %, median and 99 % of each data set, a row each, and the bounds of the mixture.

    Args:
        figure: an empty matplotlib Figure.
        motions: of each data set, from above to below.
        pooled: of the mixture.
        kind: "translation" or "position".
    """
    names, bounds = list(motions), getattr(pooled, kind)
    axes = figure.subplots(1, 3, sharey=True)
    longest = max(len(name) for name in names)
    inch = figure.get_size_inches()
    figure.subplots_adjust(
        left=min(0.4, (0.075 * longest + 0.2) / inch[0]),
        right=0.99,
        wspace=0.06,
        bottom=0.45 / inch[1],
        top=1 - 0.45 / inch[1],
    )
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


# The page of a mixture's statistics ------------------------------------------------------------


PAGE_NAME = "report.html"
STATISTICS_TEMPLATE = Path(__file__).parent / "templates" / "statistics.html"
KINDS = {
    "translation": "Translations of the chunks, 0.2 to 1 s ahead [m]",
    "position": "Positions of the hand in the robot's base frame [m]",
}
MEANINGS = {
    "global_quantile": "1 % and 99 % of the whole mixture become -1 and 1",
    "const": "bounds that were given become -1 and 1, the same for all data sets",
    "dataset_quantile": "1 % and 99 % of each data set for itself become -1 and 1",
    "mean_std": "mean of the whole mixture becomes 0, deviation 1",
}
COLUMNS = (
    "data set",
    "share",
    "episodes",
    "moments",
    "idle",
    "open",
    "gripper changes an episode",
    "1 s, median [mm]",
    "1 s, 99 % [mm]",
    "too fast",
)


@dataclass(frozen=True)
class RangeRow:
    """One row of the table of numbers: whose, which axis, and its numbers in words."""

    whose: str
    axis: str
    numbers: tuple[str, ...]


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
        motions, shares: of each data set, in the order in which they are shown.
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
        "columns": COLUMNS,
        "rows": [_row(name, motion, shares[name]) for name, motion in motions.items()],
        "odd": odd,
        "plots": [(title, _drawn(motions, found.pooled, kind)) for kind, title in KINDS.items()],
        "ranges": _ranges(found),
        "hashes": found.hashes() if found.scheme == "dataset_quantile" else {},
    }
    page = folder / PAGE_NAME
    write_atomically(page, render(STATISTICS_TEMPLATE, **values).encode())
    return page


def _row(name: str, motion: MotionStatistics, share: float) -> list[str]:
    return [
        name,
        f"{100 * share:.1f} %",
        f"{motion.episodes:,}",
        f"{motion.moments:,}",
        f"{100 * motion.idle_share:.1f} %",
        f"{100 * motion.open_share:.1f} %",
        f"{motion.gripper_changes / max(1, motion.episodes):.2f}",
        f"{1e3 * motion.distance.quantile(0.5):.0f}",
        f"{1e3 * motion.distance.quantile(0.99):.0f}",
        f"{motion.implausible_episodes:,}",
    ]


def _drawn(motions: Mapping[str, MotionStatistics], pooled: Statistics, kind: str) -> str:
    height_in = 1.1 + 0.24 * len(motions)
    return svg_address(lambda figure: draw_ranges(figure, motions, pooled, kind), 11.0, height_in)


def _ranges(found: Normalisation) -> dict[str, list[RangeRow]]:
    """By kind: the numbers of the mixture, or of each data set where they differ."""
    if found.scheme == "dataset_quantile":
        owners = {**found.by_data_set, "whole mixture": found.pooled}
    else:
        owners = {"whole mixture": found.pooled}
    return {
        title: [
            RangeRow(whose, axis, tuple(f"{round(value, 4) + 0.0:.4f}" for value in numbers))
            for whose, statistics in owners.items()
            for axis, *numbers in _axes(getattr(statistics, kind))
        ]
        for kind, title in KINDS.items()
    }


def _axes(bounds):
    return zip(DELTA_AXES, bounds.low, bounds.high, bounds.mean, bounds.std, strict=True)


# How the arm moves in some episodes ------------------------------------------------------------


MOST_FRAMES = 30_000  # a second or two of counting


@dataclass(frozen=True, eq=False)
class MotionSample:
    """What the motions of a store look like.

    Attributes:
        motion: counts over all moments of `episodes` episodes.
        episodes: how many were counted.
        whole: whether these are all.
        interval_s: median time between two frames [s]; NaN where no episode has two.
        longest_gap_s: between two frames of an episode [s].
    """

    motion: MotionStatistics
    episodes: int
    whole: bool
    interval_s: float
    longest_gap_s: float

    def oddities(self, name: str) -> list[str]:
        """What a person should look at, in sentences."""
        try:
            pooled = normalisation({name: self.motion}, {name: 1.0}).pooled
        except ValueError as error:
            return [f"its motion cannot be normalised: {error}"]
        return [oddity.text for oddity in oddities({name: self.motion}, pooled)]


def sample_motion(store: FrameStore, most_frames: int = MOST_FRAMES) -> MotionSample:
    """Count some episodes; all of them where `stats` has counted them already or they are few.

    Raises:
        DataFileError: an episode has numbers that no episode can have.
    """
    share = min(1.0, most_frames / len(store))
    chosen = spread(range(len(store.episodes)), max(1, int(share * len(store.episodes))))
    kept = kept_statistics(store)
    motion, intervals_s = kept or MotionStatistics(), []
    for episode in chosen:
        found = episode_motion(store, episode)
        intervals_s.append(np.diff(found.measured.stamps_s))
        if kept is None:
            name = f"{store.metadata.name} episode {episode}"
            motion.add(name, found.measured, found.told, found.commands)
    intervals = np.concatenate(intervals_s)
    return MotionSample(
        motion,
        motion.episodes,
        motion.episodes == len(store.episodes),
        float(np.median(intervals)) if len(intervals) else float("nan"),
        float(intervals.max(initial=0.0)),
    )


# Some frames of some episodes, as the model will see them --------------------------------------


EPISODES, FRAMES = 12, 4


@dataclass(frozen=True)
class SheetRow:
    """One episode of the sheet.

    Attributes:
        episode: its number.
        sentences: all that name its motion.
        strips: camera -> addresses of its pictures, from the beginning to the end.
        trouble: why pictures are missing, in words.
    """

    episode: int
    sentences: tuple[str, ...]
    strips: dict[str, list[str]]
    trouble: str = ""


def picture_sheet(store: FrameStore) -> list[SheetRow]:
    """Rows for episodes from all over the store; a damaged file costs its rows only."""
    return [
        _picture_sheet_row(store, episode)
        for episode in spread(range(len(store.episodes)), EPISODES)
    ]


def _picture_sheet_row(store: FrameStore, episode: int) -> SheetRow:
    episodes = store.episodes
    first, length = int(episodes.first_frame[episode]), int(episodes.length[episode])
    frames = spread(range(first, first + length), FRAMES)
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


# What the page of a store says in words and numbers --------------------------------------------


MOST_SENTENCES, MOST_REASONS, MOST_EXAMPLES = 25, 20, 5


def durations_s(store: FrameStore) -> NDArray:
    """How long each episode is, from its first to its last stamp (E,) [s]."""
    last = store.episodes.first_frame + store.episodes.length - 1
    return np.array(store.stamps_s[last], float)


def headlines(store: FrameStore) -> list[Headline]:
    """Counts, time, rate and room."""
    metadata, lengths = store.metadata, store.episodes.length
    # Each frame stands for the time until the next, the last one too.
    motion_s = float(durations_s(store).sum()) + len(store.episodes) / metadata.control_hz
    places = (store.root / "data", store.root / LOOKUP)
    size = sum(path.stat().st_size for place in places for path in place.rglob("*"))
    return [
        Headline(
            f"{metadata.episodes:,}", "episodes", f"{int(np.median(lengths))} frames (median)"
        ),
        Headline(f"{metadata.frames:,}", "frames", f"at {metadata.control_hz:g} a second"),
        Headline(time_words(motion_s), "of motion"),
        Headline(_bytes(size), "on disk", f"{size / max(1, len(store)) / 1e3:.1f} kB a frame"),
        Headline(f"{metadata.rejected:,}", "rejected", "cannot be used"),
        Headline(f"{metadata.not_selected:,}", "not selected", share_words(metadata, doubt=False)),
    ]


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
    told = {
        "commanded": "where the end effector was told to be",
        "reached": "not recorded: the reached pose stands for it",
    }
    grip = {"commanded": "what it was told", "measured": "not recorded: what was measured"}
    rows = [
        ("robot", metadata.robot),
        ("actions", told[metadata.action_from]),
        ("gripper of actions", grip[metadata.gripper_from]),
        (
            "poses",
            "measured, in the robot's base frame"
            if metadata.state_known
            else "sums of deltas: only their differences are true",
        ),
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
            rows.append((key.replace("_", " "), _words(value)))
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


@dataclass(frozen=True)
class RejectGroup:
    """Rejects that differ in names and numbers only.

    Attributes:
        count: how many.
        reason: of the first of them, whole.
        examples: numbers of some of them.
    """

    count: int
    reason: str
    examples: tuple[int, ...]


def reject_groups(rejects: Sequence[Reject]) -> list[RejectGroup]:
    """Rejects by what is wrong with them, the most frequent first."""
    alike: dict[str, list[Reject]] = {}
    for reject in rejects:
        alike.setdefault(_outline(reject.reason), []).append(reject)
    groups = [
        RejectGroup(
            len(group),
            group[0].reason,
            tuple(reject.source_index for reject in group[:MOST_EXAMPLES]),
        )
        for group in alike.values()
    ]
    return sorted(groups, key=lambda group: -group.count)


def _outline(reason: str) -> str:
    """A reason without what differs from one episode to the next."""
    return re.sub(r"\d+(\.\d+)?", "#", re.sub(r"'[^']*'|\S*/\S*", "...", reason))


def _words(value) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


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


# The drawings of a store's page ----------------------------------------------------------------


_LEAST_SPAN_M = 0.02  # an arm at rest is a dot and not a drawing of its noise
VIEWS = ((0, 1, "From above", "x [m]", "y [m]"), (0, 2, "From the side", "x [m]", "z [m]"))


def draw_lengths(figure, durations_s: NDArray) -> None:
    """How long the episodes are."""
    axis = figure.subplots()
    longest = np.quantile(durations_s, 0.995)
    shown = durations_s[durations_s <= longest]
    axis.hist(shown, bins=min(40, max(5, len(set(shown.tolist())))), color=BLUE)
    title = f"Lengths, median {np.median(durations_s):.1f} s, longest {durations_s.max():.1f} s"
    axis.set(title=title, xlabel="s", ylabel="episodes")


def draw_reach(figure, motions: Sequence[EpisodeMotion]) -> None:
    """Paths of some episodes, seen from two sides."""
    axes = figure.subplots(1, 2)
    for axis, (across, up, title, x_label, y_label) in zip(axes, VIEWS, strict=True):
        for motion in motions:
            (path,) = thin(motion.measured.poses)
            axis.plot(path[:, across], path[:, up], color=BLUE, alpha=0.35, linewidth=0.7)
            axis.plot(*path[0, [across, up]], ".", color=GREEN, markersize=3)
        axis.set(title=title, xlabel=x_label, ylabel=y_label)
        axis.set_aspect("equal", adjustable="datalim")
        axis.locator_params(nbins=5)


def draw_path(figure, motion: EpisodeMotion) -> None:
    """The path of one episode, seen from two sides."""
    axes = figure.subplots(1, 2)
    for axis, (across, up, title, x_label, y_label) in zip(axes, VIEWS, strict=True):
        (path,) = thin(motion.measured.poses)
        if motion.told is not motion.measured:
            (told,) = thin(motion.told.poses)
            axis.plot(told[:, across], told[:, up], color=ORANGE, label="told")
        axis.plot(path[:, across], path[:, up], color=BLUE, label="measured")
        axis.plot(*path[0, [across, up]], "o", color=GREEN, label="start", markersize=4)
        axis.plot(*path[-1, [across, up]], "s", color=RED, label="end", markersize=4)
        axis.set(title=title, xlabel=x_label, ylabel=y_label)
        middle = (path[:, [across, up]].max(axis=0) + path[:, [across, up]].min(axis=0)) / 2
        axis.update_datalim([middle - _LEAST_SPAN_M / 2, middle + _LEAST_SPAN_M / 2])
        axis.autoscale_view()
        axis.set_aspect("equal", adjustable="datalim")
        axis.locator_params(nbins=5)
    figure.subplots_adjust(bottom=0.24)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4)


def draw_motion(figure, motion: EpisodeMotion) -> None:
    """Position, rotation and gripper of one episode over time."""
    positions, rotations, gripper = figure.subplots(3, 1, sharex=True)
    lines = [(motion.measured, "-", 1.0)]
    if motion.told is not motion.measured:
        lines.append((motion.told, ":", 0.8))
    start = motion.measured.poses[0]
    for poses, style, width in lines:
        seconds, position, rotation = thin(
            poses.stamps_s,
            1e3 * (poses.poses[:, :3] - start[:3]),
            np.degrees(turned(poses.poses, start)),
        )
        for axis, values in ((positions, position), (rotations, rotation)):
            for column, (name, colour) in enumerate(AXES):
                label = name if style == "-" else None
                axis.plot(
                    seconds,
                    values[:, column],
                    style,
                    color=colour,
                    label=label,
                    linewidth=1.3 * width,
                )
    positions.set(title="Position since the start", ylabel="mm")
    rotations.set(title="Rotation since the start, about its axes", ylabel="degrees")
    seconds, openings, commands = thin(motion.measured.stamps_s, motion.openings, motion.commands)
    gripper.plot(seconds, openings, color=BLUE, label="measured")
    gripper.step(seconds, commands, where="post", color=ORANGE, label="told", linewidth=1.0)
    gripper.set(title="Gripper", ylabel="1 is open", xlabel="s", ylim=(-0.05, 1.05))
    for axis in (positions, gripper):
        legend_above(axis)


# The page of a store: <store>/report.html, one file --------------------------------------------


STORE_TEMPLATE = Path(__file__).parent / "templates" / "store.html"
SHOWN_EPISODES, REACH_EPISODES = 4, 60
QUANTILES = (0.01, 0.5, 0.99)


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
    write_atomically(page, render(STORE_TEMPLATE, **_values(store)).encode())
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
        troubles += sample.oddities(metadata.name)
        troubles += _rate_troubles(sample, metadata.control_hz)
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
        "motions": [_store_page_drawn(store, motion) for motion in motions],
        "sheet": picture_sheet(store),
        "rejected": _groups(rejects, selected=True),
        "not_selected": _groups(rejects, selected=False),
        "most_reasons": MOST_REASONS,
    }


def _groups(rejects, selected: bool) -> list[RejectGroup]:
    return reject_groups([each for each in rejects if each.selected == selected])


def _rate_troubles(sample: MotionSample, control_hz: float) -> list[str]:
    texts = []
    if abs(sample.interval_s * control_hz - 1) > 0.05:
        texts.append(
            f"frames are {sample.interval_s:.4f} s apart (median), but its rate is said to be "
            f"{control_hz:g} a second"
        )
    if sample.longest_gap_s > 5 * sample.interval_s:
        texts.append(f"two frames of an episode are {sample.longest_gap_s:.2f} s apart")
    return texts


def _motion_rows(sample: MotionSample) -> list[tuple[str, list[str]]]:
    motion = sample.motion
    sketches = [(f"position {axis} [m]", s) for axis, s in zip("xyz", motion.position, strict=True)]
    sketches += [
        (f"translation {axis} [m]", s) for axis, s in zip("xyz", motion.translation, strict=True)
    ]
    sketches += [("motion in 1 s [m]", motion.distance), ("turn in 1 s [rad]", motion.turn)]
    marks = [(name, [s.low, *map(s.quantile, QUANTILES), s.high]) for name, s in sketches]
    # Nothing below 0 is shown as -0.000.
    return [(name, [f"{round(value, 3) + 0.0:.3f}" for value in values]) for name, values in marks]


def _share_rows(sample: MotionSample) -> list[tuple[str, str]]:
    motion = sample.motion
    changes = motion.gripper_changes / max(1, motion.episodes)
    return [
        ("moments at which nothing moves", f"{100 * motion.idle_share:.1f} %"),
        ("steps that tell the gripper to be open", f"{100 * motion.open_share:.1f} %"),
        ("times the gripper opens or closes", f"{changes:.2f} an episode"),
        ("median time between frames", f"{sample.interval_s:.4f} s"),
        ("longest time between frames", f"{sample.longest_gap_s:.3f} s"),
    ]


def _store_page_drawn(store: FrameStore, motion: EpisodeMotion) -> dict:
    return {
        "episode": motion.episode,
        "sentence": store.episodes.sentences(motion.episode)[0],
        "time": svg_address(lambda figure: draw_motion(figure, motion), 5.4, 4.8),
        "path": svg_address(lambda figure: draw_path(figure, motion), 5.4, 3.4),
    }


# Make the page of a store anew -----------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Run it; 0: written, 2: there is no store, or the page cannot be written."""
    parser = argparse.ArgumentParser(
        prog="python3 -m spear_training.data.report",
        description=__doc__,
        epilog="example: python3 -m spear_training.data.report stores/bridge",
    )
    parser.add_argument("stores", nargs="+", type=Path, metavar="STORE", help="its folder")
    for store in parser.parse_args(arguments).stores:
        try:
            print(write_report(store))
        except (DataFileError, OSError) as error:
            print(f"report: {error}", file=sys.stderr)
            return 2
    return 0
