"""Runs trials in the simulated graph without a screen, and ends with a table and a report."""

import argparse
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from spear_bringup.graph import (
    ENGINES,
    find_executable,
    free_domain_id,
    free_loopback_host,
    sim_graph,
)
from spear_bringup.nodes.supervisor import GraphError, RunningGraph
from spear_bringup.nodes.trial_client import (
    FollowingJudge,
    Judge,
    ObjectsJudge,
    TrialClient,
    TrialResult,
)
from spear_bringup.trials.plots import SpeedLimits
from spear_bringup.trials.report import ReportError, write_report
from spear_bringup.trials.results import COLUMNS, ReplayedEpisode, TrialsSummary, cells
from spear_policy.nodes.parameters import read_specs
from spear_policy.shared.files import MismatchError, read_json_object

# The checkpoint of engine spear: yours, or one with random weights --------------------------------


def is_untrained(folder: Path) -> bool:
    """Whether a checkpoint's card says that nothing was trained. The policy node checks the rest.

    Raises:
        ValueError: the folder has no card.json.
        MismatchError: it cannot be read.
    """
    path = folder / "card.json"
    if not path.exists():
        raise ValueError(
            f"checkpoint {folder} has no card.json; name the folder that training left, or one "
            "from make_checkpoint"
        )
    return read_json_object(path).get("recipe") == "untrained"


def make_untrained(folder: Path) -> Path:
    """Make the preset `tiny` with random weights in `folder`, in the place of an older such one.

    Raises:
        ValueError: the folder holds a trained checkpoint.
        OSError: make_checkpoint is not installed, or failed; the text is what it said.
    """
    if (folder / "card.json").exists() and not is_untrained(folder):
        raise ValueError(
            f"{folder} holds a trained checkpoint; run it with --checkpoint {folder}, or choose "
            "another --out"
        )
    executable = find_executable("spear_policy", "make_checkpoint")
    # As a process of its own: this package stays without torch.
    command = [executable, "--preset", "tiny", "--output", folder]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise OSError(f"no checkpoint was made: {made.stderr.strip()}")
    return folder


# The end: summary.json, report.html and a table on the terminal -----------------------------------

# The other columns are in the HTML report; these fit 100 columns, the first ones fewer.
_SHOWN = (
    "seed",
    "outcome",
    "instruction",
    "verdicts",
    "duration [s]",
    "position seam p99 [mm]",
    "rotation seam p99 [mrad]",
    "period p99 [s]",
    "age p99 [s]",
    "real time",
)
_WRAPPED = {"instruction": 11, "verdicts": 8}  # least width


def report(out_dir: Path, engine: str, trial_ids: list[str], console: Console) -> None:
    """Write the report of these trials into `out_dir` and print its table."""
    console.print(f"writing the report of {len(trial_ids)} trials", highlight=False)
    try:
        summary = write_report(
            out_dir, engine, trial_ids, driver_limits(), lambda line: console.print(f"  {line}")
        )
    except ReportError as error:
        console.print(f"demo: {error}", markup=False)
        return
    console.print(as_table(summary))
    interval = "95 % interval of the rate: {:.0%} to {:.0%}".format(*summary.success_rate_95)
    succeeded = f"{summary.successes} of {len(summary.trials)} trials succeeded"
    console.print(f"{succeeded} ({interval})", highlight=False)
    console.print(f"report: {out_dir / 'report.html'}", highlight=False, soft_wrap=True)


def driver_limits() -> SpeedLimits:
    """The speed limits that the driver's gate has when nobody changes them."""
    config = Path(get_package_share_directory("spear_bringup")) / "config"
    specs = read_specs(config / "franka_driver.yaml")
    return SpeedLimits(
        linear_m_s=specs["max_linear_speed_m_s"].default,
        angular_rad_s=specs["max_angular_speed_rad_s"].default,
    )


def as_table(summary: TrialsSummary) -> Table:
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


