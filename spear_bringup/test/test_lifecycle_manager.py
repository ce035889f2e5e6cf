"""The lifecycle manager, run as a process of its own against small real nodes."""

import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from dummy_graph import dummy, install_dummies
from rclpy.task import Future
from std_msgs.msg import Empty
from std_srvs.srv import Trigger

from spear_bringup.graph import manager_spec
from spear_bringup.nodes.lifecycle_manager import ManagedNodes, Timeouts, TransitionError
from spear_bringup.nodes.supervisor import RunningGraph, SpunNode
from spear_policy.nodes.messages import NEWEST

pytestmark = pytest.mark.kills_processes


@pytest.fixture
def run_managed(tmp_path, monkeypatch, ros_domain):
    """Makes a RunningGraph of the given specs and their lifecycle manager, which brings them up."""
    install_dummies(tmp_path / "prefix", monkeypatch)

    def make(*specs, watch_timeout_s=20.0, **parameters):
        # Patient: a node that a busy machine serves late is not dead.
        manager = manager_spec(list(specs), watch_timeout_s=watch_timeout_s, **parameters)
        return RunningGraph([*specs, manager], tmp_path / "logs", ros_domain)

    return make


def _until(condition, timeout_s: float = 120.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _log(graph) -> str:
    return graph.processes["lifecycle_manager"].log_path.read_text()


def _call(graph, service: str) -> Trigger.Response:
    client = graph.node.create_client(Trigger, service)
    assert client.wait_for_service(60.0)
    future = client.call_async(Trigger.Request())
    assert _until(future.done)
    return future.result()


def test_nodes_are_activated_in_order_and_deactivated_in_reverse_on_sigint(run_managed):
    with run_managed(dummy("robot"), dummy("policy")) as graph:
        assert _until(lambda: graph.states() == {"robot": "active", "policy": "active"})
        process = graph.processes["lifecycle_manager"]
        graph.kill("lifecycle_manager", 2)
        time.sleep(0.05)
        graph.kill("lifecycle_manager", 2)  # one Ctrl-C is two under launch, which sends its own
        assert process.wait(60.0)
        assert process.returncode == 0
        assert graph.states() == {"robot": "inactive", "policy": "inactive"}
        said = [line.split("]: ")[-1] for line in _log(graph).splitlines()]
        assert said == [
            "/robot: configure",
            "/robot: activate",
            "/policy: configure",
            "/policy: activate",
            "all 2 nodes are active: /robot, /policy",
            "/policy: deactivate",
            "/robot: deactivate",
        ]


def test_a_dead_node_is_reported_and_the_policy_deactivated_first(run_managed):
    with run_managed(dummy("robot"), dummy("policy"), watch_timeout_s=5.0) as graph:
        found = {}
        graph.node.create_subscription(
            DiagnosticArray,
            "/diagnostics",
            lambda array: found.update({status.name: status for status in array.status}),
            10,
        )
        assert _until(lambda: graph.states() == {"robot": "active", "policy": "active"})
        graph.kill("robot")
        assert _until(lambda: graph.states()["policy"] == "inactive")
        assert "/robot died: no answer for 5 s. Deactivating /policy" in _log(graph)
        key = "lifecycle_manager: /robot"
        assert _until(lambda: key in found and found[key].level == DiagnosticStatus.ERROR)


def test_without_autostart_a_call_activates_and_a_refusal_comes_back_in_words(run_managed):
    specs = dummy("robot"), dummy("policy", refuse="configure")
    with run_managed(*specs, autostart=False) as graph:
        assert _until(lambda: graph.states() == {"robot": "unconfigured", "policy": "unconfigured"})
        answer = _call(graph, "lifecycle_manager/activate_all")
        assert not answer.success
        assert answer.message.startswith("/policy did not configure: the node refused; it said:")
        assert "max_speed_m_s is -1.0; it must be 0 to 2 m/s" in answer.message
        assert _until(lambda: graph.states() == {"robot": "active", "policy": "unconfigured"})
        assert _call(graph, "lifecycle_manager/deactivate_all").success
        assert _until(lambda: graph.states()["robot"] == "inactive")


def test_a_busy_node_is_not_taken_for_dead_and_a_lost_request_is_repeated(run_managed, monkeypatch):
    specs = dummy("robot"), dummy("policy", slow_s=6.0)
    with run_managed(*specs, watch_timeout_s=4.0) as graph:
        client = graph.managed.clients["/policy"]
        assert _until(lambda: graph.states() == {"robot": "active", "policy": "active"})
        send, lost = client._change.call_async, [Future()]
        monkeypatch.setattr(client._change, "call_async", lambda r: lost.pop() if lost else send(r))
        client.change("deactivate", 60.0)
        assert not lost
        client.change("activate", 120.0)
        assert client.state(60.0) == "active"
        assert "died" not in _log(graph)


def test_a_node_that_has_not_come_yet_is_not_reported_as_dead(ros_domain):
    spun = SpunNode("manager", ros_domain)
    try:
        managed = ManagedNodes(spun.node, ["/late"], Timeouts(appear_s=0.5), print)
        assert managed.probe() == []
        with pytest.raises(TransitionError, match="/late did not appear within"):
            managed.bring_up()
        assert managed.probe() == []
        assert managed.states == {"/late": "not seen yet"} and not managed.dead
    finally:
        spun.close()


def test_the_heartbeat_goes_on_through_a_slow_transition_and_ends_with_the_manager(run_managed):
    beats_s = []
    with run_managed(dummy("robot"), dummy("policy", slow_s=3.0), autostart=False) as graph:
        graph.node.create_subscription(
            Empty,
            "lifecycle_manager/heartbeat",
            lambda _: beats_s.append(time.monotonic()),
            NEWEST,
        )
        assert _until(lambda: beats_s)
        begun_s = time.monotonic()
        assert _call(graph, "lifecycle_manager/activate_all").success
        assert sum(beat_s > begun_s for beat_s in beats_s) > 15  # of 30 in the slow transition
        graph.kill("lifecycle_manager")
        killed_s = time.monotonic()
        time.sleep(0.5)
        assert beats_s[-1] < killed_s + 0.2
