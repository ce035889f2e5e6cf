"""The Franka hand behind `protocol.Gripper`, over franky 2.0.

Synchronous calls only: a `*_async` call made while another one is pending was seen to hang for good.
Closing is `grasp` with width 0: a grasp at the object's own width holds it without any force. That
grasp also "succeeds" on nothing, so whether something is held is for the width to say.
"""

from dataclasses import dataclass

import franky

from spear_bringup.drivers.bounded_call import call_within
from spear_bringup.drivers.franka_faults import connect_fault, gripper_fault_of
from spear_bringup.drivers.protocol import FaultKind, RobotFault

_ANY_WIDTH_M = 0.08  # grasp's outer tolerance: the hand's whole stroke


@dataclass(frozen=True)
class FrankaGripperSettings:
    """How to reach and drive the hand.

    Attributes:
        address: of the robot's control box (the hand has a port of its own there).
        speed_m_s: of the opening width; force_n: with which to close.
        connect_timeout_s: how long `connect` may take.
    """

    address: str
    speed_m_s: float = 0.1
    force_n: float = 40.0
    connect_timeout_s: float = 3.0


class FrankaGripper:
    """See `protocol.Gripper`. The width may be read from a second thread during a command."""

    max_width_m = 0.08
    reads_while_moving = True

    def __init__(self, settings: FrankaGripperSettings):
        self.settings = settings
        self._gripper: franky.Gripper | None = None

    def connect(self) -> None:
        s = self.settings
        self.disconnect()
        try:
            gripper = call_within(
                s.connect_timeout_s, lambda: franky.Gripper(s.address), f"connecting to {s.address}"
            )
            width_m = gripper.max_width
        except Exception as error:
            raise connect_fault(error, "gripper", s.address) from None
        self._gripper = gripper
        if width_m > 0.0:  # 0 before the hand was homed in Desk
            self.max_width_m = float(width_m)

    def disconnect(self) -> None:
        self._gripper = None

    def open(self) -> None:
        self._call(lambda gripper: gripper.open(self.settings.speed_m_s), "open")

    def close(self) -> None:
        s = self.settings
        self._call(lambda g: g.grasp(0.0, s.speed_m_s, s.force_n, 0.01, _ANY_WIDTH_M), "close")

    def width_m(self) -> float:
        return float(self._call(lambda gripper: gripper.width, "read its width"))

    def _call(self, call, what: str):
        gripper = self._gripper
        if gripper is None:
            text = f"there is no connection to the gripper at {self.settings.address}; call ~/recover"
            raise RobotFault(FaultKind.NETWORK, text)
        try:
            return call(gripper)
        except Exception as error:
            fault = gripper_fault_of(error, self.settings.address, what)
            if fault.kind is FaultKind.NETWORK and self._gripper is gripper:
                self._gripper = None
            raise fault from None
