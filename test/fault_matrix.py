"""The fault matrix: every fault several times, judged by deadlines, rest, reasons and limits.

    make faults                 # all rows five times; goes on where an earlier run was ended
    make faults N=20 ROWS=clock # rows with this word in their name

Writes out/faults.json after each run of a row, and docs/reliability.md at the end.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from scipy.stats import binomtest

from spear_policy.shared.files import atomic_write
from spear_policy.shared.progress import ProgressDisplay

ROOT = Path(__file__).resolve().parents[1]


# What was seen, kept between runs ----------------------------------------------------------------


class Results:
    """Runs of rows in a JSON file, which is whole at any moment.

    Args:
        path: read when it is there, written by `add`.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._runs: dict[str, list[dict]] = {}
        if self.path.exists():
            self._runs = json.loads(self.path.read_text())["runs"]

    def of(self, name: str) -> list[dict]:
        """The runs of a row so far."""
        return self._runs.get(name, [])

    def add(self, name: str, run: Mapping) -> None:
        """Keep one more run of a row."""
        self._runs.setdefault(name, []).append(dict(run))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps({"runs": self._runs}, indent=1, allow_nan=False))


# One run of a row --------------------------------------------------------------------------------


def judge(row, bench, detection_s: float | None) -> dict:
    """What a run showed, with a sentence in `problems` for each expectation that was not met.

    Those of limits that the commanded motion broke are in `violations` too.
    """
    from fault_benches import STOPPING_S

    fault, motion = bench.fault, bench.motion()
    problems = []
    if detection_s is not None and detection_s > row.deadline_s:
        problems.append(f"noticed after {detection_s:.3f} s, deadline {row.deadline_s:g} s")
    rest_s = motion.rest_s() - fault.robot_s
    if row.motion == "stops" and rest_s > row.deadline_s + STOPPING_S:
        problems.append(f"moved until {rest_s:.2f} s after the fault")
    if row.motion == "ends" and rest_s > row.deadline_s + 2.0:
        problems.append(f"still moved {rest_s:.2f} s after the fault")
    moved_m = motion.moved_m(fault.robot_s)
    if row.motion == "unmoved" and moved_m > 1e-3:
        problems.append(f"moved by {1e3 * moved_m:.1f} mm")
    judged = motion.until(fault.robot_s) if row.until_fault else motion
    violations = judged.violations(bench.limits, fault.robot_s)
    problems += violations
    if row.expected.startswith("STOPPED") and not bench.said().startswith("STOPPED"):
        problems.append(f"the latch was lost: {bench.said()}")
    return {
        "detection_s": detection_s,
        "moved_mm": 1e3 * moved_m,
        "violations": violations,
        "problems": problems,
    }


def run_once(row, bench) -> dict:
    """Run a row on its bench; a failed expectation is a problem in the result, no exception."""
    from fault_benches import words

    bench.begin()
    began = False
    try:
        bench.ready()
        began = True
        bench.record()
        row.run(bench)
        detection_s = bench.seen_s
        if row.expected:

            def found():
                for steady_s, gate in bench.verdicts[bench.fault.verdicts :]:
                    late_s = bench.robot_time_s(gate) - bench.fault.robot_s
                    if words(gate).startswith(row.expected) and late_s > -0.05:
                        steady = row.clock == "steady"
                        return (steady_s - bench.fault.steady_s if steady else late_s), True
                return None

            detection_s = max(bench.until(found, row.expected)[0], 0.0)
        bench.robot.thaw()
        bench.let(0.3 if row.motion == "unmoved" else 0.8)
        return judge(row, bench, detection_s)
    except Exception as error:
        bench.spoiled = not (began and isinstance(error, AssertionError))
        text = " ".join(str(error).split()) or "no sentence"
        problem = f"{type(error).__name__}: {text}"
        unknown = dict.fromkeys(("detection_s", "moved_mm", "violations"))
        return {**unknown, "problems": [problem[:400]]}
    finally:
        bench.end()


def run_rows(
    rows: Sequence,
    repeats: int,
    results: Results,
    open_bench: Callable,
    console: Console,
) -> None:
    """Run what is missing of `repeats` runs of each row, bench by bench."""
    missing = {row.name: max(repeats - len(results.of(row.name)), 0) for row in rows}
    total = repeats * len(rows)
    with ProgressDisplay(console, "faults", "runs") as progress:
        progress.begin(total, total - sum(missing.values()))
        for bench_name in dict.fromkeys(row.bench for row in rows):
            bench = None
            try:
                for row in (row for row in rows if row.bench == bench_name):
                    for _ in range(missing[row.name]):
                        if bench is not None and bench.spoiled:
                            bench, broken = None, bench
                            broken.__exit__(None, None, None)
                        if bench is None:
                            opened = open_bench(bench_name)
                            opened.__enter__()
                            bench = opened
                        run = run_once(row, bench)
                        results.add(row.name, run)
                        for problem in run["problems"]:
                            progress.print(f"{row.name}: {problem}")
                        progress.advance(detail=row.name)
            finally:
                if bench is not None:
                    bench.__exit__(None, None, None)


