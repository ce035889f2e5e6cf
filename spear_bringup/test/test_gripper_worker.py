"""A gripper may block, refuse or vanish; whoever gives it orders never waits for it."""

import threading
import time
from types import SimpleNamespace

import pytest
from point_arm import until

from spear_bringup.drivers import gripper_worker
from spear_bringup.drivers.gripper_worker import GripperWorker
from spear_bringup.drivers.protocol import FaultKind, RobotError


class SlowGripper:
    """Fingers that move when commanded, and block while `gate` is closed."""

    max_width_m = 0.08

    def __init__(self, reads_while_moving=False):
        self.reads_while_moving = reads_while_moving
        self.gate = threading.Event()
        self.gate.set()
        self.calls, self.ended = [], 0
        self.width = 0.08
        self.object_m = 0.0
        self.broken = None
        self.connected = self.stops = 0

    def connect(self):
        self.connected += 1
        self.broken = None

    def disconnect(self):
        pass

    def open(self):
        self._move("open", self.max_width_m)

    def close(self):
        self._move("close", self.object_m)

    def stop(self):
        self.stops += 1

    def width_m(self):
        if self.broken is not None:
            raise self.broken
        return self.width

    def _move(self, name, width):
        self.calls.append(name)
        self.gate.wait(120.0)
        self.ended += 1
        if self.broken is not None:
            raise self.broken
        self.width = width


@pytest.fixture
def start():
    """Start a worker on a gripper; it is closed after the test."""
    workers = []

    def start(gripper, **settings):
        settings = {"min_dwell_s": 0.0, "read_period_s": 0.005, **settings}
        worker = GripperWorker(gripper, **settings)
        worker.start()
        workers.append((worker, gripper))
        return worker

    yield start
    for worker, gripper in workers:
        gripper.gate.set()
        worker.close()


def test_a_blocked_gripper_never_blocks_its_caller(start):
    gripper = SlowGripper()
    worker = start(gripper, stuck_after_s=0.2)
    gripper.gate.clear()
    worker.request(0.0)
    until(lambda: gripper.calls == ["close"])
    for i in range(200):
        worker.request(i % 2)
        assert worker.report.busy_s > 0.0
        time.sleep(0.001)
    assert gripper.calls == ["close"] and gripper.ended == 0, "the caller waited for the gripper"


def test_a_stuck_command_is_reported_as_a_fault_and_the_fault_goes_when_it_ends(start):
    gripper = SlowGripper()
    worker = start(gripper, stuck_after_s=0.1)
    gripper.gate.clear()
    worker.request(0.0)
    until(lambda: worker.report.fault is not None)
    assert "has not answered" in worker.report.fault
    assert worker.report.busy_s > 0.1
    gripper.gate.set()
    until(lambda: worker.report.fault is None and worker.report.busy_s == 0.0)


def test_the_newest_request_wins_and_older_ones_are_dropped(start):
    gripper = SlowGripper()
    worker = start(gripper)
    gripper.gate.clear()
    worker.request(0.0)
    until(lambda: gripper.calls == ["close"])
    for opening in (1.0, 0.0, 1.0, 0.0, 1.0):
        worker.request(opening)
    gripper.gate.set()
    until(lambda: len(gripper.calls) > 1)
    until(lambda: worker.report.width_m == gripper.max_width_m and worker.report.busy_s == 0.0)
    assert gripper.calls == ["close", "open"]


def test_a_request_taken_back_during_a_command_is_not_carried_out(start):
    gripper = SlowGripper()
    worker = start(gripper)
    gripper.gate.clear()
    worker.request(0.0)
    until(lambda: gripper.calls == ["close"])
    worker.request(1.0)
    worker.request(0.0)
    gripper.gate.set()
    until(lambda: worker.report.busy_s == 0.0 and worker.report.width_m == 0.0)
    time.sleep(0.05)
    assert gripper.calls == ["close"]


def test_repeating_a_request_gives_one_command(start):
    gripper = SlowGripper()
    worker = start(gripper)
    for _ in range(50):
        worker.request(0.0)
        time.sleep(0.001)
    until(lambda: worker.report.width_m == 0.0)
    assert gripper.calls == ["close"]


