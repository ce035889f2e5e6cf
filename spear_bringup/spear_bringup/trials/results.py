"""What a report says of its trials, as data: summary.json and the table on the terminal.

First the numbers of a report's trials, then, for trials of engine `replay`, whether the robot
repeated the recorded motion.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from spear_bringup.trials.bag_reader import StateSeries
from spear_bringup.trials.metrics import Spread, TrialMetrics
from spear_bringup.trials.plots import SpeedLimits
from spear_bringup.trials.recording import TrialRow
from spear_policy.geometry.poses import Chunk, Pose
from spear_policy.geometry.tracking import (
    TimedPoses,
    TrackingErrors,
    best_lag_s,
    replayed_motion,
    tracking_errors,
)
from spear_policy.shared.files import write_atomically


@dataclass(frozen=True)
class ReportedTrial:
    """One trial: its row, its numbers, and its files relative to the report.

    Attributes:
        metrics: None when the bag cannot be read; `problem` then says why.
        video, poster: empty when the bag has no image.
        cameras: width and height of each one's own pictures [px].
        plots: file by name of the drawing.
    """

    row: TrialRow
    metrics: TrialMetrics | None = None
    video: str = ""
    poster: str = ""
    cameras: dict[str, tuple[int, int]] = field(default_factory=dict)
    plots: dict[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def success(self) -> bool:
        """Whether the trial was judged a success."""
        return self.row.outcome == "SUCCESS"


@dataclass(frozen=True)
class TrialsSummary:
    """All trials of one report."""

    engine: str
    trials: tuple[ReportedTrial, ...]
    limits: SpeedLimits | None = None

    @property
    def successes(self) -> int:
        """Trials judged a success."""
        return sum(trial.success for trial in self.trials)

    @property
    def success_rate_95(self) -> tuple[float, float]:
        """The 95 % interval of the rate of success (Clopper and Pearson, 1934)."""
        from scipy.stats import binomtest  # a second to import

        interval = binomtest(self.successes, len(self.trials)).proportion_ci(0.95)
        return float(interval.low), float(interval.high)

    def as_json(self) -> dict:
        """The contents of summary.json; seams as {p50, p99, max}, null where nothing is known."""
        return {
            "engine": self.engine,
            "successes": self.successes,
            "success_rate_95": self.success_rate_95,
            "limits": self.limits and asdict(self.limits),
            "trials": [_trial_json(trial) for trial in self.trials],
        }

    def write(self, path: Path) -> None:
        """Write summary.json, whole or not at all."""
        write_atomically(path, json.dumps(self.as_json(), indent=2, allow_nan=False) + "\n")

    def table(self) -> str:
        """One line a trial for the terminal."""
        rows = [COLUMNS, *(cells(trial) for trial in self.trials)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(line.rstrip() for line in lines)


COLUMNS = (
    "trial",
    "outcome",
    "instruction",
    "seed",
    "duration [s]",
    "position seam p99 [mm]",
    "rotation seam p99 [mrad]",
    "period p99 [s]",
    "age p99 [s]",
    "real time",
    "verdicts",
)


def cells(trial: ReportedTrial) -> tuple[str, ...]:
    """The row of one trial under COLUMNS, as text."""
    row, metrics = trial.row, trial.metrics
    head = (
        row.trial_id,
        row.outcome.lower(),
        row.instruction,
        "" if row.seed is None else str(row.seed),
        f"{row.duration_s:.1f}",
    )
    if metrics is None:
        return (*head, "", "", "", "", "", trial.problem)
    factor = metrics.real_time_factor
    return (
        *head,
        _p99(metrics.seam_mm, 1),
        _p99(metrics.seam_mrad, 1),
        _p99(metrics.command_period_s, 3),
        _p99(metrics.camera_to_command_age_s, 3),
        "" if factor is None else f"{factor:.2f}",
        verdict_words(metrics.verdicts),
    )


def verdict_words(verdicts: dict[str, int]) -> str:
    """The verdicts that occurred, such as "23 pass, 1 held"."""
    return ", ".join(f"{count} {name.lower()}" for name, count in verdicts.items() if count)


def verdict_rows(metrics: TrialMetrics, most: int = 3) -> list[tuple[str, int, str]]:
    """(verdict, count, its `most` frequent reasons) of those that occurred, as words."""
    return [
        (
            name.lower(),
            count,
            ", ".join(
                f"{times} {reason.lower().replace('_', ' ')}"
                for reason, times in list(metrics.reasons.get(name, {}).items())[:most]
            ),
        )
        for name, count in metrics.verdicts.items()
        if count
    ]


def _p99(values: Spread | None, digits: int) -> str:
    return "" if values is None else f"{values.p99:.{digits}f}"


def _trial_json(trial: ReportedTrial) -> dict:
    row, metrics = trial.row, trial.metrics
    entry = {
        "trial_id": row.trial_id,
        "seed": row.seed,
        "instruction": row.instruction,
        "success": trial.success,
        "outcome": row.outcome,
        "score": row.score,
        "duration_s": row.duration_s,
        "wall_duration_s": row.wall_duration_s,
        "seam_mm": None,
        "seam_mrad": None,
        "command_period_p99_s": None,
        "camera_to_command_age_p99_s": None,
        "real_time_factor": None,
        "commands": 0,
        "verdicts": {},
        "reasons": {},
        "checkpoint_id": row.checkpoint_id,
        "bag": row.bag,
        "video": trial.video or None,
        "problems": [*row.problems(), *([trial.problem] if trial.problem else [])],
    }
    if metrics is not None:
        period, age = metrics.command_period_s, metrics.camera_to_command_age_s
        entry |= {
            "seam_mm": metrics.seam_mm and asdict(metrics.seam_mm),
            "seam_mrad": metrics.seam_mrad and asdict(metrics.seam_mrad),
            "command_period_p99_s": period and period.p99,
            "camera_to_command_age_p99_s": age and age.p99,
            "real_time_factor": metrics.real_time_factor,
            "commands": metrics.commands,
            "verdicts": metrics.verdicts,
            "reasons": metrics.reasons,
        }
    return entry


# Whether a robot repeated a recorded motion -------------------------------------------------------

POSITION_LIMIT_MM, ROTATION_LIMIT_DEG = 5.0, 2.0
MOST_LAG_S = 0.1  # a robot follows its reference a little late; later than this it is elsewhere


@dataclass(frozen=True, eq=False)
class ReplayedEpisode:
    """What a replay is to repeat: the sentence, and the motion in the recorded robot's base."""

    instruction: str
    motion: TimedPoses

    @classmethod
    def from_file(cls, episode_file: Path) -> "ReplayedEpisode":
        """Read sentence and motion of an episode; the policy reads and judges the whole file.

        Raises:
            ValueError: it is no episode file.
        """
        try:
            with np.load(episode_file, allow_pickle=False) as arrays:
                words = json.loads(str(arrays["words"]))
                motion = TimedPoses(arrays["stamps_s"], arrays["poses"])
            return cls(words["instruction"], motion)
        except (OSError, KeyError, ValueError) as error:
            text = f"{episode_file} is no episode file ({error}); use import_episodes"
            raise ValueError(text) from error


