"""Processes side by side: they end with their parent, and Ctrl-C reaches each of them once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import child_commands
import pytest

from spear_training.annotation.synthetic.generate import defaults_of_environment, side_by_side


def wait_for(happened, limit_s=60.0):
    """Wait until a condition holds."""
    end = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def started(folder):
    """Start the program with two waiting children, in a group of its own."""
    program = Path(child_commands.__file__)
    process = subprocess.Popen([sys.executable, str(program), str(folder)], start_new_session=True)
    wait_for(lambda: len(list(folder.glob("*.started"))) == 2)
    return process


def children_of(pid):
    """Return the children that `multiprocessing` has spawned for a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in text}
    return [int(child) for child, line in lines.items() if b"spawn_main" in line]


def alive(pid):
    """Tell whether a process runs; one that only waits to be noticed does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_all_calls_are_made_and_the_worst_status_is_told(tmp_path):
    calls = [[str(tmp_path), status] for status in ("0", "1", "0")]
    assert side_by_side(child_commands.leave_status, calls, 2) == 1
    assert len(list(tmp_path.iterdir())) == 3


def test_after_a_failure_no_further_one_is_begun(tmp_path):
    calls = [[str(tmp_path), status] for status in ("2", "0")]
    assert side_by_side(child_commands.leave_status, calls, 1) == 2
    assert [path.name[0] for path in tmp_path.iterdir()] == ["2"]


def test_a_killed_one_counts_as_a_failure(tmp_path):
    assert side_by_side(child_commands.die, [[str(tmp_path)]], 1) == 2
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize("whom", ["the group, as a terminal does", "the parent alone"])
def test_ctrl_c_reaches_each_once_and_waits_for_them_to_tidy_up(tmp_path, whom):
    process = started(tmp_path)
    if whom == "the parent alone":
        process.send_signal(signal.SIGINT)
    else:
        os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    assert {path.name for path in tmp_path.glob("*.tidied")} == {"a.tidied", "b.tidied"}


def test_they_end_when_their_parent_is_killed(tmp_path):
    process = started(tmp_path)
    children = children_of(process.pid)
    assert len(children) == 2
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(alive, children)), limit_s=20.0)
    assert not list(tmp_path.glob("*.tidied"))


def test_variables_are_set_for_a_while_and_never_over_the_users(monkeypatch):
    monkeypatch.setenv("THEIRS", "kept")
    monkeypatch.delenv("OURS", raising=False)
    with defaults_of_environment({"THEIRS": "other", "OURS": "set"}):
        assert (os.environ["THEIRS"], os.environ["OURS"]) == ("kept", "set")
    assert os.environ["THEIRS"] == "kept" and "OURS" not in os.environ
