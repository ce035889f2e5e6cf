"""The action run_instruction: a goal is an instruction with an end."""

import threading

from rclpy.action import ActionServer, CancelResponse

from spear_msgs.action import RunInstruction
from spear_policy.inference.instruction_session import Ending, Outcome
from spear_policy.nodes.messages import s_to_duration, stamp_to_s


class _DeferredServer(ActionServer):
    """Goals execute from their acceptance on, and their callback runs only when they end.

    A callback that waits would block the data plane's one thread, and rclpy polls a coroutine
    that awaits, which costs a whole core.
    """

    def notify_execute(self, goal_handle, execute_callback):
        if execute_callback is not None:
            super().notify_execute(goal_handle, execute_callback)


class RunInstructionServer:
    """Turns goals into doors of the session.

    The desk gives `take(instruction, timeout_s, door)`, which returns why it cannot be taken, and
    `cancel(door)`.
    """

    def __init__(self, node, desk):
        """Serve on the node's data plane."""
        self._node, self._desk = node, desk
        self._doors: list[_GoalDoor] = []  # of goals without a result
        self._server = _DeferredServer(
            node.io,
            RunInstruction,
            "run_instruction",
            execute_callback=lambda goal: RunInstruction.Result(),  # each goal brings its own
            handle_accepted_callback=self._accepted,
            cancel_callback=self._cancel,
        )

    def close(self) -> None:
        """Serve no more."""
        self._server.destroy()

    @property
    def settled(self) -> bool:
        """Whether the result of every goal was sent."""
        return not self._doors

    def _accepted(self, goal) -> None:
        goal.execute(None)
        door = _GoalDoor(self._server, self._node.io, goal, self._doors)
        self._doors.append(door)
        timeout_s = stamp_to_s(goal.request.timeout)
        if refusal := self._desk.take(goal.request.instruction, timeout_s, door):
            door.end(Ending(Outcome.FAULT, refusal, 0, 0, 0.0))

    def _cancel(self, goal) -> CancelResponse:
        for door in list(self._doors):
            if door.goal is goal:
                self._desk.cancel(door)
        return CancelResponse.ACCEPT


class _GoalDoor:
    """One goal: told of progress and of the end."""

    def __init__(self, server: _DeferredServer, io, goal, doors: list):
        self._server, self._io, self.goal, self._doors = server, io, goal, doors
        self._ended = threading.Event()

    def end(self, ending: Ending) -> None:
        """Give the goal its result; from any thread."""
        if self._ended.is_set():
            return
        self._ended.set()

        def finish(goal) -> RunInstruction.Result:
            # Here on the data plane, so that a cancel request has marked the goal before.
            if goal.is_cancel_requested:
                goal.canceled()
            elif ending.outcome is Outcome.DONE:
                goal.succeed()
            else:
                goal.abort()
            self._after_two_rounds(lambda: self._doors.remove(self))
            return RunInstruction.Result(
                outcome=int(ending.outcome),
                message=ending.text,
                instruction_id=ending.instruction_id,
                chunks=ending.chunks,
                elapsed=s_to_duration(ending.elapsed_s),
            )

        self._server.notify_execute(self.goal, finish)

    def _after_two_rounds(self, call) -> None:
        """Call when the executor has sent the result, which is its next task after this one."""
        executor = self._io.executor
        executor.create_task(lambda: executor.create_task(call))

    def feedback(self, session, chunk_id: int, inference_s: float) -> None:
        """Tell the goal how far its instruction is."""
        self.goal.publish_feedback(
            RunInstruction.Feedback(
                instruction_id=session.instruction_id,
                chunk_id=chunk_id,
                chunks=session.chunks,
                elapsed=s_to_duration(session.elapsed_s),
                inference_time=s_to_duration(inference_s),
                text=session.text,
            )
        )
