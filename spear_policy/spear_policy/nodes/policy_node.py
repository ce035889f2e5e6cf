"""policy_node: observations and an instruction in, action chunks out.

Example: ros2 run spear_policy policy_node --ros-args -p engine:=scripted
"""

import math
import sys
import threading
import time
from dataclasses import dataclass

from rclpy.clock import Clock, ClockType

from spear_policy.inference.camera_health import CameraHealth, CameraLevel, CameraLimits
from spear_policy.inference.engine import ENGINES, Engine, EngineCard, Observation, make_engine
from spear_policy.inference.instruction_session import Ending, Outcome, Pace, Session, State
from spear_policy.inference.observation import InputError, SyncedInputs
from spear_policy.nodes.lifecycle import OK, WARN, RefusedError, SpearNode, run
from spear_policy.nodes.parameters import Parameters, node_help
from spear_policy.nodes.policy_topics import (
    IMAGE_TOPICS,
    InstructionTopic,
    PolicyInputs,
    PolicyOutputs,
    ReplayedImages,
    Timings,
)
from spear_policy.nodes.run_instruction import RunInstructionServer
from spear_policy.shared.clocks import ClockMonitor, read_clocks

# Callbacks of the data plane only store what came. The clock wakes the worker when an inference is
# due; the worker takes the newest observation, calls the engine and hands the chunk to the
# coordinator, which publishes it if its instruction is still in force. Below, from the inside out:
# camera monitor, worker, coordinator, node.

_TICK_S = 0.02  # how exactly single steps and recorded images are on time


class CameraMonitor:
    """Warns in the log of frozen and black cameras, then refuses the observation: the policy holds.

    Attributes:
        text: what is wrong at present; empty when nothing is.
    """

    def __init__(self, node, card: EngineCard):
        """Monitor the cameras that the engine reads; limits are the node's parameters."""
        params = node.params
        self._logger = node.get_logger()
        self._health = CameraHealth(
            {
                spec.name: CameraLimits(
                    frozen_after_s=params["frozen_after_s"],
                    min_motion_m=params["frozen_motion_m"],
                    min_rotation_rad=params["frozen_rotation_rad"],
                    hold_after_s=params["frozen_hold_after_s"],
                    black_hold_after_s=params["black_hold_after_s"],
                    required=spec.required,
                    judge_frozen=params[f"watch_{spec.name}_camera"],
                )
                for spec in card.cameras
            }
        )
        self.text = ""

    def check(self, synced: SyncedInputs, observation: Observation) -> None:
        """Judge the images that the engine is about to get.

        Raises:
            InputError: a camera has been frozen or black for too long.
        """
        for name, image in observation.images.items():
            self._health.add(name, synced.frames[name].stamp_s, image, observation.measured)
        verdict = self._health.verdict
        before, self.text = self.text, verdict.text
        if verdict.level is CameraLevel.HOLD:
            raise InputError(verdict.text)
        if verdict.text and not before:
            self._logger.warning(verdict.text)
        elif before and not verdict.text:
            self._logger.info("the cameras are fine again")


# The worker ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InferenceRequest:
    """The instruction to infer for; `fresh` when the engine does not know it yet."""

    instruction: str
    instruction_id: int
    fresh: bool


