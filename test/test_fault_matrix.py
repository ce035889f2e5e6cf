"""The fault matrix itself: a row that is not met fails, and what was run is not run again."""

import json
from types import SimpleNamespace

import arm_faults  # noqa: F401 (its rows)
import graph_faults  # noqa: F401 (its rows)
import numpy as np
import pytest
from fault_benches import ROWS, Motion, Row
from fault_matrix import Results, page, percent_at_most, run_rows
from rich.console import Console

from spear_bringup.control.limits import Limits
from spear_msgs.msg import GateStatus

QUIET = Console(quiet=True)
SEEN = {"detection_s": 0.03, "moved_mm": 5.0, "violations": [], "problems": []}


class FakeBench:
    """A robot that says HELD STALE 0.05 s after any fault, and whose pose follows `speed_m_s`."""

    limits, clock_jump_s, spoiled = Limits(), 0.0, False

    def __init__(self, speed_m_s=lambda time_s: 0.0 * time_s):
        self.speed_m_s, self.opened, self.runs = speed_m_s, 0, 0
        self.robot = SimpleNamespace(thaw=lambda: None)
        self.verdicts, self.seen_s = [], None

    def __enter__(self):
        self.opened += 1
        return self

    def __exit__(self, *_):
        pass

    begin = end = ready = record = lambda self: None

    def let(self, seconds):
        pass

    def inject(self):
        self.runs += 1
        self.fault = SimpleNamespace(robot_s=1.0, steady_s=0.0, verdicts=len(self.verdicts))
        gate = GateStatus(verdict=GateStatus.VERDICT_HELD, reason=GateStatus.REASON_STALE)
        self.verdicts.append((0.05, gate))

    def robot_time_s(self, gate):
        return 1.05

    def until(self, condition, what):
        found = condition()
        if not found:
            raise AssertionError(f"{what} did not come")
        return found

    def said(self):
        return "HELD STALE: old"

    def motion(self):
        times_s = np.arange(0.0, 3.0, 1e-3)
        rows = np.tile([0.0, 0.45, 0.0, 0.38, 1.0, 0.0, 0.0, 0.0], (len(times_s), 1))
        rows[:, 0] = times_s
        rows[:, 2] = np.cumsum(self.speed_m_s(times_s)) * 1e-3
        return Motion(rows)


def rows(**fields):
    known = {"injected": "", "bench": "fake", "expected": "HELD STALE", "deadline_s": 0.1}
    known |= {"motion": "stops", "clock": "simulated", "until_fault": False}
    known |= {"name": "row", "run": lambda bench: bench.inject()}
    return [Row(**(known | fields))]


def problems(tmp_path, bench, **fields):
    results = Results(tmp_path / "faults.json")
    run_rows(rows(**fields), 1, results, lambda name: bench, QUIET)
    return results.of("row")[0]["problems"]


def slows_down(end_s, from_m_s=0.2, during_s=0.1):
    """Speed that begins gently and ends at rest at `end_s`."""
    return lambda t: from_m_s * np.clip(t / 0.5, 0, 1) * np.clip((end_s - t) / during_s, 0, 1)


@pytest.mark.parametrize(
    ("bench", "fields", "words"),
    [
        (FakeBench(slows_down(1.3)), {}, None),
        (FakeBench(), {"expected": "STOPPED STOP_REQUESTED"}, "STOPPED STOP_REQUESTED did not"),
        (FakeBench(), {"deadline_s": 0.04}, "noticed after 0.050 s, deadline 0.04 s"),
        (FakeBench(slows_down(1.8)), {}, "moved until 0.80 s after the fault"),
        (FakeBench(slows_down(1.3)), {"motion": "unmoved"}, "moved by"),
        (FakeBench(slows_down(1.3, from_m_s=0.4)), {}, "commanded speed [m/s] 0.4, limit 0.3"),
        (FakeBench(slows_down(1.3, during_s=0.01)), {}, "commanded acceleration [m/s^2] 20"),
        (FakeBench(), {"run": lambda bench: 1 / 0}, "ZeroDivisionError"),
    ],
)
def test_a_row_passes_only_when_everything_it_expects_was_seen(tmp_path, bench, fields, words):
    found = problems(tmp_path, bench, **fields)
    assert (not found) if words is None else any(words in problem for problem in found), found


def test_a_run_goes_on_where_the_last_one_ended(tmp_path):
    path, bench = tmp_path / "faults.json", FakeBench()

    def interrupted(row_bench):
        if row_bench.runs == 2:
            raise KeyboardInterrupt
        row_bench.inject()

    with pytest.raises(KeyboardInterrupt):
        run_rows(rows(run=interrupted), 5, Results(path), lambda name: bench, QUIET)
    assert len(json.loads(path.read_text())["runs"]["row"]) == 2
    later = FakeBench()
    run_rows(rows(), 5, Results(path), lambda name: later, QUIET)
    assert later.runs == 3 and later.opened == 1
    run_rows(rows(), 5, Results(path), lambda name: later, QUIET)
    assert later.runs == 3 and later.opened == 1  # nothing was missing, so nothing was started


def test_the_page_shows_figures_failures_and_how_little_few_runs_prove(tmp_path):
    results = Results(tmp_path / "faults.json")
    for run in (
        {**SEEN, "detection_s": 0.01},
        SEEN,
        {**SEEN, "violations": ["too fast"], "problems": ["too fast"]},
        {**SEEN, "detection_s": None, "violations": None, "problems": ["it did not stop"]},
    ):
        results.add("row", run)
    text = page(rows(), results, "make faults N=4", "2 cores")
    assert "| 0.030 / 0.030 s | 5.0 / 5.0 mm | 2/4 | 85 % |" in text
    assert "2 of 4 runs met every expectation" in text and "in 1 of the 3 runs that" in text
    assert "* row: it did not stop" in text and "`make faults N=4` on 2 cores" in text
    assert percent_at_most(0, 5) == pytest.approx(43.4, abs=0.1)  # 3.84 / (5 + 3.84)
    assert percent_at_most(0, 0) == 100.0


def test_rows_have_names_of_their_own_and_say_how_they_are_brought_about():
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert all(
        row.injected and row.motion in ("stops", "unmoved", "ends", "goes on") for row in ROWS
    )
