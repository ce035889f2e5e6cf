"""What every package uses: files whole or not at all, processes that end, bars that go away."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import yaml
from rich.console import Console

from spear_policy.shared.clocks import ClockMonitor
from spear_policy.shared.config import ConfigError, params_file_problem, read_dataclass
from spear_policy.shared.files import (
    MismatchError,
    atomic_write,
    disk_space_warning,
    remove_temporary_files,
    write_atomically,
    write_lines,
    write_or_verify,
)
from spear_policy.shared.pages import jpeg_address, render, svg_address
from spear_policy.shared.progress import ProgressDisplay, duration_words
from spear_policy.shared.seeds import generator, seed_of
from spear_policy.shared.workers import process_pool

# Files ---------------------------------------------------------------------------------------


def test_a_file_appears_whole_and_nothing_else_stays(tmp_path):
    path = tmp_path / "card.json"
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        assert not path.exists() and temporary.suffix == ".json"
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    write_atomically(path, "grün")
    assert path.read_bytes() == "grün".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_while_writing_leaves_what_was_there(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*store\.bin"):
            write_atomically(tmp_path / "store.bin", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_what_killed_processes_left_is_removed(tmp_path):
    (tmp_path / "deep").mkdir()
    kept, left = tmp_path / "deep" / "a.json", tmp_path / "deep" / ".17.3.part.b.json"
    for path in (kept, left):
        path.write_text("{}")
    remove_temporary_files(tmp_path)
    assert kept.exists() and not left.exists()


def test_a_run_that_disagrees_with_the_first_is_told_where(tmp_path):
    path = tmp_path / "run.json"
    first = {"stages": [{"stage": "boxes", "points": 5}], "started": "monday"}
    assert write_or_verify(path, first, ("stages",), "choose another --out") == first
    again = {**first, "started": "tuesday"}
    assert write_or_verify(path, again, ("stages",), "choose another --out") == first
    other = {"stages": [{"stage": "boxes", "points": 7}]}
    with pytest.raises(
        MismatchError, match="boxes.points = 5, but it is now 7: choose another --out"
    ):
        write_or_verify(path, other, ("stages",), "choose another --out")
    path.write_text("[1, 2]")
    with pytest.raises(MismatchError, match="run.json is damaged"):
        write_or_verify(path, first, ("stages",), "choose another --out")


def test_of_runs_that_begin_at_once_one_writes_and_the_others_agree_or_are_refused(tmp_path):
    for round_number in range(10):
        path = tmp_path / f"{round_number}.json"
        together = threading.Barrier(8)
        got = []

        def begin_one(value, path=path, together=together, got=got):
            together.wait()
            try:
                got.append(write_or_verify(path, {"value": value}, ("value",), "choose")["value"])
            except MismatchError:
                got.append(None)

        threads = [threading.Thread(target=begin_one, args=(k % 2,)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winner = json.loads(path.read_text())["value"]
        assert sorted(got, key=str) == sorted([winner] * 4 + [None] * 4, key=str)
    assert len(list(tmp_path.iterdir())) == 10


def test_a_file_system_without_links_will_do(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "run.json"
    assert write_or_verify(path, {"value": 1}, ("value",), "choose") == {"value": 1}
    with pytest.raises(MismatchError, match="value = 1, but it is now 2: choose"):
        write_or_verify(path, {"value": 2}, ("value",), "choose")
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_lines_are_written_whole_or_not_at_all(tmp_path):
    def lines():
        yield b"new"
        raise OSError(28, "No space left on device")

    path = tmp_path / "lines"
    write_lines(path, [b"one", b"two"])
    with pytest.raises(OSError, match="No space left.*lines"):
        write_lines(path, lines())
    assert path.read_bytes() == b"one\ntwo\n"
    assert [file.name for file in tmp_path.iterdir()] == ["lines"]


def test_a_disk_that_is_too_small_is_named_with_both_sizes(tmp_path):
    assert disk_space_warning(tmp_path, 1.0, "2 pictures") is None
    warning = disk_space_warning(tmp_path, 1e18, "2 pictures")
    assert warning.startswith(
        f"{tmp_path} may become too small: 2 pictures need about 1000000000.0"
    )


# Seeds ---------------------------------------------------------------------------------------


def test_a_seed_depends_on_every_key_and_on_nothing_else():
    assert seed_of("a", 1) == 300156978329863368
    assert len({seed_of("a", 1), seed_of("a", 2), seed_of("b", 1)}) == 3
    assert generator("a", 1).integers(1000, size=3).tolist() == [
        *generator("a 1").integers(1000, size=3)
    ]


# Progress ------------------------------------------------------------------------------------


def test_without_a_terminal_a_line_now_and_then_says_how_long_it_takes():
    clock_s = [0.0]
    output = io.StringIO()
    display = ProgressDisplay(Console(file=output), "shard 1", "pictures", lambda: clock_s[0])
    with display:
        display.begin(total=10, done=2, detail="2 ok")
        for number in range(8):
            display.advance(detail=f"{number + 3} ok")
            clock_s[0] += 6.0
    lines = output.getvalue().splitlines()
    assert lines[0] == "shard 1: 2 of 10 pictures are there already"
    assert lines[1] == "shard 1: 5 of 10 pictures, 5 ok, 0.17 pictures/s, 0:00:30 left"
    assert duration_words(3723) == "1:02:03"


def test_a_bar_on_a_terminal_is_taken_away_after_an_error():
    output = io.StringIO()
    console = Console(file=output, force_terminal=True)
    with pytest.raises(RuntimeError), ProgressDisplay(console, "import", "episodes") as display:
        display.begin(total=3)
        display.advance()
        raise RuntimeError
    assert "\x1b[?25h" in output.getvalue()  # the cursor is visible again


# Processes -----------------------------------------------------------------------------------


def square(number):
    return number * number, os.environ["OMP_NUM_THREADS"]


def test_work_is_shared_by_processes_with_one_thread_each():
    with process_pool(2) as pool:
        assert list(pool.map(square, range(4))) == [(n * n, "1") for n in range(4)]


def test_processes_get_variables_but_never_over_the_users(monkeypatch):
    monkeypatch.setenv("THEIRS", "kept")
    with process_pool(1, environment={"THEIRS": "other", "OURS": "set"}) as pool:
        assert list(pool.map(os.getenv, ("THEIRS", "OURS"))) == ["kept", "set"]
    assert "OURS" not in os.environ


def test_a_killed_process_is_an_error_and_the_others_end():
    with pytest.raises(BrokenProcessPool), process_pool(2) as pool:
        pool.submit(os.kill, os.getpid(), 0).result()
        pool.submit(signal.raise_signal, signal.SIGKILL).result()


INTERRUPTED = """
import sys, time
from spear_policy.shared.workers import process_pool
if __name__ == "__main__":
    try:
        with process_pool(2) as pool:
            waiting = [pool.submit(time.sleep, 300.0) for _ in range(4)]
            pids = list(pool._processes)
            print(*pids, flush=True)
            waiting[0].result()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_their_parent(tmp_path, number):
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        children = [int(word) for word in parent.stdout.readline().split()]
        # A terminal's Ctrl-C goes to all of them; a kill to the parent alone.
        os.killpg(parent.pid, number) if number == signal.SIGINT else parent.kill()
        assert parent.stdout.read().strip() == ("interrupted" if number == signal.SIGINT else "")
    end_s = time.monotonic() + 60.0
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < end_s, "a child outlives its parent"
        time.sleep(0.05)


