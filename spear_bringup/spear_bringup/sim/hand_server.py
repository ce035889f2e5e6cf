"""The hand's half of the Franka network protocol: franky-sim's server, mended from outside."""

from franky_sim.franka_gripper_protocol import GripperCommandStatus
from franky_sim.franka_gripper_server import _SETTLE_STEPS, FrankaGripperServer, _MotionState
from franky_sim.franka_server import BaseCommand

from spear_bringup.sim.mended_robot import MAX_WIDTH_M

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
