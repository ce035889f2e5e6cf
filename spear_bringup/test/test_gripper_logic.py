"""A wavering opening becomes few, firm commands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spear_bringup.control.command_core import GripperLogic


def test_nothing_is_commanded_before_the_policy_is_clear():
    logic = GripperLogic()
    assert logic.update(0.5, 0.0) is None
    assert logic.update(0.7, 0.1) == 1.0


def test_wavering_around_one_half_changes_nothing():
    logic = GripperLogic()
    logic.update(1.0, 0.0)
    assert all(logic.update(0.5 + 0.09 * (-1) ** k, 10.0 + k) == 1.0 for k in range(20))


def test_a_switch_waits_for_the_dwell_time():
    logic = GripperLogic(min_dwell_s=0.5)
    logic.update(1.0, 0.0)
    assert logic.update(0.0, 0.3) == 1.0
    assert logic.update(0.0, 0.6) == 0.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_two_switches_are_never_closer_than_the_dwell_time(openings):
    logic, switches, before = GripperLogic(min_dwell_s=0.5), [], None
    for k, opening in enumerate(openings):
        target = logic.update(opening, 0.1 * k)
        if target != before:
            switches.append(0.1 * k)
            before = target
    assert all(b - a >= 0.5 - 1e-9 for a, b in zip(switches, switches[1:], strict=False))


@pytest.mark.parametrize("bad", [(0.6, 0.4, 0.5), (-0.1, 0.6, 0.5), (0.4, 0.6, -1.0)])
def test_thresholds_that_make_no_sense_are_an_error(bad):
    with pytest.raises(ValueError, match="gripper"):
        GripperLogic(*bad)