class PolicyWorker:
    """The one thread that calls the engine, one chunk at a time, when it is woken.

    It asks the coordinator what to do (`next_request`) and reports there what became of it; the
    coordinator ignores a request that is no longer in force.
    """

    def __init__(self, node, coordinator: "PolicyCoordinator", engine: Engine):
        """Start the thread; `close` ends it."""
        self._node, self._coordinator, self._engine = node, coordinator, engine
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
            request = self._coordinator.next_request()
            if request is None:
                continue
            try:
                self._infer(request)
            except Exception as error:  # an engine may raise anything; the node lives on
                text = f"the engine failed: {type(error).__name__}: {error}"
                self._coordinator.fail(request, text)

    def _infer(self, request: InferenceRequest) -> None:
        if request.fresh:
            try:
                self._engine.reset(request.instruction)
            except ValueError as error:
                self._coordinator.fail(request, str(error))
                return
        inputs = self._node.inputs
        try:
            synced = inputs.newest()
            if synced is None:
                return
            self._coordinator.inference_begun(request)
            image_age_s = self._node.now_s() - synced.stamp_s
            begun = time.perf_counter()
            observation = inputs.observation(synced, request.instruction)
            self._node.cameras.check(synced, observation)
            prepared = time.perf_counter()
            chunk = self._engine.infer(observation)
        except ValueError as error:  # InputError is one: an input lacks something, for now
            self._coordinator.block(request, str(error))
            return
        timings = Timings(
            image_age_s=image_age_s if synced.frames else 0.0,
            image_skew_s=synced.image_skew_s,
            preprocess_s=prepared - begun,
            inference_s=time.perf_counter() - prepared,
        )
        self._coordinator.publish_chunk(request, chunk, timings)


# The coordinator ----------------------------------------------------------------------------------


