"""What the gate can say, in the numbers of `spear_msgs/msg/GateStatus` (a test compares them)."""

from dataclasses import dataclass
from enum import IntEnum


class Verdict(IntEnum):
    """What became of a chunk."""

    PASS = 0
    CLAMPED = 1
    HELD = 2
    REJECTED = 3
    STOPPED = 4


class Reason(IntEnum):
    """Why; the message file says what each one means."""

    NONE = 0
    NOT_FINITE = 1
    NOT_UNIT_QUATERNION = 2
    MALFORMED = 3
    STALE = 4
    FUTURE = 5
    LATE = 6
    OUT_OF_ORDER = 7
    DUPLICATE_SOURCE = 8
    ANCHOR_MISMATCH = 9
    JUMP = 10
    OUTSIDE_WORKSPACE = 11
    OUTSIDE_REACH = 12
    LINEAR_SPEED = 13
    ANGULAR_SPEED = 14
    LINEAR_ACCELERATION = 15
    ANGULAR_ACCELERATION = 16
    LINEAR_JERK = 17
    ANGULAR_JERK = 18
    HOLD_REQUESTED = 20
    CHUNK_TIMEOUT = 21
    CLOCK_FAULT = 22
    NOT_ACTIVE = 23
    ROBOT_LOST = 30
    ROBOT_REFLEX = 31
    ROBOT_PLANNER = 32
    ROBOT_MODE = 33
    LIMIT_MONITOR = 34
    STOP_REQUESTED = 35


@dataclass(frozen=True)
class Judgement:
    """A verdict with its reason and magnitudes.

    Attributes:
        asked, allowed: the magnitude that the reason names and its limit, in the reason's unit.
        time_scale: 1.0, or by how much CLAMPED stretched time.
        chunk_age_s: header stamp to verdict, node clock.
    """

    verdict: Verdict
    reason: Reason = Reason.NONE
    text: str = ""
    asked: float = 0.0
    allowed: float = 0.0
    time_scale: float = 1.0
    source_id: str = ""
    chunk_id: int = 0
    chunk_age_s: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether the motion may be sent."""
        return self.verdict in (Verdict.PASS, Verdict.CLAMPED)
