"""The arm's half of the Franka network protocol: franky-sim's server, mended from outside."""

import select

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

from spear_bringup.sim.hand_server import HandServer
from spear_bringup.sim.mended_robot import MendedRobot
from spear_bringup.sim.state_packet import ERROR_COUNT, pack_state

CARTESIAN_REFLEX = 7  # in libfranka's list of errors
# Silence after which a client in motion counts as dead, and physics goes on without it.
PATIENCE_S = 0.5


class ArmServer(FrankaRobotServer):
    """Waits for a slow client, packs the state cheaply, and can be put into a reflex."""

    def __init__(self, robot: MendedRobot, host: str, lag_limit_ticks: int):
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
        if self.client_lag_ticks <= self._lag_limit_ticks or self.client_silent:
            return
        sockets = [self._FrankaServer__udp_socket, self._tcp_socket]
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
        """Begin a motion from where the arm was told to be.

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