class PolicyCoordinator:
    """Where instructions, clock and worker meet: one lock orders what is published.

    It takes instructions, hands out inference requests and publishes the chunks of the instruction
    that is in force. The node gives `card`, `inputs`, `now_s()`, `publish_instruction(text)` and
    its logger.
    """

    def __init__(self, node):
        """Publishers and an inactive session."""
        self._node = node
        self._lock = threading.RLock()
        self._outputs = PolicyOutputs(node)
        self._session = Session(self._hold, max_characters=0, blocked_limit_s=0.0)
        self._pace = Pace(0.0)
        self._waiting = ""  # an instruction that came before activation
        self._published_state = None

    # Called by transitions

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
                self._start(waiting, 0.0, None)
            self._publish_changes()

    def deactivate(self) -> None:
        """Hold, and take nothing any more."""
        with self._lock:
            self._session.deactivate()
            self._publish_changes()
        # The process may be about to end, and its last hold with it.
        self._outputs.wait_until_received(timeout_s=0.5)

    # Called by whoever gives instructions

    def on_goal(self, instruction: str, timeout_s: float, requester) -> str:
        """Follow the instruction of a goal; returns why not, or ""."""
        with self._lock:
            refusal = self._start(instruction, timeout_s, requester)
            self._publish_changes()
        return refusal

    def on_instruction(self, text: str) -> None:
        """An instruction came on the topic; the one that is being followed is no new one."""
        with self._lock:
            if self._session.state is State.INACTIVE:
                self._waiting = text
            elif text.strip() != self._session.instruction or not self._session.pursued:
                self._start(text, 0.0, None)
            self._publish_changes()

    def cancel(self, requester) -> None:
        """The goal of `requester` is to end."""
        with self._lock:
            if self._session.requester is requester:
                self._session.stop(Outcome.CANCELLED, "cancelled")
            self._publish_changes()

    def _start(self, text: str, timeout_s: float, requester) -> str:
        session, text = self._session, text.strip()
        if session.state is State.INACTIVE:
            return "the policy node is not active; activate it first"
        if not text:
            session.stop(Outcome.CANCELLED, "the instruction was emptied")
            if requester:
                reason = "an empty instruction is a stop"
                requester.end(Ending(Outcome.CANCELLED, reason, session.instruction_id, 0, 0.0))
            return ""
        if refusal := session.refusal(text):
            self._node.get_logger().warning(refusal)
            session.text = refusal
            return refusal
        now_s = self._node.now_s()
        session.begin(text, now_s, timeout_s, requester)
        self._node.get_logger().info(f"instruction {session.instruction_id}: {text}")
        self._pace.at_once(now_s)
        if requester:
            self._node.publish_instruction(text)
        return ""

    # Called by the clocks

    def tick(self, now_s: float) -> bool:
        """Do what is due; whether an inference is."""
        with self._lock:
            self._outputs.publish_due_steps(now_s)
            self._session.tick(now_s)
            self._publish_changes()
            return self._session.in_force and self._pace.due(now_s)

    def on_clock_fault(self, text: str, stalled: bool) -> None:
        """The node clock stands still, or it was set: after that no stamp means what it did."""
        with self._lock:
            if self._session.in_force and stalled:
                self._session.block(text, self._node.now_s())
            elif self._session.pursued and not stalled:
                self._session.fail(f"{text}; then instruct again")
            self._publish_changes()

    # Called by the worker

    def next_request(self) -> InferenceRequest | None:
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

    def inference_begun(self, request: InferenceRequest) -> None:
        """An observation was there and is being worked on."""
        with self._lock:
            if self._in_force(request):  # a newer instruction is due at once
                self._pace.begun(self._node.now_s())

    def publish_chunk(self, request: InferenceRequest, chunk, timings: Timings) -> None:
        """Publish a chunk, unless its instruction is no longer in force."""
        with self._lock:
            if not self._in_force(request):
                return
            now_s, inputs, session = self._node.now_s(), self._node.inputs, self._session
            frames = (inputs.base_frame, inputs.ee_frame)
            self._outputs.publish_chunk(chunk, session, self._node.card, frames, timings, now_s)
            session.chunk_published(now_s, float(chunk.due_times_s()[-1]), chunk.final)
            self._publish_changes(new_chunk=True)

    def block(self, request: InferenceRequest, text: str) -> None:
        """No chunk for now."""
        with self._lock:
            if self._in_force(request):
                now_s = self._node.now_s()
                self._pace.begun(now_s)
                self._session.block(text, now_s)
                self._publish_changes()

    def fail(self, request: InferenceRequest, text: str) -> None:
        """No chunk any more for this instruction."""
        with self._lock:
            if self._in_force(request):
                self._node.get_logger().error(text)
                self._session.fail(text)
                self._publish_changes()

    def _in_force(self, request: InferenceRequest) -> bool:
        return self._session.in_force and self._session.instruction_id == request.instruction_id

    # What goes out

    def publish_status(self) -> None:
        """Publish policy_status as it is."""
        with self._lock:
            self._outputs.publish_status(
                self._session, self._node.card, self._image_counts(), self._node.now_s()
            )

    def diagnostics(self) -> tuple[State, str, dict]:
        """State, sentence and numbers for /diagnostics."""
        with self._lock:
            received, dropped = self._image_counts()
            p50_s, p99_s = self._outputs.inference_percentiles_s()
            numbers = {
                "images_received": received,
                "images_dropped": dropped,
                "chunks_late": self._outputs.late,
                "inference_p50_s": f"{p50_s:.4f}",
                "inference_p99_s": f"{p99_s:.4f}",
            }
            return self._session.state, self._session.text, numbers

    def _hold(self, reason: str) -> None:
        self._node.get_logger().info(f"hold: {reason}")
        self._outputs.publish_hold(self._session, self._node.card, self._node.now_s())

    def _publish_changes(self, new_chunk: bool = False) -> None:
        """Status when it changed, and feedback to the goal then and for each chunk."""
        session = self._session
        now = (session.state, session.text, session.instruction_id)
        changed, self._published_state = now != self._published_state, now
        if changed:
            self.publish_status()
        if session.requester and (changed or new_chunk):
            inference_s = self._outputs.timings.inference_s
            session.requester.publish_feedback(session, self._outputs.chunk_id, inference_s)

    def _image_counts(self) -> tuple[int, int]:
        return self._node.inputs.counts() if self._node.inputs else (0, 0)


# The node -----------------------------------------------------------------------------------------