# The table ---------------------------------------------------------------------------------------


def percent_at_most(count: int, runs: int) -> float:
    """Upper end of the 95 % Wilson interval of a share, in percent; 100 without runs."""
    if not runs:
        return 100.0
    return 100 * binomtest(count, runs).proportion_ci(0.95, method="wilson").high


def _figures(values: list[float], form: str) -> str:
    if not values:
        return "-"
    return " / ".join(format(float(np.percentile(values, share)), form) for share in (50, 99))


def page(rows: Sequence, results: Results, command: str, machine: str) -> str:
    """docs/reliability.md: the table, and how it was made."""
    lines = [
        "| fault | what happens | must follow | within | noticed p50 / p99 | moved p50 / p99 "
        "| passed | fails at most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    failed_all = count_all = 0
    notes = []
    for row in rows:
        runs = results.of(row.name)
        failed = sum(bool(run["problems"]) for run in runs)
        failed_all, count_all = failed_all + failed, count_all + len(runs)
        seen_s = [run["detection_s"] for run in runs if run["detection_s"] is not None]
        moved_mm = [run["moved_mm"] for run in runs if run["moved_mm"] is not None]
        what = row.expected.replace("_", " ").lower() or "see the row"
        within = f"{row.deadline_s:g} s{' (steady)' if row.clock == 'steady' else ''}"
        lines.append(
            f"| {row.name} | {row.injected} | {what}; {row.motion} | {within} "
            f"| {_figures(seen_s, '.3f')} s | {_figures(moved_mm, '.1f')} mm "
            f"| {len(runs) - failed}/{len(runs)} | {percent_at_most(failed, len(runs)):.0f} % |"
        )
        for problem in dict.fromkeys(p for run in runs for p in run["problems"]):
            notes.append(f"* {row.name}: {problem}")
    judged = [run for row in rows for run in results.of(row.name) if run["violations"] is not None]
    broken = sum(bool(run["violations"]) for run in judged)
    summary = (
        f"{count_all - failed_all} of {count_all} runs met every expectation; the share of runs "
        f"that do not is at most {percent_at_most(failed_all, count_all):.1f} %. The commanded "
        f"motion broke a limit in {broken} of the {len(judged)} runs that ended as far as to be "
        f"judged: a share of at most {percent_at_most(broken, len(judged)):.1f} %."
    )
    text = [*HEAD, "", f"`{command}` on {machine}:", "", summary, "", *lines, ""]
    if notes:
        text += ["Not met:", "", *notes, ""]
    return "\n".join(text)


HEAD = """\
# What happens when something goes wrong

Each row brings one fault about, several times, in the simulated Franka, with the real driver,
policy and recorder. A run passes when the verdict and the reason are the expected ones and in
time, the arm is at rest (or has not moved, or goes on, as the row says), and no pose, speed or
acceleration that the robot itself commanded, looked at 1000 times a second, was outside the
limits of the driver and of an FR3. Times are the robot's, but for rows marked steady, in which
the fault stops the robot's clock. "Moved" is the way of the commanded position after the fault.
"At most" is the upper end of the 95 % Wilson interval: few runs prove little. This page is
written by the command; change the rows instead.
""".splitlines()


def machine_words() -> str:
    """Processor, cores and load of this machine."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    load = os.getloadavg()[2]
    return f"{os.cpu_count()} cores ({model}), load average {load:.0f} in the last 15 minutes"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix; 1 when a run has failed, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="runs of each row")
    parser.add_argument("--rows", default="", help="only those of a bench, or with a word")
    parser.add_argument("--out", type=Path, default=ROOT / "out/faults.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/reliability.md")
    options = parser.parse_args(arguments)
    import arm_faults  # noqa: F401 (its rows)
    import graph_faults  # noqa: F401 (its rows)
    from fault_benches import BENCHES, ROWS

    from spear_bringup.graph import free_domain_id

    rows = [r for r in ROWS if options.rows in r.name or r.bench.startswith(options.rows)]
    if not rows:
        parser.error(f"no row has {options.rows!r} in its name: {', '.join(r.name for r in ROWS)}")
    results, console = Results(options.out), Console()
    try:
        with free_domain_id() as domain:
            os.environ["ROS_DOMAIN_ID"] = str(domain)
            run_rows(rows, options.repeats, results, lambda name: BENCHES[name](domain), console)
    except KeyboardInterrupt:
        console.print(f"ended; the same command goes on with what is in {options.out}")
        return 130
    if not options.rows:
        with atomic_write(options.page) as temporary:
            command = f"make faults N={options.repeats}"
            temporary.write_text(page(ROWS, results, command, machine_words()))
    failed = [row.name for row in rows if any(run["problems"] for run in results.of(row.name))]
    console.print(f"{len(rows) - len(failed)} of {len(rows)} rows passed {options.out}")
    for name in failed:
        console.print(f"failed: {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
