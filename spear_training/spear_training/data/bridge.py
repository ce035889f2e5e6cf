"""BridgeData V2 in RLDS form, to episodes.

What the numbers mean, and where that is from:

* `observation/state` (7,): x y z [m] of ee_gripper_link in base_link; three Euler angles [rad];
  gripper, 1 = open, which may exceed 1 a little. `action` (7,): translation, Euler angles,
  gripper. The data set's own features.json describes them wrongly (text left from a template).
* The Euler angles are of R_ee D^T, with D the robot's default rotation, and turn about the fixed
  axes x, y, z in this order (R = Rz Ry Rx). From github.com/rail-berkeley/bridge_data_robot,
  widowx_envs/utils/transformation_utils.py (transform2state, eulerAnglesToRotationMatrix) and
  widowx_controller.py (DEFAULT_ROTATION). spear_training/test/test_bridge.py finds the same order
  by comparing recorded actions with pose differences.
* An action's translation and rotation are in base axes (same file, transform2action_local). Poses
  are what SPEAR trains on; of the action only the gripper command is kept.
* 5 steps a second (bridge_data_robot moves for 0.2 s a step). The files hold no stamps.
* `image_0` is the camera over the shoulder that every scene has; `image_1` and `image_2` look from
  elsewhere, `image_3` is undocumented. Octo (github.com/octo-models/octo, data/oxe) uses image_0
  first as well. There is no wrist camera. A camera that an episode lacks is black; whether it is
  there is told by its pixels, for in Octo's sample every `has_image_k` is 0 although three
  cameras are there.
* Frames were squashed to a square from 640x480; they are kept as stored.
* Where language is missing the instruction is empty: no episode for us.
"""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from spear_policy.inference.episode import Episode, EpisodeError
from spear_training.data.rlds import RldsEpisode, RldsFolder

DEFAULT_ROTATION = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
STEP_S = 0.2
CAMERAS = {"external": "image_0", "external_1": "image_1", "external_2": "image_2"}
# The gripper's state is a ratio of joint positions: beyond this it is no rounding any more.
GRIPPER_MARGIN = 0.1

_KEYS = (
    "steps/observation/state",
    "steps/action",
    "steps/language_instruction",
    "episode_metadata/file_path",
    *(f"steps/observation/{key}" for key in CAMERAS.values()),
)


class BridgeReader:
    """The episodes of a BridgeData V2 folder in RLDS form; see EpisodeReader.

    Raises:
        DataFileError: the folder cannot be used.
    """

    def __init__(self, path: str | Path, split: str = "train"):
        self._folder = RldsFolder(path, split)

    @property
    def name(self) -> str:
        """Data set and split."""
        return f"{self._folder.name}-{self._folder.split}"

    def __len__(self) -> int:
        return len(self._folder)

    def read(self, index: int) -> Episode:
        """Episode `index`. Raises DataFileError, EpisodeError or IndexError."""
        source = {
            "dataset": self._folder.name,
            "version": self._folder.version,
            "split": self._folder.split,
            "index": str(index),
        }
        return bridge_episode(self._folder.read(index, _KEYS), source)


def bridge_episode(record: RldsEpisode, source: dict[str, str]) -> Episode:
    """An episode from the steps of one record.

    Raises:
        EpisodeError: it has no instruction, no picture or impossible numbers.
    """
    steps = record.steps
    state = steps["observation/state"].astype(float)
    sentences = sorted(set(steps["language_instruction"]))
    if len(sentences) != 1:
        raise EpisodeError(f"{record.where}: {len(sentences)} different instructions, not one")
    videos = {name: steps[f"observation/{key}"] for name, key in CAMERAS.items()}
    videos = {name: video for name, video in videos.items() if video.any()}
    if "external" not in videos:
        raise EpisodeError(f"{record.where}: {CAMERAS['external']} is black in every step")
    try:
        return Episode(
            stamps_s=STEP_S * np.arange(len(state)),
            poses=bridge_poses(state[:, :6]),
            gripper_openings=_opening(state[:, 6], "state"),
            gripper_commands=_opening(steps["action"][:, 6], "action"),
            instruction=str(sentences[0]).strip(),
            images=videos,
            robot="WidowX 250",
            source=source | {"recorded_as": str(record.metadata["episode_metadata/file_path"])},
            notes="Stamps are counted, not recorded. Pictures are squashed from 4:3 to a square.",
        )
    except EpisodeError as error:
        raise EpisodeError(f"{record.where}: {error}") from None


def bridge_poses(position_and_euler: ArrayLike) -> NDArray:
    """(T, 7) poses of ee_gripper_link from Bridge's (T, 6) x y z [m] and Euler angles [rad]."""
    values = np.asarray(position_and_euler, float)
    if not np.all(np.isfinite(values)):
        raise EpisodeError("the state has a number that is not finite")
    turned = Rotation.from_euler("xyz", values[:, 3:])
    hand = turned * Rotation.from_matrix(DEFAULT_ROTATION)
    return np.hstack([values[:, :3], hand.as_quat()])


def _opening(values: ArrayLike, where: str) -> NDArray:
    values = np.asarray(values, float)
    bad = ~(np.abs(values - 0.5) <= 0.5 + GRIPPER_MARGIN)
    if bad.any():
        step = int(np.argmax(bad))
        raise EpisodeError(f"gripper {where}[{step}] is {values[step]:.3f}; it must be 0 to 1")
    return np.clip(values, 0.0, 1.0)
