"""Silence is told by the robot's own clock, and never by our own sleep."""

from spear_bringup.drivers.clocks import StateWatch

TICK_S = 0.01


def test_a_robot_that_answers_is_never_lost():
    watch = StateWatch(timeout_s=0.1)
    for i in range(500):
        watch.saw(i * TICK_S)
        assert watch.tick(100.0 + i * TICK_S) < 0.02
    assert not watch.lost


def test_silence_is_noticed_at_its_timeout():
    watch = StateWatch(timeout_s=0.1)
    watch.saw(1.0)
    watch.tick(100.0)
    noticed = next(i for i in range(1, 100) if watch.tick(100.0 + i * TICK_S) and watch.lost)
    assert 0.1 < noticed * TICK_S <= 0.13


def test_the_same_state_again_and_again_is_silence():
    watch = StateWatch(timeout_s=0.1)
    for i in range(50):
        watch.saw(1.0)
        watch.tick(100.0 + i * TICK_S)
    assert watch.lost


def test_one_new_state_ends_the_silence():
    watch = StateWatch(timeout_s=0.1)
    for i in range(50):
        watch.tick(100.0 + i * TICK_S)
    assert watch.lost
    watch.saw(2.0)
    watch.tick(101.0)
    assert not watch.lost


def test_time_in_which_this_process_slept_is_not_the_robot_s_silence():
    watch = StateWatch(timeout_s=0.1, longest_tick_s=0.04)
    watch.saw(1.0)
    watch.tick(100.0)
    assert watch.tick(103.0) <= 0.04  # three seconds without processor time
    assert not watch.lost
    watch.saw(4.0)
    assert watch.tick(103.01) == 0.0
