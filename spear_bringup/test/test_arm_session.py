"""What a driver does with chunks, faults, silence, clocks and a bad gripper; the arm is a point."""

import threading
import time

import numpy as np
import pytest
from point_arm import START, Driver, assert_noticed_in_time, until

from spear_bringup.control.command_core import CommandCore
from spear_bringup.control.gate import Reason, Verdict
from spear_bringup.control.limits import Limits, Timing
from spear_bringup.drivers.clocks import Heartbeat
from spear_bringup.drivers.gripper_worker import GripperWorker
from spear_bringup.drivers.homing import HomingError, go_home
from spear_bringup.drivers.protocol import FaultKind, RobotError


@pytest.fixture
def drive():
    """Make drivers that are closed after the test."""
    drivers = []

    def drive(active=True, **settings):
        drivers.append(Driver(**settings))
        if active:
            drivers[-1].session.activate()
        return drivers[-1]

    yield drive
    for driver in drivers:
        driver.arm.silent = False
        driver.session.close()


def test_a_good_chunk_moves_the_arm_and_is_reported(drive):
    driver = drive()
    assert driver.chunk((0.05, 0.0, 0.0)).moves
    until(lambda: driver.place[0] > START[0] + 0.049)
    moving = [row for row in driver.decisions if row[0].path is not None]
    decision, about_chunk, sample = moving[0]
    assert about_chunk and len(moving) == 1
    assert decision.gate.source_id == "test"
    assert np.allclose(sample.state.measured.position_m, START)


def test_an_inactive_driver_holds_chunks_and_sends_nothing(drive):
    driver = drive(active=False)
    assert driver.chunk().reason is Reason.NOT_ACTIVE
    assert driver.arm.sent == []
    driver.session.activate()
    assert driver.chunk().moves


def test_deactivation_stops_the_arm(drive):
    driver = drive()
    driver.chunk((0.08, 0.0, 0.0), dt_s=0.3)
    until(lambda: driver.place[0] > START[0] + 0.01)
    driver.session.deactivate()
    assert driver.arm.stops
    assert driver.judged() == (Verdict.HELD, Reason.NOT_ACTIVE)
    assert not driver.chunk().moves


def test_when_chunks_end_a_stop_is_commanded_and_a_good_chunk_resumes(drive):
    driver = drive()
    driver.chunk((0.02, 0.0, 0.0))
    until(lambda: driver.judged() == (Verdict.HELD, Reason.CHUNK_TIMEOUT))
    assert driver.arm.stops
    assert driver.chunk((0.02, 0.0, 0.0)).moves


@pytest.mark.parametrize("moving", [False, True])
def test_a_silent_robot_is_lost_within_its_timeout_and_back_only_by_recover(drive, moving):
    driver = drive(robot_timeout_s=0.1)
    until(lambda: len(driver.samples) > 20)
    driver.session.recover()  # a starved test machine may have been silent already
    if moving:
        driver.chunk((0.05, 0.0, 0.0), dt_s=0.3)
    driver.arm.silent = True
    until(lambda: driver.session.core.latched is not None)
    assert driver.judged() == (Verdict.STOPPED, Reason.ROBOT_LOST)
    assert_noticed_in_time(driver.session)
    driver.arm.silent = False
    driver.session.watchdog.timeout_s = 20.0  # from here on a starved machine is no lost robot
    seen = len(driver.samples)
    until(lambda: len(driver.samples) > seen + 5)
    assert driver.chunk().verdict is Verdict.STOPPED, "it came back without a person"
    driver.session.recover()
    assert driver.chunk((0.01, 0.0, 0.0)).moves


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (FaultKind.NETWORK, Reason.ROBOT_LOST),
        (FaultKind.REFLEX, Reason.ROBOT_REFLEX),
        (FaultKind.PLANNER, Reason.ROBOT_PLANNER),
        (FaultKind.MODE, Reason.ROBOT_MODE),
    ],
)
def test_each_fault_of_the_robot_latches_with_its_own_reason(drive, kind, reason):
    driver = drive()
    driver.arm.refusal = RobotError(kind, "the arm is tired")
    until(lambda: driver.session.core.latched is not None)
    assert driver.judged() == (Verdict.STOPPED, reason)
    assert "the arm is tired" in driver.session.gate.text
    assert "~/recover" in driver.session.gate.text
    with pytest.raises(RobotError, match="tired"):
        driver.session.recover()
    assert driver.session.core.latched is not None
    driver.arm.refusal = None
    driver.session.recover()
    assert driver.chunk((0.01, 0.0, 0.0)).moves


