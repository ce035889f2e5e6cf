"""The one lifecycle base of every SPEAR node.

A node has two planes, each with a thread and an executor. The control plane is the callback group
of transitions and parameters. The data plane is everything else: every subscription, timer, data
service and action. So a transition may wait (for a camera, a model, a robot) while data keeps
flowing.
"""

import signal
import sys
import threading
import time
import traceback
from itertools import pairwise

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import qos_policy_name_from_kind
from rclpy.signals import SignalHandlerOptions

from spear_policy.nodes.messages import clock_s
from spear_policy.shared.config import params_file_problem

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class RefusedError(Exception):
    """A transition or a request cannot be met; the text names the cause and the fix."""


class SpearNode(LifecycleNode):
    """Lifecycle node with a data plane. Subclasses override the five hooks at the end.

    `arguments` are command line arguments without the program's name.
    """

    def __init__(self, name: str, arguments: list[str] | None = None, **kwargs):
        arguments = sys.argv[1:] if arguments is None else arguments
        super().__init__(name, cli_args=arguments, use_global_arguments=False, **kwargs)
        self.active = False
        self._configured = False
        # rclpy made its own services in the default group; what comes from here on is data.
        self.control_group = self.default_callback_group
        self._default_callback_group = MutuallyExclusiveCallbackGroup()
        self._time_source.detach_node()
        self._time_source.ros_time_is_active = False
        self._time_source.attach_node(self)  # subscribes to /clock again, which is data too
        keep_clock(self)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._stopping = threading.Event()
        self._interrupted = False
        self._threads = [threading.Thread(target=self._spin_io, name=f"{name}_io", daemon=True)]
        self._threads.append(
            threading.Thread(target=self._publish_diagnostics, name=f"{name}_diag", daemon=True)
        )

    @property
    def io(self) -> Node:
        """What carries the data plane: this node, so that `ros2 node info` shows all of it."""
        return self

    def start_threads(self) -> None:
        """Begin to serve the data plane; call it once, after the constructor."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Deactivate, clean up and end the threads; safe from every state, never raises."""
        self._interrupted = False  # leaving takes its time
        self._leave("deactivate", self.active, self.deactivate)
        self.active = False
        self._leave("cleanup", self._configured, self.cleanup)
        self._configured = False
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(timeout=5.0)
        self.destroy_node()

    def now_s(self) -> float:
        """Node clock [s]: system time, or /clock under use_sim_time (0.0 before the first one)."""
        return clock_s(self.get_clock())

    @property
    def simulated_time(self) -> bool:
        """Whether the node clock follows /clock."""
        return bool(self.get_parameter("use_sim_time").value)

    def two_clocks(self) -> str:
        """A sentence when several nodes publish the simulated clock; empty otherwise."""
        publishers = self.get_publishers_info_by_topic("/clock") if self.simulated_time else []
        if len(publishers) < 2:
            return ""
        names = sorted(f"{each.node_namespace.rstrip('/')}/{each.node_name}" for each in publishers)
        return (
            f"{len(names)} nodes publish /clock ({', '.join(names)}) and time jumps between them; "
            "end one, or start each simulation in a namespace, where it has its own clock"
        )

    def wait_until(self, condition, timeout_s: float) -> bool:
        """Whether `condition()` became true within `timeout_s` of steady time, uninterrupted."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline or self._interrupted or self._stopping.wait(0.01):
                return bool(condition())
        return True

    def interrupt(self) -> None:
        """End every `wait_until` now, so that a transition does not outlast Ctrl-C."""
        # A plain flag: an Event could deadlock here, in a signal handler.
        self._interrupted = True

    # Transitions -------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        done = self._attempt("configure", self.configure)
        if not done:
            self._leave("cleanup after a refused configure", True, self.cleanup)
        self._configured = done
        return _answer(done)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        if not self._attempt("activate", self.activate):
            self._leave("deactivate after a refused activate", True, self.deactivate)
            return TransitionCallbackReturn.FAILURE
        super().on_activate(state)
        self.active = True
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        self._leave("deactivate", True, self.deactivate)
        super().on_deactivate(state)
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._configured = False
        self._leave("cleanup", True, self.cleanup)
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._leave("deactivate", self.active, self.deactivate)
        self.active = False
        self._leave("cleanup", self._configured, self.cleanup)
        self._configured = False
        return TransitionCallbackReturn.SUCCESS

    def _attempt(self, what: str, hook) -> bool:
        try:
            hook()
        except RefusedError as refusal:
            self.get_logger().error(f"{what} refused: {refusal}")
            return False
        except Exception as error:  # an escaped exception would end the node without a word
            self.get_logger().error(f"{what} failed: {type(error).__name__}: {error}")
            _log_traceback(self)
            return False
        return True

    def _leave(self, what: str, needed: bool, hook) -> None:
        if needed:
            self._attempt(what, hook)

    # Few entities: at each message an executor of rclpy visits every one, and compares every event
    # with every other. By default a publisher and a subscription bring two events each, which only
    # ever warn. The one that tells why nothing arrives stays: a publisher's QoS does not fit.

    def create_publisher(self, *args, **kwargs):
        """A publisher without events."""
        events = PublisherEventCallbacks(use_default_callbacks=False)
        return super().create_publisher(*args, event_callbacks=events, **kwargs)

    def create_subscription(self, msg_type, topic: str, *args, **kwargs):
        """A subscription whose only event is that a publisher's QoS does not fit."""

        def warn(event) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind)
            self.get_logger().warn(f"a publisher of {topic} has another {policy}: nothing arrives")

        events = kwargs.setdefault("event_callbacks", SubscriptionEventCallbacks())
        events.use_default_callbacks = False
        events.incompatible_qos = events.incompatible_qos or warn
        return super().create_subscription(msg_type, topic, *args, **kwargs)

    # Data plane --------------------------------------------------------------------------

    def _spin_io(self) -> None:
        executor = _PlaneExecutor(self, data=True)
        executor.add_node(self)
        while not self._stopping.is_set() and self.context.ok():
            try:
                executor.spin_once(timeout_sec=0.1)
            except ExternalShutdownException:
                break
            except InvalidHandle:  # a transition has just destroyed what the executor visits
                continue
            except Exception as error:  # one bad callback must not silence the others
                if not self.context.ok() or self._stopping.is_set():
                    break
                self.get_logger().error(f"callback failed: {type(error).__name__}: {error}")
                _log_traceback(self)
        executor.remove_node(self)
        executor.shutdown(timeout_sec=1.0)

    def _publish_diagnostics(self) -> None:
        while not self._stopping.wait(1.0) and self.context.ok():
            try:
                rows = self.diagnose()
                if problem := self.two_clocks():
                    rows.append(("clock", ERROR, problem, {}))
                message = DiagnosticArray(status=[self._status(*row) for row in rows])
                message.header.stamp = self.get_clock().now().to_msg()
                self._diagnostics.publish(message)
            except Exception as error:
                if self.context.ok() and not self._stopping.is_set():
                    self.get_logger().error(f"diagnostics failed: {error}")

    def _status(self, concern: str, level: bytes, text: str, values: dict) -> DiagnosticStatus:
        return DiagnosticStatus(
            name=f"{self.get_name()}: {concern}",
            hardware_id=self.get_name(),
            level=level,
            message=text,
            values=[KeyValue(key=str(k), value=str(v)) for k, v in values.items()],
        )

    # Hooks -------------------------------------------------------------------------------

    def configure(self) -> None:
        """Check parameters, open what is needed. RefusedError fails it; cleanup() then runs."""

    def activate(self) -> None:
        """Begin the work. RefusedError fails it; deactivate() then runs."""

    def deactivate(self) -> None:
        """Stop the work; also called after a refused activate, so bear half-started work."""

    def cleanup(self) -> None:
        """Close everything; also called after a refused configure."""

    def diagnose(self) -> list[tuple[str, bytes, str, dict]]:
        """Rows (concern, OK/WARN/ERROR, sentence, values) for /diagnostics, once a second."""
        state = "active" if self.active else "not active"
        return [("lifecycle", OK, state, {})]


