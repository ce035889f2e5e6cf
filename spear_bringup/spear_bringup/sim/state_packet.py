"""The robot state on the wire, packed in one go: the original makes three objects and 50 packings.

The layout is libfranka's for server version 10; a test compares it with franky-sim's own bytes.
"""

import struct

from spear_bringup.sim.mended_robot import MendedRobot

ERROR_COUNT = 41
_FLOATS = struct.Struct("<320f")
_MODES = struct.Struct("<BB")
_ERRORS = struct.Struct(f"<{2 * ERROR_COUNT}B")
_TAIL = struct.Struct("<Bf")


def pack_state(
    robot: MendedRobot,
    motion_generator_mode: int,
    controller_mode: int,
    robot_mode: int,
    errors: tuple[bool, ...] = (False,) * ERROR_COUNT,
    reflex_reason: tuple[bool, ...] = (False,) * ERROR_COUNT,
) -> bytes:
    """The state of `robot` after the last finished step, as it goes out by UDP.

    Args:
        motion_generator_mode, controller_mode, robot_mode: libfranka's numbers.
        errors: what stops the robot now, in libfranka's order.
        reflex_reason: what caused the reflex, in the same order.
    """
    parts = {name: part.value for name, part in robot.parts.items()}
    inner = robot.inner_state
    q_d, torques = parts["q_d"], inner.tau_j
    floats = (
        *_column_major(parts["O_T_EE"]),
        *_column_major(parts["O_T_EE_d"]),
        *robot.tool,
        *(inner.q[2], 1.0 if inner.q[3] > 0 else -1.0),
        *(q_d[2], 1.0 if q_d[3] > 0 else -1.0),
        *torques,
        *parts["tau_J_d"].tolist(),
        *parts["dtau_J"].tolist(),
        *inner.q,
        *q_d.tolist(),
        *inner.dq,
        *parts["dq_d"].tolist(),
        *parts["ddq_d"].tolist(),
        *(0.0,) * 26,  # contacts and collisions of joints and of the end effector
        *torques,
        *(0.0,) * 12,  # external forces
        *parts["O_dP_EE_d"].tolist(),
        *(0.0,) * 3,  # acceleration of the base
        *parts["elbow_c"].tolist(),
        *parts["delbow_c"].tolist(),
        *parts["ddelbow_c"].tolist(),
        *_column_major(parts["O_T_EE_c"]),
        *parts["O_dP_EE_c"].tolist(),
        *parts["O_ddP_EE_c"].tolist(),
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
