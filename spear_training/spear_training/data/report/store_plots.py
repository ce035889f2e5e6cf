"""The drawings of a store's page."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spear_training.data.report.rotations import turned
from spear_training.data.store.motions import EpisodeMotion
from spear_training.pages.drawing import AXES, BLUE, GREEN, ORANGE, RED, legend_above, thin

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