def test_a_person_s_stop_latches_at_once(drive):
    driver = drive()
    driver.chunk((0.05, 0.0, 0.0), dt_s=0.3)
    stops = driver.arm.stops
    driver.session.stop("a person called ~/stop")
    until(lambda: driver.arm.stops > stops)
    assert driver.judged() == (Verdict.STOPPED, Reason.STOP_REQUESTED)
    assert driver.chunk().verdict is Verdict.STOPPED
    with pytest.raises(RobotError, match="recover"):
        driver.session.activate()


def test_a_malformed_message_is_rejected_with_its_ids(drive):
    driver = drive()
    driver.session.refuse("someone", 7, "header.frame_id is 'map'")
    decision = until(
        lambda: next((made for made, about_chunk, _ in driver.decisions if about_chunk), None)
    )
    assert decision.gate.reason is Reason.MALFORMED
    assert (decision.gate.source_id, decision.gate.chunk_id) == ("someone", 7)
    assert driver.session.core.counts[Verdict.REJECTED] == 1


def test_a_clock_that_stalls_under_simulated_time_holds_the_arm_once(drive):
    clock = {"now_s": 50.0, "runs": True}
    began_s = time.monotonic()

    def now_s():
        if clock["runs"]:
            clock["now_s"] = 50.0 + time.monotonic() - began_s
        return clock["now_s"]

    driver = drive(simulated_time=True, now_s=now_s, clock_stall_timeout_s=0.2)
    driver.chunk((0.08, 0.0, 0.0), dt_s=0.5)
    clock["runs"] = False
    until(lambda: driver.judged() == (Verdict.HELD, Reason.CLOCK_FAULT))
    assert driver.arm.stops == 2  # one on activation, one before this was reported
    time.sleep(0.3)
    faults = [row for row in driver.decisions if row[0].gate.reason is Reason.CLOCK_FAULT]
    assert len(faults) == 1
    clock["runs"] = True
    until(lambda: driver.chunk((0.01, 0.0, 0.0)).moves)


