"""Where the demo's processor time goes: by process, and in which part of the run.

Example (in a shell with install/setup.bash sourced):
    python3 test/benchmark/demo_time.py --trials 2 --out out/demo

Reads the kernel's count of each process four times a second, so that it costs next to nothing.
On Linux only. What follows is handed to the demo.
"""

import os
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from spear_bringup.graph import find_executable

PERIOD_S = 0.25
TICKS_A_S = os.sysconf("SC_CLK_TCK")
# The part of the run that begins with a line of the demo's output that has these words.
PARTS = (
    ("homing", "trials"),
    (": deactivate", "end"),
    ("writing the report", "report"),
)


class Run:
    """A running demo and what it has used so far."""

    def __init__(self, arguments: list[str]):
        command = [str(find_executable("spear_bringup", "spear_demo")), *arguments]
        self.part = "start"
        self.wall_s: Counter[str] = Counter()
        self.processor_s: dict[str, Counter[str]] = defaultdict(Counter)  # by process, by part
        self._used_s: dict[int, float] = {}
        self._demo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        for line in self._demo.stdout:
            print(line, end="", flush=True)
            self.part = next((part for words, part in PARTS if words in line), self.part)

    def measure(self) -> int:
        """Count until the demo ends. Returns its exit status."""
        before_s = time.monotonic()
        while self._demo.poll() is None:
            time.sleep(PERIOD_S)
            now_s = time.monotonic()
            self.wall_s[self.part] += now_s - before_s
            before_s = now_s
            for pid in self._family():
                self._count(pid)
        return self._demo.returncode

    def _family(self) -> set[int]:
        parents = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            if fields := _fields(path):
                parents[int(path.parent.name)] = int(fields[1])
        family = {self._demo.pid}
        while more := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= more
        return family

    def _count(self, pid: int) -> None:
        fields, name = _fields(Path(f"/proc/{pid}/stat")), _name(pid)
        if fields and name:
            used_s = (int(fields[11]) + int(fields[12])) / TICKS_A_S
            self.processor_s[name][self.part] += used_s - self._used_s.get(pid, 0.0)
            self._used_s[pid] = used_s


def _fields(path: Path) -> list[str]:
    """The fields of a stat file after the command; none when the process has ended."""
    try:
        return path.read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def _name(pid: int) -> str:
    """The node's name, "demo" for the demo and its helpers; empty when the process has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return ""
    nodes = [word.removeprefix("__node:=") for word in words if word.startswith("__node:=")]
    return nodes[0] if nodes else "demo"


def as_table(run: Run) -> Table:
    """Rows of seconds: wall time, then each process by what it used, then their sum."""
    parts = ["start", *(part for _, part in PARTS)]
    table = Table("s", *parts, "all")
    for column in table.columns[1:]:
        column.justify = "right"
    used = sorted(run.processor_s.items(), key=lambda item: -item[1].total())
    everything = sum((count for _, count in used), Counter())
    for name, count in [("wall", run.wall_s), *used, ("all processes", everything)]:
        table.add_row(name, *(f"{count[part]:.1f}" for part in parts), f"{count.total():.1f}")
    return table


def main() -> int:
    """Run the demo and print the table. Returns the demo's exit status."""
    run = Run(sys.argv[1:])
    status = run.measure()
    Console().print(as_table(run))
    return status


if __name__ == "__main__":
    sys.exit(main())
