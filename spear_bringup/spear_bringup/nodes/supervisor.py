"""Starts the processes of a node graph, brings them up, and leaves nothing behind.

For machines without the launch packages, for the demo and for tests. `ros2 launch` does the same
from the same list of nodes. First one process and its shared memory, then the supervisor's own ROS
node, then the graph.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from spear_bringup.graph import NodeSpec, check_graph, find_executable
from spear_bringup.nodes.lifecycle_manager import ManagedNodes, Timeouts, TransitionError

# Processes ----------------------------------------------------------------------------------------

SHARED_MEMORY = Path("/dev/shm")


class NodeProcess:
    """One process in a process group of its own, its output in a file.

    Start it from a thread that lives as long as the process should: when that thread ends, be it
    by SIGKILL of this whole program, the kernel sends SIGINT to the process.
    """

    def __init__(self, name: str, command: Sequence[str], log_path: Path, environment: Mapping):
        self.name = name
        self.log_path = Path(log_path)
        guard = ["setpriv", "--pdeathsig", "INT", "--"] if shutil.which("setpriv") else []
        with open(self.log_path, "wb") as log:
            self._process = subprocess.Popen(
                [*guard, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    @property
    def ended(self) -> str | None:
        """How it ended, in words; None while it runs."""
        code = self.returncode
        if code is None:
            return None
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit status {code}"

    def last_lines(self, count: int = 12) -> str:
        """The newest lines of its output."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-count:])

    def send(self, number: int) -> None:
        """Send a signal to the process and all that it started."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    def wait(self, timeout_s: float) -> bool:
        """Whether the process has ended within `timeout_s`."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self, interrupt_timeout_s: float = 15.0, terminate_timeout_s: float = 5.0) -> str:
        """End it and its whole group: SIGINT, then SIGTERM, then SIGKILL. Returns what it took."""
        took = "already ended" if self.returncode is not None else ""
        for number, patience_s in (
            (signal.SIGINT, interrupt_timeout_s),
            (signal.SIGTERM, terminate_timeout_s),
            (signal.SIGKILL, 10.0),
        ):
            if took:
                break
            self.send(number)
            if self.wait(patience_s):
                took = signal.Signals(number).name
        deadline = time.monotonic() + 2.0
        while self.group_alive() and time.monotonic() < deadline:
            self.send(signal.SIGKILL)
            time.sleep(0.01)
        return took or "not even SIGKILL"

    def group_alive(self) -> bool:
        """Whether any process of its group still runs."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def shared_memory(self) -> set[Path]:
        """The FastDDS files in /dev/shm that it has mapped now."""
        return mapped_shared_memory(self.pid)


def mapped_shared_memory(pid: int) -> set[Path]:
    """FastDDS files in /dev/shm that a process has mapped; empty when it cannot be read."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    names = {Path(line.split()[5]) for line in lines if f"{SHARED_MEMORY}/" in line}
    return {name for name in names if "fastrtps_" in name.name}


def stale_shared_memory(files: set[Path]) -> set[Path]:
    """Those of `files` that are there although their owner is gone, with their companions.

    The owner holds a lock on `<file>_el`. A port's file may have found a new owner meanwhile:
    ports are numbered for the whole machine.
    """
    stale = set()
    for path in files:
        lock = path.with_name(f"{path.name}_el")
        if not _locked(lock):
            stale |= {path, lock, path.with_name(f"sem.{path.name}_mutex")}
    return {path for path in stale if path.exists()}


def remove_shared_memory(files: set[Path]) -> None:
    """Remove the stale ones of `files`; FastDDS does so itself unless their owner was killed."""
    for path in stale_shared_memory(files):
        path.unlink(missing_ok=True)


