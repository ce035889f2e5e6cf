"""Simulated time against the wall clock."""

import time

import pytest

from spear_bringup.sim.world import DEBT_LIMIT_S, Pacer, RealTimeFactor


def test_the_pacer_keeps_deadlines_and_forgives_a_long_stall():
    pacer, start = Pacer(1.0, 0.001), time.monotonic()
    for _ in range(50):
        pacer.wait()
    assert time.monotonic() - start >= 0.049
    time.sleep(3 * DEBT_LIMIT_S)
    behind = time.monotonic()
    for _ in range(200):
        pacer.wait()
    # At most the debt limit of the stall is made up for.
    assert time.monotonic() - behind >= 0.2 - DEBT_LIMIT_S - 0.002


def test_a_factor_of_zero_never_sleeps(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("slept"))
    pacer = Pacer(0.0, 0.001)
    for _ in range(10):
        pacer.wait()


def test_the_real_time_factor_is_simulated_over_wall_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    rate = RealTimeFactor(window_s=2.0)
    assert rate.value == 0.0
    for step in range(50):
        now[0] = 100.0 + 0.1 * step
        rate.mark(5.0 + 0.08 * step)
    assert rate.value == pytest.approx(0.8)
