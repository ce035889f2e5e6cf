"""Trial recorder: start_trial and end_trial around one bag and one score row. Never in control."""

import math
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from rclpy.clock import Clock, ClockType

from spear_bringup.nodes.recorder_topics import TopicWatch
from spear_bringup.nodes.trial_words import policy_words, trial_info
from spear_bringup.trials.bag_writer import BagRefused, BagTopic, Encode
from spear_bringup.trials.recording import Recording, TrialEnd, TrialRequest, recover, shortfall
from spear_bringup.trials.score_sheet import OUTCOMES
from spear_bringup.trials.software import git_revision
from spear_msgs.msg import TrialInfo
from spear_msgs.srv import EndTrial, StartTrial
from spear_policy.nodes.lifecycle import ERROR, OK, WARN, Refused, SpearNode, run
from spear_policy.nodes.messages import s_to_duration
from spear_policy.nodes.parameters import Parameters
from spear_policy.nodes.qos import LATCHED

HELP = """\
Record trials: one bag and one score row each.

  trial_recorder --ros-args -p directory:=out/trials
  ros2 service call /start_trial spear_msgs/srv/StartTrial "{instruction: 'lift the red cube'}"
  ros2 service call /end_trial spear_msgs/srv/EndTrial "{outcome: 1, score: .nan}"
"""


