"""Silence is the robot's own, and its clock maps to node time."""

import numpy as np
import pytest

from spear_bringup.drivers.clocks import ClockMap, StateWatchdog

# StateWatchdog

TICK_S = 0.01


def test_a_robot_that_answers_is_never_lost():
    watchdog = StateWatchdog(timeout_s=0.1)
    for i in range(500):
        watchdog.on_state(i * TICK_S)
        assert watchdog.tick(100.0 + i * TICK_S) < 0.02
    assert not watchdog.lost


def test_silence_is_noticed_at_its_timeout():
    watchdog = StateWatchdog(timeout_s=0.1)
    watchdog.on_state(1.0)
    watchdog.tick(100.0)
    noticed = next(i for i in range(1, 100) if watchdog.tick(100.0 + i * TICK_S) and watchdog.lost)
    assert 0.1 < noticed * TICK_S <= 0.13


def test_the_same_state_again_and_again_is_silence():
    watchdog = StateWatchdog(timeout_s=0.1)
    for i in range(50):
        watchdog.on_state(1.0)
        watchdog.tick(100.0 + i * TICK_S)
    assert watchdog.lost


def test_one_new_state_ends_the_silence():
    watchdog = StateWatchdog(timeout_s=0.1)
    for i in range(50):
        watchdog.tick(100.0 + i * TICK_S)
    assert watchdog.lost
    watchdog.on_state(2.0)
    watchdog.tick(101.0)
    assert not watchdog.lost


def test_time_in_which_this_process_slept_is_not_the_robot_s_silence():
    watchdog = StateWatchdog(timeout_s=0.1, longest_tick_s=0.04)
    watchdog.on_state(1.0)
    watchdog.tick(100.0)
    assert watchdog.tick(103.0) <= 0.04  # three seconds without processor time
    assert not watchdog.lost
    watchdog.on_state(4.0)
    assert watchdog.tick(103.01) == 0.0


# ClockMap

OFFSET_S = 1000.0


def system_readings(rng, count=500, period_s=0.01):
    """(robot time, node now): seen 1 ms after it happened, now and then up to 60 ms after it."""
    for i in range(count):
        robot_s = i * period_s
        delay_s = 0.001 + (rng.uniform(0.0, 0.06) if rng.random() < 0.5 else 0.0)
        yield robot_s, OFFSET_S + robot_s + delay_s


def simulated_readings(rng, count=500, period_s=0.01):
    """(robot time, node now): /clock comes in steps of 10 ms, up to 50 ms late."""
    for i in range(count):
        robot_s = i * period_s + 0.004
        late_s = rng.uniform(0.0, 0.05) if rng.random() < 0.5 else 0.0
        yield robot_s, OFFSET_S + np.floor((robot_s - late_s) / 0.01) * 0.01


@pytest.mark.parametrize(
    ("simulated", "readings", "bias_s"),
    [(False, system_readings, 0.001), (True, simulated_readings, -0.004)],
)
def test_the_best_offset_of_the_last_second_is_found_through_jitter(simulated, readings, bias_s):
    clock = ClockMap(simulated)
    errors = [
        clock.stamp_s(robot_s, now_s) - (OFFSET_S + robot_s)
        for robot_s, now_s in readings(np.random.default_rng(1))
    ]
    assert np.max(np.abs(np.array(errors[100:]) - bias_s)) < 0.006


@pytest.mark.parametrize("simulated", [False, True])
def test_stamps_always_rise(simulated):
    rng = np.random.default_rng(2)
    clock = ClockMap(simulated)
    stamps = [
        clock.stamp_s(i * 0.01, OFFSET_S + i * 0.01 + rng.uniform(-0.2, 0.2)) for i in range(1000)
    ]
    assert np.all(np.diff(stamps) > 0)


def test_two_clocks_that_drift_apart_stay_together():
    clock = ClockMap(simulated=False)
    for i in range(6000):
        robot_s = i * 0.01
        true_s = OFFSET_S + robot_s * 1.001  # far worse than any quartz
        stamp_s = clock.stamp_s(robot_s, true_s + 0.001)
    assert abs(stamp_s - true_s) < 0.003


@pytest.mark.parametrize("jump_s", [-30.0, 30.0])
@pytest.mark.parametrize("simulated", [False, True])
def test_a_clock_that_jumps_is_followed_within_its_window(simulated, jump_s):
    clock = ClockMap(simulated)
    for i in range(200):
        clock.stamp_s(i * 0.01, OFFSET_S + i * 0.01)
    for i in range(200, 320):
        stamp_s = clock.stamp_s(i * 0.01, OFFSET_S + jump_s + i * 0.01)
    assert stamp_s == pytest.approx(OFFSET_S + jump_s + 3.19, abs=0.02)


def test_a_robot_clock_that_starts_anew_is_followed_at_once():
    clock = ClockMap(simulated=False)
    for i in range(200):
        clock.stamp_s(i * 0.01, OFFSET_S + i * 0.01)
    assert clock.stamp_s(0.0, OFFSET_S + 5.0) == pytest.approx(OFFSET_S + 5.0)
    clock.reset()
    assert clock.stamp_s(1.0, 7.0) == pytest.approx(7.0)
