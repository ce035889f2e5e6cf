"""Asks one lifecycle node for its state and for transitions, from a thread that may wait.

The ROS node that carries the calls must be spun by another thread.
"""

import threading
import time
from collections.abc import Callable

from lifecycle_msgs.msg import State, Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Log
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

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
_RETRY_S = 2.0  # a reply can be lost while two processes are still discovering each other


class TransitionFailed(Exception):
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
        node.create_subscription(Log, "/rosout", self._take, qos)

    def _take(self, message: Log) -> None:
        if message.level >= _ERROR:
            self._errors[message.name] = message.msg

    def forget(self, full_name: str) -> None:
        """Drop what a node said so far."""
        self._errors.pop(full_name.strip("/").replace("/", "."), None)

    def of(self, full_name: str, timeout_s: float = 0.0) -> str | None:
        """The newest error of a node such as "/left/policy", waiting for one up to `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        logger = full_name.strip("/").replace("/", ".")
        while logger not in self._errors and time.monotonic() < deadline:
            time.sleep(0.02)
        return self._errors.get(logger)


class LifecycleClient:
    """The lifecycle of one node, seen from outside.

    Args:
        node: the ROS node that carries the calls.
        full_name: of the node that is asked, such as "/policy".
        errors: where its last error is looked up; None when nobody listens to /rosout.
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
            TransitionEvent, f"{full_name}/transition_event", self._take_event, 10
        )

    def _take_event(self, event: TransitionEvent) -> None:
        self._goal = event.goal_state.id

    @property
    def in_transition(self) -> bool:
        """Whether the node is in a transition now; until it ends, it answers nothing."""
        return self._goal not in _LABELS and self._goal != State.PRIMARY_STATE_UNKNOWN

    def wait_for_node(self, timeout_s: float) -> None:
        """Wait until the node offers its lifecycle services.

        Raises:
            TransitionFailed: it does not within `timeout_s`.
        """
        ready = self._wait(
            lambda: self._get.service_is_ready() and self._change.service_is_ready(), timeout_s
        )
        if not ready:
            raise TransitionFailed(
                self.full_name,
                f"did not appear within {timeout_s:.0f} s; is its process running, and in the same"
                " ROS_DOMAIN_ID?",
            )

    @property
    def present(self) -> bool:
        """Whether the graph shows the node now. A killed one stays shown for up to 20 s."""
        return self._get.service_is_ready()

    def state(self, timeout_s: float) -> str | None:
        """Its state ("unconfigured", "inactive", "active", "finalized"); None without an answer."""
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0.0:
            # A request to a node that is not discovered yet would be lost.
            if not self._wait(self._get.service_is_ready, left_s):
                break
            reply = self._call(self._get, GetState.Request(), min(_RETRY_S, left_s))
            if reply is not None:
                return _LABELS.get(reply.current_state.id, reply.current_state.label)
        return None

    def change(self, transition: str, timeout_s: float) -> None:
        """Make a transition: "configure", "activate", "deactivate" or "cleanup".

        Raises:
            TransitionFailed: the node refused, ended, or has not answered within `timeout_s`.
        """
        number, goal = _TRANSITIONS[transition]
        if self._errors:
            self._errors.forget(self.full_name)
        request = ChangeState.Request(transition=Transition(id=number))
        future = self._change.call_async(request)
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        deadline = time.monotonic() + timeout_s
        try:
            while not self._wait(done.is_set, min(_RETRY_S, max(0.0, deadline - time.monotonic()))):
                if not self.present:
                    raise self._failure(transition, "its process has ended")
                # The node answers this only after the transition, so a lost reply is noticed.
                if self.state(_RETRY_S) == goal:
                    return
                if time.monotonic() > deadline:
                    cause = f"no answer within {timeout_s:.0f} s"
                    raise self._failure(transition, cause)
        finally:
            self._change.remove_pending_request(future)
        if not future.result().success:
            raise self._failure(transition, "the node refused")

    def _failure(self, transition: str, cause: str) -> TransitionFailed:
        said = self._errors.of(self.full_name, 1.0) if self._errors else None
        look = f'it said: "{said}"' if said else "its own log output tells why"
        return TransitionFailed(self.full_name, f"did not {transition}: {cause}; {look}")

    def _call(self, client, request, timeout_s: float):
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        try:
            return future.result() if self._wait(done.is_set, timeout_s) else None
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
