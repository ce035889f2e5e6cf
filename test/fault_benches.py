"""Where the rows of the fault matrix run: a simulated Franka with a driver, or with a whole graph.

First what the robot itself commanded, judged tick by tick; then the benches; then what a row is.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from geometry_msgs.msg import Pose as PoseMsg
from graph_fixture import Watcher, simulation
from numpy.typing import NDArray
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import uninstall_signal_handlers
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from simulated_franka import SimulatedFranka
from std_msgs.msg import String
from std_srvs.srv import Trigger
from test_franka_driver import Lab, driver_arguments
from visualization_msgs.msg import Marker, MarkerArray

from spear_bringup.control.gate import Reason, Verdict
from spear_bringup.control.limits import Limits
from spear_bringup.graph import free_loopback_host
from spear_bringup.nodes.franka_driver import FrankaDriver
from spear_bringup.nodes.supervisor import NodeProcess
from spear_bringup.trials.recording import read_rows
from spear_msgs.msg import EndEffectorCommand, GateStatus
from spear_msgs.srv import EndTrial, StartTrial
from spear_policy.geometry import quaternions as quat
from spear_policy.nodes import messages as qos
from spear_policy.nodes.messages import pose_array, stamp_to_s

# What the robot commanded ------------------------------------------------------------------------

TICK_S = 0.001
# libfranka 0.21, rate_limiting.h, an FR3's Cartesian limits on the norm [m/s^2, rad/s^2].
FR3_ACCELERATIONS = (9.0, 17.0)
TOLERANCE = 1.02  # of a limit: second differences of poses, at 1 kHz
STILL_M_S, STILL_RAD_S = 1e-3, 5e-3


class Motion:
    """The robot's own commanded poses, 1000 a second.

    Args:
        rows: (n, 8) robot time [s], xyz [m], xyzw, as `SimulatedFranka.inject("write ...")` has it.
    """

    def __init__(self, rows: NDArray):
        self.times_s, self.positions_m = rows[:, 0], rows[:, 1:4]
        turns = quat.multiply(rows[1:, 4:], quat.inverse(rows[:-1, 4:]))
        self.linear_m_s = np.diff(self.positions_m, axis=0) / TICK_S
        self.angular_rad_s = quat.rotation_vector(turns) / TICK_S

    def until(self, robot_time_s: float) -> "Motion":
        """What came before a time of the robot."""
        part = object.__new__(Motion)
        count = max(int(np.searchsorted(self.times_s, robot_time_s)), 1)
        part.times_s, part.positions_m = self.times_s[:count], self.positions_m[:count]
        part.linear_m_s = self.linear_m_s[: count - 1]
        part.angular_rad_s = self.angular_rad_s[: count - 1]
        return part

    def moved_m(self, since_s: float) -> float:
        """Length of the way of the commanded position since a robot time."""
        after = self.times_s[1:] > since_s
        return float(np.sum(np.linalg.norm(self.linear_m_s[after], axis=1)) * TICK_S)

    def rest_s(self) -> float:
        """Robot time of the last motion; that of the first tick when there was none."""
        moving = (np.linalg.norm(self.linear_m_s, axis=1) > STILL_M_S) | (
            np.linalg.norm(self.angular_rad_s, axis=1) > STILL_RAD_S
        )
        return float(self.times_s[1:][moving][-1]) if moving.any() else float(self.times_s[0])

    def violations(self, limits: Limits, fault_s: float) -> list[str]:
        """Limits that the commanded pose broke: the worst value, for how long, when it began."""
        linear, angular = (
            np.linalg.norm(self.linear_m_s, axis=1),
            np.linalg.norm(self.angular_rad_s, axis=1),
        )
        accelerations = [
            np.linalg.norm(np.diff(speeds, axis=0), axis=1) / TICK_S
            for speeds in (self.linear_m_s, self.angular_rad_s)
        ]
        most_m_s2 = min(limits.max_linear_acceleration_m_s2, FR3_ACCELERATIONS[0])
        most_rad_s2 = min(limits.max_angular_acceleration_rad_s2, FR3_ACCELERATIONS[1])
        outside = np.maximum(
            np.subtract(limits.workspace_min_m, self.positions_m),
            np.subtract(self.positions_m, limits.workspace_max_m),
        )
        found = [
            ("speed [m/s]", linear, limits.max_linear_speed_m_s),
            ("rotation speed [rad/s]", angular, limits.max_angular_speed_rad_s),
            ("acceleration [m/s^2]", accelerations[0], most_m_s2),
            ("rotation acceleration [rad/s^2]", accelerations[1], most_rad_s2),
            ("distance outside the workspace [m]", outside.max(axis=1), 0.001),
        ]
        sentences = []
        for name, values, limit in found:
            broken = np.flatnonzero(values > TOLERANCE * limit)
            if len(broken):
                since_s = self.times_s[min(broken[0] + 1, len(self.times_s) - 1)] - fault_s
                sentences.append(
                    f"commanded {name} {np.max(values):.3g}, limit {limit:.3g}, "
                    f"for {len(broken)} ms from {since_s:+.3f} s on (the fault is at 0)"
                )
        return sentences


# The benches -------------------------------------------------------------------------------------

PATIENCE_S = 20.0  # of wall time, for what must happen
HELD, STOPPED = GateStatus.VERDICT_HELD, GateStatus.VERDICT_STOPPED


@dataclass(frozen=True)
class Fault:
    """The moment of a fault: robot time and steady time [s], and how many verdicts came before."""

    robot_s: float
    steady_s: float
    verdicts: int


class Bench:
    """A simulated robot and who drives it; subclasses start that in `_open`, end it in `_close`.

    Attributes:
        robot: takes orders (`SimulatedFranka.inject`).
        verdicts: (steady time of arrival, GateStatus), newest last.
        fault: of the row that runs; None before it.
        limits: of the driver.
    """

    limits = Limits()

    def __init__(self, domain: int):
        self.domain, self.host = domain, free_loopback_host()
        self.robot = SimulatedFranka(self.host, clock=True)
        self.verdicts: list[tuple[float, GateStatus]] = []
        self.fault: Fault | None = None
        self.seen_s: float | None = None  # set by a row that looks for more than a verdict
        self.clock_jump_s = 0.0
        self.spoiled = False  # the next row needs a new bench
        self._endings: list[Callable[[], object]] = []

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="spear_faults_")
        self.folder = Path(self._folder.name)
        self.robot.__enter__()
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        try:
            self.robot.thaw()
            self._close()
        finally:
            self.robot.__exit__()
            with suppress(OSError):
                self._folder.cleanup()

    def _listen(self, node) -> None:
        def take(gate: GateStatus) -> None:
            self.verdicts.append((time.monotonic(), gate))

        node.create_subscription(GateStatus, "gate_status", take, qos.LATCHED)
        node.create_subscription(
            EndEffectorCommand, "command", lambda command: take(command.gate), qos.EVENT
        )

    def begin(self) -> None:
        """Before a run of a row."""
        self.fault, self.seen_s = None, None

    def end(self) -> None:
        """After a run: take back what the row has done to the robot and the graph."""
        endings, self._endings = self._endings, []
        for ending in reversed(endings):
            try:
                ending()
            except Exception:
                self.spoiled = True

    # For rows ----------------------------------------------------------------------------

    def on_end(self, ending: Callable[[], object]) -> None:
        """Call this when the run is over, however it ends."""
        self._endings.append(ending)

    def until(self, condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S):
        """The first true value of `condition()`; the row fails with `what` when none comes."""
        end_s = time.monotonic() + patience_s
        while not (value := condition()):
            if time.monotonic() > end_s:
                raise AssertionError(f"{what} did not come; the driver said: {self.said()}")
            time.sleep(0.002)
        return value

    def let(self, seconds: float) -> None:
        """Let the robot's time pass."""
        goal_s = self.robot.inject("time") + seconds
        while (left_s := goal_s - self.robot.inject("time")) > 0.0:
            time.sleep(max(left_s, 0.002))

    def said(self) -> str:
        """The newest verdict."""
        if not self.verdicts:
            return "nothing"
        gate = self.verdicts[-1][1]
        return f"{words(gate)}: {gate.text}"

    def inject(self, order: str | Callable[[], object] = "time") -> object:
        """Mark the fault and bring it about: by an order to the robot, or by a function."""
        verdicts = len(self.verdicts)
        if callable(order):
            self.fault = Fault(self.robot.inject("time"), time.monotonic(), verdicts)
            return order()
        steady_s = time.monotonic()
        self.fault = Fault(self.robot.inject(order), steady_s, verdicts)
        return None

    def found(self) -> None:
        """The fault was noticed by now; for rows that look for more than a verdict."""
        self.seen_s = self.robot.inject("time") - self.fault.robot_s

    def jump_clock(self, seconds: float) -> None:
        """Let /clock jump; the fault of the row."""
        self.clock_jump_s += seconds
        self.inject(f"clock_jump {seconds}")

    def robot_time_s(self, gate: GateStatus) -> float:
        """Robot time of a verdict."""
        return stamp_to_s(gate.header.stamp) - self.robot.clock_start_s - self.clock_jump_s

    def record(self) -> None:
        """Begin to record the robot's commanded pose."""
        self.robot.inject("record")

    def motion(self) -> Motion:
        """What was recorded."""
        path = self.folder / "motion.npy"
        self.robot.inject(f"write {path}")
        return Motion(np.load(path))