def _locked(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


# The supervisor's own node --------------------------------------------------------------------


class SpunNode:
    """`node` in the given ROS domain, spun until `close`.

    Args:
        name: of the node.
        domain_id: ROS domain.
        on_error: takes a sentence when a callback failed; the node lives on.
    """

    def __init__(self, name: str, domain_id: int, on_error: Callable[[str], None] = print):
        self.context = Context()
        rclpy.init(
            args=[],
            context=self.context,
            domain_id=domain_id,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self.node = Node(name, context=self.context, enable_rosout=False)
        self._on_error = on_error
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._ended.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.1)
            except Exception as error:  # one bad callback must not silence the others
                self._on_error(f"callback failed: {type(error).__name__}: {error}")

    def close(self) -> None:
        """End the thread, the node and the context."""
        self._ended.set()
        self._thread.join(timeout=10.0)
        self._executor.shutdown(timeout_sec=1.0)
        for action in list(self.node.waitables):  # rclpy does not destroy these with their node
            action.destroy()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
        self.context.destroy()  # or its shared memory would stay mapped here


# The graph ----------------------------------------------------------------------------------------


class GraphError(Exception):
    """The graph is broken; the text names the process, what happened and its last log lines."""


class RunningGraph:
    """The processes of a graph while the `with` block runs.

        with RunningGraph(sim_graph(...), log_dir="out/logs", domain_id=7) as graph:
            graph.wait_active(120.0)

    Args:
        specs: the graph, in order of activation.
        log_dir: one log file per process goes here.
        domain_id: ROS domain of the processes and of `node`.
        environment: added to this program's environment.
        timeouts: of the lifecycle transitions.
        on_progress: takes one sentence about what is happening.

    `node` is a ROS node in that domain, spun by a thread of its own: subscribe and call with it.
    """

    def __init__(
        self,
        specs: Sequence[NodeSpec],
        log_dir: Path | str,
        domain_id: int,
        environment: Mapping[str, str] | None = None,
        timeouts: Timeouts | None = None,
        on_progress: Callable[[str], None] = lambda sentence: None,
    ):
        self.specs = list(specs)
        check_graph(self.specs)
        self.log_dir = Path(log_dir)
        self.domain_id = domain_id
        self.processes: dict[str, NodeProcess] = {}
        self.shared_memory: set[Path] = set()
        self._environment = dict(environment or {})
        self._timeouts, self._on_progress = timeouts or Timeouts(), on_progress

    def __enter__(self) -> "RunningGraph":
        commands = [self._command(spec) for spec in self.specs]
        self._start_node()
        try:
            for spec, command in zip(self.specs, commands, strict=True):
                log_path = self.log_dir / f"{spec.name}.log"
                process = NodeProcess(spec.full_name, command, log_path, self._child_environment())
                self.processes[spec.name] = process
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def wait_active(self, timeout_s: float = 300.0) -> None:
        """Configure and activate every node, in order.

        Raises:
            GraphError: a process ended, a node refused, or it took longer than `timeout_s`.
        """
        self._deadline_s = time.monotonic() + timeout_s
        try:
            self.managed.bring_up()
        except TransitionError as failure:
            name = next(s.name for s in self.specs if s.full_name == failure.full_name)
            raise GraphError(self._with_log(str(failure), name)) from failure
        finally:
            self._deadline_s = None

    def check(self) -> None:
        """Raise GraphError when a process has ended that nobody ended with `kill`."""
        for name, process in self.processes.items():
            if process.ended and name not in self._killed:
                raise GraphError(self._with_log(f"{process.name} {process.ended}", name))
        if self._deadline_s is not None and time.monotonic() > self._deadline_s:
            states = ", ".join(f"{name} {state}" for name, state in self.managed.states.items())
            raise GraphError(f"the graph is not active in time ({states}); logs: {self.log_dir}")

    def wait_until(self, condition, timeout_s: float) -> bool:
        """Whether `condition()` became true in time. Raises GraphError when a process ends."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            self.check()
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.01)
        return True

    def call(self, service_type, name: str, request, timeout_s: float = 30.0):
        """The response of a service.

        Raises:
            GraphError: it is not offered or has not answered within `timeout_s`, or a process
                ended meanwhile.
        """
        client = self.node.create_client(service_type, name)
        try:
            if not self.wait_until(client.service_is_ready, timeout_s):
                raise GraphError(f"nobody offers {name}; is the node active?")
            future = client.call_async(request)
            if not self.wait_until(future.done, timeout_s):
                raise GraphError(f"{name} has not answered within {timeout_s:.0f} s")
            return future.result()
        finally:
            self.node.destroy_client(client)

    def reconfigure(self, name: str, **parameters) -> None:
        """Bring one node down, change its parameters, and bring it up again.

        Raises:
            GraphError: the node refused; the text says which step and why.
        """
        full_name = next(spec.full_name for spec in self.specs if spec.name == name)
        client = self.managed.clients[full_name]
        values = [
            Parameter(key, value=value).to_parameter_msg() for key, value in parameters.items()
        ]
        try:
            if client.state(self._timeouts.watch_s) == "active":
                client.change("deactivate", self._timeouts.deactivate_s)
            if client.state(self._timeouts.watch_s) == "inactive":
                client.change("cleanup", self._timeouts.deactivate_s)
            request = SetParameters.Request(parameters=values)
            for result in self.call(SetParameters, f"{full_name}/set_parameters", request).results:
                if not result.successful:
                    raise GraphError(f"{full_name} refused a parameter: {result.reason}")
            self.managed.bring_up()
        except TransitionError as failure:
            raise GraphError(self._with_log(str(failure), name)) from failure

    def states(self) -> dict[str, str]:
        """Lifecycle state of every managed node now, by name: "active", ... or "silent"."""
        return {
            spec.name: self.managed.clients[spec.full_name].state(self._timeouts.watch_s)
            or "silent"
            for spec in self.specs
            if spec.managed
        }

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to one process, for tests of faults; `check` then does not mind its end."""
        self.note_shared_memory()
        self._killed.add(name)
        self.processes[name].send(number)

    def note_shared_memory(self) -> None:
        """Remember what the processes have in /dev/shm now; `close` removes what they leave."""
        for process in self.processes.values():
            self.shared_memory |= process.shared_memory()

    def close(self) -> None:
        """End everything in reverse order: each node is deactivated, then its process ended."""
        self._deadline_s = None
        self.note_shared_memory()
        self._killed.update(self.processes)
        for process in self.processes.values():
            if process.ended:
                self.managed.dead[process.name] = process.ended
        try:
            for name, process in reversed(self.processes.items()):
                if self.managed.states.get(process.name) == "active":
                    for complaint in self.managed.deactivate([process.name]):
                        self._on_progress(complaint)
                took = process.end()
                if took not in ("SIGINT", "already ended"):
                    self._on_progress(f"{name} ended only on {took}")
        finally:  # a second Ctrl-C while ending must not leave a process behind either
            for process in self.processes.values():
                process.end(0.0, 0.0)
            self.shared_memory |= mapped_shared_memory(os.getpid())
            self._spun.close()
            remove_shared_memory(self.shared_memory)

    # Parts -------------------------------------------------------------------------------

    def _start_node(self) -> None:
        self.log_dir.mkdir(parents=True, exist_ok=True)
        self._killed: set[str] = set()
        self._deadline_s: float | None = None
        self._spun = SpunNode("supervisor", self.domain_id, self._on_progress)
        self.node = self._spun.node
        self.managed = ManagedNodes(
            self.node,
            [spec.full_name for spec in self.specs if spec.managed],
            self._timeouts,
            self._on_progress,
            self.check,
        )

    def _command(self, spec: NodeSpec) -> list[str]:
        try:
            executable = find_executable(spec.package, spec.executable)
        except FileNotFoundError as error:
            raise GraphError(str(error)) from error
        folder = self.log_dir / "parameters"
        folder.mkdir(parents=True, exist_ok=True)
        parameters = folder / f"{spec.name}.yaml"
        parameters.write_text(spec.parameter_file_text() if spec.parameters else "")
        given = parameters if spec.parameters else None
        return [str(executable), *spec.ros_arguments(given)]

    def _child_environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "ROS_DOMAIN_ID": str(self.domain_id),
            "ROS_LOG_DIR": str(self.log_dir / "ros"),
            "PYTHONUNBUFFERED": "1",
            "RCUTILS_COLORIZED_OUTPUT": "0",
            **self._environment,
        }

    def _with_log(self, sentence: str, name: str) -> str:
        process = self.processes[name]
        lines = process.last_lines() or "(it wrote nothing)"
        return f"{sentence}\nThe last lines of {process.log_path}:\n{lines}"
