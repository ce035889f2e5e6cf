"""Progress: a bar on a terminal, a plain line every ten seconds elsewhere."""

import io
from collections import Counter

from rich.console import Console

from spear_training.annotation.job import JobProgress


class Clock:
    """A clock that the test turns."""

    now = 0.0

    def __call__(self):
        return self.now


def test_elsewhere_a_line_comes_every_ten_seconds_and_tells_rate_and_time_left():
    said, clock = io.StringIO(), Clock()
    with JobProgress(Console(file=said), "shard 0 of 1", clock) as progress:
        progress.begin(130, Counter(ok=9, failed=1))
        for number in range(40):
            clock.now += 0.5
            progress.add(str(number), "ok", None)
    assert said.getvalue().splitlines() == [
        "shard 0 of 1: 10 of 130 are there already",
        "shard 0 of 1: 30 of 130, 29 ok, 0 empty, 1 failed, 2.00 pictures/s, 0:00:50 left",
        "shard 0 of 1: 50 of 130, 49 ok, 0 empty, 1 failed, 2.00 pictures/s, 0:00:40 left",
    ]


def test_failures_are_lines_of_their_own_and_words_in_brackets_stay():
    said = io.StringIO()
    with JobProgress(Console(file=said), "shard") as progress:
        progress.begin(2, Counter())
        progress.add("a[red]b.png", "failed", "[Errno 5] no")
    assert said.getvalue() == "a[red]b.png: failed, [Errno 5] no\n"


def test_on_a_terminal_there_is_a_bar_that_goes_away_with_an_error():
    said = io.StringIO()
    console = Console(file=said, force_terminal=True, width=120)
    try:
        with JobProgress(console, "shard 0 of 1") as progress:
            progress.begin(2, Counter())
            progress.add("a", "ok", None)
            raise RuntimeError("as it happens")
    except RuntimeError:
        pass
    assert "1/2" in said.getvalue()
    assert "1 ok, 0 empty, 0 failed" in said.getvalue()
    assert said.getvalue().endswith("\x1b[?25h")  # the cursor is shown again
