"""The one thread that calls the engine: newest observation in, chunk out, never in anyone's way."""

import threading
import time
from dataclasses import dataclass

from spear_policy.inference.synchroniser import InputProblem
from spear_policy.nodes.policy_outputs import Timings


@dataclass(frozen=True)
class Ticket:
    """The instruction to infer for; `fresh` when the engine does not know it yet."""

    instruction: str
    instruction_id: int
    fresh: bool


class PolicyWorker:
    """Infers when it is woken, one chunk at a time; what it cannot do it tells the desk.

    The desk gives `ticket()` and is told `begun(ticket)`, `deliver(ticket, chunk, timings)`,
    `blocked(ticket, text)` or `failed(ticket, text)`; it ignores a ticket no longer in force.
    """

    def __init__(self, node, desk, engine):
        """Start the thread; `close` ends it. The node gives `inputs`, `cameras` and `now_s()`."""
        self._node, self._desk, self._engine = node, desk, engine
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="policy_worker", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Infer, or infer once more when it is at it."""
        self._wake.set()

    def close(self, timeout_s: float = 5.0) -> bool:
        """End the thread; False when a hanging engine keeps it (it dies with the process)."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._closing:
                return
            ticket = self._desk.ticket()
            if ticket is None:
                continue
            try:
                self._infer(ticket)
            except Exception as error:  # an engine may raise anything; the node lives on
                self._desk.failed(ticket, f"the engine failed: {type(error).__name__}: {error}")

    def _infer(self, ticket: Ticket) -> None:
        if ticket.fresh:
            try:
                self._engine.reset(ticket.instruction)
            except ValueError as error:
                self._desk.failed(ticket, str(error))
                return
        inputs = self._node.inputs
        try:
            moment = inputs.moment()
            if moment is None:
                return
            self._desk.begun(ticket)
            image_age_s = self._node.now_s() - moment.stamp_s
            begun = time.perf_counter()
            observation = inputs.observation(moment, ticket.instruction)
            self._node.cameras.judge(moment, observation)
            prepared = time.perf_counter()
            chunk = self._engine.infer(observation)
        except ValueError as error:  # InputProblem is one: an input lacks something, for now
            self._desk.blocked(ticket, str(error))
            return
        timings = Timings(
            image_age_s=image_age_s if moment.frames else 0.0,
            image_skew_s=moment.image_skew_s,
            preprocess_s=prepared - begun,
            inference_s=time.perf_counter() - prepared,
        )
        self._desk.deliver(ticket, chunk, timings)


def judge_inputs(inputs) -> str | None:
    """Why they would not do; empty when they would; None when nothing new came to judge by."""
    try:
        moment = inputs.moment()
        if moment is None:
            return None
        inputs.observation(moment, "")
    except InputProblem as problem:
        return str(problem)
    return ""
