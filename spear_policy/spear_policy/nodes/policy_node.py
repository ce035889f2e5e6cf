"""policy_node: observations and an instruction in, action chunks out.

Example: ros2 run spear_policy policy_node --ros-args -p engine:=scripted
"""

import math
import sys
import threading
import time
from dataclasses import dataclass

from rclpy.clock import Clock, ClockType

from spear_policy.inference.engine import CameraSpec, Engine, EngineCard
from spear_policy.inference.episode import EpisodeError
from spear_policy.inference.instruction_session import Ending, Outcome, Pace, Session, State
from spear_policy.inference.observation import InputError
from spear_policy.inference.replay import ReplayEngine
from spear_policy.inference.scripted import ScriptedEngine
from spear_policy.nodes.lifecycle import OK, WARN, RefusedError, SpearNode, run
from spear_policy.nodes.parameters import Parameters, parameter_table
from spear_policy.nodes.policy_topics import (
    IMAGE_TOPICS,
    CameraWatch,
    InstructionTopic,
    PolicyInputs,
    PolicyOutputs,
    ReplayedImages,
    Timings,
)
from spear_policy.nodes.run_instruction import RunInstructionServer

# From parameters to an engine, and the card's promises against the graph's settings.


_SCRIPTED_CAMERAS = {"none": (), "external": ("external",), "both": ("external", "wrist")}


def make_engine(params) -> Engine:
    """The engine that the parameters name. Raises RefusedError when there is none."""
    if params["engine"] == "spear":
        return _spear_engine(params)
    if params["engine"] == "scripted":
        # Any size will do: it does not look at the images.
        names = _SCRIPTED_CAMERAS[params["scripted_cameras"]]
        return ScriptedEngine(cameras=tuple(CameraSpec(name, 0, 0) for name in names))
    if not params["episode_file"]:
        raise RefusedError("engine 'replay' needs episode_file; make one with import_episodes")
    try:
        return ReplayEngine.from_file(params["episode_file"], dt_s=params["step_dt_s"])
    except EpisodeError as error:
        raise RefusedError(str(error)) from None


def _spear_engine(params) -> Engine:
    # Imported only here: torch takes seconds and memory that the other engines do without.
    from spear_policy.inference.spear_engine import SpearEngine

    if not params["checkpoint"]:
        raise RefusedError(
            "engine 'spear' needs checkpoint, the folder of one; see make_checkpoint"
        )
    names = [name.strip() for name in params["absent_cameras"].split(",")]
    try:
        return SpearEngine.from_folder(
            params["checkpoint"],
            params["robot"],
            device=params["device"],
            dtype=params["weights_dtype"],
            threads=params["torch_threads"],
            seed=params["sampling_seed"],
            steps=params["denoising_steps"] or None,
            absent=tuple(name for name in names if name),
            compile=params["compile"],
            graphs=params["cuda_graphs"],
        )
    except (ValueError, OSError) as error:
        raise RefusedError(str(error)) from None


def check_card(card: EngineCard, step_dt_s: float, inference_period_s: float) -> None:
    """Raise RefusedError when the card and the settings of the graph disagree."""
    if not math.isclose(card.dt_s, step_dt_s, rel_tol=1e-6):
        raise RefusedError(
            f"{card.checkpoint_id} steps every {card.dt_s:g} s and step_dt_s is {step_dt_s:g} s; "
            "set step_dt_s to what the checkpoint was made with, in the driver too"
        )
    if inference_period_s > card.dt_s * card.chunk_length:
        raise RefusedError(
            f"inference_period_s is {inference_period_s:g} s, longer than a chunk of "
            f"{card.chunk_length} steps of {card.dt_s:g} s: the arm would stop between chunks"
        )
    unknown = sorted({spec.name for spec in card.cameras} - set(IMAGE_TOPICS))
    if unknown:
        raise RefusedError(
            f"{card.checkpoint_id} wants cameras named {', '.join(unknown)}; the graph has "
            f"{', '.join(IMAGE_TOPICS)}"
        )


# The one thread that calls the engine: newest observation in, chunk out, never in anyone'.


@dataclass(frozen=True)
class InferenceRequest:
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

    def _infer(self, ticket: InferenceRequest) -> None:
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
        except ValueError as error:  # InputError is one: an input lacks something, for now
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
    except InputError as problem:
        return str(problem)
    return ""


# The one place where the doors, the clock and the worker meet: one lock orders what is sa.


class PolicyCoordinator:
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

    def ticket(self) -> InferenceRequest | None:
        """What to infer for; None when there is nothing to do, or nothing yet.

        The clock may have woken the worker once more while it was still on its way to the
        inference that was due, so it is here that the pace is kept.
        """
        with self._lock:
            session = self._session
            if not session.in_force or not self._pace.due(self._node.now_s()):
                return None
            fresh, session.fresh = session.fresh, False
            return InferenceRequest(session.instruction, session.instruction_id, fresh)

    def begun(self, ticket: InferenceRequest) -> None:
        """An observation was there and is being worked on."""
        with self._lock:
            if self._in_force(ticket):  # a newer instruction is due at once
                self._pace.begun(self._node.now_s())

    def deliver(self, ticket: InferenceRequest, chunk, timings) -> None:
        """Publish a chunk, unless its instruction is no longer in force."""
        with self._lock:
            if not self._in_force(ticket):
                return
            now_s, inputs = self._node.now_s(), self._node.inputs
            frames = (inputs.base_frame, inputs.ee_frame)
            self._outputs.chunk(chunk, self._session, self._node.card, frames, timings, now_s)
            self._session.chunk_published(now_s, float(chunk.due_times_s()[-1]), chunk.final)
            self._tell(news=True)

    def blocked(self, ticket: InferenceRequest, text: str) -> None:
        """No chunk for now."""
        with self._lock:
            if self._in_force(ticket):
                now_s = self._node.now_s()
                self._pace.begun(now_s)
                self._session.block(text, now_s)
                self._tell()

    def failed(self, ticket: InferenceRequest, text: str) -> None:
        """No chunk any more for this instruction."""
        with self._lock:
            if self._in_force(ticket):
                self._node.get_logger().error(text)
                self._session.fail(text)
                self._tell()

    def _in_force(self, ticket: InferenceRequest) -> bool:
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