# The trials ---------------------------------------------------------------------------------------

_START_TIMEOUT_S = 600.0  # a busy machine starts slowly; a broken graph is reported at once anyway
_TIMEOUT_S = 60.0  # per trial, simulated
_UNTRAINED_TIMEOUT_S = 15.0  # the same for random weights, which never succeed
_FILE_WIDTH = 120  # columns of an output that is no terminal

EXAMPLE = """\
example:
  spear_demo --engine scripted --trials 5 --out out/demo --seed 1
  spear_demo --engine replay --episode out/episodes/bridge_0.npz --out out/replay
  spear_demo --engine spear --checkpoint checkpoints/mine --out out/mine
Then look at out/demo/report.html. Without options, POLICY, TRIALS and OUT of the environment count.
"""


@dataclass
class DemoRun:
    """What a demo does, and what has come of it so far."""

    engine: str
    seeds: list[int]
    out_dir: Path
    timeout_s: float
    episode_files: list[Path] = field(default_factory=list)
    checkpoint: Path | None = None
    results: list[TrialResult] = field(default_factory=list)


def parse(arguments: list[str] | None = None) -> DemoRun:
    """The run that the command line asks for; ends the program with a sentence when it is wrong."""
    variables = os.environ
    parser = argparse.ArgumentParser(
        prog="spear_demo",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--engine", default=variables.get("POLICY", "scripted"), help="which policy"
    )
    parser.add_argument("--trials", type=int, default=variables.get("TRIALS", "5"), help="how many")
    parser.add_argument("--seed", type=int, default=1, help="of the first trial's scene")
    parser.add_argument(
        "--out", type=Path, default=Path(variables.get("OUT", "out/demo")), help="folder to fill"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="S",
        help=f"per trial, in simulated seconds; {_TIMEOUT_S:g}, and {_UNTRAINED_TIMEOUT_S:g} for "
        "an untrained checkpoint",
    )
    parser.add_argument(
        "--episode",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="what engine replay repeats, one trial each; may be given again",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FOLDER",
        help="of engine spear; without one an untrained tiny one is made in OUT/checkpoint",
    )
    given = parser.parse_args(arguments)
    if given.engine not in ENGINES:
        parser.error(f"the engine is {given.engine!r}; it must be one of {', '.join(ENGINES)}")
    if given.trials < 1 or given.seed < 0 or (given.timeout is not None and given.timeout <= 0):
        parser.error("--trials and --timeout must be above 0, --seed must not be negative")
    if (given.engine == "replay") != bool(given.episode):
        parser.error("--engine replay needs --episode FILE; the other engines take none")
    for path in given.episode:
        if not path.is_file():
            parser.error(f"episode file {path} does not exist; make one with import_episodes")
    if given.checkpoint and given.engine != "spear":
        parser.error("--checkpoint is for --engine spear; the other engines take none")
    untrained = given.engine == "spear"
    if given.checkpoint:
        try:
            untrained = is_untrained(given.checkpoint)
        except (MismatchError, ValueError) as error:
            parser.error(str(error))
    trials = len(given.episode) or given.trials
    return DemoRun(
        engine=given.engine,
        seeds=[given.seed + number for number in range(trials)],
        out_dir=given.out.absolute(),
        timeout_s=given.timeout or (_UNTRAINED_TIMEOUT_S if untrained else _TIMEOUT_S),
        episode_files=[path.absolute() for path in given.episode],
        checkpoint=given.checkpoint and given.checkpoint.absolute(),
    )


def run_demo(run: DemoRun, console: Console) -> int:
    """Run every trial, then report. Returns the exit status: 0 unless the graph itself broke."""
    problem = ""
    try:
        _run_trials(run, console)
    except (GraphError, MismatchError, OSError, ValueError) as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = f"stopped after {len(run.results)} of {len(run.seeds)} trials"
    try:
        if run.results:
            report(run.out_dir, run.engine, [result.trial_id for result in run.results], console)
    except KeyboardInterrupt:
        problem = (
            "stopped while writing the report; the trials are whole, make it later with:"
            f" ros2 run spear_bringup trial_report {run.out_dir}"
        )
    if problem:
        console.print(f"demo: {problem}", markup=False, highlight=False, soft_wrap=True)
    return 1 if problem else 0