class TrialRecorder(SpearNode):
    """Records what DESIGN section 4 names, from start_trial to end_trial."""

    def __init__(self, arguments: list[str] | None = None):
        super().__init__("trial_recorder", arguments)
        self.params = Parameters(self, "spear_bringup", "trial_recorder")
        self._lock = threading.RLock()  # transitions and services come from two threads
        self._recording: Recording | None = None
        self._watch: TopicWatch | None = None
        self._matched = threading.Event()
        self._listening = False
        self._told_fault, self._told_at = "", 0.0
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._info_publisher = self.io.create_publisher(TrialInfo, "trial", LATCHED)
        self.io.create_service(StartTrial, "start_trial", self._on_start)
        self.io.create_service(EndTrial, "end_trial", self._on_end)
        self.io.create_timer(0.25, self._match, clock=steady)
        self.io.create_timer(0.1, self._report, clock=steady)

    # Lifecycle ---------------------------------------------------------------------------

    def configure(self) -> None:
        self.params.check()
        self._directory = Path(self.params["directory"]).expanduser().absolute()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"directory {self._directory}: {error.strerror}") from None
        git_revision()  # asked for once, while nobody waits for it

    def activate(self) -> None:
        try:
            for row in recover(self._directory):
                self.get_logger().warning(f"trial {row.trial_id}: {row.fault}")
        except OSError as error:
            self.get_logger().error(f"cannot write rows of earlier trials: {error}")
        ended = self.wait_until(lambda: self._watch is None, 5.0)  # of an earlier activation
        self._matched.clear()
        self._listening = True
        if not (ended and self.wait_until(self._matched.is_set, 5.0)):
            raise Refused("the data thread of the recorder does not run")
        self._publish(None, TrialInfo.STATE_IDLE)

    def deactivate(self) -> None:
        with self._lock:
            if self._recording is not None:
                self._finish(TrialEnd("ABORTED", notes="the recorder was stopped during the trial"))
            self._listening = False

    def cleanup(self) -> None:
        self.params.release()

    def diagnose(self):
        recording = self._recording
        if recording is None:
            return [("recording", OK, "no trial", {})]
        writer = recording.writer
        values = {"trial_id": recording.request.trial_id, "messages": writer.messages}
        dropped = sum(writer.dropped.values())
        if writer.fault:
            return [("recording", ERROR, writer.fault, values)]
        if low := shortfall(self._directory, self.params["least_free_space_mb"]):
            return [("recording", WARN, low, values)]
        if dropped:
            text = f"{dropped} messages were dropped: {writer.complaints or 'the disk is too slow'}"
            return [("recording", WARN, text, values)]
        return [("recording", OK, "recording", values)]

    # Services ----------------------------------------------------------------------------

    def _on_start(self, request, response):
        with self._lock:
            try:
                self._start(request, response)
            except (Refused, BagRefused, ValueError) as refusal:
                response.message = str(refusal)
            except OSError as error:
                response.message = f"cannot record into {self._directory}: {error}"
        if not response.success:
            self.get_logger().error(f"start_trial refused: {response.message}")
        return response

    def _start(self, request, response) -> None:
        if not self.active:
            raise Refused("the recorder is not active; configure and activate it first")
        if self._recording is not None:
            running = self._recording.request.trial_id
            raise Refused(f"trial {running} is being recorded; call end_trial first")
        now_s = self.now_s()
        if self.simulated_time and now_s == 0.0:
            raise Refused("use_sim_time is set and no /clock has come; start the simulation first")
        if low := shortfall(self._directory, self.params["least_free_space_mb"]):
            raise Refused(low)
        trial = TrialRequest(
            instruction=request.instruction,
            seed=None if request.seed < 0 else request.seed,
            operator=request.operator_name,
            trial_id=request.trial_id,
        )
        recording = Recording(
            self._directory,
            trial,
            now_s,
            queue_bytes=self.params["queue_mb"] << 20,
            flush_period_s=self.params["flush_period_s"],
        )
        for topic, raw in self._watch.latched():
            recording.writer.write(topic, round(now_s * 1e9), raw)
        self._watch.forget_lost()
        self._told_fault = ""
        self._recording = recording
        response.success, response.trial_id = True, trial.trial_id
        response.bag = str(recording.bag)
        response.message = "recording"
        if silent := self._watch.unmatched():
            response.message += f"; nobody publishes yet: {', '.join(silent)}"
        self.get_logger().info(f"trial {trial.trial_id}: {response.message}")
        self._publish(recording, TrialInfo.STATE_RECORDING)

    def _on_end(self, request, response):
        with self._lock:
            try:
                self._end(request, response)
            except Refused as refusal:
                response.message = str(refusal)
                self.get_logger().error(f"end_trial refused: {refusal}")
        return response

    def _end(self, request, response) -> None:
        if self._recording is None:
            raise Refused("no trial is being recorded; call start_trial first")
        running = self._recording.request.trial_id
        if request.trial_id not in ("", running):
            raise Refused(f"trial {request.trial_id} is not the running one, which is {running}")
        if request.outcome >= len(OUTCOMES):
            raise Refused(f"outcome {request.outcome} is unknown; use an OUTCOME_ constant")
        score = None if math.isnan(request.score) else round(float(request.score), 6)
        if score is not None and not 0.0 <= score <= 1.0:
            raise Refused(f"score is {score}; it must be 0 to 1, or NaN when not scored")
        bag = self._recording.bag
        duration_s, text = self._finish(TrialEnd(OUTCOMES[request.outcome], score, request.notes))
        response.success, response.message, response.bag = True, text, str(bag)
        response.duration = s_to_duration(duration_s)

    def _finish(self, end: TrialEnd) -> tuple[float, str]:
        """Close the bag, write the row, tell everybody; (duration [s], what went wrong)."""
        recording, now_s = self._recording, self.now_s()
        self._recording = None
        end = replace(
            end,
            **policy_words(self._watch.last("policy_status")),
            expected=self._watch.expected(),
            lost=self._watch.lost(),
        )
        try:
            problems = recording.end(end, now_s).problems()
        except OSError as error:
            problems = [f"the row is not on the score sheet ({error}); make room and restart me"]
        text = "; ".join(problems)
        said = f"trial {recording.request.trial_id}: {'; '.join([end.outcome, *problems])}"
        if problems:  # two calls: rclpy refuses one place in the code with two severities
            self.get_logger().warning(said)
        else:
            self.get_logger().info(said)
        self._publish(recording, TrialInfo.STATE_ENDED, text, OUTCOMES.index(end.outcome))
        return recording.duration_s(now_s), text

    # Data plane --------------------------------------------------------------------------

    def _match(self) -> None:
        """Follow the graph while active; all subscriptions are made and ended in this thread."""
        if not self._listening:
            if self._watch is not None:
                self._watch.close()
            self._watch = None
            return
        if self._watch is None:
            names = (self.params[f"{kind}topics"] for kind in ("", "optional_", "image_"))
            log = self.get_logger().warning
            self._watch = TopicWatch(
                self.io, *names, self._receive, log, self.params["jpeg_quality"]
            )
        self._watch.match()
        self._matched.set()

    def _receive(self, topic: BagTopic, raw: bytes, encode: Encode | None) -> None:
        recording = self._recording
        if recording is not None:
            recording.writer.write(topic, self.io.get_clock().now().nanoseconds, raw, encode)

    def _report(self) -> None:
        """Publish the trial once a second, and at once when its recording broke."""
        with self._lock:
            recording = self._recording
            if recording is None:
                return
            fault = recording.writer.fault or ""
            if fault != self._told_fault:
                self._told_fault = fault
                self.get_logger().error(fault)
            elif time.monotonic() - self._told_at < 1.0:
                return
            state = TrialInfo.STATE_FAULT if fault else TrialInfo.STATE_RECORDING
            self._publish(recording, state, fault)

    def _publish(self, recording: Recording | None, state: int, text: str = "", outcome: int = 0):
        self._told_at = time.monotonic()
        info = trial_info(recording, self.now_s(), state=state, text=text, outcome=outcome)
        self._info_publisher.publish(info)


def main() -> int:
    """Run the recorder until SIGINT or SIGTERM. Returns the exit status."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(HELP)
        return 0
    return run(TrialRecorder)
