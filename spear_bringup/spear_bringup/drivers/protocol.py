"""What a robot must be able to do for the driver node, and how its failures are classed."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from numpy.typing import NDArray

from spear_bringup.control.path import Path
from spear_policy.geometry.poses import Pose


class FaultKind(Enum):
    """Why a robot does not move; decides what a person has to do."""

    NETWORK = "network"  # no contact: a new connection after ~/recover
    REFLEX = "reflex"  # the robot stopped itself: look at it, then ~/recover
    PLANNER = "planner"  # the robot's planner failed; the arm comes to rest
    PATH = "path"  # this path cannot be done, nothing was sent: the one before goes on
    MODE = "mode"  # not in a mode that moves (user stop, guiding, other control)


class RobotError(Exception):
    """A robot refused or lost a motion; `kind` classes it, the text says what happened."""

    def __init__(self, kind: FaultKind, text: str):
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, eq=False)
class RobotState:
    """One sample of the arm.

    Attributes:
        robot_time_s: the robot's own clock [s].
        joint_positions_rad, joint_velocities_rad_s, joint_torques_nm: (n,).
        measured, commanded: end-effector poses, base frame. `measured` follows from the measured
            joints, `commanded` is what the robot tries to reach right now; an adapter computes it
            from what it has sent when the robot does not tell.
        mode: the robot's own word for its mode.
        errors: names of the errors that are set; empty when it may move.
    """

    robot_time_s: float
    joint_positions_rad: NDArray
    joint_velocities_rad_s: NDArray
    joint_torques_nm: NDArray
    measured: Pose
    commanded: Pose
    mode: str
    errors: tuple[str, ...] = ()


class Arm(Protocol):
    """An arm that runs Cartesian paths. Every call but `read_state` returns within milliseconds.

    Attributes:
        joint_names: in the order of all joint vectors.
        still_speed_rad_s: joint speed below which the arm counts as at rest; above the noise of
            its measured speeds.
    """

    joint_names: tuple[str, ...]
    still_speed_rad_s: float

    def connect(self) -> None:
        """Open a new connection. Raises RobotError(NETWORK), naming address and fix."""

    def disconnect(self) -> None:
        """Let go of the robot; it stops by itself. Never raises."""

    def read_state(self) -> RobotState:
        """The next state; blocks until the robot sends it, from one reader thread only.

        Raises RobotError(NETWORK) when the connection is dead.
        """

    def send(self, path: Path) -> None:
        """Replace whatever runs by `path`, starting now.

        Raises RobotError; of kind PATH when the arm cannot do this path and goes on as before.
        """

    def stop(self) -> None:
        """Come to rest as fast as the robot's dynamics allow. Raises RobotError when it cannot."""

    def check(self) -> None:
        """Raise the RobotError of a motion that failed since the last call, if there is one."""

    def recover(self) -> None:
        """Clear errors, after a person asked for it; reconnect when the connection is dead."""

    def forward_kinematics(self, joint_positions_rad: NDArray) -> Pose:
        """End-effector pose in the base frame for (n,) joints."""

    def send_joints(self, durations_s: NDArray, joint_positions_rad: NDArray) -> None:
        """Run joint knots (N, n), the last at rest, `durations_s` (N,) each; already gated."""


class Gripper(Protocol):
    """A gripper. Calls may block for seconds: one worker thread makes them.

    Attributes:
        max_width_m: distance between the fingers when it is fully open.
        reads_while_moving: whether `width_m` may be called during `open` and `close`.
    """

    max_width_m: float
    reads_while_moving: bool

    def connect(self) -> None:
        """Open a connection. Raises RobotError(NETWORK)."""

    def disconnect(self) -> None:
        """Let go. Never raises."""

    def open(self) -> None:
        """Open fully."""

    def close(self) -> None:
        """Close with limited force on whatever is between the fingers."""

    def stop(self) -> None:
        """Stop the fingers; callable during `open` and `close`, and bounded in time."""

    def width_m(self) -> float:
        """Distance between the fingers now [m]."""
