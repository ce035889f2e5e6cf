"""The Franka network protocol in front of the simulated robot: franky-sim's servers, fixed.

First the hand's half of the protocol, then the arm's, then both behind one address. A client is
franky or libfranka, exactly as with a robot of metal: ports 1337 (arm), 1338 (hand).
"""

import errno
import select
import socket

from franky_sim.franka_gripper_protocol import GripperCommandStatus
from franky_sim.franka_gripper_server import _SETTLE_STEPS, FrankaGripperServer, _MotionState
from franky_sim.franka_robot_protocol import (
    AutomaticErrorRecoveryCommand,
    MoveCommand,
    MoveStatus,
    RobotCommand,
    RobotMode,
    UDPCommand,
)
from franky_sim.franka_robot_server import FrankaRobotServer
from franky_sim.franka_server import BaseCommand
from franky_sim.mujoco_simulator import MujocoSimulator

from spear_bringup.sim.franka_robot import ERROR_COUNT, MAX_WIDTH_M, SimulatedFranka, pack_state

# The hand --------------------------------------------------------------------------------------

# The hand's state is sent each so many ticks, which is what the real one does or better.
HAND_PERIOD_TICKS = 10


class HandServer(FrankaGripperServer):
    """Answers commands that a newer one replaces, and squeezes what it grasps."""

    _ticks = 0

    def start_grasp(self, width, speed, force, *epsilons_and_reply) -> None:
        """Close on an object of about `width` [m], pressing with `force` [N].

        The original stops at `width`, so that it touches an object of just that width without
        any force.
        """
        super().start_grasp(width, speed, force, *epsilons_and_reply)
        inwards = self._robot.hand_width > width
        self._robot.set_hand_goal(0.0 if inwards else MAX_WIDTH_M, speed, force)

    def stop(self, command_id, tcp_socket) -> None:
        """Stop in place; the command that was running is answered as aborted."""
        self._answer_pending(GripperCommandStatus.kAborted)
        super().stop(command_id, tcp_socket)

    def send_state(self) -> None:
        """Send the hand's state each HAND_PERIOD_TICKS ticks."""
        self._ticks += 1
        if self._ticks % HAND_PERIOD_TICKS == 0:
            super().send_state()

    def _start_motion(self, *arguments) -> None:
        # A client waits for ever for the answer to a command that was replaced without one.
        self._answer_pending(GripperCommandStatus.kAborted)
        super()._start_motion(*arguments)

    def _check_motion_state(self) -> None:
        """End a motion that has come to rest.

        An empty grasp is answered as the real hand does, and not as a failure of the hand.
        """
        grasping = self._motion_state is _MotionState.GRASPING
        settled = self._settling_steps >= _SETTLE_STEPS - 1
        if grasping and settled and not self._holds():
            self._answer_pending(GripperCommandStatus.kUnsuccessful)
        super()._check_motion_state()

    def _holds(self) -> bool:
        excess_m = self._robot.hand_width - self._goal_width
        return -self._goal_epsilon_inner <= excess_m <= self._goal_epsilon_outer

    def _answer_pending(self, status: GripperCommandStatus) -> None:
        if self._pending_command_id is None:
            return
        BaseCommand.send_response(
            self._pending_tcp_socket,
            self._pending_command_type,
            self._pending_command_id,
            status,
            command_type_struct="H",
            status_type_struct="H",
        )
        self._pending_command_id = self._pending_tcp_socket = None

    def _reset_state(self) -> None:
        # Nobody is left to answer.
        self._pending_command_id = self._pending_tcp_socket = None


# The arm ---------------------------------------------------------------------------------------

CARTESIAN_REFLEX = 7  # in libfranka's list of errors
# Silence after which a client in motion counts as dead, and physics goes on without it.
PATIENCE_S = 0.5
# Before its first answer a client only watches, so nothing can wait for it; but the states that it
# misses between its first answer and the next would be a jump of its motion. So time goes slowly.
FIRST_ANSWER_S = 0.01


