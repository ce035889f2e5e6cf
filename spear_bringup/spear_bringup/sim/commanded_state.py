"""What a Franka reports about its commands: poses, speeds and accelerations, each tick.

Takes the place of franky-sim's tracked state components, behind the same `set` and `get`. Those
smooth every derivative, so that for 0.1 s after a motion the robot would claim to move still and
the next motion would start with that speed. Commands carry no noise: here they are differences of
what was commanded, exactly.
"""

from collections.abc import Callable

import numpy as np
import pinocchio as pin
from franky_sim.base_simulator import InnerRobotState
from numpy.typing import NDArray

NAMES = (
    "q_d",
    "dq_d",
    "ddq_d",
    "tau_J",
    "tau_J_d",
    "dtau_J",
    "elbow_c",
    "delbow_c",
    "ddelbow_c",
    "O_T_EE",
    "O_T_EE_d",
    "O_T_EE_c",
    "O_dP_EE_d",
    "O_dP_EE_c",
    "O_ddP_EE_c",
)


class Part:
    """One quantity of the state: what was commanded for this tick, and what is reported."""

    __slots__ = ("given", "fresh", "value")

    def __init__(self):
        self.given = None
        self.fresh = False
        self.value = None

    def set(self, _time: float, value, call_observers: bool = True) -> None:
        """Command `value` for this tick; `call_observers` False means that it is an old one."""
        self.given, self.fresh = value, call_observers

    def get(self, _time: float):
        """The value after the last finished tick."""
        return self.value


class CommandedState:
    """The parts by libfranka's names, finished once a tick.

    Args:
        kinematics: joints (7,) [rad] to (TCP pose, Jacobian (6, 7) in base axes).
        tick_s: time between two ticks [s].
    """

    def __init__(
        self, kinematics: Callable[[NDArray], tuple[pin.SE3, NDArray]], tick_s: float
    ) -> None:
        self.parts = {name: Part() for name in NAMES}
        self._kinematics = kinematics
        self._tick_s = tick_s
        self._known_joints: NDArray | None = None
        self._known: tuple[pin.SE3, NDArray] | None = None

    def finish(self, inner: InnerRobotState) -> None:
        """Fill in every value of the tick that ends with the joints in `inner`."""
        p, q = self.parts, np.array(inner.q)
        before = {name: part.value for name, part in p.items()}
        p["O_T_EE"].value = self._kinematics(q)[0]
        self._joints(p, before, q, np.array(inner.dq))
        self._poses(p, before)
        torques = np.array(inner.tau_j)
        p["tau_J"].value, p["tau_J_d"].value = torques, p["tau_J_d"].given
        p["dtau_J"].value = self._rate(torques, before["tau_J"])
        for part in p.values():
            part.given = None

    def _joints(self, p: dict[str, Part], before: dict, q: NDArray, dq: NDArray) -> None:
        target = p["q_d"]
        target.value = q if target.given is None else target.given
        if p["dq_d"].given is not None:
            speed = p["dq_d"].given
        elif target.given is None:
            speed = dq
        elif target.fresh:
            speed = self._rate(target.value, before["q_d"])
        else:  # an old command repeated: the arm is not meant to stop for that
            speed = before["dq_d"]
        p["dq_d"].value = speed
        acceleration = p["ddq_d"].value = self._rate(speed, before["dq_d"])
        elbow, joints = p["elbow_c"], target.value
        default = np.array([joints[2], np.sign(joints[3])])
        elbow.value = default if elbow.given is None else elbow.given
        p["delbow_c"].value = np.array([speed[2], 0.0])
        p["ddelbow_c"].value = np.array([acceleration[2], 0.0])

    def _poses(self, p: dict[str, Part], before: dict) -> None:
        joints = p["q_d"].value
        if self._known_joints is None or not np.array_equal(joints, self._known_joints):
            self._known_joints, self._known = joints, self._kinematics(joints)
        desired, jacobian = self._known
        p["O_T_EE_d"].value = desired
        p["O_dP_EE_d"].value = jacobian @ p["dq_d"].value
        pose, twist = p["O_T_EE_c"], p["O_dP_EE_c"]
        pose.value = desired if pose.given is None else pose.given
        if twist.given is not None:
            twist.value = twist.given
        elif pose.given is None:
            twist.value = p["O_dP_EE_d"].value
        elif pose.fresh and before["O_T_EE_c"] is not None:
            twist.value = self._twist(before["O_T_EE_c"], pose.value)
        else:
            twist.value = before["O_dP_EE_c"]
        p["O_ddP_EE_c"].value = self._rate(twist.value, before["O_dP_EE_c"])

    def _twist(self, start: pin.SE3, end: pin.SE3) -> NDArray:
        turn = pin.log3(end.rotation @ start.rotation.T)
        return np.concatenate([end.translation - start.translation, turn]) / self._tick_s

    def _rate(self, value: NDArray, before: NDArray | None) -> NDArray:
        return np.zeros_like(value) if before is None else (value - before) / self._tick_s
