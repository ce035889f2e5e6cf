"""From messages as they come in to one consistent observation, or a sentence why there is none.

The newest frames of each camera wait in a `FrameBuffer`, still as messages. The `Synchroniser`
joins them with the states (and ground-truth objects) of the same instant to `SyncedInputs`; only
the images of those are then decoded. Two clocks judge every input: its header stamp against the
node clock, and its receipt against the steady clock (on a real robot; in a simulation, which may
be slow, the node clock alone).
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry.poses import Pose, PoseHistory
from spear_policy.inference.engine import CameraSpec, SceneObject
from spear_policy.inference.image_codec import read_compressed

# Enough for the frames of two cameras to find their partners, and for the state to catch up.
_DEPTH = 6


@dataclass(frozen=True, eq=False)
class CameraFrame:
    """A received image message with its header stamp [node clock] and its receipt [steady]."""

    stamp_s: float
    received_s: float
    message: Any


class FrameBuffer:
    """The newest frames, oldest first. Not thread-safe: the owner locks.

    Attributes:
        topic: for messages to people.
        received: frames that came.
        dropped: frames that newer ones replaced before they were used.
    """

    def __init__(self, topic: str):
        self.topic = topic
        self.received = 0
        self.dropped = 0
        self._frames: deque[CameraFrame] = deque()
        self._used_s = float("-inf")

    def put(self, frame: CameraFrame) -> None:
        """Append a frame; an older stamp than the last one begins anew (the clock was reset)."""
        self.received += 1
        if self._frames and frame.stamp_s < self._frames[-1].stamp_s:
            self._frames.clear()
            self._used_s = float("-inf")
        self._frames.append(frame)
        if len(self._frames) > _DEPTH:
            self.dropped += self._frames.popleft().stamp_s > self._used_s

    def use(self, frame: CameraFrame) -> None:
        """`frame` goes into an observation; the unused ones before it are dropped."""
        while self._frames and self._frames[0].stamp_s < frame.stamp_s:
            self.dropped += self._frames.popleft().stamp_s > self._used_s
        self._used_s = frame.stamp_s

    def newest_first(self) -> list[CameraFrame]:
        """The buffered frames, newest first."""
        return list(reversed(self._frames))

    @property
    def newest(self) -> CameraFrame | None:
        """The newest frame, or None."""
        return self._frames[-1] if self._frames else None


class InputError(ValueError):
    """An input is missing, stale or wrong; the text names it and the fix."""


@dataclass(frozen=True)
class InputLimits:
    """What synchronised inputs must satisfy; ages and skews in seconds.

    Attributes:
        max_image_skew_s: external stamp to the stamp of a wrist image that goes with it.
        max_future_s: how far a stamp may lie ahead of the node clock.
        state_slack_s: how far an image may lie outside the recorded states.
        judge_receipt: judge the time since receipt on the steady clock too.
    """

    max_image_age_s: float = 0.5
    max_state_age_s: float = 0.2
    max_objects_age_s: float = 0.5
    max_image_skew_s: float = 0.05
    max_future_s: float = 0.05
    state_slack_s: float = 0.02
    judge_receipt: bool = True


@dataclass(frozen=True, eq=False)
class SyncedInputs:
    """What was true at `stamp_s`, images not yet decoded; poses in `base_frame`."""

    stamp_s: float
    measured: Pose
    commanded: Pose
    gripper_opening: float
    frames: Mapping[str, CameraFrame] = field(default_factory=dict)
    objects: Mapping[str, SceneObject] = field(default_factory=dict)
    image_skew_s: float = 0.0


@dataclass
class _Input:
    """Bookkeeping of one input that is not an image: newest stamp, receipt, and what was bad."""

    topic: str
    maker: str  # who publishes it, for the fix
    stamp_s: float | None = None
    received_s: float = 0.0
    problem: str = ""


class Synchroniser:
    """Collects inputs from any thread; `newest` gives the newest consistent set of them.

    Args:
        cameras: what the engine wants; the first required one gives the set its stamp.
        topics: resolved topic by "external", "wrist", "ee_state" and "objects", for messages.
        needs_objects: whether a set must hold ground-truth objects.
    """

    def __init__(
        self,
        cameras: tuple[CameraSpec, ...],
        limits: InputLimits,
        topics: Mapping[str, str],
        needs_objects: bool = False,
    ):
        self.cameras, self.limits, self.needs_objects = cameras, limits, needs_objects
        self._lock = Lock()
        self._frames = {spec.name: FrameBuffer(topics[spec.name]) for spec in cameras}
        self._state = _Input(topics["ee_state"], "the robot driver")
        self._objects_input = _Input(topics["objects"], "sim_world")
        self._history = PoseHistory()
        self._openings: list[tuple[float, float]] = []
        self._objects: dict[str, SceneObject] = {}
        self._used_s = float("-inf")

    # What comes in --------------------------------------------------------------------------

    def add_frame(self, camera: str, frame: CameraFrame) -> None:
        """An image of a camera arrived."""
        with self._lock:
            self._frames[camera].put(frame)

    def add_state(
        self, stamp_s: float, received_s: float, measured: Pose, commanded: Pose, opening: float
    ) -> None:
        """A state of the end effector arrived; `opening` is 0 closed .. 1 open."""
        with self._lock:
            self._arrived(self._state, stamp_s, received_s)
            self._history.add(stamp_s, measured, commanded)
            if self._openings and stamp_s == self._openings[-1][0]:
                return
            if self._openings and stamp_s < self._openings[-1][0]:
                self._openings.clear()
            self._openings.append((stamp_s, opening))
            if len(self._openings) > 2000:
                del self._openings[:1000]

    def add_objects(
        self, stamp_s: float, received_s: float, objects: Mapping[str, SceneObject]
    ) -> None:
        """Ground truth of the scene arrived."""
        with self._lock:
            self._arrived(self._objects_input, stamp_s, received_s)
            self._objects = dict(objects)

    def reject(self, which: str, problem: str) -> None:
        """A message of "ee_state" or "objects" could not be used; it counts until a good one."""
        with self._lock:
            entry = self._state if which == "ee_state" else self._objects_input
            entry.problem = problem

    @staticmethod
    def _arrived(entry: _Input, stamp_s: float, received_s: float) -> None:
        entry.stamp_s, entry.received_s, entry.problem = stamp_s, received_s, ""

    # What goes out --------------------------------------------------------------------------

    def counts(self) -> tuple[int, int]:
        """(images received, images dropped) of all cameras."""
        with self._lock:
            buffers = self._frames.values()
            return sum(b.received for b in buffers), sum(b.dropped for b in buffers)

    def newest(self, now_s: float, steady_s: float) -> SyncedInputs | None:
        """The newest set that was not given out yet; None when there is nothing newer.

        Args:
            now_s: node clock.
            steady_s: steady clock.

        Raises:
            InputError: a required input is missing, stale, ahead of the clock or contradictory.
        """
        with self._lock:
            self._check_ages(now_s, steady_s)
            candidates = self._candidates()
            if self._state.stamp_s < self._used_s - self.limits.max_state_age_s:
                self._used_s = float("-inf")  # the clock was set back
            synced = next(filter(None, map(self._complete, candidates)), None)
            if synced is None:
                self._explain(candidates)
            if synced.stamp_s <= self._used_s:
                return None
            self._used_s = synced.stamp_s
            for name, frame in synced.frames.items():
                self._frames[name].use(frame)
            return synced

    def _check_ages(self, now_s: float, steady_s: float) -> None:
        limits = self.limits
        for spec in self.cameras:
            if not spec.required:
                continue
            buffer = self._frames[spec.name]
            if (newest := buffer.newest) is None:
                raise InputError(
                    f"no image on {buffer.topic}; start the {spec.name} camera or remap the topic"
                )
            times = (newest.stamp_s, newest.received_s, limits.max_image_age_s)
            self._check_age(buffer.topic, f"the {spec.name} camera", *times, now_s, steady_s)
        inputs = [(self._state, limits.max_state_age_s)]
        if self.needs_objects:
            inputs.append((self._objects_input, limits.max_objects_age_s))
        for entry, max_age_s in inputs:
            if entry.problem:
                raise InputError(f"{entry.topic}: {entry.problem}")
            if entry.stamp_s is None:
                raise InputError(f"nothing on {entry.topic}; start {entry.maker} or remap it")
            times = (entry.stamp_s, entry.received_s, max_age_s)
            self._check_age(entry.topic, entry.maker, *times, now_s, steady_s)

    def _check_age(self, topic, maker, stamp_s, received_s, max_age_s, now_s, steady_s) -> None:
        age_s = now_s - stamp_s
        if -age_s > self.limits.max_future_s:
            raise InputError(
                f"{topic} is stamped {-age_s:.2f} s ahead of this node's clock (limit "
                f"{self.limits.max_future_s:g} s); synchronise the clocks, or set use_sim_time "
                "alike on both sides"
            )
        if self.limits.judge_receipt and steady_s - received_s > max_age_s:
            raise InputError(
                f"nothing came on {topic} for {steady_s - received_s:.1f} s "
                f"(limit {max_age_s:g} s); check {maker}"
            )
        if age_s > max_age_s:
            raise InputError(
                f"{topic} is {age_s:.2f} s old (limit {max_age_s:g} s); {maker} has stopped, is "
                "too slow, or its clock differs from this node's"
            )

    def _candidates(self) -> list[dict[str, CameraFrame]]:
        """Sets of frames that belong together, newest first; one empty set without cameras."""
        if not self.cameras:
            return [{}]
        leader, *others = sorted(self.cameras, key=lambda spec: not spec.required)
        sets = []
        for frame in self._frames[leader.name].newest_first():
            together = {leader.name: frame}
            for spec in others:
                partner = min(
                    self._frames[spec.name].newest_first(),
                    key=lambda other: abs(other.stamp_s - frame.stamp_s),
                    default=None,
                )
                if partner and abs(partner.stamp_s - frame.stamp_s) <= self.limits.max_image_skew_s:
                    together[spec.name] = partner
            if all(spec.name in together for spec in self.cameras if spec.required):
                sets.append(together)
        return sets

    def _complete(self, frames: dict[str, CameraFrame]) -> SyncedInputs | None:
        """The frames with the state of their stamp, or None when no states cover it."""
        stamps = [frame.stamp_s for frame in frames.values()]
        stamp_s = stamps[0] if stamps else self._state.stamp_s
        poses = self._history.at(stamp_s, self.limits.state_slack_s)
        if poses is None:
            return None
        opening = float(np.interp(stamp_s, *zip(*self._openings[-400:], strict=True)))
        return SyncedInputs(
            stamp_s=stamp_s,
            measured=poses[0],
            commanded=poses[1],
            gripper_opening=opening,
            frames=frames,
            objects=self._objects if self.needs_objects else {},
            image_skew_s=max(stamps) - min(stamps) if stamps else 0.0,
        )

    def _explain(self, candidates: list[dict[str, CameraFrame]]) -> NoReturn:
        """Raise the reason why no candidate could be completed."""
        if not candidates:
            newest = [self._frames[spec.name].newest for spec in self.cameras if spec.required]
            apart_s = max(f.stamp_s for f in newest) - min(f.stamp_s for f in newest)
            names = " and ".join(buffer.topic for buffer in self._frames.values())
            raise InputError(
                f"no images of {names} within {self.limits.max_image_skew_s:g} s of each other, "
                f"the newest are {apart_s:.2f} s apart; synchronise the cameras or raise "
                "max_image_skew_s"
            )
        behind_s = next(iter(candidates[0].values())).stamp_s - self._state.stamp_s
        where = f"ends {behind_s:.2f} s before" if behind_s > 0 else "begins after"
        raise InputError(
            f"{self._state.topic} {where} the newest image; check {self._state.maker} and its clock"
        )


# A depth or grey image would be converted without a complaint and mean nothing to a policy.
COLOUR_ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8")


def decode(
    frames: Mapping[str, CameraFrame],
    cameras: tuple[CameraSpec, ...],
    topics: Mapping[str, str],
    bridge: Any,
) -> dict[str, NDArray]:
    """(H, W, 3) uint8 RGB by camera name; a camera whose width is 0 may have any size.

    Args:
        frames: messages (Image or CompressedImage) by camera name.
        topics: resolved topic by camera name, for messages.
        bridge: a converter with cv_bridge's methods.

    Raises:
        InputError: a message is broken, has no colour, or not the size that the engine wants.
    """
    sizes = {spec.name: (spec.width, spec.height) for spec in cameras}
    images = {}
    for name, frame in frames.items():
        image = rgb_of_message(frame.message, topics[name], bridge)
        size = (image.shape[1], image.shape[0])
        if sizes[name] != (0, 0) and size != sizes[name]:
            wanted = "{}x{}".format(*sizes[name])
            raise InputError(
                f"{topics[name]} is {size[0]}x{size[1]}; the engine wants {wanted}: set the camera "
                "to that size or put an image_proc resize node before it"
            )
        images[name] = image
    return images


def rgb_of_message(message: Any, topic: str, bridge: Any) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of an Image or CompressedImage. Raises InputError, which names `topic`."""
    compressed = not hasattr(message, "encoding")
    if not compressed and message.encoding not in COLOUR_ENCODINGS:
        raise InputError(
            f"{topic} has encoding {message.encoding!r}; a policy needs colour "
            f"({', '.join(COLOUR_ENCODINGS)}): remap to the colour image of the camera"
        )
    try:
        if not compressed:
            return bridge.imgmsg_to_cv2(message, "rgb8")
        image, _ = read_compressed(message)  # cv_bridge would decode whatever size it claims
    except Exception as error:  # cv_bridge lets OpenCV's and numpy's errors through
        raise InputError(f"{topic}: {error}") from None
    if image.ndim != 3 or image.dtype != np.uint8 or image.shape[2] != 3:
        raise InputError(
            f"{topic} holds pictures of shape {image.shape} {image.dtype}; a policy needs colour: "
            "remap to the colour image of the camera"
        )
    return np.ascontiguousarray(image[..., ::-1])