# Pages ---------------------------------------------------------------------------------------


def test_a_page_is_one_file_whose_text_is_escaped(tmp_path):
    template = tmp_path / "page.html"
    template.write_text(
        '{% extends "base.html" %}{% block content %}'
        '<p>{{ words }}</p><img src="{{ drawn }}">{% endblock %}'
    )
    drawn = svg_address(lambda figure: figure.text(0.5, 0.5, "seen"), 2.0, 1.0)
    page = render(template, words="a < b", drawn=drawn)
    assert "a &lt; b" in page and "data:image/svg+xml;base64," in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert jpeg_address(b"x") == "data:image/jpeg;base64,eA=="


def test_every_page_of_the_suite_has_the_shared_style_and_headlines_are_written_once():
    packages = Path(__file__).resolve().parents[2].glob("spear_*/spear_*")
    pages = {path: path.read_text() for package in packages for path in package.rglob("*.html")}
    shared = {path.name for path in pages if path.parent.name == "shared"}
    assert shared == {"base.html", "headlines.html"} and len(pages) >= 6
    assert 'name="viewport"' in next(t for p, t in pages.items() if p.name == "base.html")
    for path, text in pages.items():
        if path.name not in shared:
            assert text.startswith('{% extends "base.html" %}'), path
            assert "{% block title %}" in text and 'class="headlines"' not in text, path