class DriverBench(Bench):
    """The driver node in this process, a robot, and a lab that sends the chunks itself."""

    parameters = {
        "robot_timeout_s": 1.0,
        "max_future_s": 0.2,
        "clock_stall_timeout_s": 1.0,
        "max_receive_age_s": 0.2,
        "max_chunk_age_s": 0.8,
    }

    def _open(self) -> None:
        self.lab, self.node = Lab(), None
        uninstall_signal_handlers()  # Ctrl-C is for the program: rclpy would close the context
        self._listen(self.lab.node)
        arguments = driver_arguments(robot_host=self.host, **self.parameters)
        self.node = FrankaDriver(arguments)
        self.node.start_threads()
        self.session_calls(self.node.trigger_configure, self.node.trigger_activate)
        self.until(self.lab.matched, "the driver's first messages")

    def session_calls(self, *transitions) -> None:
        """Make lifecycle transitions of the driver."""
        for transition in transitions:
            if transition() is not TransitionCallbackReturn.SUCCESS:
                raise AssertionError("the driver refused a transition; see its log above")

    def _close(self) -> None:
        if self.node is not None:
            self.node.close()
        self.lab.close()

    def ready(self) -> None:
        """An active driver without a latch, the arm at rest and near home."""
        self.until(lambda: self.lab.call("recover").success, "a recovery")
        if np.linalg.norm(self.lab.pose.position_m - (0.45, 0.0, 0.38)) > 0.12:
            self.until(lambda: self.lab.call("home").success, "the way home")
        self.until(self.lab.at_rest, "rest")

    def send(self, message):
        """Publish a chunk; the command that answers it."""
        self.lab._chunks.publish(message)
        return self.until(lambda: self.lab._answer(message), "an answer to a chunk")

    def start_motion(self, speed_m_s: float = 0.08) -> NDArray:
        """Set the arm in motion along x, towards the middle, and wait until it is under way.

        Returns where the path ends, (3,) [m].
        """
        start_m = self.lab.pose.position_m
        way_m = speed_m_s if start_m[0] < 0.45 else -speed_m_s
        while True:
            command = self.send(self.lab.chunk((way_m, 0.0, 0.0)))
            if command.gate.reason != GateStatus.REASON_LATE:
                break
        assert command.gate.verdict <= GateStatus.VERDICT_CLAMPED, self.said()
        self.until(lambda: np.linalg.norm(self.lab.pose.position_m - start_m) > 0.015, "the motion")
        return pose_array(command.knots[-1])[:3]


