"""The Franka hand behind `protocol.Gripper`, over franky 2.0.

Synchronous calls only: a `*_async` call made while another one is pending was seen to hang for
good. Closing is `grasp` with width 0: a grasp at the object's own width holds it without any force.
That grasp also "succeeds" on nothing, so whether something is held is for the width to say.
"""

from dataclasses import dataclass

import franky

from spear_bringup.drivers.bounded_call import call_within
from spear_bringup.drivers.franka_faults import connect_fault, gripper_fault_of
from spear_bringup.drivers.link import Link
from spear_bringup.drivers.protocol import FaultKind, RobotFault

_DROP_TIMEOUT_S = 3.0
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
        self._link: Link | None = None

    def connect(self) -> None:
        s = self.settings
        self.disconnect()
        try:
            what = f"connecting to {s.address}"
            link = Link(call_within(s.connect_timeout_s, lambda: franky.Gripper(s.address), what))
            width_m = link.end.max_width
        except Exception as error:
            raise connect_fault(error, "gripper", s.address) from None
        self._link = link
        if width_m > 0.0:  # 0 before the hand was homed in Desk
            self.max_width_m = float(width_m)

    def disconnect(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.drop(_DROP_TIMEOUT_S)

    def open(self) -> None:
        speed_m_s = self.settings.speed_m_s
        self._call(lambda link: link.end.open(speed_m_s), "open")

    def close(self) -> None:
        grasp = 0.0, self.settings.speed_m_s, self.settings.force_n, 0.01, _ANY_WIDTH_M
        self._call(lambda link: link.end.grasp(*grasp), "close")

    def width_m(self) -> float:
        return float(self._call(lambda link: link.end.width, "read its width"))

    def _call(self, call, what: str):
        link = self._link
        if link is None:
            text = f"there is no connection to the gripper at {self.settings.address}"
            raise RobotFault(FaultKind.NETWORK, f"{text}; call ~/recover")
        try:
            return call(link)
        except Exception as error:
            fault = gripper_fault_of(error, self.settings.address, what)
            if fault.kind is FaultKind.NETWORK:
                link.drop()
                if self._link is link:
                    self._link = None
            raise fault from None
