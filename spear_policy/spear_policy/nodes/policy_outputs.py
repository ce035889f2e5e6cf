"""What the policy node says: chunks, their single steps when due, holds, status. Caller locks."""

import uuid
from collections import deque
from dataclasses import dataclass

import numpy as np
from rclpy.duration import Duration

from spear_msgs.msg import ActionChunk, EndEffectorDelta, PolicyStatus
from spear_policy.geometry.chunks import Chunk
from spear_policy.inference.engine import EngineCard
from spear_policy.inference.session import Session
from spear_policy.inference.step_schedule import StepSchedule
from spear_policy.nodes.messages import chunk_to_msg, s_to_duration, s_to_stamp
from spear_policy.nodes.qos import COMMAND, LATCHED


@dataclass(frozen=True)
class Timings:
    """How long a chunk took [s]: image age and skew by the node clock, the others by the wall's."""

    image_age_s: float = 0.0
    image_skew_s: float = 0.0
    preprocess_s: float = 0.0
    inference_s: float = 0.0


class PolicyOutputs:
    """Publishers and the numbers that go out with them.

    Attributes:
        source_id: random per process, so that a driver can tell two publishers apart.
        chunk_id: of the newest chunk.
    """

    def __init__(self, node):
        """Create the publishers on the node's data plane."""
        self.source_id = uuid.uuid4().hex
        self.chunk_id = 0
        self.late = 0
        self.timings = Timings()
        self._inference_s: deque[float] = deque(maxlen=100)
        self._schedule = StepSchedule()
        create = node.io.create_publisher
        self._chunks = create(ActionChunk, "action_chunk", COMMAND)
        self._deltas = create(EndEffectorDelta, "ee_delta", COMMAND)
        self._status = create(PolicyStatus, "policy_status", LATCHED)

    def chunk(
        self,
        chunk: Chunk,
        session: Session,
        card: EngineCard,
        frames: tuple[str, str],
        timings: Timings,
        now_s: float,
    ) -> None:
        """Publish a chunk of the instruction in force; `frames` are those of base and hand."""
        message = self._signed(chunk_to_msg(chunk, *frames), session, card)
        for step in message.steps:
            step.chunk_source_id, step.chunk_id = message.source_id, message.chunk_id
        message.image_age = s_to_duration(timings.image_age_s)
        message.preprocess_time = s_to_duration(timings.preprocess_s)
        message.inference_time = s_to_duration(timings.inference_s)
        self._chunks.publish(message)
        self.timings = timings
        self._inference_s.append(timings.inference_s)
        due_s = chunk.due_times_s()
        self.late += bool(now_s > due_s[0])
        self._schedule.replace(due_s, message.steps, now_s)

    def hold(self, session: Session, card: EngineCard, now_s: float) -> None:
        """Tell the robot to stop and stay, and forget the steps that were still to come."""
        self._schedule.clear()
        message = self._signed(ActionChunk(kind=ActionChunk.KIND_HOLD), session, card)
        message.header.stamp = s_to_stamp(now_s)
        message.dt = s_to_duration(card.dt_s)
        self._chunks.publish(message)

    def wait_until_heard(self, timeout_s: float) -> None:
        """Give every subscriber of the chunks the time to acknowledge the last one."""
        self._chunks.wait_for_all_acked(Duration(seconds=timeout_s))

    def _signed(self, message: ActionChunk, session: Session, card: EngineCard) -> ActionChunk:
        self.chunk_id += 1
        message.source_id, message.chunk_id = self.source_id, self.chunk_id
        message.instruction, message.instruction_id = session.instruction, session.instruction_id
        message.checkpoint_id, message.statistics_hash = card.checkpoint_id, card.statistics_hash
        return message

    def due_steps(self, now_s: float) -> None:
        """Publish the single steps that became due."""
        for step in self._schedule.due(now_s):
            self._deltas.publish(step)

    def inference_percentiles_s(self) -> tuple[float, float]:
        """(p50, p99) of the inference time over the last 100 chunks [s, wall]; 0 before any."""
        if not self._inference_s:
            return 0.0, 0.0
        return tuple(float(p) for p in np.percentile(self._inference_s, (50, 99)))

    def status(
        self, session: Session, card: EngineCard, image_counts: tuple[int, int], now_s: float
    ) -> None:
        """Publish policy_status."""
        p50_s, p99_s = self.inference_percentiles_s()
        message = PolicyStatus(
            state=int(session.state),
            engine=card.engine,
            checkpoint_id=card.checkpoint_id,
            statistics_hash=card.statistics_hash,
            source_id=self.source_id,
            instruction=session.instruction,
            instruction_id=session.instruction_id,
            chunk_id=self.chunk_id,
            text=session.text,
            image_age=s_to_duration(self.timings.image_age_s),
            image_skew=s_to_duration(self.timings.image_skew_s),
            preprocess_time=s_to_duration(self.timings.preprocess_s),
            inference_time=s_to_duration(self.timings.inference_s),
            inference_p50=s_to_duration(p50_s),
            inference_p99=s_to_duration(p99_s),
            images_received=image_counts[0],
            images_dropped=image_counts[1],
            chunks_late=self.late,
        )
        message.header.stamp = s_to_stamp(now_s)
        self._status.publish(message)