class QuickDriverBench(DriverBench):
    """The same with the silence that a robot of metal is allowed."""

    parameters = {**DriverBench.parameters, "robot_timeout_s": 0.1}


SIZE = 64, 48  # of the pictures, width and height
OBJECTS = {"red cube": ((0.5, 0.12, 0.02), 0.04), "plate": ((0.5, -0.12, 0.007), 0.15)}
INSTRUCTION, OTHER_INSTRUCTION = "put the red cube on the plate", "put the plate on the red cube"


class GraphBench(Bench):
    """Driver, policy and recorder as processes of their own; the lab plays cameras and scene."""

    def _open(self) -> None:
        self.cameras = {"external", "wrist"}  # those that publish
        self.frozen, self.encoding = False, "rgb8"  # of the external camera
        self._image_due_s, self._number = 0.0, 0
        self.graph = simulation(
            self.folder,
            self.domain,
            only=("franka_driver", "policy", "trial_recorder"),
            parameters={"policy": {"startup_timeout_s": 15.0}},
            record=True,
            host=self.host,
        )
        self.graph.__enter__()
        node = self.graph.node
        self._listen(node)
        self._images = {
            name: node.create_publisher(Image, f"{name}/image_raw", qos.SENSOR)
            for name in self.cameras
        }
        self._objects = node.create_publisher(MarkerArray, "sim_world/objects", qos.EVENT)
        self._instructions = node.create_publisher(String, "instruction", qos.LATCHED)
        node.create_subscription(Clock, "/clock", self._on_clock, qos.SENSOR)
        self.watcher = Watcher(self.graph)
        self.graph.wait_active(120.0)
        self.until(lambda: self.watcher.states and self.watcher.policy, "the first messages")

    def _close(self) -> None:
        self.graph.close()

    def _on_clock(self, clock: Clock) -> None:
        now_s = stamp_to_s(clock.clock)
        if now_s < self._image_due_s and self._image_due_s - now_s < 0.1:
            return
        self._image_due_s = now_s + 1 / 15
        if not self.frozen:
            self._number += 1
        width, height = SIZE
        picture = np.random.default_rng(self._number).integers(0, 255, (height, width, 3))
        for name in sorted(self.cameras):
            encoding = self.encoding if name == "external" else "rgb8"
            pixels = picture.astype(np.uint8) if encoding == "rgb8" else picture[..., 0] * 9
            image = Image(height=height, width=width, encoding=encoding)
            image.header.stamp = clock.clock
            image.data.frombytes(
                (pixels if pixels.ndim == 3 else pixels.astype(np.uint16)).tobytes()
            )
            image.step = len(image.data) // height
            self._images[name].publish(image)
        markers = MarkerArray()
        for name, (place, size_m) in OBJECTS.items():
            marker = Marker(ns=name, pose=PoseMsg())
            marker.header.stamp, marker.header.frame_id = clock.clock, "franka_base"
            marker.pose.position.x, marker.pose.position.y, marker.pose.position.z = place
            marker.scale.x = marker.scale.y = marker.scale.z = size_m
            markers.markers.append(marker)
        self._objects.publish(markers)

    def ready(self) -> None:
        """Every node active, no instruction, the arm at home."""
        self.cameras, self.frozen = {"external", "wrist"}, False
        self.instruct("")
        for service in ("recover", "home"):
            self.until(
                lambda service=service: (
                    self.graph.call(
                        Trigger, f"franka_driver/{service}", Trigger.Request(), PATIENCE_S
                    ).success
                ),
                service,
            )

    def instruct(self, text: str) -> None:
        """A person gives an instruction, or takes it back with an empty one."""
        self._instructions.publish(String(data=text))

    def start_motion(self) -> None:
        """Have the policy move the arm, and wait until it is under way."""
        start_m = self.position_m
        self.instruct(INSTRUCTION)
        self.until(lambda: np.linalg.norm(self.position_m - start_m) > 0.03, "the motion")

    def restart(self, name: str) -> None:
        """A new process for a node that was killed, brought up."""
        graph = self.graph
        spec = next(spec for spec in graph.specs if spec.name == name)
        graph.processes[name].wait(PATIENCE_S)
        graph.processes[name] = NodeProcess(
            spec.full_name,
            graph._command(spec),
            graph.log_dir / f"{name}_again.log",
            graph._child_environment(),
        )
        graph._killed.discard(name)
        graph.managed.dead.pop(spec.full_name, None)
        client = graph.managed.clients[spec.full_name]
        # The killed process is shown for a while yet, and answers nothing.
        self.until(lambda: client.state(1.0) == "unconfigured", f"the new {name}")
        graph.managed.bring_up()

    def start_trial(self) -> Path:
        """Have the recorder begin a trial; its bag."""
        request = StartTrial.Request(instruction=INSTRUCTION, seed=0)
        answer = self.graph.call(StartTrial, "start_trial", request, PATIENCE_S)
        assert answer.success, answer.message
        self.on_end(self._end_trial)
        return Path(answer.bag)

    def _end_trial(self) -> None:
        self.graph.call(EndTrial, "end_trial", EndTrial.Request(score=float("nan")), PATIENCE_S)

    def row_of(self, bag: Path):
        """The row of a trial on the score sheet; None before it is there."""
        rows, _ = read_rows(bag.parents[1] / "scores.jsonl")
        return next((row for row in rows if row.trial_id == bag.name), None)

    @property
    def position_m(self) -> NDArray:
        """Where the end effector is."""
        return pose_array(self.watcher.states[-1].measured)[:3]


