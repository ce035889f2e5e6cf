"""The managed nodes of one graph in their order: brought up, watched, brought down."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rclpy.node import Node

from spear_bringup.nodes.lifecycle_client import ErrorLog, LifecycleClient, TransitionFailed


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
        say: takes one sentence about what is happening.
        check: called often while waiting; raises to give up.
    """

    def __init__(
        self,
        io: Node,
        full_names: Sequence[str],
        timeouts: Timeouts,
        say: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
    ):
        errors = ErrorLog(io)
        self.clients = {name: LifecycleClient(io, name, errors, check) for name in full_names}
        self.states: dict[str, str] = dict.fromkeys(full_names, "not started")
        self.dead: dict[str, str] = {}
        self._timeouts, self._say = timeouts, say

    def bring_up(self) -> None:
        """Configure and activate every node, one after the other; an active one is left alone.

        A node becomes active before the next is configured, so each finds what it needs: the
        driver its robot, the policy its cameras. After a failure the nodes before stay active.

        Raises:
            TransitionFailed: naming the node, the transition and what the node said.
        """
        for name, client in self.clients.items():
            self.states[name] = "waiting for its process"
            client.wait_for_node(self._timeouts.appear_s)
            state = client.state(self._timeouts.appear_s)
            if state not in ("unconfigured", "inactive", "active"):
                raise TransitionFailed(name, f"is {state or 'silent'}; start its process again")
            for transition, start, goal, timeout_s in (
                ("configure", "unconfigured", "inactive", self._timeouts.configure_s),
                ("activate", "inactive", "active", self._timeouts.activate_s),
            ):
                if state == start:
                    self._say(f"{name}: {transition}")
                    self.states[name] = f"asked to {transition}"
                    client.change(transition, timeout_s)
                    state = goal
            self.states[name] = state
            self.dead.pop(name, None)
        self._say(f"all {len(self.clients)} nodes are active: {', '.join(self.clients)}")

    def deactivate(self, names: Sequence[str]) -> list[str]:
        """Deactivate those of `names` that are active. Returns what went wrong, a sentence each."""
        complaints = []
        for name in names:
            if name in self.dead or not self.clients[name].present:
                continue
            try:
                if self.clients[name].state(self._timeouts.watch_s) == "active":
                    self._say(f"{name}: deactivate")
                    self.clients[name].change("deactivate", self._timeouts.deactivate_s)
                    self.states[name] = "inactive"
            except TransitionFailed as failure:
                if self.clients[name].present:  # one that has ended is not active either
                    complaints.append(str(failure))
        return complaints

    def bring_down(self) -> list[str]:
        """Deactivate every node in reverse order. Returns what went wrong, a sentence each."""
        return self.deactivate(list(reversed(self.clients)))

    def look(self) -> list[str]:
        """Ask every node for its state. Returns the names of those that died since the last look.

        A node that is busy with a transition does not answer and is not taken for dead.
        """
        died = []
        for name, client in self.clients.items():
            if name in self.dead and not client.present:
                continue
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
