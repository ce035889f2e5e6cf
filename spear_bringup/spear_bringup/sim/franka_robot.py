"""franky-sim's FR3 with its defects fixed from outside, and cheaper to step.

First the commanded state that a Franka reports each tick, then the robot itself, then its state as
a packet on the wire. Written against franky-sim 1.0.4; the tests of this package fail when a later
version differs.
"""

import struct
from collections.abc import Callable

import numpy as np
import pinocchio as pin
from franky_sim.base_simulator import InnerRobotState
from franky_sim.constants import FRANKA_TORQUE_LIMITS_HIGH, FRANKA_TORQUE_LIMITS_LOW
from franky_sim.mujoco_simulator import FrankaMujocoRobot, MujocoSimulator
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv

QUANTITY_NAMES = (
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


class ReportedQuantity:
    """One quantity of the state: what was commanded for this tick, and what is reported."""

    __slots__ = ("commanded", "fresh", "value")

    def __init__(self):
        self.commanded = None
        self.fresh = False
        self.value = None

    def set(self, _time: float, value, call_observers: bool = True) -> None:
        """Command `value` for this tick; `call_observers` False means that it is an old one."""
        self.commanded, self.fresh = value, call_observers

    def get(self, _time: float):
        """The value after the last finished tick."""
        return self.value


class CommandedState:
    """The reported quantities by libfranka's names, completed once a tick.

    Takes the place of franky-sim's tracked state components, behind the same `set` and `get`. Those
    smooth every derivative, so for 0.1 s after a motion the robot would report that it still moves,
    and the next motion would start with that speed. Commands carry no noise: here the derivatives
    are the exact differences of what was commanded.

    Args:
        kinematics: joints (7,) [rad] to (TCP pose, Jacobian (6, 7) in base axes).
        tick_s: time between two ticks [s].
    """

    def __init__(
        self, kinematics: Callable[[NDArray], tuple[pin.SE3, NDArray]], tick_s: float
    ) -> None:
        self.quantities = {name: ReportedQuantity() for name in QUANTITY_NAMES}
        self._kinematics = kinematics
        self._tick_s = tick_s
        self._known_joints: NDArray | None = None
        self._known: tuple[pin.SE3, NDArray] | None = None

    def complete(self, inner: InnerRobotState) -> None:
        """Fill in every value of the tick that ends with the joints in `inner`."""
        p, q = self.quantities, np.array(inner.q)
        before = {name: quantity.value for name, quantity in p.items()}
        p["O_T_EE"].value = self._kinematics(q)[0]
        self._joints(p, before, q, np.array(inner.dq))
        self._poses(p, before)
        torques = np.array(inner.tau_j)
        p["tau_J"].value, p["tau_J_d"].value = torques, p["tau_J_d"].commanded
        p["dtau_J"].value = self._rate(torques, before["tau_J"])
        for quantity in p.values():
            quantity.commanded = None

    def _joints(
        self, p: dict[str, ReportedQuantity], before: dict, q: NDArray, dq: NDArray
    ) -> None:
        target = p["q_d"]
        target.value = q if target.commanded is None else target.commanded
        if p["dq_d"].commanded is not None:
            speed = p["dq_d"].commanded
        elif target.commanded is None:
            speed = dq
        elif target.fresh:
            speed = self._rate(target.value, before["q_d"])
        else:  # an old command repeated: the arm is not meant to stop for that
            speed = before["dq_d"]
        p["dq_d"].value = speed
        acceleration = p["ddq_d"].value = self._rate(speed, before["dq_d"])
        elbow, joints = p["elbow_c"], target.value
        default = np.array([joints[2], np.sign(joints[3])])
        elbow.value = default if elbow.commanded is None else elbow.commanded
        p["delbow_c"].value = np.array([speed[2], 0.0])
        p["ddelbow_c"].value = np.array([acceleration[2], 0.0])

    def _poses(self, p: dict[str, ReportedQuantity], before: dict) -> None:
        joints = p["q_d"].value
        if self._known_joints is None or not np.array_equal(joints, self._known_joints):
            self._known_joints, self._known = joints, self._kinematics(joints)
        desired, jacobian = self._known
        p["O_T_EE_d"].value = desired
        p["O_dP_EE_d"].value = jacobian @ p["dq_d"].value
        pose, twist = p["O_T_EE_c"], p["O_dP_EE_c"]
        pose.value = desired if pose.commanded is None else pose.commanded
        if twist.commanded is not None:
            twist.value = twist.commanded
        elif pose.commanded is None:
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


# The robot -------------------------------------------------------------------------------------

JOINT_NAMES = tuple(f"fr3_joint{i}" for i in range(1, 8))
# Gripper straight down, TCP at (0.45, 0, 0.38) m, every joint well inside its limits.
READY_RAD = (0.0, -0.3313, 0.0, -2.2884, 0.0, 1.9571, np.pi / 4)
MAX_WIDTH_M = 0.08
TICK_S = 0.001
TORQUES_HIGH_NM = np.array(FRANKA_TORQUE_LIMITS_HIGH, float)
TORQUES_LOW_NM = np.array(FRANKA_TORQUE_LIMITS_LOW, float)
# The stock damping (stiffness / 10) makes the arm trail its command by 100 ms, these by 25 ms.
DAMPING_NM_S_RAD = (90.0, 90.0, 70.0, 70.0, 40.0, 40.0, 40.0)
# Beyond this difference the commanded joints no longer say where the arm is.
_TRUSTED_LAG_RAD = 0.1


def add_franka(sim: MujocoSimulator) -> "SimulatedFranka":
    """Add an FR3 in the ready pose, gripper open, to a simulation that was not started yet."""
    robot = sim.add_robot(initial_q=READY_RAD, initial_hand_width=MAX_WIDTH_M, kv=DAMPING_NM_S_RAD)
    # add_robot() names the class it makes, so the robot becomes ours afterwards.
    robot.__class__ = SimulatedFranka
    robot.take_over()
    _fix_fingers(sim)
    return robot


def _fix_fingers(sim: MujocoSimulator) -> None:
    fingers = sim.scene.find(".//default[@class='finger']/joint")
    # They inherit the arm's motor inertia and friction, which stop them 2 mm off.
    fingers.attrib.update(armature="0.1", frictionloss="0", damping="1")
    # One flat pad instead of a pad and four studs: the same extent, a fifth of the contacts.
    pad = sim.scene.find(".//default[@class='fingertip_pad_collision_1']/geom")
    pad.set("pos", "0 0.004 0.0445")
    for body in list(sim.worldbody.iter("body")):
        for geom in body.findall("geom"):
            if geom.get("class", "").startswith("fingertip_pad") and geom.get("class")[-1] != "1":
                body.remove(geom)


class SimulatedFranka(FrankaMujocoRobot):
    """An FR3 whose measured pose is measured. Made by `add_franka` only."""

    def take_over(self) -> None:
        """Put our bookkeeping in place of franky-sim's."""
        self._inner: InnerRobotState | None = None
        self._last_solution: NDArray | None = None
        self._known_tool: tuple[float, ...] | None = None
        self._commanded = CommandedState(self._pose_and_jacobian, TICK_S)
        self._tracked_state_components = self._commanded.quantities

    def _pose_and_jacobian(self, q: NDArray) -> tuple[pin.SE3, NDArray]:
        # The pose is a copy: franky-sim hands out a reference that the next call overwrites, so
        # that measured and commanded pose are always the same.
        pin.computeJointJacobians(self._pin, self._pin_data, q)
        pose = pin.updateFramePlacement(self._pin, self._pin_data, self._tcp).copy()
        frame = pin.LOCAL_WORLD_ALIGNED
        return pose, pin.getFrameJacobian(self._pin, self._pin_data, self._tcp, frame)

    def kinematics(self, q: NDArray) -> pin.SE3:
        """TCP pose of joints `q` (7,) [rad]."""
        return self._pose_and_jacobian(np.asarray(q, float))[0]

    def cartesian_position_control(self, target_pose, target_elbow_config, has_new_command=True):
        """Follow `target_pose` (7,) xyz + xyzw with the joints that were commanded before it.

        The original solves anew from the measured joints, which costs up to five iterations a
        tick and lets the elbow drift with the tracking error.
        """
        if target_elbow_config is not None:
            self._last_solution = None
            return super().cartesian_position_control(
                target_pose, target_elbow_config, has_new_command
            )
        target = pin.XYZQUATToSE3(target_pose)
        self._tracked_state_components["O_T_EE_c"].set(
            self._time_s, target, call_observers=has_new_command
        )
        self.joint_position_control(self._solve(target), has_new_command)

    def _solve(self, target: pin.SE3) -> NDArray:
        q = np.array(self._get_state().q)
        if self._last_solution is not None:
            if np.abs(self._last_solution - q).max() < _TRUSTED_LAG_RAD:
                q = self._last_solution
        for _ in range(5):
            pin.computeJointJacobians(self._pin, self._pin_data, q)
            pose = pin.updateFramePlacement(self._pin, self._pin_data, self._tcp)
            jacobian = pin.getFrameJacobian(self._pin, self._pin_data, self._tcp, pin.LOCAL)
            error = pin.log6(pose.actInv(target)).vector
            # Damped least squares: near a singularity the arm slows down and does not jump.
            square = jacobian @ jacobian.T
            square.flat[::7] += 1e-4
            q = q + jacobian.T @ dposv(square, error)[1]
            if error @ error < 4e-6:  # what is left after this step is below a micrometre
                break
        self._last_solution = q
        return q

    def _joint_position_control(self, target_q: NDArray) -> None:
        state = self._get_state()
        q, dq = np.array(state.q), np.array(state.dq)
        bias = pin.nonLinearEffects(self._pin, self._pin_data, q, dq).copy()
        gravity = pin.computeGeneralizedGravity(self._pin, self._pin_data, q)
        wanted = self.kp * (target_q - q) - self.kv * dq + bias - gravity
        torques = np.minimum(np.maximum(wanted, TORQUES_LOW_NM), TORQUES_HIGH_NM)
        self._tracked_state_components["tau_J_d"].set(self._time_s, torques)
        self._torque_control(torques + gravity)

    def joint_position_control(self, target_q, has_new_command=True):
        """Hold or follow joints `target_q` (7,) [rad]."""
        self._last_solution = np.asarray(target_q, float)
        super().joint_position_control(target_q, has_new_command)

    def _torque_control(self, torques: NDArray) -> None:
        self._applied_torques = np.minimum(np.maximum(torques, TORQUES_LOW_NM), TORQUES_HIGH_NM)
        self._data.qfrc_applied[self._dof_addrs[0] : self._dof_addrs[0] + 7] = self._applied_torques
        self._inner = None

    def _pre_step(self) -> None:
        goal = self._hand_goal_width / 2
        limit = self._hand_goal_force
        for joint, dof in zip(self._finger_qpos_addrs, self._finger_dof_addrs, strict=True):
            speed = float(self._data.qvel[dof])
            force = 1000.0 * (goal - float(self._data.qpos[joint])) - 50.0 * speed
            if abs(speed) > self._hand_goal_velocity and force * speed > 0:
                force = -50.0 * speed
            self._data.qfrc_applied[dof] = min(max(force, -limit), limit)

    def _post_step(self) -> None:
        self._inner = None
        self._commanded.complete(self._get_state())
        self._BaseRobot__prev_t = self._time_s
        self._BaseRobot__t += TICK_S

    def _get_state(self) -> InnerRobotState:
        """Joints as they are now, read from MuJoCo once a step; the original reads at each call."""
        if self._data is None:
            return super()._get_state()
        if self._inner is None:
            joint, dof = self._qpos_addrs[0], self._dof_addrs[0]
            self._inner = InnerRobotState(
                q=tuple(self._data.qpos[joint : joint + 7].tolist()),
                dq=tuple(self._data.qvel[dof : dof + 7].tolist()),
                tau_j=tuple(self._applied_torques.tolist()),
            )
        return self._inner

    def set_load(self, *args) -> None:
        """Payload at the flange, as in the original."""
        self._known_tool = None
        super().set_load(*args)

    def set_NE_T_EE(self, *args) -> None:
        """Tool frame, as in the original."""
        self._known_tool = None
        super().set_NE_T_EE(*args)

    def set_EE_T_K(self, *args) -> None:
        """Stiffness frame, as in the original."""
        self._known_tool = None
        super().set_EE_T_K(*args)

    @property
    def tool(self) -> tuple[float, ...]:
        """Frames and masses of tool and load, in the state's order; they change by command only."""
        if self._known_tool is None:
            s = self.state
            masses = (s.m_ee, *s.I_ee, *s.F_x_Cee[:3], s.m_load, *s.I_load, *s.F_x_Cload[:3])
            self._known_tool = (*s.F_T_EE, *s.EE_T_K, *s.F_T_NE, *s.NE_T_EE, *masses)
        return self._known_tool

    @property
    def quantities(self) -> dict[str, ReportedQuantity]:
        """The quantities of the state by libfranka's names."""
        return self._commanded.quantities

    # Names that franky-sim keeps private, in one place.

    @property
    def _time_s(self) -> float:
        return self._BaseRobot__t

    @property
    def _pin(self) -> pin.Model:
        return self._BaseRobot__model

    @property
    def _pin_data(self) -> pin.Data:
        return self._BaseRobot__data

    @property
    def _tcp(self) -> int:
        return self._BaseRobot__tcp_frame_id


# The state on the wire -------------------------------------------------------------------------

ERROR_COUNT = 41
_FLOATS = struct.Struct("<320f")
_MODES = struct.Struct("<BB")
_ERRORS = struct.Struct(f"<{2 * ERROR_COUNT}B")
_TAIL = struct.Struct("<Bf")


def pack_state(
    robot: SimulatedFranka,
    motion_generator_mode: int,
    controller_mode: int,
    robot_mode: int,
    errors: tuple[bool, ...] = (False,) * ERROR_COUNT,
    reflex_reason: tuple[bool, ...] = (False,) * ERROR_COUNT,
) -> bytes:
    """The state of `robot` after the last finished step, as it goes out by UDP.

    The layout is libfranka's for server version 10; a test compares it with franky-sim's own bytes.
    Packed in one go: franky-sim's function makes three objects and 50 packings.

    Args:
        motion_generator_mode, controller_mode, robot_mode: libfranka's numbers.
        errors: what stops the robot now, in libfranka's order.
        reflex_reason: what caused the reflex, in the same order.
    """
    reported = {name: quantity.value for name, quantity in robot.quantities.items()}
    inner = robot.inner_state
    q_d, torques = reported["q_d"], inner.tau_j
    floats = (
        *_column_major(reported["O_T_EE"]),
        *_column_major(reported["O_T_EE_d"]),
        *robot.tool,
        *(inner.q[2], 1.0 if inner.q[3] > 0 else -1.0),
        *(q_d[2], 1.0 if q_d[3] > 0 else -1.0),
        *torques,
        *reported["tau_J_d"].tolist(),
        *reported["dtau_J"].tolist(),
        *inner.q,
        *q_d.tolist(),
        *inner.dq,
        *reported["dq_d"].tolist(),
        *reported["ddq_d"].tolist(),
        *(0.0,) * 26,  # contacts and collisions of joints and of the end effector
        *torques,
        *(0.0,) * 12,  # external forces
        *reported["O_dP_EE_d"].tolist(),
        *(0.0,) * 3,  # acceleration of the base
        *reported["elbow_c"].tolist(),
        *reported["delbow_c"].tolist(),
        *reported["ddelbow_c"].tolist(),
        *_column_major(reported["O_T_EE_c"]),
        *reported["O_dP_EE_c"].tolist(),
        *reported["O_ddP_EE_c"].tolist(),
        *(0.0,) * 50,  # motor positions and speeds, accelerometers
    )
    return b"".join(
        (
            _FLOATS.pack(*floats),
            _MODES.pack(motion_generator_mode, controller_mode),
            _ERRORS.pack(*errors, *reflex_reason),
            _TAIL.pack(robot_mode, 1.0),
        )
    )


def _column_major(pose) -> list[float]:
    return pose.homogeneous.T.ravel().tolist()