def words(gate: GateStatus) -> str:
    """Verdict and reason by their names, such as "HELD CHUNK_TIMEOUT"."""
    return f"{Verdict(gate.verdict).name} {Reason(gate.reason).name}"


# The rows: what goes wrong, what must follow, and within which time ----------------------------

STOPPING_S = 0.4  # what a stop may take at most


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        name: unique, and `injected` how it is brought about: both stand in the table.
        bench: a key of BENCHES.
        expected: verdict and reason of the gate, such as "HELD CHUNK_TIMEOUT"; "" when the row
            itself looks for what must happen.
        deadline_s: from the fault to that verdict.
        motion: "stops" (at rest STOPPING_S after the deadline), "unmoved" (does not move at all),
            "ends" (the path under way ends at rest by itself within 2 s) or "goes on".
        clock: "simulated", or "steady" where the fault stops simulated time itself.
        until_fault: limits are judged up to the fault only: what follows is the robot's own stop,
            which franky-sim makes in no time.
        run: brings it about.
    """

    name: str
    injected: str
    bench: str
    expected: str
    deadline_s: float
    motion: str
    clock: str
    until_fault: bool
    run: Callable[[Bench], None]


@contextmanager
def busy(count: int):
    """Processes that want a core each."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


ROWS: list[Row] = []


def row(
    name,
    injected,
    bench,
    expected,
    deadline_s,
    motion="stops",
    clock="simulated",
    until_fault=False,
):
    """Make a function that brings a fault about a row."""

    def add(run):
        ROWS.append(
            Row(name, injected, bench, expected, deadline_s, motion, clock, until_fault, run)
        )
        return run

    return add


BENCHES = {"arm": DriverBench, "arm at 0.1 s": QuickDriverBench, "graph": GraphBench}
os.environ.setdefault("OMP_NUM_THREADS", "1")