class PolicyNode(SpearNode):
    """Lifecycle shell around an engine: wires topics, action, clocks and worker together.

    Attributes:
        inputs: of the present activation; None before the first.
        cameras: the monitor of its images.
    """

    def __init__(self, arguments: list[str] | None = None, engine: Engine | None = None):
        """An `engine` given here is used in place of the one that the parameters name."""
        super().__init__("policy", arguments)
        self.params = Parameters(self, "spear_policy", "policy_node")
        self._given = engine
        self._engine: Engine | None = None
        self.inputs: PolicyInputs | None = None
        self.cameras: CameraMonitor | None = None
        self._coordinator = PolicyCoordinator(self)
        self._worker = self._topic = self._action = self._images = self._timer = None
        # A node clock that stands still or goes back would wake nobody.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.io.create_timer(1.0, self._coordinator.publish_status, clock=self._steady)

    @property
    def card(self) -> EngineCard:
        """The engine's, or an empty one while there is no engine."""
        return self._engine.card if self._engine else EngineCard(self.params["engine"], "")

    def publish_instruction(self, text: str) -> None:
        """Put an instruction that came through the action on the topic."""
        self._topic.publish(text)

    def configure(self) -> None:
        self.params.check()
        try:
            self._engine = self._given or make_engine(self.params)
        except (ValueError, OSError) as error:
            raise RefusedError(str(error)) from None
        check_card(self.card, self.params["step_dt_s"], self.params["inference_period_s"])
        self._engine.warm_up()
        self._clock_monitor = ClockMonitor(self.simulated_time, self.params["clock_stall_s"])
        self._coordinator.configure(self.params)
        if self.card.publishes_images:
            self._images = ReplayedImages(self, self._engine)
        self._worker = PolicyWorker(self, self._coordinator, self._engine)
        self._topic = InstructionTopic(self, self._coordinator.on_instruction)
        self._action = RunInstructionServer(self, self._coordinator)
        self._timer = self.io.create_timer(_TICK_S, self._tick, clock=self._steady)

    def activate(self) -> None:
        self.cameras = CameraMonitor(self, self.card)
        self.inputs = PolicyInputs(self, self.card)
        self.get_logger().info(self.inputs.bridge_text)
        timeout_s = self.params["startup_timeout_s"]
        problem = "no complete observation yet"

        def ready() -> bool:
            nonlocal problem
            try:
                synced = self.inputs.newest()
                if synced is not None:
                    self.inputs.observation(synced, "")
                    problem = ""
            except InputError as error:
                problem = str(error)
            return not problem

        if not self.wait_until(ready, timeout_s):
            raise RefusedError(f"{problem} (waited {timeout_s:g} s)")
        self._coordinator.activate()

    def deactivate(self) -> None:
        self._coordinator.deactivate()
        if self._action and not self.wait_until(lambda: self._action.settled, 2.0):
            self.get_logger().warning("a run_instruction goal may not have got its result")
        if self.inputs:
            self.inputs.close()

    def cleanup(self) -> None:
        if self._timer:
            self.io.destroy_timer(self._timer)
        if self._worker and not self._worker.close():
            self.get_logger().error("the engine hangs; its thread ends with the process")
        for each in (self._action, self._topic, self._images):
            if each:
                each.close()
        self.inputs = self._worker = self._topic = self._action = self._images = None
        self._timer = self._engine = None
        self.params.release()

    def diagnose(self):
        state, text, numbers = self._coordinator.diagnostics()
        notes = dict(self._engine.figures()) if self._engine else {}
        notes["cameras"] = self.cameras.text if self.cameras else ""
        level = WARN if state is State.BLOCKED or any(notes.values()) else OK
        return [("policy", level, text, {"state": state.name, **numbers, **notes})]

    def _tick(self) -> None:
        now_s, steady_s = read_clocks(self.now_s)
        if problem := self._clock_monitor.check(now_s, steady_s):
            problem = self.two_clocks() or problem
            self._coordinator.on_clock_fault(problem, self._clock_monitor.stalled)
        if self._images and self.active:
            self._images.publish_due(now_s)
        if self._coordinator.tick(now_s) and self._worker:
            self._worker.wake()


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


def main() -> None:
    """Run until SIGINT or SIGTERM; `--help` shows how."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        engines = "\n".join(f"  {name}: {entry.summary}" for name, entry in ENGINES.items())
        print(node_help("spear_policy", "policy_node", f"{__doc__}\nEngines:\n{engines}"))
        return
    sys.exit(run(PolicyNode))


if __name__ == "__main__":
    main()
