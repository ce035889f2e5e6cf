"""Configures and activates the nodes of a graph in order, watches them, deactivates them.

A plain node on the steady clock: it works when /clock stands still. When a managed node dies, it
first deactivates what commands the robot; the driver holds by itself and stays, to report it.
While the manager lives it publishes `lifecycle_manager/heartbeat`; a driver that no longer gets it
holds.
First the client of one node, then the managed nodes in their order, then the manager.
"""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lifecycle_msgs.msg import State, Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Log
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from std_msgs.msg import Empty
from std_srvs.srv import Trigger

from spear_policy.nodes.lifecycle import RefusedError, keep_clock, params_files_problem
from spear_policy.nodes.messages import NEWEST
from spear_policy.nodes.parameters import Parameters, node_help

# One node -----------------------------------------------------------------------------------------

_TRANSITIONS = {
    "configure": (Transition.TRANSITION_CONFIGURE, "inactive"),
    "activate": (Transition.TRANSITION_ACTIVATE, "active"),
    "deactivate": (Transition.TRANSITION_DEACTIVATE, "inactive"),
    "cleanup": (Transition.TRANSITION_CLEANUP, "unconfigured"),
}
_LABELS = {
    State.PRIMARY_STATE_UNCONFIGURED: "unconfigured",
    State.PRIMARY_STATE_INACTIVE: "inactive",
    State.PRIMARY_STATE_ACTIVE: "active",
    State.PRIMARY_STATE_FINALIZED: "finalized",
}
_ERROR = 40  # Log.ERROR is an int in one distribution and a byte in another
_NOT_SEEN = "not seen yet"
_RETRY_S = 2.0  # calls can be lost while two processes are still discovering each other


class TransitionError(Exception):
    """A node did not do what it was asked; the text names it, the transition and the cause."""

    def __init__(self, full_name: str, text: str):
        super().__init__(f"{full_name} {text}")
        self.full_name = full_name


