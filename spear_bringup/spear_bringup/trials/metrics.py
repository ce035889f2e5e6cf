"""The numbers of a trial, from its arrays. Pure numpy."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_bringup.control.gate import Reason, Verdict
from spear_bringup.trials.bag_reader import CommandSeries, GateSeries, StateSeries, TrialSeries
from spear_policy.geometry import quaternions as quat


@dataclass(frozen=True)
class Spread:
    """Median, 99th percentile (numpy's linear interpolation) and largest of some values."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True)
class TrialMetrics:
    """What a trial is compared by; None where the bag has nothing to say.

    Attributes:
        commands: commands that were sent to the robot.
        seam_mm, seam_mrad: reference step at chunk entry, of sent commands.
        command_period_s: between consecutive sent commands, node clock.
        camera_to_command_age_s: image stamp to hand-over, of sent commands, node clock.
        verdicts: gate verdicts during the trial, by name.
        reasons: by verdict name, the recorded reason codes by name, the most frequent first.
        real_time_factor: mean of simulated over wall time.
        path_length_m: of the measured end effector.
        linear_speed_m_s, angular_speed_rad_s: of the measured end effector.
    """

    commands: int
    seam_mm: Spread | None
    seam_mrad: Spread | None
    command_period_s: Spread | None
    camera_to_command_age_s: Spread | None
    verdicts: dict[str, int]
    reasons: dict[str, dict[str, int]]
    real_time_factor: float | None
    path_length_m: float | None
    linear_speed_m_s: Spread | None
    angular_speed_rad_s: Spread | None


def spread(values: ArrayLike) -> Spread | None:
    """The spread of the finite ones of `values`; None when there is none."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    p50, p99 = np.percentile(values, [50, 99])
    return Spread(float(p50), float(p99), float(values.max()))


def measure(trial: TrialSeries) -> TrialMetrics:
    """All numbers of one trial."""
    commands, states = trial.commands, trial.states
    sent = commands.sent
    _, linear, angular = speeds(states)
    factors = trial.real_time_factors
    return TrialMetrics(
        commands=int(np.sum(sent)),
        seam_mm=spread(commands.seams_m[sent] * 1e3),
        seam_mrad=spread(commands.seams_rad[sent] * 1e3),
        command_period_s=spread(np.diff(commands.stamps_s[sent])),
        camera_to_command_age_s=spread(commands.observation_ages_s[sent]),
        verdicts=verdict_counts(commands, trial.gate),
        reasons=reason_counts(commands, trial.gate),
        real_time_factor=float(np.mean(factors)) if len(factors) else None,
        path_length_m=path_length_m(states) if len(states.stamps_s) > 1 else None,
        linear_speed_m_s=spread(linear),
        angular_speed_rad_s=spread(angular),
    )


def verdict_counts(commands: CommandSeries, gate: GateSeries) -> dict[str, int]:
    """Verdicts during the trial, by name.

    The gate's own counters say most: they also know what was held without a command. The first
    gate_status of a bag is the latched one from before the start. Where the counters are missing
    or began anew, the commands are counted.
    """
    counts = np.bincount(commands.verdicts.astype(int), minlength=len(Verdict))
    if len(gate.counts) > 1:
        gained = gate.counts[-1] - gate.counts[0]
        if np.all(np.diff(gate.counts, axis=0) >= 0):
            counts = gained
    return {verdict.name: int(counts[verdict]) for verdict in Verdict}


def reason_counts(commands: CommandSeries, gate: GateSeries) -> dict[str, dict[str, int]]:
    """Reason codes by verdict, the most frequent first; verdicts without a reason are left out.

    Those of chunks are on the commands; those of the driver's own stops, such as a timeout, on
    gate_status alone. It repeats itself with the stamp of the verdict, so each verdict counts
    once; the one from before the start does not count.
    """
    of_chunks = _judged(commands)
    alone = {row for row in _judged(gate) if row[0] > gate.stamps_s[0]} - set(of_chunks)
    judged = [row[1:] for row in (*of_chunks, *alone)]
    counted = Counter((verdict, reason) for verdict, reason in judged if reason != Reason.NONE)
    found = {verdict.name: {} for verdict in Verdict}
    for (verdict, reason), count in counted.most_common():
        found[Verdict(verdict).name][Reason(reason).name] = count
    return {name: reasons for name, reasons in found.items() if reasons}


def _judged(series: CommandSeries | GateSeries) -> list[tuple[float, int, int]]:
    columns = (series.stamps_s, series.verdicts.astype(int), series.reasons.astype(int))
    return list(zip(*(column.tolist() for column in columns), strict=True))


def speeds(states: StateSeries, window_s: float = 0.05) -> tuple[NDArray, NDArray, NDArray]:
    """Times (M,) [s], linear [m/s] and angular [rad/s] speeds (M,) of the measured end effector.

    Each is taken over `window_s`, so that the quantisation of stamps does not show as speed.
    """
    stamps = states.stamps_s
    ends = np.searchsorted(stamps, stamps + window_s)
    starts = np.flatnonzero(ends < len(stamps))
    ends = ends[starts]
    if not len(starts):
        return np.zeros(0), np.zeros(0), np.zeros(0)
    span = stamps[ends] - stamps[starts]
    before, after = states.measured[starts], states.measured[ends]
    linear = np.linalg.norm(after[:, :3] - before[:, :3], axis=1) / span
    angular = quat.angle(before[:, 3:], after[:, 3:]) / span
    return (stamps[starts] + stamps[ends]) / 2, linear, angular


def path_length_m(states: StateSeries) -> float:
    """Length of the measured path [m]."""
    return float(np.sum(np.linalg.norm(np.diff(states.measured[:, :3], axis=0), axis=1)))
