"""policy_node: observations and an instruction in, action chunks out.

Example: ros2 run spear_policy policy_node --ros-args -p engine:=scripted
"""

import sys
import time

from rclpy.clock import Clock, ClockType

from spear_policy.inference.engine import Engine, EngineCard
from spear_policy.inference.session import State
from spear_policy.nodes.camera_watch import CameraWatch
from spear_policy.nodes.engines import check_card, make_engine
from spear_policy.nodes.instruction_topic import InstructionTopic
from spear_policy.nodes.lifecycle import OK, WARN, Refused, SpearNode, run
from spear_policy.nodes.parameters import Parameters, parameter_table
from spear_policy.nodes.policy_desk import PolicyDesk
from spear_policy.nodes.policy_inputs import PolicyInputs
from spear_policy.nodes.policy_worker import PolicyWorker, judge_inputs
from spear_policy.nodes.replayed_images import ReplayedImages
from spear_policy.nodes.run_instruction import RunInstructionServer

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
        self._desk = PolicyDesk(self)
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
            raise Refused(f"{problem} (waited {timeout_s:g} s)")
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