def following_errors(recorded: TimedPoses, first: Chunk, states: StateSeries) -> TrackingErrors:
    """How far the measured pose was from every recorded step, after the delay of following itself.

    What was recorded is compared with what was executed; of the chunks only the first counts, for
    where and when the replay began. So a policy that asks for something else, or a driver that
    slows the motion down, has not repeated it, however well the arm followed the chunks.

    Args:
        recorded: the motion to repeat, in the recorded robot's base.
        first: the replay's first chunk, from whose anchor and stamp the motion counts.
        states: what the arm did.

    Raises:
        ValueError: the states do not cover the motion.
    """
    if not len(states.stamps_s):
        raise ValueError("no ee_state was recorded")
    new = np.concatenate([[True], np.diff(states.stamps_s) > 0])
    done = TimedPoses(states.stamps_s[new], states.measured[new])
    # Where the arm stood, whichever pose the chunk itself is anchored to.
    start = Pose(first.anchor_measured[:3], first.anchor_measured[3:])
    targets = replayed_motion(recorded, start, first.stamp_s)
    if targets.stamps_s[-1] > done.stamps_s[-1]:
        left_s = targets.stamps_s[-1] - done.stamps_s[-1]
        raise ValueError(f"the trial ended {left_s:.1f} s before the recorded motion")
    return tracking_errors(targets, done, best_lag_s(targets, done, MOST_LAG_S))
