"""When the next inference is due, whatever the clock and a busy machine do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_policy.inference.instruction_session import Pace

PERIOD_S = 0.2
ROUNDING_S = 1e-9


def begun(pace, asked_s):
    """When inferences begin, for a worker that asks at these times and begins at once."""
    times = []
    for now_s in asked_s:
        if pace.due(now_s):
            pace.begun(now_s)
            times.append(now_s)
    return times


def started(now_s=10.0):
    pace = Pace(PERIOD_S)
    pace.at_once(now_s)
    return pace


def test_it_keeps_its_period_without_drift_although_it_is_asked_a_little_late():
    times = begun(started(), [10.0 + 0.017 * tick for tick in range(200)])
    assert len(times) == 17  # in 3.4 s
    assert all(0 <= t - (10.0 + PERIOD_S * n) < 0.017 for n, t in enumerate(times))


def test_one_that_begins_late_does_not_delay_those_after_it():
    assert begun(started(), [10.0, 10.35, 10.39, 10.4, 10.6]) == [10.0, 10.35, 10.4, 10.6]


def test_nothing_is_made_up_for_after_a_pause():
    pace = started()
    asked_s = [15.0 + 0.01 * tick for tick in range(100)]
    times = begun(pace, asked_s)
    assert times == pytest.approx([15.0, 15.2, 15.4, 15.6, 15.8], abs=0.011)


def test_a_new_instruction_is_due_at_once():
    pace = started()
    pace.begun(10.0)
    assert not pace.due(10.1)
    pace.at_once(10.1)
    assert pace.due(10.1)


def test_a_clock_that_was_set_back_does_not_silence_it():
    pace = started()
    pace.begun(10.0)
    assert pace.due(3.0)
    pace.begun(3.0)
    assert not pace.due(3.1) and pace.due(3.2)


def test_a_clock_that_was_set_back_a_little_costs_two_periods_at_most():
    for back_s in (0.01, 0.1, 0.19, 0.25, 0.4):
        pace = started()
        pace.begun(10.0)
        now_s = 10.0 - back_s
        times = begun(pace, [now_s + 0.01 * tick for tick in range(60)])
        assert times[0] - now_s <= 2 * PERIOD_S + 0.011


@settings(max_examples=300, deadline=None)
@given(waits_s=st.lists(st.floats(0.0, 1.5), max_size=60))
def test_the_nth_never_begins_before_n_periods_and_no_window_holds_a_burst(waits_s):
    asked_s, now_s = [], 10.0
    for wait_s in waits_s:
        now_s += wait_s
        asked_s.append(now_s)
    times = begun(started(), asked_s)
    for n, time_s in enumerate(times):
        assert time_s >= 10.0 + n * PERIOD_S - ROUNDING_S
    # Between any two of them, too: only the first may have been late, by less than a period.
    for first, sooner_s in enumerate(times):
        for last in range(first + 1, len(times)):
            assert times[last] - sooner_s > (last - first - 1) * PERIOD_S - ROUNDING_S


@settings(max_examples=300, deadline=None)
@given(late_s=st.lists(st.floats(0.0, 0.19), min_size=1, max_size=60))
def test_lateness_below_a_period_never_adds_up(late_s):
    pace = started()
    for n, late in enumerate(late_s):
        due_s = 10.0 + n * PERIOD_S
        assert not pace.due(due_s - 0.001) or n == 0
        assert pace.due(due_s + late + ROUNDING_S)
        pace.begun(due_s + late + ROUNDING_S)
