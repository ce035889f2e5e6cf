"""What the tests on a simulated Franka share."""

from spear_bringup.drivers.protocol import RobotError
from spear_bringup.graph import free_loopback_host

HOST = free_loopback_host()  # of the fixture `robot`


def fault(call, *arguments):
    """The RobotError of a call, or None."""
    try:
        call(*arguments)
    except RobotError as raised:
        return raised
    return None