class ArmServer(FrankaRobotServer):
    """Waits for a slow client, packs the state cheaply, and can be put into a reflex."""

    def __init__(self, robot: SimulatedFranka, host: str, lag_limit_ticks: int):
        super().__init__(robot, [host])
        self._lag_limit_ticks = lag_limit_ticks
        # States sent since the client's last answer; None until it answers in the motion in work.
        self._unanswered: int | None = None
        self.client_silent = False
        self.errors = (False,) * ERROR_COUNT
        self._known_modes: dict[tuple, tuple[int, int, int]] = {}
        commands = self._FrankaServer__command_class_map
        commands[RobotCommand.kMove] = _Move
        commands[RobotCommand.kAutomaticErrorRecovery] = _Recovery

    def wait_for_client(self) -> None:
        """Let a client that is in control catch up, as long as it gives signs of life."""
        sockets = [self._FrankaServer__udp_socket, self._tcp_socket]
        if self.current_motion_id and self._unanswered is None:
            select.select(sockets, [], [], FIRST_ANSWER_S)
            return
        if self.client_lag_ticks <= self._lag_limit_ticks or self.client_silent:
            return
        ready, _, _ = select.select(sockets, [], [], PATIENCE_S)
        self.client_silent = not ready

    @property
    def client_lag_ticks(self) -> int:
        """States that the client in control has not answered yet; 0 when none is in control."""
        # Not the difference of the states' numbers: a client that slept has lost what did not fit
        # into its buffer, and answers the newest that did.
        return self._unanswered or 0 if self.current_motion_id else 0

    def trigger_reflex(self, error: int = CARTESIAN_REFLEX) -> None:
        """Stop as a robot does that felt a collision; it moves again after an error recovery."""
        self.errors = tuple(i == error for i in range(ERROR_COUNT))
        motion = self.current_motion_id
        self.stop_motion(send_preemption_signal=False)
        if motion:
            BaseCommand.send_response(
                self._tcp_socket, RobotCommand.kMove, motion, MoveStatus.kReflexAborted
            )
            self.reset_current_motion_id()

    def recover(self) -> None:
        """Clear every error."""
        self.errors = (False,) * ERROR_COUNT

    def start_motion(self, controller_mode, motion_generator_mode, motion_id):
        """Begin a motion from the arm's commanded pose.

        The original begins where it is, and so forgets part of the motion before at each start.
        """
        # A client only watches the first states of its motion, and then answers each.
        self._unanswered, self.client_silent = None, False
        super().start_motion(controller_mode, motion_generator_mode, motion_id)
        state = self.robot_state
        self._FrankaRobotServer__current_control_command = UDPCommand(
            q_c=state.q_d, O_T_EE_c=state.O_T_EE_d
        )

    def _bind_children(self, hostname: str) -> None:
        hand = HandServer(self.robot, hostname)
        hand.init()
        self._FrankaRobotServer__gripper_server = hand

    def _handle_udp_command(self, command_data: bytes) -> None:
        self._unanswered, self.client_silent = 0, False
        super()._handle_udp_command(command_data)

    def _get_state_bytes(self) -> bytes:
        if self._unanswered is not None:
            self._unanswered += 1
        state = self.modes
        if any(self.errors):
            state = (*state[:2], RobotMode.kReflex)
        return pack_state(self.robot, *state, errors=self.errors, reflex_reason=self.errors)

    @property
    def modes(self) -> tuple[int, int, int]:
        """(motion generator, controller, robot) modes as libfranka numbers them, without errors."""
        key = (
            self._FrankaRobotServer__control_mode,
            self._FrankaRobotServer__impedance_control_mode,
            self.current_motion_id > 0,
        )
        if key not in self._known_modes:
            full = self.robot_state
            modes = full.motion_generator_mode, full.controller_mode, full.robot_mode
            self._known_modes[key] = tuple(int(mode) for mode in modes)
        return self._known_modes[key]


class _Move(MoveCommand):
    def handle(self, server: ArmServer) -> None:
        if any(server.errors):
            self.reply(MoveStatus.kCommandNotPossibleRejected)
        else:
            super().handle(server)


class _Recovery(AutomaticErrorRecoveryCommand):
    def handle(self, server: ArmServer) -> None:
        server.recover()
        # The client looks at the state as soon as it has the answer.
        server.send_state()
        super().handle(server)


# Both at one address ---------------------------------------------------------------------------

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
                raise AddressError(_address_problem(host, port, error)) from error


def _address_problem(host: str, port: int, error: OSError) -> str:
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

    def __init__(self, sim: MujocoSimulator, robot: SimulatedFranka, host: str):
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
