"""A clock that lies is noticed."""

from spear_bringup.drivers.clocks import ClockWatch


def test_a_simulated_clock_that_runs_is_fine_at_any_speed():
    watch = ClockWatch(simulated=True)
    assert all(watch.check(0.01 * k, 0.2 * k) is None for k in range(100))


def test_a_simulated_clock_that_stands_still_is_a_fault():
    watch = ClockWatch(simulated=True, stall_timeout_s=1.0)
    watch.check(5.0, 0.0)
    assert watch.check(5.0, 0.9) is None
    assert "stood still" in watch.check(5.0, 1.2)
    assert watch.check(5.1, 1.3) is None


def test_a_simulated_clock_that_goes_back_is_a_fault():
    watch = ClockWatch(simulated=True)
    watch.check(5.0, 0.0)
    assert "went back" in watch.check(4.0, 0.1)


def test_a_system_clock_that_jumps_is_a_fault_once():
    watch = ClockWatch(simulated=False)
    watch.check(100.0, 0.0)
    assert watch.check(100.1, 0.1) is None
    assert "jumped" in watch.check(102.2, 0.2)
    assert watch.check(102.3, 0.3) is None
