"""What the errors of franky and the states of a Franka mean, as `protocol.RobotError`.

Never `from franky import *`: franky has its own `Exception`, and `except Exception` would then miss
the bare RuntimeErrors that it raises when a plan fails.
"""

import franky

from spear_bringup.drivers.protocol import FaultKind, RobotError

MOVING_MODES = ("", "Idle", "Move")  # "": not read yet
PLANNER_TEXT = "Motion planner failed"  # in a bare RuntimeError: nothing else marks it
PREEMPTED_TEXT = "Move command preempted!"

_FIXES = {
    "UserStopped": "release the user stop (or the emergency stop)",
    "Guiding": "end hand guiding",
    "Reflex": "look at the robot and clear what it met",
    "AutomaticErrorRecovery": "wait until the robot has recovered",
    "Other": "unlock the joints and activate FCI in Desk",
}


def fault_of(error: BaseException, address: str, mode: str = "") -> RobotError:
    """The RobotError that says what `error` means and what a person has to do.

    Args:
        error: what franky raised.
        address: the robot's address, for the sentence.
        mode: the robot's last known mode, franky's word ("" when unknown).
    """
    text = _plain(error)
    if isinstance(error, RobotError):
        return error
    if isinstance(error, franky.NetworkException) or "Net Exception" in text:
        return RobotError(
            FaultKind.NETWORK,
            f"the connection to the robot at {address} broke ({text}); check cable, power and FCI",
        )
    if isinstance(error, RuntimeError) and PLANNER_TEXT in text:
        return RobotError(
            FaultKind.PLANNER,
            f"the robot's planner refused the motion ({text}); send a motion that starts where "
            "the robot is and keeps its limits",
        )
    if isinstance(error, franky.InvalidMotionTypeException | franky.MotionReuseException):
        return RobotError(FaultKind.PLANNER, f"the motion does not follow the running one: {text}")
    if "reflex" in text.lower() or mode == "Reflex":
        text = f"the robot stopped itself ({text}); {_FIXES['Reflex']}"
        return RobotError(FaultKind.REFLEX, text)
    if isinstance(error, franky.ControlException | franky.CommandException):
        fix = _FIXES.get(mode, "see the robot's lights and Desk")
        return RobotError(FaultKind.MODE, f"the robot does not move ({text}); {fix}")
    # What is left (I/O errors, broken protocol) comes from a connection that is not to be trusted.
    return RobotError(
        FaultKind.NETWORK,
        f"the connection to the robot at {address} is unusable ({type(error).__name__}: {text})",
    )


def fault_of_state(mode: str, errors: tuple[str, ...]) -> RobotError | None:
    """The fault that a state reports by itself, without any motion having failed."""
    if mode == "Reflex" or (errors and mode in MOVING_MODES):
        names = ", ".join(errors) or "no error named"
        return RobotError(FaultKind.REFLEX, f"the robot is in reflex ({names}); {_FIXES['Reflex']}")
    if mode in MOVING_MODES:
        return None
    fix = _FIXES.get(mode, _FIXES["Other"])
    return RobotError(FaultKind.MODE, f"the robot is in mode {mode} and does not move; {fix}")


def connect_fault(error: BaseException, what: str, address: str) -> RobotError:
    """The RobotError of a connection that did not come about."""
    text = _plain(error)
    if isinstance(error, TimeoutError):
        fix = (
            f"no answer from the {what} at {address} ({text}): check power, cable and the "
            "parameter robot_host; if another program is connected to it, end that one"
        )
    elif isinstance(error, franky.RealtimeException):
        fix = (
            f"realtime is 'enforce' and this kernel is not real-time ({text}): boot a PREEMPT_RT "
            "kernel, or set the parameter realtime to 'ignore' for a simulated robot"
        )
    elif isinstance(error, franky.IncompatibleVersionException):
        fix = (
            f"the {what} at {address} speaks another protocol version than this franky ({text}): "
            "install the franky wheel built for the robot's firmware"
        )
    elif "refused" in text:
        fix = (
            f"the {what} at {address} refuses the connection: activate FCI in Desk, or correct the "
            "parameter robot_host"
        )
    elif "not found" in text.lower():
        fix = f"there is no host {address}: correct the parameter robot_host ({text})"
    else:
        fix = f"no connection to the {what} at {address} ({text}): check cable, power and FCI"
    return RobotError(FaultKind.NETWORK, fix)


def is_planner_failure(error: BaseException) -> bool:
    """Whether a fresh motion, sent at once, may well succeed."""
    return isinstance(error, RuntimeError) and PLANNER_TEXT in str(error)


def is_preemption(error: BaseException) -> bool:
    """Whether the error only says that a motion ended because we stopped it."""
    return isinstance(error, franky.ControlException) and PREEMPTED_TEXT in str(error)


def _plain(error: BaseException) -> str:
    return " ".join(str(error).removeprefix("libfranka: ").split()) or type(error).__name__


def gripper_fault_of(error: BaseException, address: str, what: str) -> RobotError:
    """The RobotError of a gripper call: `what` says what it should have done."""
    text = _plain(error)
    if isinstance(error, franky.CommandException):
        fix = "look between the fingers; home the hand in Desk if it was never homed"
        return RobotError(FaultKind.MODE, f"the gripper did not {what} ({text}); {fix}")
    return RobotError(
        FaultKind.NETWORK,
        f"the connection to the gripper at {address} broke ({text}); call ~/recover",
    )