# policy_node: observations and an instruction in, action chunks out.


_TICK_S = 0.02  # how exactly single steps and recorded images are on time, node clock


class PolicyNode(SpearNode):
    """Lifecycle shell around an engine: wires inputs, doors, clocks and worker to the desk.

    Attributes:
        inputs: of the present activation; None before the first.
        cameras: the watch over its images.
    """

    def __init__(self, arguments: list[str] | None = None, engine: Engine | None = None):
        """An `engine` given here is used in place of the one that the parameters name."""
        super().__init__("policy", arguments)
        self.params = Parameters(self, "spear_policy", "policy_node")
        self._given = engine
        self._engine: Engine | None = None
        self.inputs: PolicyInputs | None = None
        self.cameras: CameraWatch | None = None
        self._desk = PolicyCoordinator(self)
        self._worker = self._topic = self._action = self._images = self._timer = None
        self._clock_seen = (0.0, time.monotonic())
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.io.create_timer(1.0, self._desk.publish_status, clock=steady)
        self.io.create_timer(0.1, self._watch_clock, clock=steady)

    @property
    def card(self) -> EngineCard:
        """The engine's, or an empty one while there is no engine."""
        return self._engine.card if self._engine else EngineCard(self.params["engine"], "")

    def say(self, text: str) -> None:
        """Put an instruction that came through the action on the topic."""
        self._topic.say(text)

    def configure(self) -> None:
        self.params.check()
        self._engine = self._given or make_engine(self.params)
        check_card(self.card, self.params["step_dt_s"], self.params["inference_period_s"])
        self._engine.warm_up()
        self._desk.configure(self.params)
        if self.card.publishes_images:
            self._images = ReplayedImages(self, self._engine)
        self._worker = PolicyWorker(self, self._desk, self._engine)
        self._topic = InstructionTopic(self, self._desk.hear)
        self._action = RunInstructionServer(self, self._desk)
        self._timer = self.io.create_timer(_TICK_S, self._tick)

    def activate(self) -> None:
        self.cameras = CameraWatch(self, self.card)
        self.inputs = inputs = PolicyInputs(self, self.card)
        self.get_logger().info(inputs.bridge_text)
        timeout_s = self.params["startup_timeout_s"]
        problem = "no complete observation yet"

        def ready() -> bool:
            nonlocal problem
            judged = judge_inputs(inputs)
            problem = problem if judged is None else judged
            return not problem

        if not self.wait_until(ready, timeout_s):
            raise RefusedError(f"{problem} (waited {timeout_s:g} s)")
        self._desk.activate()

    def deactivate(self) -> None:
        self._desk.deactivate()
        if self._action and not self.wait_until(lambda: self._action.settled, 2.0):
            self.get_logger().warning("a run_instruction goal may not have got its result")
        if self.inputs:
            self.inputs.close()

    def cleanup(self) -> None:
        if self._timer:
            self.io.destroy_timer(self._timer)
        if self._worker and not self._worker.close():
            self.get_logger().error("the engine hangs; its thread ends with the process")
        for part in (self._action, self._topic, self._images):
            if part:
                part.close()
        self.inputs = self._worker = self._topic = self._action = self._images = None
        self._timer = self._engine = None
        self.params.release()

    def diagnose(self):
        state, text, figures = self._desk.numbers()
        notes = dict(self._engine.figures()) if self._engine else {}
        notes["cameras"] = self.cameras.text if self.cameras else ""
        level = WARN if state is State.BLOCKED or any(notes.values()) else OK
        return [("policy", level, text, {"state": state.name, **figures, **notes})]

    def _tick(self) -> None:
        now_s = self.now_s()
        if self._images and self.active:
            self._images.publish_due(now_s)
        if self._desk.tick(now_s) and self._worker:
            self._worker.wake()

    def _watch_clock(self) -> None:
        """A node clock that stands still wakes nobody: the steady clock has to notice."""
        now_s, steady_s = self.now_s(), time.monotonic()
        if now_s != self._clock_seen[0]:
            self._clock_seen = (now_s, steady_s)
        stalled_s = steady_s - self._clock_seen[1]
        if stalled_s > self.params["clock_stall_s"]:
            text = f"/clock has not advanced for {stalled_s:.0f} s; look after sim_world"
            self._desk.stalled(text)


def main() -> None:
    """Run until SIGINT or SIGTERM; `--help` shows how."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(f"{__doc__}\nParameters:\n{parameter_table('spear_policy', 'policy_node')}")
        return
    sys.exit(run(PolicyNode))


if __name__ == "__main__":
    main()
