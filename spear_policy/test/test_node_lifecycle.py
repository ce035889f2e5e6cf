"""The base class of every node: two planes, refusals with a sentence, an end in order."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from ros_fixture import lifecycle_label, ros, spinning, transit, wait
from std_msgs.msg import String

from spear_policy.nodes.lifecycle import RefusedError, SpearNode

DONE, REFUSED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@pytest.fixture(scope="module", autouse=True)
def _ros(ros_domain):
    with ros():
        yield


class Sample(SpearNode):
    """Writes down what is called; `raises` maps a hook to what it raises."""

    def __init__(self, arguments=(), **raises):
        super().__init__("sample", list(arguments))
        self.called, self.raises, self.heard = [], raises, []
        self.go_on = threading.Event()
        self.io.create_subscription(String, "words", lambda m: self.heard.append(m.data), 10)

    def _note(self, hook):
        self.called.append(hook)
        if hook in self.raises:
            raise self.raises[hook]

    def configure(self):
        self._note("configure")

    def activate(self):
        self._note("activate")

    def deactivate(self):
        self._note("deactivate")

    def cleanup(self):
        self._note("cleanup")


@pytest.fixture
def make():
    """A function that makes Samples, which are closed after the test."""
    made = []

    def make_sample(*args, **kwargs):
        made.append(Sample(*args, **kwargs))
        made[-1].start_threads()
        return made[-1]

    yield make_sample
    for node in made:
        node.close()


@pytest.fixture
def neighbour():
    """Another node, spinning."""
    node = rclpy.create_node("neighbour")
    with spinning(node):
        yield node
    node.destroy_node()


def test_the_hooks_are_called_in_order_and_close_undoes_them(make):
    node = make()
    assert node.trigger_configure() is DONE and node.trigger_activate() is DONE
    assert node.active
    node.close()
    assert node.called == ["configure", "activate", "deactivate", "cleanup"]
    node.close()  # once more does nothing
    assert node.called[4:] == []


def test_a_refused_configure_cleans_up_and_may_be_tried_again(make):
    node = make(configure=RefusedError("no such file; make one"))
    assert node.trigger_configure() is REFUSED
    assert node.called == ["configure", "cleanup"]
    node.raises.clear()
    assert node.trigger_configure() is DONE


def test_a_refused_activate_stops_half_started_work_and_stays_inactive(make):
    node = make(activate=RefusedError("no camera"))
    node.trigger_configure()
    assert node.trigger_activate() is REFUSED
    assert not node.active and node.called[-1] == "deactivate"


def test_an_unforeseen_exception_fails_the_transition_and_not_the_node(make):
    node = make(configure=ZeroDivisionError("oops"), cleanup=KeyError("and again"))
    assert node.trigger_configure() is REFUSED
    node.raises.clear()
    assert node.trigger_configure() is DONE


def test_data_flows_while_a_transition_waits(make, neighbour):
    node = make()
    node.activate = lambda: node.wait_until(node.go_on.is_set, 60.0) or node._note("late")
    publisher = neighbour.create_publisher(String, "words", 10)
    wait(lambda: publisher.get_subscription_count() == 1)
    node.trigger_configure()
    thread = threading.Thread(target=node.trigger_activate)
    thread.start()
    publisher.publish(String(data="while activating"))
    wait(lambda: node.heard)
    assert not node.active
    node.go_on.set()
    thread.join()
    assert node.active


def test_a_bad_callback_does_not_silence_the_others(make, neighbour):
    node = make()
    node.io.create_timer(0.01, lambda: 1 / 0)
    publisher = neighbour.create_publisher(String, "words", 10)
    wait(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(String(data="still here"))
    wait(lambda: node.heard)


def test_diagnostics_come_every_second_with_the_name_of_the_node(make, neighbour):
    seen = []
    neighbour.create_subscription(DiagnosticArray, "/diagnostics", seen.append, 10)
    make()
    wait(lambda: len(seen) >= 2)
    (status,) = seen[0].status
    assert (status.name, status.message) == ("sample: lifecycle", "not active")


def test_namespace_and_remapping_reach_both_planes(make, neighbour):
    arguments = "--ros-args -r __ns:=/left -r __node:=other -r words:=letters".split()
    node = make(arguments)
    assert node.get_fully_qualified_name() == "/left/other"
    wait(lambda: neighbour.count_subscribers("/left/letters") == 1)


def test_the_graph_shows_one_node_with_all_that_it_has(make, neighbour):
    make(["--ros-args", "-r", "__node:=whole"])
    wait(lambda: "whole" in neighbour.get_node_names())
    assert "whole_io" not in neighbour.get_node_names()

    def shown(of):
        found = of("whole", "/")
        return {name for name, _ in found}

    wait(lambda: "/words" in shown(neighbour.get_subscriber_names_and_types_by_node))
    wait(lambda: "/diagnostics" in shown(neighbour.get_publisher_names_and_types_by_node))
    services = shown(neighbour.get_service_names_and_types_by_node)
    assert {"/whole/change_state", "/whole/set_parameters"} <= services


def test_both_planes_take_the_same_clock(make):
    node = make(["--ros-args", "-p", "use_sim_time:=true"])
    assert node.simulated_time and node.now_s() == 0.0
    assert len(list(node.subscriptions)) == 2  # one /clock
    before_s = time.time()
    assert before_s <= make().now_s() <= time.time()


def test_another_clock_at_run_time_is_refused_in_a_sentence(make):
    node = make()
    (answer,) = node.set_parameters([Parameter("use_sim_time", value=True)])
    assert not answer.successful and "fixed while the node runs" in answer.reason
    assert node.set_parameters([Parameter("use_sim_time", value=False)])[0].successful
    assert not node.simulated_time


PROGRAM = """
import sys
from spear_policy.nodes.lifecycle import SpearNode, run
class Waiting(SpearNode):
    def __init__(self):
        super().__init__("waiting")
    def activate(self):
        self.wait_until(lambda: False, 100.0)
    def cleanup(self):
        print("cleaned up", flush=True)
sys.exit(run(Waiting))
"""


@pytest.fixture
def program():
    """A process that runs a node whose activation waits for ever."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGINT)  # in order, or its services seem to live on for a while
        process.communicate(timeout=60)


def test_an_impossible_transition_is_answered_and_the_node_lives(program, neighbour):
    client = neighbour.create_client(ChangeState, "/waiting/change_state")
    assert client.wait_for_service(40.0)
    activate = Transition(id=Transition.TRANSITION_ACTIVATE)  # impossible when unconfigured
    client.call_async(ChangeState.Request(transition=activate))
    transit(neighbour, "/waiting", Transition.TRANSITION_CONFIGURE, "inactive")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_waiting_transition_and_the_node_closes_in_order(
    program, neighbour, number
):
    transit(neighbour, "/waiting", Transition.TRANSITION_CONFIGURE, "inactive")
    client = neighbour.create_client(ChangeState, "/waiting/change_state")
    assert client.wait_for_service(40.0)
    activate = Transition(id=Transition.TRANSITION_ACTIVATE)
    client.call_async(ChangeState.Request(transition=activate))
    # The control plane no longer answers: it is in the transition.
    wait(lambda: not lifecycle_label(neighbour, "/waiting"))
    program.send_signal(number)
    out, _ = program.communicate(timeout=60)
    assert program.returncode == 0
    assert "cleaned up" in out