def _run_trials(run: DemoRun, console: Console) -> None:
    with ExitStack() as stack:
        display = stack.enter_context(TrialDisplay(console, len(run.seeds)))
        if run.engine == "spear" and run.checkpoint is None:
            display.phase("making an untrained checkpoint")
            run.checkpoint = make_untrained(run.out_dir / "checkpoint")
            console.print("  random weights: no trial can succeed, the verdicts are the result")
        domain = stack.enter_context(free_domain_id())
        specs = sim_graph(
            engine=run.engine,
            episode_file=run.episode_files[0] if run.episode_files else None,
            checkpoint=run.checkpoint,
            host=free_loopback_host(),
            out_dir=run.out_dir,
            seed=run.seeds[0],
        )
        logs = run.out_dir / "logs"
        graph = stack.enter_context(RunningGraph(specs, logs, domain, on_progress=display.phase))
        graph.wait_active(_START_TIMEOUT_S)
        judge = _judge(run, graph.node)
        client = TrialClient(graph, judge, display.phase)
        graph.node.create_timer(
            0.5, lambda: display.numbers(client.chunks, client.real_time_factor)
        )
        for number, seed in enumerate(run.seeds, start=1):
            display.trial(number, seed)
            if run.episode_files and number > 1:
                graph.reconfigure("policy", episode_file=str(run.episode_files[number - 1]))
            result = client.run(seed, run.timeout_s)
            run.results.append(result)
            display.result(result)
        display.phase("ending the graph")


def _judge(run: DemoRun, node) -> Judge:
    if not run.episode_files:
        return ObjectsJudge(node)
    recordings = map(ReplayedEpisode.from_file, run.episode_files)
    return FollowingJudge(node, dict(zip(run.seeds, recordings, strict=True)))


class TrialDisplay:
    """What the person at the terminal sees: a line that lives, and one line a finished trial."""

    def __init__(self, console: Console, trials: int):
        self._console, self._trials = console, trials
        self._progress = Progress(
            TextColumn("{task.fields[trial]}"),
            TextColumn("chunks {task.fields[chunks]:>3}  real time x{task.fields[factor]}"),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("starting", trial="start", chunks=0, factor="-")

    def __enter__(self) -> "TrialDisplay":
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_) -> None:
        self._progress.stop()

    def trial(self, number: int, seed: int) -> None:
        """A trial begins."""
        self._progress.reset(self._task, trial=f"trial {number}/{self._trials}, seed {seed}")

    def phase(self, text: str) -> None:
        """What is being done now."""
        self._progress.update(self._task, description=text)
        if not self._console.is_terminal:
            self._console.print(f"  {text}", markup=False, highlight=False, soft_wrap=True)

    def numbers(self, chunks: int, real_time_factor: float) -> None:
        """How far the trial is, and how fast time passes."""
        self._progress.update(self._task, chunks=chunks, factor=f"{real_time_factor:.2f}")

    def result(self, result: TrialResult) -> None:
        """A trial is over."""
        text = (
            f"{result.outcome.lower()}: seed {result.seed}, {result.instruction}: {result.reason}"
        )
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def main() -> int:
    """Run the demo. Returns 0 when every trial ran, whatever came of it."""
    run = parse()

    def end(*_):
        raise KeyboardInterrupt

    # Named, because a job that a script starts in the background ignores SIGINT by default.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    os.environ.setdefault("ROS_LOG_DIR", str(run.out_dir / "logs" / "ros"))
    return run_demo(run, Console(width=None if sys.stdout.isatty() else _FILE_WIDTH))


if __name__ == "__main__":
    sys.exit(main())