def test_a_thread_of_the_driver_that_breaks_latches_the_arm(drive, monkeypatch):
    driver = drive()
    driver.chunk((0.05, 0.0, 0.0), dt_s=0.3)

    def broken(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(driver.session.core, "tick", broken)
    until(lambda: driver.session.core.latched is not None)
    assert "a bug" in driver.session.gate.text
    until(lambda: driver.arm.stops > 1)
    assert driver.chunk().verdict is Verdict.STOPPED


def test_a_call_into_the_arm_that_never_returns_is_a_lost_robot_and_blocks_nobody(
    drive, monkeypatch
):
    driver = drive()
    monkeypatch.setattr("spear_bringup.drivers.arm_session._CALL_TIMEOUT_S", 0.2)
    let_go = threading.Event()
    monkeypatch.setattr(driver.arm, "send", lambda path: let_go.wait(120.0))
    threading.Thread(target=driver.chunk, daemon=True).start()
    until(lambda: driver.session.core.latched is not None)
    assert driver.judged() == (Verdict.STOPPED, Reason.ROBOT_LOST)
    driver.session.deactivate()
    let_go.set()
    until(lambda: driver.arm.stops > 1)


def test_a_latch_that_comes_while_a_path_is_sent_is_what_is_reported_and_stops_the_arm(
    drive, monkeypatch
):
    driver = drive()

    def send(path, send=driver.arm.send):
        send(path)
        driver.session.stop("a person called ~/stop")  # the age thread may come here too

    monkeypatch.setattr(driver.arm, "send", send)
    stops = driver.arm.stops
    assert driver.chunk().verdict is Verdict.STOPPED
    assert driver.judged() == (Verdict.STOPPED, Reason.STOP_REQUESTED)
    until(lambda: driver.arm.stops > stops)
    sent = [decision for decision, about_chunk, _ in driver.decisions if about_chunk][-1]
    assert sent.path is not None, "what was sent before the latch is on record"
    assert driver.session.core.player.running is None


def test_neither_a_stop_nor_the_reader_is_behind_chunks_that_wait(drive, monkeypatch):
    driver = drive()

    def slow_judge(chunk, **_):
        time.sleep(0.02)
        return driver.session.core.refuse("flood", 1, "one of many")

    monkeypatch.setattr(driver.session.core, "on_chunk", slow_judge)
    flooding = threading.Event()

    def flood():
        while not flooding.is_set():
            driver.session.on_chunk(None, hold=True, received_s=0.0)
            time.sleep(0.001)

    sender = threading.Thread(target=flood)
    sender.start()
    time.sleep(0.5)
    assert driver.session.core.latched is None, "the reader is not behind them either"
    stops, began_s = driver.arm.stops, time.monotonic()
    driver.session.stop("a person called ~/stop")
    assert time.monotonic() - began_s < 1.0
    until(lambda: driver.arm.stops > stops)
    flooding.set()
    sender.join()
    assert driver.session.core.latched.reason is Reason.STOP_REQUESTED


def test_a_path_that_the_arm_cannot_do_is_rejected_and_the_one_before_goes_on(drive):
    driver = drive()
    driver.chunk((0.08, 0.0, 0.0), dt_s=0.3)
    refuse = RobotError(FaultKind.PATH, "no joint solution on the way")
    driver.arm.send, send = lambda path: (_ for _ in ()).throw(refuse), driver.arm.send
    gate = driver.chunk((0.0, 0.02, 0.0))
    assert (gate.verdict, gate.reason) == (Verdict.REJECTED, Reason.PATH_REFUSED)
    assert "no joint solution" in gate.text and driver.session.core.latched is None
    until(lambda: driver.place[0] > START[0] + 0.079)
    driver.arm.send = send
    assert driver.chunk((0.0, 0.02, 0.0)).moves


def test_a_planner_that_fails_late_holds_the_arm_and_nothing_is_sent_again(drive):
    driver = drive()
    driver.chunk((0.08, 0.0, 0.0), dt_s=0.3)
    fails = [RobotError(FaultKind.PLANNER, "Motion planner failed")]
    check = driver.arm.check
    driver.arm.check = lambda: (_ for _ in ()).throw(fails.pop()) if fails else check()
    until(lambda: driver.judged() == (Verdict.HELD, Reason.ROBOT_PLANNER))
    assert len(driver.arm.sent) == 1 and driver.session.core.latched is None
    assert driver.chunk((0.01, 0.0, 0.0)).moves


def test_a_manager_that_dies_holds_the_arm_until_it_is_back(drive):
    manager = Heartbeat(timeout_s=0.2)
    driver = drive(manager=manager)
    assert driver.chunk((0.01, 0.0, 0.0)).moves, "a manager that was never there is not missed"
    manager.beat()
    assert driver.chunk((0.08, 0.0, 0.0), dt_s=0.5).moves
    until(lambda: driver.judged() == (Verdict.HELD, Reason.MANAGER_LOST))
    assert driver.session.core.player.running is None
    assert driver.chunk().reason is Reason.MANAGER_LOST
    manager.timeout_s = 60.0
    manager.beat()
    until(lambda: driver.chunk((0.01, 0.0, 0.0)).moves)


def test_a_driver_that_a_person_activates_again_goes_on_without_its_dead_manager(drive):
    manager = Heartbeat(timeout_s=0.05)
    driver = drive(manager=manager)
    manager.beat()
    until(lambda: driver.judged() == (Verdict.HELD, Reason.MANAGER_LOST))
    driver.session.deactivate()
    driver.session.activate()
    until(lambda: driver.chunk((0.01, 0.0, 0.0)).moves)


def test_a_stop_during_a_recovery_is_not_forgotten(drive, monkeypatch):
    driver = drive()
    driver.session.stop("a person called ~/stop")
    recover = driver.arm.recover

    def slow_recover():
        driver.session.stop("again")
        recover()

    monkeypatch.setattr(driver.arm, "recover", slow_recover)
    with pytest.raises(RobotError, match="during the recovery"):
        driver.session.recover()
    assert driver.session.core.latched is not None


def test_homing_that_cannot_begin_leaves_nothing_behind(drive, monkeypatch):
    driver = drive()
    ask = driver.session._ask

    def hangs(work, *timeout_s):
        if driver.session.core.busy == "homing":
            raise RobotError(FaultKind.NETWORK, "the arm has not answered for 3 s")
        return ask(work, *timeout_s)

    monkeypatch.setattr(driver.session, "_ask", hangs)
    with pytest.raises(RobotError, match="has not answered"):
        go_home(driver.session, HOME, 0.2, open_gripper=False)
    assert driver.session.core.busy is None
    assert driver.chunk((0.01, 0.0, 0.0)).moves


def test_an_inactive_driver_does_not_go_home(drive):
    driver = drive(active=False)
    with pytest.raises(HomingError, match="not active"):
        go_home(driver.session, HOME, 0.2, open_gripper=False)
    assert driver.arm.sent == [] and np.allclose(driver.place, START)


class BlockingGripper:
    """A gripper whose first command takes until it is let go."""

    max_width_m = 0.08
    reads_while_moving = False

    def __init__(self):
        self.calls, self.let_go = [], threading.Event()

    def open(self):
        self.calls.append("open")
        self.let_go.wait(120.0)

    def close(self):
        self.calls.append("close")
        self.let_go.wait(120.0)

    def width_m(self):
        return 0.08

    def disconnect(self):
        pass


def test_a_gripper_that_blocks_does_not_disturb_the_arm(drive):
    gripper = BlockingGripper()
    worker = GripperWorker(gripper, min_dwell_s=0.0, stuck_after_s=0.3)
    worker.start()
    driver = drive(gripper=worker)
    driver.chunk((0.02, 0.0, 0.0), opening=0.0)
    until(lambda: gripper.calls == ["close"])
    seen = len(driver.samples)
    for _ in range(3):
        before_m = driver.place[0]
        assert driver.chunk((0.02, 0.0, 0.0), opening=0.0).moves
        until(lambda before_m=before_m: driver.place[0] > before_m + 0.015)
    until(lambda: len(driver.samples) > seen + 50)
    until(lambda: worker.report.fault is not None)
    assert driver.session.core.latched is None
    assert gripper.calls == ["close"]
    gripper.let_go.set()
    worker.close()


HOME = START + (0.1, -0.05, 0.05)


def test_homing_goes_there_and_holds_chunks_meanwhile(drive):
    driver = drive()
    held, at_home = [], threading.Event()

    def send_chunks():
        while not at_home.is_set():
            if driver.session.core.busy == "homing":
                # It asks for no motion: the last one may come when the arm is at home already.
                held.append(driver.chunk((0.0, 0.0, 0.0)).reason)
            time.sleep(0.005)

    sender = threading.Thread(target=send_chunks)
    sender.start()
    go_home(driver.session, HOME, 0.05, open_gripper=False)  # slowly: there is time for chunks
    at_home.set()
    sender.join()
    assert np.allclose(driver.place, HOME, atol=1e-3)
    assert Reason.NOT_ACTIVE in held and Reason.NONE not in held[:-1]
    assert driver.chunk((0.01, 0.0, 0.0)).moves


def test_a_way_home_out_of_the_workspace_is_refused_and_nothing_moves(drive):
    driver = drive()
    with pytest.raises(HomingError, match="workspace"):
        go_home(driver.session, np.array([0.45, 0.8, 0.38]), 0.2, open_gripper=False)
    assert driver.arm.sent == []
    assert driver.chunk((0.01, 0.0, 0.0)).moves


def test_a_way_home_above_the_speed_limit_is_slowed_down(drive):
    driver = drive(core=CommandCore(Limits(max_linear_speed_m_s=0.1), Timing()))
    go_home(driver.session, HOME, 0.3, open_gripper=False)
    assert np.allclose(driver.place, HOME, atol=1e-3)
    fastest = np.max(np.linalg.norm(driver.arm.sent[-1].linear_m_s, axis=1))
    assert fastest <= 0.1001


@pytest.mark.parametrize("interruption", ["stop", "deactivate"])
def test_homing_ends_at_once_when_it_is_interrupted(drive, interruption):
    driver = drive()

    def interrupt():
        while driver.place[0] < START[0] + 0.01:
            time.sleep(0.001)
        if interruption == "stop":
            driver.session.stop("a person called ~/stop")
        else:
            driver.session.deactivate()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(HomingError):
        go_home(driver.session, HOME, 0.02, open_gripper=False)
    assert driver.place[0] < HOME[0] - 0.02
    assert driver.arm.stops
