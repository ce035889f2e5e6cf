"""What a report says of its trials, as data: summary.json and the table on the terminal."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from spear_bringup.trials.metrics import Spread, TrialMetrics
from spear_bringup.trials.plots import SpeedLimits
from spear_bringup.trials.score_sheet import TrialRow


@dataclass(frozen=True)
class TrialResult:
    """One trial: its row, its numbers, and its files relative to the report.

    Attributes:
        metrics: None when the bag cannot be read; `problem` then says why.
        video, poster: empty when the bag has no image.
        plots: file by name of the drawing.
    """

    row: TrialRow
    metrics: TrialMetrics | None = None
    video: str = ""
    poster: str = ""
    plots: dict[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def success(self) -> bool:
        """Whether the trial was judged a success."""
        return self.row.outcome == "SUCCESS"


@dataclass(frozen=True)
class Summary:
    """All trials of one report."""

    engine: str
    trials: tuple[TrialResult, ...]
    limits: SpeedLimits | None = None

    @property
    def successes(self) -> int:
        """Trials judged a success."""
        return sum(trial.success for trial in self.trials)

    def as_json(self) -> dict:
        """The contents of summary.json; seams as {p50, p99, max}, null where nothing is known."""
        return {
            "engine": self.engine,
            "successes": self.successes,
            "limits": self.limits and asdict(self.limits),
            "trials": [_trial_json(trial) for trial in self.trials],
        }

    def write(self, path: Path) -> None:
        """Write summary.json, whole or not at all."""
        beside = path.with_name(f".{path.name}")
        beside.write_text(json.dumps(self.as_json(), indent=2, allow_nan=False) + "\n")
        os.replace(beside, path)

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
    "seam p99 [mm]",
    "seam p99 [mrad]",
    "period p99 [s]",
    "age p99 [s]",
    "real time",
    "verdicts",
)


def cells(trial: TrialResult) -> tuple[str, ...]:
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


def _trial_json(trial: TrialResult) -> dict:
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