def test_two_commands_start_at_least_the_dwell_time_apart(start, monkeypatch):
    clock = SimpleNamespace(now_s=100.0, sleep=time.sleep)
    clock.monotonic = lambda: clock.now_s
    monkeypatch.setattr(gripper_worker, "time", clock)
    gripper = SlowGripper()
    worker = start(gripper, min_dwell_s=0.15)
    worker.request(0.0)
    until(lambda: gripper.calls == ["close"])
    worker.request(1.0)
    clock.now_s = 100.149
    time.sleep(0.05)  # the worker looks several times
    assert gripper.calls == ["close"]
    clock.now_s = 100.151
    until(lambda: gripper.calls == ["close", "open"])


@pytest.mark.parametrize(("object_m", "holding"), [(0.04, True), (0.0, False), (0.003, False)])
def test_holding_follows_from_the_width_after_closing(start, object_m, holding):
    gripper = SlowGripper()
    gripper.object_m = object_m
    worker = start(gripper)
    worker.request(0.0)
    until(lambda: worker.report.width_m == object_m)
    assert worker.report.holding is holding
    gripper.width = 0.0  # what was held slips out
    until(lambda: worker.report.width_m == 0.0)
    assert worker.report.holding is False
    worker.request(1.0)
    until(lambda: worker.report.opening == 1.0)
    assert worker.report.holding is False


def test_the_width_is_followed_during_a_command_where_the_gripper_allows_it(start):
    gripper = SlowGripper(reads_while_moving=True)
    worker = start(gripper)
    gripper.gate.clear()
    worker.request(0.0)
    until(lambda: gripper.calls == ["close"])
    gripper.width = 0.05
    until(lambda: worker.report.width_m == 0.05)
    assert worker.report.busy_s > 0.0
    assert worker.report.opening == pytest.approx(0.05 / 0.08)


def test_a_refused_command_is_reported_and_not_repeated_until_recover(start):
    gripper = SlowGripper()
    worker = start(gripper)
    gripper.broken = RobotError(FaultKind.MODE, "the gripper did not close; home it in Desk")
    worker.request(0.0)
    until(lambda: worker.report.fault is not None)
    assert "home it" in worker.report.fault
    until(lambda: gripper.ended == 1)  # the fault may have come from reading the width
    until(lambda: worker.report.busy_s == 0.0)
    time.sleep(0.05)
    assert gripper.calls == ["close"]
    worker.recover()
    assert gripper.connected == 1
    until(lambda: gripper.calls == ["close", "close"] and worker.report.width_m == 0.0)
    assert worker.report.fault is None


def test_closing_the_worker_does_not_wait_for_a_stuck_gripper(start):
    gripper = SlowGripper()
    worker = start(gripper)
    gripper.gate.clear()
    worker.request(0.0)
    until(lambda: gripper.calls == ["close"])
    worker.close(timeout_s=0.2)
    assert gripper.ended == 0


@pytest.mark.parametrize("reads_while_moving", [False, True])
def test_a_command_that_never_returns_is_given_up_by_a_recovery(start, reads_while_moving):
    gripper = SlowGripper(reads_while_moving)
    worker = start(gripper, stuck_after_s=0.1)
    stuck = gripper.gate = threading.Event()
    worker.request(0.0)
    until(lambda: worker.report.fault is not None)
    gripper.gate = threading.Event()  # the command after it returns
    gripper.gate.set()
    worker.recover()
    assert gripper.stops == 1
    until(lambda: gripper.calls == ["close", "close"] and worker.report.width_m == 0.0)
    assert worker.report.fault is None
    worker.request(1.0)
    until(lambda: worker.report.opening == 1.0)
    stuck.set()  # the old one comes back at last, and changes nothing
    until(lambda: gripper.ended == 3)
    time.sleep(0.02)
    assert worker.report.fault is None and worker.report.busy_s == 0.0
    gripper.width = 0.08
    worker.request(0.0)
    until(lambda: gripper.calls[-1] == "close" and worker.report.width_m == 0.0)