class _PlaneExecutor(SingleThreadedExecutor):
    """Serves one plane of a node; the data plane's is the one that the node knows."""

    def __init__(self, node: SpearNode, data: bool):
        super().__init__(context=node.context)
        self._plane_node, self._data = node, data

    def get_nodes(self) -> list[Node]:
        return [self._plane_node]

    def can_execute(self, entity) -> bool:
        control = entity.callback_group is self._plane_node.control_group
        return control is not self._data and super().can_execute(entity)


def run(node_class, arguments: list[str] | None = None) -> int:
    """Run a SpearNode until SIGINT or SIGTERM, then close it in order. Returns the exit status."""
    if problem := params_files_problem(arguments):
        print(problem, file=sys.stderr)
        return 2
    # rclpy's own handlers would tear the context down before the node has stopped the robot,
    # closed the bag or informed the others.
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    node = None

    def on_signal(*_) -> None:
        # Under ros2 launch one Ctrl-C comes twice, from the terminal and from launch. The second
        # must not cut short what the first began.
        if node is not None and not stop.is_set():
            node.interrupt()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    node = node_class()
    node.start_threads()
    executor = _PlaneExecutor(node, data=False)
    while not stop.is_set():
        try:
            executor.spin_once(timeout_sec=0.1)
        except InvalidHandle:  # the data plane has just destroyed what the executor visits
            continue
        except Exception as error:  # such as an impossible transition; the node lives on
            node.get_logger().error(f"{type(error).__name__}: {error}")
    node.close()
    executor.shutdown(timeout_sec=1.0)
    rclpy.shutdown()
    return 0


def keep_clock(node: Node) -> None:
    """Refuse to change `use_sim_time` of a running node: its stamps and watchdogs rest on it."""

    def refuse(changes) -> SetParametersResult:
        now = node.get_parameter("use_sim_time").value
        if any(each.name == "use_sim_time" and each.value != now for each in changes):
            reason = "use_sim_time is fixed while the node runs; start it with another value"
            return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(refuse)


def params_files_problem(arguments: list[str] | None = None) -> str:
    """What is wrong with the first bad `--params-file` of a command line; empty when none is."""
    arguments = sys.argv[1:] if arguments is None else arguments
    files = (path for flag, path in pairwise(arguments) if flag == "--params-file")
    return next(filter(None, map(params_file_problem, files)), "")


def _answer(done: bool) -> TransitionCallbackReturn:
    return TransitionCallbackReturn.SUCCESS if done else TransitionCallbackReturn.FAILURE


def _log_traceback(node: Node) -> None:
    node.get_logger().debug(traceback.format_exc())
