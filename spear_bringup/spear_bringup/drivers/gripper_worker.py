"""A gripper on threads of its own: its calls may block for seconds, its callers never do."""

import threading
import time
from dataclasses import dataclass, replace

from spear_bringup.drivers.protocol import Gripper, RobotError

_LAST_CHANCE_S = 0.3  # for a stopped command to return


@dataclass(frozen=True)
class GripperReport:
    """What is known of the gripper now.

    Attributes:
        width_m: distance between the fingers; opening: the same over the largest width, 0..1.
        holding: it has closed and something keeps the fingers apart.
        busy_s: for how long the running command has been under way; 0.0 when there is none.
        fault: what is wrong, in a sentence; None when nothing is.
    """

    width_m: float = 0.0
    opening: float = 0.0
    holding: bool = False
    busy_s: float = 0.0
    fault: str | None = None


class GripperWorker:
    """Runs the newest requested opening; one that comes during a command replaces older ones.

    Args:
        gripper: what to drive; connected by the caller.
        min_dwell_s: least steady time between the starts of two commands.
        holding_width_m: fingers further apart than this after closing hold something.
        read_period_s: between two readings of the width.
        stuck_after_s: a command that runs for longer is reported as a fault.
    """

    def __init__(
        self,
        gripper: Gripper,
        min_dwell_s: float = 0.5,
        holding_width_m: float = 0.005,
        read_period_s: float = 0.05,
        stuck_after_s: float = 4.0,
    ):
        self._gripper = gripper
        self._min_dwell_s, self._holding_width_m = min_dwell_s, holding_width_m
        self._read_period_s, self._stuck_after_s = read_period_s, stuck_after_s
        self._condition = threading.Condition()
        # Openings as bools, True is open: asked for, reached by the last command, refused by it.
        self._requested: bool | None = None
        self._reached: bool | None = None
        self._refused: bool | None = None
        self._began_s: float | None = None
        self._next_s = 0.0
        self._report = GripperReport()
        self._closing = False
        self._threads: list[threading.Thread] = []
        self._generation = 0  # of the threads; one that was replaced leaves everything alone

    def start(self) -> None:
        """Read the width once, then serve. Raises RobotError when the gripper does not answer."""
        self._closing = False
        self._read()
        self._start_threads()

    def _start_threads(self) -> None:
        self._generation += 1
        generation = self._generation
        # A gripper that can be read during a command gets a thread for it, so that the reported
        # width follows the fingers; others are read between commands.
        reads_apart = self._gripper.reads_while_moving
        loops = [lambda: self._work(generation, reads=not reads_apart)]
        if reads_apart:
            loops.append(lambda: self._keep_reading(generation))
        self._threads = [
            threading.Thread(target=loop, name="gripper", daemon=True) for loop in loops
        ]
        for thread in self._threads:
            thread.start()

    def close(self, timeout_s: float = 1.0) -> None:
        """End the threads and let go of the gripper; a thread stuck in a call is left behind."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join(timeout_s)
        self._threads = []
        self._gripper.disconnect()

    def request(self, opening: float) -> None:
        """Open (>= 0.5) or close; returns at once. Repeating a request costs nothing."""
        requested = opening >= 0.5
        with self._condition:
            if requested != self._requested:
                self._requested, self._refused = requested, None
                self._condition.notify_all()

    def recover(self) -> None:
        """Stop the fingers, reconnect if need be, try the request again: a person has fixed it.

        A command that does not return even then is left behind with its thread, for a new one.
        Raises RobotError when the gripper still does not answer.
        """
        stuck = self.report.busy_s > self._stuck_after_s
        try:
            if stuck:
                self._gripper.stop()
            self._gripper.width_m()
        except RobotError:
            self._gripper.connect()
        with self._condition:
            if stuck and not self._condition.wait_for(self._idle, timeout=_LAST_CHANCE_S):
                self._began_s = self._reached = None
                self._start_threads()
            self._refused = None
            self._report = replace(self._report, fault=None)
            self._condition.notify_all()

    def _idle(self) -> bool:
        return self._began_s is None

    @property
    def report(self) -> GripperReport:
        """The newest state; never waits for the gripper."""
        with self._condition:
            report, began_s = self._report, self._began_s
        if began_s is None:
            return report
        busy_s = time.monotonic() - began_s
        if busy_s > self._stuck_after_s and report.fault is None:
            text = f"the gripper has not answered for {busy_s:.0f} s; look at it"
            return replace(report, busy_s=busy_s, fault=f"{text}, then call ~/recover")
        return replace(report, busy_s=busy_s)

    def _work(self, generation: int, reads: bool) -> None:
        while True:
            with self._condition:
                if not self._closing and not self._due():
                    self._condition.wait(self._read_period_s)
                if self._closing or generation != self._generation:
                    return
                requested = self._requested if self._due() else None
                if requested is not None:
                    self._began_s = time.monotonic()
                    self._next_s = self._began_s + self._min_dwell_s
                    self._reached = None
            if requested is not None:
                self._command(requested, generation)
            elif reads:
                self._try_read()

    def _due(self) -> bool:
        """Whether a command waits for its time. Hold the condition."""
        if self._requested is None or self._requested in (self._reached, self._refused):
            return False
        return time.monotonic() >= self._next_s

    def _command(self, requested: bool, generation: int) -> None:
        fault = None
        try:
            (self._gripper.open if requested else self._gripper.close)()
        except RobotError as error:
            fault = str(error)
        with self._condition:
            if generation != self._generation:
                return  # it came back after a recovery had given it up
            self._began_s = None
            self._condition.notify_all()
            self._reached = requested if fault is None else None
            self._refused = requested if fault is not None else None
            self._report = replace(self._report, fault=fault)
        self._try_read()

    def _keep_reading(self, generation: int) -> None:
        while not self._closing and generation == self._generation:
            self._try_read()
            time.sleep(self._read_period_s)

    def _try_read(self) -> None:
        try:
            self._read()
        except RobotError as error:
            with self._condition:
                self._report = replace(self._report, fault=str(error))

    def _read(self) -> None:
        width_m = self._gripper.width_m()
        opening = min(max(width_m / self._gripper.max_width_m, 0.0), 1.0)
        with self._condition:
            closed = self._reached is False
            holding = closed and width_m > self._holding_width_m
            self._report = replace(self._report, width_m=width_m, opening=opening, holding=holding)
