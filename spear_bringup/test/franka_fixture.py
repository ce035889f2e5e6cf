"""What the tests on a simulated Franka share."""

import time

from spear_bringup.drivers.protocol import RobotError
from spear_bringup.graph import free_loopback_host

HOST = free_loopback_host()  # of the fixture `robot`


def until(condition, seconds=60.0):
    """The first truthy value of `condition()`."""
    end_s = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.002)
    return value


def fault(call, *arguments):
    """The RobotError of a call, or None."""
    try:
        call(*arguments)
    except RobotError as raised:
        return raised
    return None
