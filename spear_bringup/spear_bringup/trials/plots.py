"""The drawings of one trial as SVG files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spear_bringup.control.gate import Verdict
from spear_bringup.trials.bag_reader import TrialSeries
from spear_bringup.trials.metrics import speeds
from spear_policy.shared.files import write_atomically
from spear_policy.shared.pages import BLUE, GREEN, GREY, ORANGE, RED, legend_above, svg, thin

_LEAST_SPAN_M = 0.05  # an arm at rest is a dot and not a drawing of its noise


@dataclass(frozen=True)
class SpeedLimits:
    """The gate's speed limits: linear_m_s [m/s], angular_rad_s [rad/s]."""

    linear_m_s: float
    angular_rad_s: float


def write_plots(
    trial: TrialSeries, folder: Path, stem: str, limits: SpeedLimits | None = None
) -> dict[str, str]:
    """Draw what the bag has data for; file names in `folder` by name of the drawing."""
    drawings = {}
    if len(trial.states.stamps_s) > 1:
        drawings["path"] = lambda figure: _draw_path(figure.subplots(1, 2), trial)
        drawings["speed"] = lambda figure: _draw_speed(figure.subplots(2, 1), trial, limits)
    if len(trial.commands.stamps_s):
        drawings["seams"] = lambda figure: _draw_seams(figure.subplots(2, 1), trial)
    if len(trial.states.stamps_s) > 1 or len(trial.commands.stamps_s):
        drawings["gripper"] = lambda figure: _draw_gripper(figure.subplots(2, 1), trial)
    names = {}
    for name, draw in drawings.items():
        names[name] = f"{stem}-{name}.svg"
        write_atomically(folder / names[name], svg(draw, 5.4, 3.9, layout="constrained"))
    return names


def _show_at_least(axis, across, up) -> None:
    middle = np.array([np.ptp(values) / 2 + np.min(values) for values in (across, up)])
    axis.update_datalim([middle - _LEAST_SPAN_M / 2, middle + _LEAST_SPAN_M / 2])
    axis.autoscale_view()


def _draw_path(axes, trial: TrialSeries) -> None:
    measured, commanded = thin(trial.states.measured, trial.states.commanded)
    views = ((0, 1, "From above", "x [m]", "y [m]"), (0, 2, "From the side", "x [m]", "z [m]"))
    for axis, (across, up, title, x_label, y_label) in zip(axes, views, strict=True):
        axis.plot(commanded[:, across], commanded[:, up], color=ORANGE, label="commanded")
        axis.plot(measured[:, across], measured[:, up], color=BLUE, label="measured")
        axis.plot(*measured[0, [across, up]], "o", color=GREEN, label="start")
        axis.plot(*measured[-1, [across, up]], "s", color=RED, label="end")
        axis.set(title=title, xlabel=x_label, ylabel=y_label)
        _show_at_least(axis, measured[:, across], measured[:, up])
        axis.set_aspect("equal", adjustable="datalim")
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(handles, labels, loc="outside lower center", ncols=4)


def _draw_speed(axes, trial: TrialSeries, limits: SpeedLimits | None) -> None:
    stamps, linear, angular = thin(*speeds(trial.states))
    rows = (
        (linear, "Linear speed", "m/s", limits and limits.linear_m_s),
        (angular, "Angular speed", "rad/s", limits and limits.angular_rad_s),
    )
    for axis, (values, title, unit, limit) in zip(axes, rows, strict=True):
        axis.plot(stamps - trial.start_s, values, color=BLUE)
        if limit:
            axis.axhline(limit, color=RED, linestyle="--", linewidth=1.0, label="limit")
            legend_above(axis)
        axis.set(title=title, ylabel=unit)
        axis.set_ylim(bottom=0.0)
    axes[-1].set_xlabel("time [s]")


def _draw_seams(axes, trial: TrialSeries) -> None:
    commands = trial.commands
    times = commands.stamps_s - trial.start_s
    rows = (
        (commands.seams_m * 1e3, "Seam, translation", "mm"),
        (commands.seams_rad * 1e3, "Seam, rotation", "mrad"),
    )
    for axis, (values, title, unit) in zip(axes, rows, strict=True):
        axis.vlines(times[commands.sent], 0.0, values[commands.sent], color=BLUE, linewidth=1.0)
        axis.plot(times[commands.sent], values[commands.sent], ".", color=BLUE, label="sent")
        if not np.all(commands.sent):
            kept = times[~commands.sent]
            axis.plot(kept, np.zeros(len(kept)), "x", color=RED, label="not sent", clip_on=False)
            legend_above(axis)
        axis.set(title=title, ylabel=unit)
        axis.set_ylim(bottom=0.0)
    axes[-1].set_xlabel("time [s]")


def _draw_gripper(axes, trial: TrialSeries) -> None:
    states, commands = trial.states, trial.commands
    opening, timing = axes
    if len(states.stamps_s):
        stamps, openings = thin(states.stamps_s, states.gripper_openings)
        opening.plot(stamps - trial.start_s, openings, color=BLUE, label="measured")
    sent = commands.sent
    if np.any(sent):
        times = commands.stamps_s[sent] - trial.start_s
        wanted = commands.gripper_openings[sent]
        opening.step(times, wanted, where="post", color=ORANGE, label="wanted")
        timing.plot(times, commands.observation_ages_s[sent], ".", color=BLUE, label="image age")
        timing.plot(times[1:], np.diff(times), ".", color=GREY, label="command period")
        legend_above(timing)
    opening.set(title="Gripper opening", ylabel="0 closed, 1 open", ylim=(-0.05, 1.05))
    legend_above(opening)
    timing.set(title="Timing of commands", ylabel="s", xlabel="time [s]")
    timing.set_ylim(bottom=0.0)
    for verdict, colour in ((Verdict.HELD, GREY), (Verdict.REJECTED, RED), (Verdict.STOPPED, RED)):
        for stamp in commands.stamps_s[commands.verdicts == verdict]:
            timing.axvline(stamp - trial.start_s, color=colour, linewidth=0.6, alpha=0.5)
