"""Episodes of no robot, to measure a store with where no data are."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry import quaternions as quat
from spear_policy.inference.episode import Episode
from spear_training.data.store.facts import EXTERNAL, PICTURE_SIZES, WRIST, CameraFacts, StoreFacts

HZ = 15.0
_SCENES = 8

MADE_UP_FACTS = StoreFacts(
    name="made_up",
    robot="none",
    control_hz=HZ,
    cameras=(CameraFacts(EXTERNAL), CameraFacts(WRIST)),
    action_from="commanded",
    gripper_from="commanded",
    reader="spear_training.data.store.made_up",
)


class MadeUpReader:
    """Episodes from a random number generator, the same every time; see EpisodeReader.

    Args:
        episodes: how many.
        steps: frames of each.
    """

    name = "made_up"

    def __init__(self, episodes: int, steps: int = 100):
        self._episodes, self._steps = episodes, steps

    def __len__(self) -> int:
        return self._episodes

    def read(self, index: int) -> Episode:
        """Episode `index`: a smooth walk of the hand before textured pictures."""
        if not 0 <= index < len(self):
            raise IndexError(f"made_up: no episode {index}, there are {len(self)}")
        rng = np.random.default_rng(index)
        walk = np.cumsum(rng.normal(0, [0.004] * 3 + [0.01] * 3, (self._steps, 6)), axis=0)
        told = np.hstack([[0.4, 0, 0.3] + walk[:, :3], quat.from_rotation_vector(walk[:, 3:])])
        opening = (np.sin(np.arange(self._steps) / 15 + index) > 0).astype(float)
        late = np.maximum(np.arange(self._steps) - 1, 0)
        return Episode(
            stamps_s=np.arange(self._steps) / HZ,
            poses=told[late],
            gripper_openings=opening[late],
            gripper_commands=opening,
            command_poses=told,
            instruction=f"made-up task {index % 7}",
            images={name: self._video(name, index) for name in (EXTERNAL, WRIST)},
            robot="none",
            source={"dataset": self.name, "index": str(index)},
        )

    def _video(self, camera: str, index: int) -> NDArray[np.uint8]:
        scene = _scene(index % _SCENES, *PICTURE_SIZES[camera])
        return np.stack([np.roll(scene, step, axis=1) for step in range(self._steps)])


@lru_cache(maxsize=2 * _SCENES)
def _scene(seed: int, width: int, height: int) -> NDArray[np.uint8]:
    """A picture with detail at every scale, about as hard for JPEG as a camera's."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for cell_px, weight in ((70, 50), (23, 30), (7, 18), (3, 8)):
        cells = height // cell_px + 2, width // cell_px + 2
        coarse = rng.normal(0, weight, (*cells, 3)).astype(np.float32)
        picture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = rng.normal(0, 3, picture.shape)
    return np.clip(picture + grain + 128, 0, 255).astype(np.uint8)
