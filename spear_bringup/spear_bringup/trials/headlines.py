"""The few numbers at the top of a report."""

from dataclasses import dataclass

import numpy as np

from spear_bringup.trials.results import Summary


@dataclass(frozen=True)
class Headline:
    """A number as text, what it is, and a remark in small print."""

    value: str
    name: str
    remark: str = ""


def headlines(summary: Summary) -> list[Headline]:
    """What somebody wants to know first; numbers that no bag has are left out."""
    trials = summary.trials
    metrics = [trial.metrics for trial in trials if trial.metrics is not None]
    found = [
        Headline(f"{summary.successes} of {len(trials)}", "trials succeeded"),
        Headline(
            f"{np.median([trial.row.duration_s for trial in trials]):.1f} s",
            "median duration",
            "by the node clock",
        ),
    ]
    worst = (
        ("seam_mm", "{:.1f} mm", "seam", "step between chunks"),
        ("seam_mrad", "{:.1f} mrad", "seam", "turn between chunks"),
        ("command_period_s", "{:.3f} s", "command period", "from command to command"),
        ("camera_to_command_age_s", "{:.3f} s", "camera to command", "image stamp to hand-over"),
    )
    for attribute, form, name, remark in worst:
        spreads = [getattr(m, attribute) for m in metrics if getattr(m, attribute) is not None]
        if spreads:
            value = form.format(max(spread.p99 for spread in spreads))
            found.append(Headline(value, name, f"{remark}; p99, worst trial"))
    factors = [m.real_time_factor for m in metrics if m.real_time_factor is not None]
    if factors:
        found.append(
            Headline(f"{np.mean(factors):.2f}", "real-time factor", "mean over the trials")
        )
    return found
