"""The robot's clock becomes node time without the jitter of its arrival."""

import numpy as np
import pytest

from spear_bringup.drivers.clocks import ClockMap

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
