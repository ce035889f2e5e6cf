"""Configures and activates the nodes of a graph in order, watches them, deactivates them.

A plain node on the steady clock: it works when /clock stands still. When a managed node dies, it
first deactivates what commands the robot; the driver holds by itself and stays, to say so.
"""

import signal
import sys
import threading
import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from spear_bringup.nodes.lifecycle_client import TransitionFailed
from spear_bringup.nodes.managed_nodes import ManagedNodes, Timeouts
from spear_policy.nodes.lifecycle import Refused
from spear_policy.nodes.parameters import Parameters

HELP = """usage: lifecycle_manager --ros-args -p node_names:="[franka_driver, policy]" ...

Brings lifecycle nodes up in the given order and watches them. Parameters are described in
config/lifecycle_manager.yaml. Services: ~/activate_all and ~/deactivate_all (std_srvs/Trigger).

example:
  lifecycle_manager --ros-args -p node_names:="[sim_world, franka_driver, policy]"
"""


class Stopped(Exception):
    """SIGINT or SIGTERM came while the manager was waiting for a node."""


class LifecycleManager:
    """The node: its services on one thread, calls to the managed nodes on another."""

    def __init__(self, stop: threading.Event):
        self._stop = stop
        self._ended = threading.Event()
        self.node = Node("lifecycle_manager")
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
        self.io.create_timer(1.0, self._publish_diagnostics)
        self._io_thread = threading.Thread(target=self._spin_io, daemon=True)

    def _full_name(self, name: str) -> str:
        return name if name.startswith("/") else f"{self.node.get_namespace().rstrip('/')}/{name}"

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _spin_io(self) -> None:
        executor = SingleThreadedExecutor()
        executor.add_node(self.io)
        while not self._ended.is_set():
            executor.spin_once(timeout_sec=0.1)
        executor.shutdown(timeout_sec=1.0)

    def run(self) -> None:
        """Serve until the stop event is set; then bring everything down."""
        self._io_thread.start()
        executor = SingleThreadedExecutor()
        executor.add_node(self.node)
        try:
            if self.parameters["autostart"]:
                self.bring_up()
            self._serve(executor)
        except Stopped:
            pass
        self._bring_down_once()
        self._ended.set()
        self._io_thread.join(timeout=5.0)
        executor.shutdown(timeout_sec=1.0)
        self.io.destroy_node()
        self.node.destroy_node()

    def _bring_down_once(self) -> None:
        self._stop.clear()  # bounded by the timeouts from here on; a second Ctrl-C gives up
        try:
            for complaint in self.managed.bring_down():
                self.node.get_logger().warn(complaint)
        except Stopped:
            self.node.get_logger().warn("stopped before every node was deactivated")

    def _serve(self, executor) -> None:
        next_look_s = time.monotonic()
        while not self._stop.is_set():
            executor.spin_once(timeout_sec=0.1)
            if time.monotonic() >= next_look_s:
                self._watch()
                next_look_s = time.monotonic() + self.parameters["watch_period_s"]

    def bring_up(self) -> bool:
        """Bring every node up. Whether it worked; `problem` holds the sentence otherwise."""
        try:
            self.managed.bring_up()
            self.problem = ""
        except TransitionFailed as failure:
            self.problem = str(failure)
            self.node.get_logger().error(
                f"{failure}. Mend it, then call {self.node.get_fully_qualified_name()}/activate_all"
            )
        return not self.problem

    def _watch(self) -> None:
        died = self.managed.look()
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
    if "-h" in sys.argv[1:] or "--help" in sys.argv[1:]:
        print(HELP)
        return 0
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        LifecycleManager(stop).run()
    except Refused as refusal:
        print(f"lifecycle_manager: {refusal}", file=sys.stderr)
        return 2
    finally:
        rclpy.shutdown()
    return 0