class ErrorLog:
    """The newest error that each node has logged, from /rosout."""

    def __init__(self, node: Node):
        self._errors: dict[str, str] = {}
        qos = QoSProfile(
            depth=100,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        node.create_subscription(Log, "/rosout", self._on_log, qos)

    def _on_log(self, message: Log) -> None:
        if message.level >= _ERROR:
            self._errors[message.name] = message.msg

    def forget(self, full_name: str) -> None:
        """Drop what a node has logged so far."""
        self._errors.pop(full_name.strip("/").replace("/", "."), None)

    def of(self, full_name: str, timeout_s: float = 0.0) -> str | None:
        """The newest error of a node such as "/left/policy", waiting for one up to `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        logger = full_name.strip("/").replace("/", ".")
        while logger not in self._errors and time.monotonic() < deadline:
            time.sleep(0.02)
        return self._errors.get(logger)


class LifecycleClient:
    """The lifecycle of one node, seen from outside; its calls wait for their answers.

    Args:
        node: the ROS node that carries the calls; another thread must spin it.
        full_name: of the node that is asked, such as "/policy".
        errors: where its last error is looked up; None without /rosout.
        check: called often while waiting; raises to give up (a process ended, Ctrl-C).
    """

    def __init__(
        self,
        node: Node,
        full_name: str,
        errors: ErrorLog | None = None,
        check: Callable[[], None] = lambda: None,
    ):
        self.full_name = full_name
        self._node, self._errors, self._check = node, errors, check
        self._get = node.create_client(GetState, f"{full_name}/get_state")
        self._change = node.create_client(ChangeState, f"{full_name}/change_state")
        self._goal = State.PRIMARY_STATE_UNKNOWN
        node.create_subscription(
            TransitionEvent, f"{full_name}/transition_event", self._on_transition, 10
        )

    def _on_transition(self, event: TransitionEvent) -> None:
        self._goal = event.goal_state.id

    @property
    def in_transition(self) -> bool:
        """Whether the node is in a transition now; until it ends, it answers nothing."""
        return self._goal not in _LABELS and self._goal != State.PRIMARY_STATE_UNKNOWN

    def wait_for_node(self, timeout_s: float) -> None:
        """Wait until the node offers its lifecycle services.

        Raises:
            TransitionError: it does not within `timeout_s`.
        """
        ready = self._wait(
            lambda: self._get.service_is_ready() and self._change.service_is_ready(), timeout_s
        )
        if not ready:
            raise TransitionError(
                self.full_name,
                f"did not appear within {timeout_s:.0f} s; is its process running, and in the same"
                " ROS_DOMAIN_ID?",
            )

    @property
    def present(self) -> bool:
        """Whether the graph shows the node now. A killed one stays shown for up to 20 s."""
        return self._get.service_is_ready()

    def state(self, timeout_s: float) -> str | None:
        """Its state ("unconfigured", "inactive", "active", "finalized").

        None without an answer, at once when the graph does not show the node (any more).
        """
        deadline = time.monotonic() + timeout_s
        while self.present and (left_s := deadline - time.monotonic()) > 0.0:
            reply = self._call(self._get, GetState.Request(), min(_RETRY_S, left_s))
            if reply is not None:
                return _LABELS.get(reply.current_state.id, reply.current_state.label)
        return None

    def change(self, transition: str, timeout_s: float) -> None:
        """Make a transition: "configure", "activate", "deactivate" or "cleanup".

        Raises:
            TransitionError: the node refused, ended, or has not answered within `timeout_s`.
        """
        number, goal = _TRANSITIONS[transition]
        if self._errors:
            self._errors.forget(self.full_name)
        request = ChangeState.Request(transition=Transition(id=number))
        deadline = time.monotonic() + timeout_s
        sent: list[Future] = []
        lost = True
        try:
            while True:
                if lost:
                    sent.append(self._change.call_async(request))
                left_s = max(0.0, deadline - time.monotonic())
                if self._wait(lambda: any(f.done() for f in sent), min(_RETRY_S, left_s)):
                    break
                if not self.present:
                    raise self._failure(transition, "its process has ended")
                # The node answers this only outside of transitions: another state than the goal
                # shows that the request was lost, and the goal that its reply was.
                found = self.state(_RETRY_S)
                if found == goal:
                    return
                lost = found is not None
                if time.monotonic() > deadline:
                    cause = f"no answer within {timeout_s:.0f} s"
                    raise self._failure(transition, cause)
        finally:
            for future in sent:
                self._change.remove_pending_request(future)
        if not next(future.result() for future in sent if future.done()).success:
            raise self._failure(transition, "the node refused")

    def _failure(self, transition: str, cause: str) -> TransitionError:
        logged = self._errors.of(self.full_name, 1.0) if self._errors else None
        why = f'it said: "{logged}"' if logged else "its own log output tells why"
        return TransitionError(self.full_name, f"did not {transition}: {cause}; {why}")

    def _call(self, client, request, timeout_s: float):
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        try:
            self._wait(lambda: done.is_set() or not client.service_is_ready(), timeout_s)
            return future.result() if done.is_set() else None
        finally:
            client.remove_pending_request(future)

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._check()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


# The nodes of a graph -------------------------------------------------------------------------


@dataclass(frozen=True)
class Timeouts:
    """The longest each step may take [s of steady time]."""

    appear_s: float = 60.0
    configure_s: float = 300.0
    activate_s: float = 300.0
    deactivate_s: float = 10.0
    watch_s: float = 5.0


class ManagedNodes:
    """Lifecycle of several nodes.

    Args:
        io: the ROS node that carries the calls; spun by another thread.
        full_names: in order of activation.
        timeouts: how long each step may take.
        on_progress: takes one sentence about what is happening.
        check: called often while waiting; raises to give up.
    """

    def __init__(
        self,
        io: Node,
        full_names: Sequence[str],
        timeouts: Timeouts,
        on_progress: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
    ):
        errors = ErrorLog(io)
        self.clients = {name: LifecycleClient(io, name, errors, check) for name in full_names}
        self.states: dict[str, str] = dict.fromkeys(full_names, _NOT_SEEN)
        self.dead: dict[str, str] = {}
        self._seen: set[str] = set()
        self._timeouts, self._on_progress = timeouts, on_progress

    def bring_up(self) -> None:
        """Configure and activate every node, one after the other; an active one is left alone.

        A node becomes active before the next is configured, so each finds what it needs: the
        driver its robot, the policy its cameras. After a failure the nodes before stay active.

        Raises:
            TransitionError: naming the node, the transition and what the node logged.
        """
        for name, client in self.clients.items():
            client.wait_for_node(self._timeouts.appear_s)
            self._seen.add(name)
            state = client.state(self._timeouts.appear_s)
            if state not in ("unconfigured", "inactive", "active"):
                raise TransitionError(name, f"is {state or 'silent'}; start its process again")
            for transition, start, goal, timeout_s in (
                ("configure", "unconfigured", "inactive", self._timeouts.configure_s),
                ("activate", "inactive", "active", self._timeouts.activate_s),
            ):
                if state == start:
                    self._on_progress(f"{name}: {transition}")
                    self.states[name] = f"asked to {transition}"
                    client.change(transition, timeout_s)
                    state = goal
            self.states[name] = state
            self.dead.pop(name, None)
        self._on_progress(f"all {len(self.clients)} nodes are active: {', '.join(self.clients)}")

    def deactivate(self, names: Sequence[str]) -> list[str]:
        """Deactivate those of `names` that are active. Returns what went wrong, a sentence each."""
        complaints = []
        for name in names:
            if name in self.dead or not self.clients[name].present:
                continue
            try:
                if self.clients[name].state(self._timeouts.watch_s) == "active":
                    self._on_progress(f"{name}: deactivate")
                    self.clients[name].change("deactivate", self._timeouts.deactivate_s)
                    self.states[name] = "inactive"
            except TransitionError as failure:
                if self.clients[name].present:  # one that has ended is not active either
                    complaints.append(str(failure))
        return complaints

    def bring_down(self) -> list[str]:
        """Deactivate every node in reverse order. Returns what went wrong, a sentence each."""
        return self.deactivate(list(reversed(self.clients)))

    def probe(self) -> list[str]:
        """Ask every node for its state. Returns those found dead that were not before.

        A node is not seen yet, alive, or gone; only one that was seen can be gone, since its
        process may come later. One that is busy with a transition does not answer and is alive.
        """
        died = []
        for name, client in self.clients.items():
            if not client.present and (name in self.dead or name not in self._seen):
                continue
            self._seen.add(name)
            state = client.state(self._timeouts.watch_s) if client.present else None
            if state is None and not (client.present and client.in_transition):
                silent = f"no answer for {self._timeouts.watch_s:.0f} s"
                how = silent if client.present else "its process has ended"
                if name not in self.dead:
                    died.append(name)
                self.dead[name] = self.states[name] = how
            elif state is not None:
                self.states[name] = state
                self.dead.pop(name, None)
        return died


# The manager --------------------------------------------------------------------------------------

HELP = """\
Bring lifecycle nodes up in the given order and watch them.

Services: ~/activate_all and ~/deactivate_all (std_srvs/srv/Trigger).

Example:
  ros2 run spear_bringup lifecycle_manager --ros-args \\
      -p node_names:="[sim_world, franka_driver, policy]"
"""


_HEARTBEAT_PERIOD_S = 0.1
_SAME_CTRL_C_S = 1.0


class StoppedError(Exception):
    """SIGINT or SIGTERM came while the manager was waiting for a node."""


class LifecycleManager:
    """The node: its services on one thread, calls to the managed nodes on another.

    A third one publishes the heartbeat, also while a slow node is being brought up or down.
    """

    def __init__(self, stop: threading.Event):
        self._stop = stop
        self._ended = threading.Event()
        self.node = Node("lifecycle_manager")
        keep_clock(self.node)
        self.parameters = Parameters(self.node, "spear_bringup", "lifecycle_manager")
        self.parameters.check()
        self.io = Node(
            f"{self.node.get_name()}_io",
            namespace=self.node.get_namespace(),
            use_global_arguments=False,
            enable_rosout=False,
            start_parameter_services=False,
        )
        self._diagnostics = self.io.create_publisher(DiagnosticArray, "/diagnostics", 10)
        p = self.parameters
        self._timeouts = Timeouts(
            appear_s=p["appear_timeout_s"],
            configure_s=p["configure_timeout_s"],
            activate_s=p["activate_timeout_s"],
            deactivate_s=p["deactivate_timeout_s"],
            watch_s=p["watch_timeout_s"],
        )
        names = [self._full_name(name) for name in p["node_names"]]
        self._first = [self._full_name(name) for name in p["deactivate_first"]]
        self.managed = ManagedNodes(
            self.io, names, self._timeouts, self.node.get_logger().info, self._check
        )
        self.problem = ""
        self.node.create_service(Trigger, "~/activate_all", self._on_activate_all)
        self.node.create_service(Trigger, "~/deactivate_all", self._on_deactivate_all)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.io.create_timer(1.0, self._publish_diagnostics, clock=steady)
        self._heartbeat = self.io.create_publisher(Empty, "lifecycle_manager/heartbeat", NEWEST)
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._spin_io, self._beat)
        ]

    def _full_name(self, name: str) -> str:
        return name if name.startswith("/") else f"{self.node.get_namespace().rstrip('/')}/{name}"

    def _check(self) -> None:
        if self._stop.is_set():
            raise StoppedError

    def _spin_io(self) -> None:
        executor = SingleThreadedExecutor()
        executor.add_node(self.io)
        while not self._ended.is_set():
            executor.spin_once(timeout_sec=0.1)
        executor.shutdown(timeout_sec=1.0)

    def _beat(self) -> None:
        while not self._ended.wait(_HEARTBEAT_PERIOD_S):
            self._heartbeat.publish(Empty())

    def run(self) -> None:
        """Serve until the stop event is set; then bring everything down."""
        for thread in self._threads:
            thread.start()
        executor = SingleThreadedExecutor()
        executor.add_node(self.node)
        try:
            if self.parameters["autostart"]:
                self.bring_up()
            self._serve(executor)
        except StoppedError:
            pass
        self._bring_down_once()
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=5.0)
        executor.shutdown(timeout_sec=1.0)
        self.io.destroy_node()
        self.node.destroy_node()

    def _bring_down_once(self) -> None:
        self._stop.clear()  # bounded by the timeouts from here on; a later Ctrl-C gives up
        try:
            for complaint in self.managed.bring_down():
                self.node.get_logger().warn(complaint)
        except StoppedError:
            self.node.get_logger().warn("stopped before every node was deactivated")

    def _serve(self, executor) -> None:
        next_probe_s = time.monotonic()
        while not self._stop.is_set():
            executor.spin_once(timeout_sec=0.1)
            if time.monotonic() >= next_probe_s:
                self._watch()
                next_probe_s = time.monotonic() + self.parameters["watch_period_s"]

    def bring_up(self) -> bool:
        """Bring every node up. Whether it worked; `problem` holds the sentence otherwise."""
        try:
            self.managed.bring_up()
            self.problem = ""
        except TransitionError as failure:
            self.problem = str(failure)
            self.node.get_logger().error(
                f"{failure}. Fix it, then call {self.node.get_fully_qualified_name()}/activate_all"
            )
        return not self.problem

    def _watch(self) -> None:
        died = self.managed.probe()
        if not died:
            return
        for name in died:
            self.node.get_logger().error(
                f"{name} died: {self.managed.dead[name]}. Deactivating {', '.join(self._first)};"
                f" start {name} again, then call"
                f" {self.node.get_fully_qualified_name()}/activate_all"
            )
        known = [name for name in self._first if name in self.managed.clients]
        for complaint in self.managed.deactivate(known):
            self.node.get_logger().error(complaint)

    def _on_activate_all(self, request, response):
        response.success = self.bring_up()
        response.message = self.problem or "all nodes are active"
        return response

    def _on_deactivate_all(self, request, response):
        complaints = self.managed.bring_down()
        response.success = not complaints
        response.message = "; ".join(complaints) or "all nodes are inactive"
        return response

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.io.get_clock().now().to_msg()
        for name, state in list(self.managed.states.items()):
            level = DiagnosticStatus.OK if state == "active" else DiagnosticStatus.WARN
            failed = self.problem.startswith(f"{name} ")
            if failed or name in self.managed.dead:
                level = DiagnosticStatus.ERROR
            message.status.append(
                DiagnosticStatus(
                    name=f"{self.node.get_name()}: {name}",
                    hardware_id=name,
                    level=level,
                    message=self.problem if failed else state,
                    values=[KeyValue(key="state", value=state)],
                )
            )
        self._diagnostics.publish(message)


def main() -> int:
    """Run the lifecycle manager until SIGINT or SIGTERM. Returns the exit status."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(node_help("spear_bringup", "lifecycle_manager", HELP))
        return 0
    if problem := params_files_problem():
        print(problem, file=sys.stderr)
        return 2
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    signalled_s = -math.inf

    def on_signal(*_) -> None:
        # Under ros2 launch one Ctrl-C comes twice, from the terminal and from launch.
        nonlocal signalled_s
        if time.monotonic() - signalled_s > _SAME_CTRL_C_S:
            signalled_s = time.monotonic()
            stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    try:
        LifecycleManager(stop).run()
    except RefusedError as refusal:
        print(f"lifecycle_manager: {refusal}", file=sys.stderr)
        return 2
    finally:
        rclpy.shutdown()
    return 0
