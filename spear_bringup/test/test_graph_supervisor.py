"""The supervisor starts, activates and ends a graph of small real nodes."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dummy_graph import dummy, install_dummies

from spear_bringup.graph import NodeSpec
from spear_bringup.nodes.supervisor import GraphError, RunningGraph, stale_shared_memory

pytestmark = pytest.mark.kills_processes


@pytest.fixture
def run_graph(tmp_path, monkeypatch, ros_domain):
    """Makes a RunningGraph of the given specs."""
    install_dummies(tmp_path / "prefix", monkeypatch)
    return lambda *specs: RunningGraph(specs, tmp_path / "logs", ros_domain)


def _gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_every_process_becomes_active_and_none_is_left_behind(run_graph):
    with run_graph(dummy("first"), dummy("second", child=True)) as graph:
        graph.wait_active(120.0)
        assert graph.states() == {"first": "active", "second": "active"}
        pids = [process.pid for process in graph.processes.values()]
        assert not any(process.ended for process in graph.processes.values())
    assert all(_gone(pid) for pid in pids)
    assert not any(process.group_alive() for process in graph.processes.values())
    assert graph.shared_memory, "the processes used shared memory"
    assert not stale_shared_memory(graph.shared_memory)


def test_a_killed_process_is_named_and_its_shared_memory_is_removed(run_graph):
    with run_graph(dummy("first"), dummy("second")) as graph:
        graph.wait_active(120.0)
        graph.check()
        process = graph.processes["first"]
        graph.note_shared_memory()
        os.kill(process.pid, 9)
        assert process.wait(60.0)
        with pytest.raises(GraphError, match="/first was killed by SIGKILL"):
            graph.check()
    assert not stale_shared_memory(graph.shared_memory)


def test_a_refused_transition_ends_the_graph_with_what_the_node_said(run_graph):
    with pytest.raises(GraphError) as caught:
        with run_graph(dummy("first"), dummy("second", refuse="configure")) as graph:
            graph.wait_active(120.0)
    text = str(caught.value)
    assert text.startswith("/second did not configure: the node refused; it said: ")
    assert "max_speed_m_s is -1.0; it must be 0 to 2 m/s" in text
    assert "second.log" in text
    assert all(_gone(process.pid) for process in graph.processes.values())


def test_a_process_that_dies_while_activating_is_reported_at_once_with_its_last_lines(run_graph):
    with pytest.raises(GraphError, match="ended with exit status 3") as caught:
        with run_graph(dummy("only", refuse="crash")) as graph:
            graph.wait_active(120.0)
    assert "the last words" in str(caught.value)


def test_a_node_that_ignores_the_signals_is_ended_too(run_graph):
    with run_graph(dummy("frozen")) as graph:
        graph.wait_active(120.0)
        process = graph.processes["frozen"]
        graph.kill("frozen", 19)  # SIGSTOP: it will hear neither SIGINT nor SIGTERM
        assert process.end(interrupt_timeout_s=0.2, terminate_timeout_s=0.2) == "SIGKILL"
    assert not process.group_alive()


def test_a_missing_executable_is_named_before_anything_starts(run_graph):
    with pytest.raises(GraphError, match="dummies has no executable nothing"):
        with run_graph(dummy("first"), NodeSpec("dummies", "nothing", "second")):
            pass


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv (util-linux) is not installed")
def test_the_processes_end_even_when_the_supervisor_is_killed(tmp_path, monkeypatch, ros_domain):
    install_dummies(tmp_path / "prefix", monkeypatch)
    program = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from dummy_graph import dummy
from spear_bringup.nodes.supervisor import RunningGraph
with RunningGraph([dummy("orphan")], {str(tmp_path / "logs")!r}, {ros_domain}) as graph:
    graph.wait_active(120.0)
    print(graph.processes["orphan"].pid, flush=True)
    time.sleep(600)
"""
    supervisor = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    pid = int(supervisor.stdout.readline())
    assert not _gone(pid)
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    deadline = time.monotonic() + 120.0
    while not _gone(pid):
        assert time.monotonic() < deadline, "the process outlives its supervisor"
        time.sleep(0.05)