# Dataclasses from plain values ---------------------------------------------------------------


@dataclass(frozen=True)
class Circle:
    """A member of a tagged union."""

    shape: ClassVar[str] = "circle"
    radius_m: float

    def __post_init__(self):
        if self.radius_m <= 0:
            raise ConfigError("radius_m must be positive")


@dataclass(frozen=True)
class Rectangle:
    """Another."""

    shape: ClassVar[str] = "rectangle"
    sides_m: tuple[float, ...]


@dataclass(frozen=True)
class Table:
    """What holds the union."""

    top: Circle | Rectangle | Literal["none"]
    legs: Mapping[str, Circle]
    name: str | None = None


def table(**changes):
    """Return a Table from plain values."""
    values = {"top": {"shape": "rectangle", "sides_m": [1, 2.0]}, "legs": {"left": {"radius_m": 1}}}
    return read_dataclass(Table, values | changes, "table", name="bench")


def test_a_union_is_read_by_its_tag_and_a_mapping_by_its_values():
    assert table() == Table(Rectangle((1.0, 2.0)), {"left": Circle(1.0)}, "bench")
    assert table(top={"shape": "circle", "radius_m": 2}).top == Circle(2.0)
    assert table(top="none").top == "none"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"top": {"shape": "star"}}, "table.top has shape 'star'; it may be circle, rectangle, or"),
        (
            {"top": "all"},
            "table.top has shape 'all'; it may be circle, rectangle, or the word",
        ),
        ({"top": {"shape": ["circle"]}}, r"table.top has shape \['circle'\]"),
        ({"top": {"shape": "circle"}}, "table.top lacks the field 'radius_m'"),
        ({"top": {"shape": "circle", "radius_m": 0}}, "table.top: radius_m must be positive"),
        ({"top": {"shape": "circle", "radius_m": 1, "side": 2}}, "unknown field 'side'"),
        ({"legs": []}, r"table.legs is \[\]: it must have named entries"),
        (
            {"legs": {"left": {"radius_m": "1"}}},
            "legs.left.radius_m is '1': it must be float",
        ),
        ({"name": "other"}, "table has the unknown field 'name'"),
    ],
)
def test_what_fits_no_member_is_named_by_its_place(changes, text):
    with pytest.raises(ConfigError, match=text):
        table(**changes)


def test_a_parameter_file_as_launch_ros_writes_it_is_fine(tmp_path):
    path = tmp_path / "launch_params"
    path.write_text(yaml.dump({"/**": {"ros__parameters": {"node_names": ("/a", "/b")}}}))
    assert "python/tuple" in path.read_text()
    assert params_file_problem(path) == ""


# Clocks --------------------------------------------------------------------------------------


def test_a_simulated_clock_that_runs_is_fine_at_any_speed():
    monitor = ClockMonitor(simulated=True)
    assert all(monitor.check(0.01 * k, 0.2 * k) is None for k in range(100))


def test_a_simulated_clock_that_stands_still_is_a_fault():
    monitor = ClockMonitor(simulated=True, stall_timeout_s=1.0)
    monitor.check(5.0, 0.0)
    assert monitor.check(5.0, 0.9) is None
    assert "stood still" in monitor.check(5.0, 1.2)
    assert monitor.check(5.1, 1.3) is None


def test_a_simulated_clock_that_goes_back_is_a_fault():
    monitor = ClockMonitor(simulated=True)
    monitor.check(5.0, 0.0)
    assert "went back" in monitor.check(4.0, 0.1)


def test_a_system_clock_that_jumps_is_a_fault_once():
    monitor = ClockMonitor(simulated=False)
    monitor.check(100.0, 0.0)
    assert monitor.check(100.1, 0.1) is None
    assert "jumped" in monitor.check(102.2, 0.2)
    assert monitor.check(102.3, 0.3) is None
