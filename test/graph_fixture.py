"""Starts the simulated graph for system tests and watches what it says."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from rclpy.action import ActionClient

from spear_bringup.graph import find_executable, free_loopback_host, sim_graph
from spear_bringup.nodes.lifecycle_manager import Timeouts
from spear_bringup.nodes.supervisor import RunningGraph
from spear_msgs.action import RunInstruction
from spear_msgs.msg import ActionChunk, EndEffectorState, GateStatus, PolicyStatus
from spear_policy.nodes import messages as qos
from spear_policy.nodes.messages import pose_array, s_to_duration, stamp_to_s

START_TIMEOUT_S = 240.0  # a busy machine imports and draws slowly
PATIENCE_S = 120.0  # of wall time; what is asserted is node time
_files = itertools.count()


def simulation(folder: Path, domain: int, only=None, parameters=None, **arguments) -> RunningGraph:
    """A RunningGraph of `sim_graph(**arguments)`, not started yet.

    Args:
        folder: for logs, bags and parameter files.
        domain: ROS domain id, as the fixture `ros_domain` gives it.
        only: names of the nodes to run; None for all.
        parameters: by node name, {parameter: value} that wins over the shipped files.
    """
    arguments.setdefault("host", free_loopback_host())
    arguments.setdefault("record", False)
    if parameters:
        path = Path(folder) / f"test_parameters_{next(_files)}.yaml"
        content = {f"/**/{node}": {"ros__parameters": p} for node, p in parameters.items()}
        path.write_text(yaml.safe_dump(content))
        arguments["params_file"] = path
    specs = sim_graph(out_dir=Path(folder) / "trials", **arguments)
    if only is not None:
        specs = [spec for spec in specs if spec.name in only]
    timeouts = Timeouts(appear_s=120.0, watch_s=10.0)
    return RunningGraph(specs, Path(folder) / "logs", domain, timeouts=timeouts)


class Watcher:
    """Everything that a running graph says about the arm and the policy, newest last."""

    def __init__(self, graph: RunningGraph):
        self.graph = graph
        self.states: list[EndEffectorState] = []
        self.gate: list[GateStatus] = []
        self.chunks: list[ActionChunk] = []
        self.policy: list[PolicyStatus] = []
        node = graph.node
        for kind, topic, kept, profile in (
            (EndEffectorState, "ee_state", self.states, qos.SENSOR),
            (GateStatus, "gate_status", self.gate, qos.LATCHED),
            (ActionChunk, "action_chunk", self.chunks, qos.EVENT),
            (PolicyStatus, "policy_status", self.policy, qos.LATCHED),
        ):
            node.create_subscription(kind, topic, kept.append, profile)
        self.sender = node.create_publisher(ActionChunk, "action_chunk", qos.COMMAND)
        self._action = ActionClient(node, RunInstruction, "run_instruction")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition; the test fails with `what` when it does not come."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen; {self.said()}"
            time.sleep(0.01)

    def said(self) -> str:
        """The newest words of driver and policy, for a failed test."""
        gate = self.gate[-1].text if self.gate else "nothing"
        policy = self.policy[-1].text if self.policy else "nothing"
        return f"the driver said: {gate}; the policy said: {policy}"

    def instruct(self, instruction: str, timeout_s: float = 60.0):
        """Give an instruction; returns the goal handle once it is accepted."""
        self.until(self._action.server_is_ready, "run_instruction")
        goal = RunInstruction.Goal(instruction=instruction, timeout=s_to_duration(timeout_s))
        sent = self._action.send_goal_async(goal)
        self.until(sent.done, "an answer to the goal")
        assert sent.result().accepted
        return sent.result()

    def stop_instruction(self, handle) -> None:
        """Cancel a goal and wait for its result."""
        ended = handle.get_result_async()
        handle.cancel_goal_async()
        self.until(ended.done, "the end of the instruction")

    @property
    def now_s(self) -> float:
        """Node time of the newest state [s]."""
        return stamp_to_s(self.states[-1].header.stamp)

    def position(self):
        """(3,) newest measured position of the end effector, base frame [m]."""
        return pose_array(self.states[-1].measured)[:3]

    def wait_node_time(self, seconds: float) -> None:
        """Let node time pass."""
        goal_s = self.now_s + seconds
        self.until(lambda: self.now_s >= goal_s, f"{seconds} s of node time")


def leftovers(graph: RunningGraph) -> list[str]:
    """What a closed graph has left: processes of its groups."""
    return [name for name, process in graph.processes.items() if process.group_alive()]


def installed(executable: str, package: str = "spear_bringup") -> str:
    """Path of an installed executable, as `ros2 run` would find it."""
    return str(find_executable(package, executable))
