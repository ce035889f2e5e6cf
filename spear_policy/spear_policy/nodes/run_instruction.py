"""The action run_instruction: a goal is an instruction with an end."""

import threading

from rclpy.action import ActionServer, CancelResponse

from spear_msgs.action import RunInstruction
from spear_policy.inference.instruction_session import Ending, Outcome, Session
from spear_policy.nodes.messages import s_to_duration, stamp_to_s, text_to_msg


class _DeferredServer(ActionServer):
    """Goals execute from their acceptance on, and their callback runs only when they end.

    A callback that waits would block the data plane's one thread, and rclpy polls a coroutine
    that awaits, which costs a whole core.
    """

    def notify_execute(self, goal_handle, execute_callback):
        if execute_callback is not None:
            super().notify_execute(goal_handle, execute_callback)


class RunInstructionServer:
    """Passes goals on as requesters of the session.

    The coordinator gives `on_goal(instruction, timeout_s, requester)`, which returns why it cannot
    be followed, and `cancel(requester)`.
    """

    def __init__(self, node, coordinator):
        """Serve on the node's data plane."""
        self._node, self._coordinator = node, coordinator
        self._pending: list[_GoalRequester] = []  # goals without a result
        self._server = _DeferredServer(
            node.io,
            RunInstruction,
            "run_instruction",
            execute_callback=lambda goal: RunInstruction.Result(),  # each goal brings its own
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
        )

    def close(self) -> None:
        """Serve no more."""
        self._server.destroy()

    @property
    def settled(self) -> bool:
        """Whether the result of every goal was sent."""
        return not self._pending

    def _on_accepted(self, goal) -> None:
        goal.execute(None)
        requester = _GoalRequester(self._server, self._node.io, goal, self._pending)
        self._pending.append(requester)
        timeout_s = stamp_to_s(goal.request.timeout)
        if refusal := self._coordinator.on_goal(goal.request.instruction, timeout_s, requester):
            requester.end(Ending(Outcome.FAULT, refusal, 0, 0, 0.0))

    def _on_cancel(self, goal) -> CancelResponse:
        for requester in list(self._pending):
            if requester.goal is goal:
                self._coordinator.cancel(requester)
        return CancelResponse.ACCEPT


class _GoalRequester:
    """A goal, which gets feedback and at the end its result."""

    def __init__(self, server: _DeferredServer, io, goal, pending: list):
        self._server, self._io, self.goal, self._pending = server, io, goal, pending
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
            self._after_two_rounds(lambda: self._pending.remove(self))
            return RunInstruction.Result(
                outcome=int(ending.outcome),
                message=text_to_msg(ending.text),
                instruction_id=ending.instruction_id,
                chunks=ending.chunks,
                elapsed=s_to_duration(ending.elapsed_s),
            )

        self._server.notify_execute(self.goal, finish)

    def _after_two_rounds(self, call) -> None:
        """Call when the executor has sent the result, which is its next task after this one."""
        executor = self._io.executor
        executor.create_task(lambda: executor.create_task(call))

    def publish_feedback(self, session: Session, chunk_id: int, inference_s: float) -> None:
        """Report how far the instruction is."""
        self.goal.publish_feedback(
            RunInstruction.Feedback(
                instruction_id=session.instruction_id,
                chunk_id=chunk_id,
                chunks=session.chunks,
                elapsed=s_to_duration(session.elapsed_s),
                inference_time=s_to_duration(inference_s),
                text=text_to_msg(session.text),
            )
        )
