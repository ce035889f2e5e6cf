"""The instruction in force and what becomes of it; the topic and the action both lead here.

Pure state: no thread, no clock, no ROS. `Session` is the instruction's life, `Pace` when its next
inference is due, `StepSchedule` when each step of its newest chunk is. The owner locks, gives the
time, and gives `hold`, which is called before an instruction loses its force in any other way than
by being done.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol


class Pace:
    """At most one in `period_s` of the node clock, without drift; after a pause, from now on.

    From `at_once` on there is a grid of due times, `period_s` apart. One that begins a little late
    leaves the grid where it is, so the next one may come sooner than `period_s` after it; but the
    n-th never begins sooner than n periods after `at_once`, counted from 0.
    """

    def __init__(self, period_s: float):
        self.period_s = period_s
        self._next_s = 0.0

    def at_once(self, now_s: float) -> None:
        """The next one is due now."""
        self._next_s = now_s

    def due(self, now_s: float) -> bool:
        """Whether it is time; also when the clock was set back."""
        return now_s >= self._next_s or self._next_s - now_s > 2 * self.period_s

    def begun(self, now_s: float) -> None:
        """One begins now, or was tried in vain."""
        on_time = 0.0 <= now_s - self._next_s < self.period_s
        self._next_s = (self._next_s if on_time else now_s) + self.period_s


class State(IntEnum):
    """As in PolicyStatus.msg."""

    INACTIVE, WAITING, RUNNING, BLOCKED, DONE = range(5)


class Outcome(IntEnum):
    """As in RunInstruction.action."""

    DONE, TIMEOUT, CANCELLED, REPLACED, FAULT = range(5)


@dataclass(frozen=True)
class Ending:
    """How an instruction ended."""

    outcome: Outcome
    text: str
    instruction_id: int
    chunks: int
    elapsed_s: float


class Requester(Protocol):
    """Who gave an instruction and waits for its end: a goal of the action."""

    def end(self, ending: Ending) -> None:
        """The instruction has ended; called once, from any thread."""


class Session:
    """States from WAITING over RUNNING and BLOCKED to DONE, and the reasons in words.

    Attributes:
        instruction: the newest one taken, also after its end; instruction_id counts them.
        in_force: whether the engine is to be asked for chunks.
        fresh: the engine does not know the instruction yet.
        chunks: published for this instruction.
        requester: who waits for its end, or None.
    """

    def __init__(self, hold: Callable[[str], None], max_characters: int, blocked_limit_s: float):
        self._hold = hold
        self.max_characters, self.blocked_limit_s = max_characters, blocked_limit_s
        self.state, self.text = State.INACTIVE, "not active"
        self.instruction, self.instruction_id = "", 0
        self.in_force = self.fresh = False
        self.chunks = 0
        self.now_s = self.started_s = 0.0
        self._deadline_s = self._done_s = self._blocked_since_s = None
        self.requester: Requester | None = None

    @property
    def elapsed_s(self) -> float:
        """Since the instruction was taken [s, node clock]."""
        return max(0.0, self.now_s - self.started_s)

    @property
    def pursued(self) -> bool:
        """Whether an instruction is in force, or its last steps are not yet due."""
        return self.in_force or self._done_s is not None

    def refusal(self, instruction: str) -> str:
        """Why a sentence cannot be taken; empty when it can. What runs is not disturbed."""
        if len(instruction) > self.max_characters:
            return (
                f"the instruction has {len(instruction)} characters, the limit is "
                f"{self.max_characters} (max_instruction_characters); shorten it"
            )
        if "\0" in instruction or not instruction.isprintable():
            return "the instruction has control characters; send one line of plain text"
        return ""

    def activate(self, now_s: float) -> None:
        """Wait for an instruction."""
        self.now_s = now_s
        self.state, self.text = State.WAITING, "waiting for an instruction"

    def deactivate(self) -> None:
        """Hold and take nothing any more."""
        if self.state is State.INACTIVE:
            return
        self._hold("the policy node was deactivated")
        self._end(Outcome.FAULT, "the policy node was deactivated")
        self.state, self.text = State.INACTIVE, "not active"

    def begin(
        self,
        instruction: str,
        now_s: float,
        timeout_s: float = 0.0,
        requester: Requester | None = None,
    ) -> None:
        """Take a sentence that `refusal` has nothing against; a timeout of 0 is no limit."""
        self.now_s = now_s
        self._hold("a new instruction")
        self._end(Outcome.REPLACED, "another instruction came")
        self.instruction, self.instruction_id = instruction, self.instruction_id + 1
        self.in_force = self.fresh = True
        self.chunks, self.started_s = 0, now_s
        self._deadline_s = now_s + timeout_s if timeout_s > 0 else None
        self.requester = requester
        self.state, self.text = State.RUNNING, f"starting {instruction!r}"

    def stop(self, outcome: Outcome, text: str) -> None:
        """Hold and wait for another instruction."""
        self._hold(text)
        self._end(outcome, text)
        self.instruction = ""
        self.state, self.text = State.WAITING, f"{text}; waiting for an instruction"

    def chunk_published(self, now_s: float, last_step_due_s: float, final: bool) -> None:
        """A chunk of the instruction in force went out."""
        self.now_s = now_s
        self.chunks += 1
        self._blocked_since_s = None
        self.state, self.text = State.RUNNING, f"following {self.instruction!r}"
        if final:
            self._done_s, self.in_force = last_step_due_s, False
            self.text = f"the last steps of {self.instruction!r}"

    def block(self, text: str, now_s: float) -> None:
        """No chunk because of an input; resumes by itself with the next chunk."""
        self.now_s = now_s
        if self.state is not State.BLOCKED:
            self._hold(text)
            self._blocked_since_s = now_s
        self.state, self.text = State.BLOCKED, text

    def fail(self, text: str) -> None:
        """The engine cannot go on with this instruction; only another one ends BLOCKED."""
        self._hold(text)
        self._end(Outcome.FAULT, text)
        self.state, self.text = State.BLOCKED, text

    def tick(self, now_s: float) -> None:
        """What time alone decides: done, timeout, blocked for too long."""
        self.now_s = now_s
        if not self.pursued:
            return
        if self._done_s is not None:
            if now_s >= self._done_s:
                text = f"done: {self.instruction!r}"
                self._end(Outcome.DONE, text)
                self.state, self.text = State.DONE, text
        elif self._deadline_s is not None and now_s >= self._deadline_s:
            self.stop(Outcome.TIMEOUT, f"out of time after {self.elapsed_s:.1f} s")
        elif (
            self.state is State.BLOCKED
            and self.requester is not None
            and now_s - self._blocked_since_s > self.blocked_limit_s
        ):
            self.fail(f"blocked for {self.blocked_limit_s:g} s: {self.text}")

    def _end(self, outcome: Outcome, text: str) -> None:
        requester, self.requester = self.requester, None
        self.in_force = self.fresh = False
        self._deadline_s = self._done_s = self._blocked_since_s = None
        if requester is not None:
            requester.end(Ending(outcome, text, self.instruction_id, self.chunks, self.elapsed_s))


class StepSchedule:
    """Steps in order of time; a newer chunk replaces what is left of the one before."""

    def __init__(self):
        self._steps: list[tuple[float, Any]] = []

    def replace(self, due_times_s, steps, now_s: float) -> None:
        """Take the steps of a new chunk; those already due at `now_s` are not made up for."""
        self._steps = [pair for pair in zip(due_times_s, steps, strict=True) if pair[0] > now_s]

    def clear(self) -> None:
        """Nothing is due any more."""
        self._steps = []

    def due(self, now_s: float) -> list:
        """The steps that became due since the last call, in order."""
        done = [step for due_s, step in self._steps if due_s <= now_s]
        self._steps = self._steps[len(done) :]
        return done
