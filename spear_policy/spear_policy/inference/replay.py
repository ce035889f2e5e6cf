"""The engine that repeats a recorded episode on the robot at hand, relative to where it stands."""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spear_policy.geometry.poses import Chunk, Pose, chunk_from_poses
from spear_policy.geometry.tracking import TimedPoses, replayed_motion
from spear_policy.inference.engine import EngineCard, Observation
from spear_policy.inference.episode import Episode, binary_gripper, load_episode

# A due time and a recorded stamp that mean the same instant differ by rounding.
_SAME_INSTANT_S = 1e-6


def from_parameters(params: Mapping[str, Any]) -> "ReplayEngine":
    """The engine of policy_node's parameters. Raises EpisodeError."""
    return ReplayEngine.from_file(params["episode_file"], dt_s=params["step_dt_s"])


class ReplayEngine:
    """Answers with the recorded motion, from the pose that it finds at its first observation.

    Recorded time runs with the observations' stamps: step k of a chunk is what the recording did
    at (stamp - start + k * dt), so a late or missed inference loses nothing. Targets between
    recorded poses are interpolated (linear, slerp); after the last one the chunk repeats it.
    Best asked once a recorded step, with the stamps that `frames_due` gives: then the chunk's
    steps are recorded poses. Asked between two, it cuts the corner at each recorded pose, by some
    millimetres at BridgeData's speeds.
    The gripper is commanded 0 or 1: the newest recorded command, or opening where there is none.
    """

    def __init__(
        self,
        episode: Episode,
        name: str = "",
        dt_s: float = 0.2,
        chunk_length: int = 5,
        cameras: tuple[str, ...] = ("external", "wrist"),
    ):
        """Replay `episode`; of its images only those of `cameras` are given out.

        `name` names the recording in every chunk; the file's name is a good one.
        """
        self.episode = episode
        self._card = EngineCard(
            engine="replay",
            checkpoint_id=name or episode.name,
            dt_s=dt_s,
            chunk_length=chunk_length,
            publishes_images=True,
        )
        self._images = {name: episode.images[name] for name in cameras if name in episode.images}
        self._gripper = _binary_gripper_of(episode)
        # The worker thread infers while the node's timer asks for frames.
        self._lock = Lock()
        self._targets: TimedPoses | None = None
        self._frames_given = 0

    @classmethod
    def from_file(cls, path: str | Path, **kwargs) -> "ReplayEngine":
        """The engine for an episode file.

        Raises:
            EpisodeError: the file cannot be used.
        """
        return cls(load_episode(path), name=Path(path).stem, **kwargs)

    @property
    def card(self) -> EngineCard:
        """What it needs (nothing) and promises."""
        return self._card

    @property
    def instruction(self) -> str:
        """The recorded sentence, the only one that it can follow."""
        return self.episode.instruction

    @property
    def camera_sizes(self) -> dict[str, tuple[int, int]]:
        """(width, height) of each camera that `frames_due` gives out [px]."""
        return {name: (video.shape[2], video.shape[1]) for name, video in self._images.items()}

    def figures(self) -> dict[str, str]:
        """None."""
        return {}

    def warm_up(self) -> None:
        """Nothing to do: the episode was read and judged at construction."""

    def reset(self, instruction: str) -> None:
        """Start over at the next observation.

        Raises:
            ValueError: it is not the recorded instruction.
        """
        if instruction.strip().lower() != self.instruction.strip().lower():
            raise ValueError(
                f"{self.card.checkpoint_id} is a recording of {self.instruction!r} and can do "
                f"nothing else; got {instruction!r}"
            )
        with self._lock:
            self._targets = None
            self._frames_given = 0

    def infer(self, observation: Observation) -> Chunk:
        """The next steps of the recording, relative to the measured pose; `final` at its end.

        Raises:
            ValueError: the observation is older than the start of the replay.
        """
        now_s = observation.stamp_s
        with self._lock:
            if self._targets is None:
                self._targets = replayed_motion(self.episode.motion, observation.measured, now_s)
            targets = self._targets
        start_s, end_s = targets.stamps_s[0], targets.stamps_s[-1]
        if now_s < start_s - _SAME_INSTANT_S:
            raise ValueError(
                f"observation at {now_s:.3f} s is from before the replay began at {start_s:.3f} s "
                "(was the clock set back?); give the instruction again"
            )
        due_s = now_s + self.card.dt_s * np.arange(1, self.card.chunk_length + 1)
        return chunk_from_poses(
            stamp_s=now_s,
            dt_s=self.card.dt_s,
            measured=observation.measured,
            commanded=observation.commanded,
            targets=[Pose(pose[:3], pose[3:]) for pose in targets.at(due_s)],
            gripper_openings=self._gripper[_newest(targets.stamps_s, due_s)],
            final=bool(now_s >= end_s - _SAME_INSTANT_S),
        )

    def targets(self) -> TimedPoses | None:
        """Where the robot has to be at each recorded step, and when; None before the first infer.

        For judging what it did: `spear_policy.geometry.tracking.tracking_errors`.
        """
        with self._lock:
            return self._targets

    def frames_due(self, now_s: float) -> list[tuple[float, dict[str, NDArray]]]:
        """The recorded steps that became due since the last call, oldest first, with their images.

        Each entry is (stamp_s, camera name -> (H, W, 3) uint8 RGB); the stamp is the recorded time
        on the replay's clock, the images are none where none were recorded. Empty before the first
        infer, which sets that clock going.
        """
        with self._lock:
            if self._targets is None:
                return []
            stamps = self._targets.stamps_s
            first = self._frames_given
            self._frames_given = max(first, int(_newest(stamps, now_s)) + 1)
            due = range(first, self._frames_given)
        return [
            (float(stamps[step]), {name: video[step] for name, video in self._images.items()})
            for step in due
        ]


def _binary_gripper_of(episode: Episode) -> NDArray:
    if episode.gripper_commands is not None:
        return binary_gripper(episode.gripper_commands)
    return np.where(episode.gripper_openings >= 0.5, 1.0, 0.0)


def _newest(stamps_s: NDArray, times_s: ArrayLike) -> NDArray:
    """Index of the newest stamp at or before each time; -1 where there is none."""
    return np.searchsorted(stamps_s, np.asarray(times_s) + _SAME_INSTANT_S, side="right") - 1
