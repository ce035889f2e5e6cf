"""The end of a demo: summary.json, report.html and a table on the terminal."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spear_bringup.trials.plots import SpeedLimits
from spear_bringup.trials.report import NoTrials, write_report
from spear_bringup.trials.results import COLUMNS, Summary, cells
from spear_policy.nodes.parameters import read_specs

# The other columns are in the HTML report; these fit 100 columns, the first ones fewer.
_SHOWN = (
    "seed",
    "outcome",
    "instruction",
    "verdicts",
    "duration [s]",
    "seam p99 [mm]",
    "seam p99 [mrad]",
    "period p99 [s]",
    "age p99 [s]",
    "real time",
)
_WRAPPED = {"instruction": 14, "verdicts": 11}  # least width


def report(out_dir: Path, engine: str, trial_ids: list[str], console: Console) -> None:
    """Write the report of these trials into `out_dir` and print its table."""
    console.print(f"writing the report of {len(trial_ids)} trials", highlight=False)
    try:
        summary = write_report(
            out_dir, engine, trial_ids, driver_limits(), lambda line: console.print(f"  {line}")
        )
    except NoTrials as error:
        console.print(f"demo: {error}", markup=False)
        return
    console.print(as_table(summary))
    console.print(f"{summary.successes} of {len(summary.trials)} trials succeeded", highlight=False)
    console.print(f"report: {out_dir / 'report.html'}", highlight=False, soft_wrap=True)


def driver_limits() -> SpeedLimits:
    """The speed limits that the driver's gate has when nobody changes them."""
    config = Path(get_package_share_directory("spear_bringup")) / "config"
    specs = read_specs(config / "franka_driver.yaml")
    return SpeedLimits(
        linear_m_s=specs["max_linear_speed_m_s"].default,
        angular_rad_s=specs["max_angular_speed_rad_s"].default,
    )


def as_table(summary: Summary) -> Table:
    """The trials as a table for the terminal."""
    table = Table()
    for name in _SHOWN:
        # Narrow: a word of the title a line, a verdict a line. Numbers never wrap.
        table.add_column(
            escape(name.replace(" ", "\n")),
            justify="right" if "[" in name else "left",
            no_wrap=name not in _WRAPPED,
            min_width=_WRAPPED.get(name),
        )
    for trial in summary.trials:
        known = dict(zip(COLUMNS, cells(trial), strict=True))
        known["verdicts"] = known["verdicts"].replace(", ", "\n")
        row = [escape(known[name]) for name in _SHOWN]
        table.add_row(*row, style=None if trial.success else "red")
    return table
