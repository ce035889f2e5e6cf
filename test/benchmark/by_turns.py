"""Contestants take turns in one process and are timed by its CPU time.

Wall time on a shared machine says more about the neighbours, and times of two processes more about
when they ran. What carries over to another machine are the ratios.
"""

import statistics
import time

from rich.progress import track
from rich.table import Table

WARM_UPS = 2


def measure(contestants, repeats):
    """Seconds of CPU time of each contestant, {name: [seconds]}, after two rounds of warm-up."""
    seconds = {name: [] for name in contestants}
    for turn in track(range(WARM_UPS + repeats), "measuring"):
        # in alternating order, so that nobody always runs in the caches of the same neighbour
        for name, run in list(contestants.items())[:: 1 if turn % 2 else -1]:
            begin = time.process_time()
            run()
            seconds[name].append(time.process_time() - begin)
    return {name: each[WARM_UPS:] for name, each in seconds.items()}


def table(title, seconds, base):
    """Minimum and median in ms, and the median of what each took of `base` in the same turn."""
    found = Table(title, title=f"process-CPU time of {len(seconds[base])} turns")
    for heading in ("ms, minimum", "ms, median", f"of {base}"):
        found.add_column(heading, justify="right")
    for name, each in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(each, seconds[base], strict=True))
        times = min(each), statistics.median(each)
        found.add_row(name, *(f"{1e3 * time_s:,.0f}" for time_s in times), f"{ratio:.2f}")
    return found
