"""The one place where the doors, the clock and the worker meet: one lock orders what is said."""

import threading

from spear_policy.inference.pace import Pace
from spear_policy.inference.session import Ending, Outcome, Session, State
from spear_policy.nodes.policy_outputs import PolicyOutputs
from spear_policy.nodes.policy_worker import Ticket


class PolicyDesk:
    """Takes instructions, hands out tickets, publishes chunks of the ticket that is in force.

    The node gives `card`, `inputs`, `now_s()`, `say(text)` and its logger.
    """

    def __init__(self, node):
        """Publishers and an inactive session."""
        self._node = node
        self._lock = threading.RLock()
        self._outputs = PolicyOutputs(node)
        self._session = Session(self._hold, max_characters=0, blocked_limit_s=0.0)
        self._pace = Pace(0.0)
        self._waiting = ""  # an instruction that came before activation
        self._told = None

    # Lifecycle -------------------------------------------------------------------------------

    def configure(self, params) -> None:
        """Take the limits from the node's parameters."""
        self._session.max_characters = params["max_instruction_characters"]
        self._session.blocked_limit_s = params["blocked_limit_s"]
        self._pace = Pace(params["inference_period_s"])
        self._waiting = ""

    def activate(self) -> None:
        """Wait for an instruction, or take the one that came before."""
        with self._lock:
            self._session.activate(self._node.now_s())
            waiting, self._waiting = self._waiting, ""
            if waiting:
                self._take(waiting, 0.0, None)
            self._tell()

    def deactivate(self) -> None:
        """Hold, and take nothing any more."""
        with self._lock:
            self._session.deactivate()
            self._tell()
        # The process may be about to end, and its last words with it.
        self._outputs.wait_until_heard(timeout_s=0.5)

    # Doors -----------------------------------------------------------------------------------

    def take(self, instruction: str, timeout_s: float, door) -> str:
        """Take the instruction of a goal; returns why not, or ""."""
        with self._lock:
            refusal = self._take(instruction, timeout_s, door)
            self._tell()
        return refusal

    def hear(self, text: str) -> None:
        """An instruction came on the topic; the one that is being followed is no new one."""
        with self._lock:
            if self._session.state is State.INACTIVE:
                self._waiting = text
            elif text.strip() != self._session.instruction or not self._session.pursued:
                self._take(text, 0.0, None)
            self._tell()

    def cancel(self, door) -> None:
        """The goal behind `door` is to end."""
        with self._lock:
            if self._session.door is door:
                self._session.stop(Outcome.CANCELLED, "cancelled")
            self._tell()

    def _take(self, text: str, timeout_s: float, door) -> str:
        session, text = self._session, text.strip()
        if session.state is State.INACTIVE:
            return "the policy node is not active; activate it first"
        if not text:
            session.stop(Outcome.CANCELLED, "the instruction was emptied")
            if door:
                says = "an empty instruction is a stop"
                door.end(Ending(Outcome.CANCELLED, says, session.instruction_id, 0, 0.0))
            return ""
        if refusal := session.refusal(text):
            self._node.get_logger().warning(refusal)
            session.text = refusal
            return refusal
        now_s = self._node.now_s()
        session.begin(text, now_s, timeout_s, door)
        self._node.get_logger().info(f"instruction {session.instruction_id}: {text}")
        self._pace.at_once(now_s)
        if door:
            self._node.say(text)
        return ""

    # Clocks ----------------------------------------------------------------------------------

    def tick(self, now_s: float) -> bool:
        """Do what is due; whether an inference is."""
        with self._lock:
            self._outputs.due_steps(now_s)
            self._session.tick(now_s)
            self._tell()
            return self._session.in_force and self._pace.due(now_s)

    def stalled(self, text: str) -> None:
        """The node clock stands still."""
        with self._lock:
            if self._session.in_force:
                self._session.block(text, self._node.now_s())
                self._tell()

    # Worker ----------------------------------------------------------------------------------

    def ticket(self) -> Ticket | None:
        """What to infer for; None when there is nothing to do, or nothing yet.

        The clock may have woken the worker once more while it was still on its way to the
        inference that was due, so it is here that the pace is kept.
        """
        with self._lock:
            session = self._session
            if not session.in_force or not self._pace.due(self._node.now_s()):
                return None
            fresh, session.fresh = session.fresh, False
            return Ticket(session.instruction, session.instruction_id, fresh)

    def begun(self, ticket: Ticket) -> None:
        """An observation was there and is being worked on."""
        with self._lock:
            if self._in_force(ticket):  # a newer instruction is due at once
                self._pace.begun(self._node.now_s())

    def deliver(self, ticket: Ticket, chunk, timings) -> None:
        """Publish a chunk, unless its instruction is no longer in force."""
        with self._lock:
            if not self._in_force(ticket):
                return
            now_s, inputs = self._node.now_s(), self._node.inputs
            frames = (inputs.base_frame, inputs.ee_frame)
            self._outputs.chunk(chunk, self._session, self._node.card, frames, timings, now_s)
            self._session.chunk_published(now_s, float(chunk.due_times_s()[-1]), chunk.final)
            self._tell(news=True)

    def blocked(self, ticket: Ticket, text: str) -> None:
        """No chunk for now."""
        with self._lock:
            if self._in_force(ticket):
                now_s = self._node.now_s()
                self._pace.begun(now_s)
                self._session.block(text, now_s)
                self._tell()

    def failed(self, ticket: Ticket, text: str) -> None:
        """No chunk any more for this instruction."""
        with self._lock:
            if self._in_force(ticket):
                self._node.get_logger().error(text)
                self._session.fail(text)
                self._tell()

    def _in_force(self, ticket: Ticket) -> bool:
        return self._session.in_force and self._session.instruction_id == ticket.instruction_id

    # Wire ------------------------------------------------------------------------------------

    def _hold(self, why: str) -> None:
        self._node.get_logger().info(f"hold: {why}")
        self._outputs.hold(self._session, self._node.card, self._node.now_s())

    def _tell(self, news: bool = False) -> None:
        """Status when it changed, and feedback to the goal, to which each chunk is news."""
        session = self._session
        now = (session.state, session.text, session.instruction_id)
        changed, self._told = now != self._told, now
        if changed:
            self.publish_status()
        if session.door and (changed or news):
            timings = self._outputs.timings
            session.door.feedback(session, self._outputs.chunk_id, timings.inference_s)

    def publish_status(self) -> None:
        """Publish policy_status as it is."""
        with self._lock:
            self._outputs.status(
                self._session, self._node.card, self._image_counts(), self._node.now_s()
            )

    def numbers(self) -> tuple[State, str, dict]:
        """State, sentence and figures for /diagnostics."""
        with self._lock:
            received, dropped = self._image_counts()
            p50_s, p99_s = self._outputs.inference_percentiles_s()
            figures = {
                "images_received": received,
                "images_dropped": dropped,
                "chunks_late": self._outputs.late,
                "inference_p50_s": f"{p50_s:.4f}",
                "inference_p99_s": f"{p99_s:.4f}",
            }
            return self._session.state, self._session.text, figures

    def _image_counts(self) -> tuple[int, int]:
        return self._node.inputs.counts() if self._node.inputs else (0, 0)
