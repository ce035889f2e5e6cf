"""The Franka network protocol in front of the simulated robot: franky-sim's servers, mended.

A client is franky or libfranka, exactly as with a robot of metal: ports 1337 (arm), 1338 (hand).
"""

import errno
import socket

from franky_sim.mujoco_simulator import MujocoSimulator

from spear_bringup.sim.arm_server import ArmServer
from spear_bringup.sim.mended_robot import MendedRobot

ARM_PORT, HAND_PORT = 1337, 1338
# States that a client in motion may leave unanswered before physics waits for it. With none, a
# machine without enough processor time moves the arm late in wall time, and exactly as commanded
# in simulated time.
LAG_LIMIT_TICKS = 0


class AddressError(OSError):
    """The robot's address cannot be used; the text says why and what to change."""


def require_free(host: str) -> None:
    """Raise AddressError unless both ports of `host` can be bound on this machine."""
    for port in (ARM_PORT, HAND_PORT):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                probe.listen(1)
            except OSError as error:
                raise AddressError(_why(host, port, error)) from error


def _why(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is already taken, most likely by another simulated robot: stop "
            f"that one, or give this one another address (`host`, any of 127.x.y.z)"
        )
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{host!r} is no address of this machine: set `host` to one of 127.x.y.z"
    return f"cannot listen on port {port} of {host}: {error}"


class FrankaWorldServer:
    """One robot of a simulation behind its two ports; the caller's thread steps it."""

    def __init__(self, sim: MujocoSimulator, robot: MendedRobot, host: str):
        """Bind the ports of `host`. Raises AddressError when that cannot be done."""
        require_free(host)
        self.sim = sim
        self.robot = ArmServer(robot, host, LAG_LIMIT_TICKS)
        self.robot.init()

    def tick(self) -> None:
        """Take the client's commands, advance physics by TICK_S, send the new state."""
        self.robot.wait_for_client()
        self.robot.process_commands()
        self.sim.step()
        self.robot.send_state()

    def close(self) -> None:
        """Drop the client and free the ports."""
        for server in (self.robot.gripper_server, self.robot):
            server.reset_state()
            server.cleanup()
