"""Small stores of made-up episodes, written by the tests through the real writer."""

import numpy as np

from spear_policy.inference.episode import Episode
from spear_training.data.store.format import CameraMetadata, StoreMetadata
from spear_training.data.store.reader import FrameStore
from spear_training.data.store.writer import StoreWriter, begin_store, encode_episode


class MadeUp:
    """Episodes by number (see EpisodeReader); each frame's pictures show its number.

    The end effector moves by 1 cm along x, 4 mm along y and -3 mm along z in a frame.
    """

    def __init__(self, name="made_up", episodes=4, length=20, hz=10.0, wrist=True, **changes):
        self.name, self.hz, self.wrist, self.changes = name, hz, wrist, changes
        self.episodes, self.length = episodes, length

    def __len__(self):
        return self.episodes

    def read(self, index):
        """Return an episode."""
        steps = np.arange(self.length + index)
        poses = np.zeros((len(steps), 7))
        poses[:, :3] = np.outer(steps, [0.01, 0.004, -0.003]) + [0.3, 0.1 * index, 0.2]
        poses[:, 6] = 1.0
        shades = (3 * steps + 10 * index) % 256
        images = {"external": self._video(shades, (48, 64))}
        if self.wrist:
            images["wrist"] = self._video(255 - shades, (40, 40))
        arguments = {
            "stamps_s": steps / self.hz,
            "poses": poses,
            "command_poses": poses + [0.005, 0, 0, 0, 0, 0, 0],
            "gripper_openings": np.ones(len(steps)),
            "gripper_commands": (steps < len(steps) // 2).astype(float),
            "instruction": f"do task {index}",
            "other_instructions": (f"perform task {index}",),
            "images": images,
            "robot": "tester",
            "source": {"dataset": self.name, "index": str(index)},
        }
        return Episode(**(arguments | self.changes))

    def metadata(self):
        """Return the metadata of the store that holds these."""
        cameras = ("external", "wrist") if self.wrist else ("external",)
        return StoreMetadata(
            name=self.name,
            robot="tester",
            control_hz=self.hz,
            cameras=tuple(CameraMetadata(camera) for camera in cameras),
            action_from="commanded",
            gripper_from="commanded",
            state_known=self.changes.get("state_known", True),
        )

    @staticmethod
    def _video(shades, size):
        pictures = np.zeros((len(shades), *size, 3), np.uint8)
        pictures[:] = shades[:, None, None, None]
        return pictures


def write_group(root, group, reader, indices):
    """Write the next group of a begun store, as an import without other processes does."""
    writer = StoreWriter(root)
    assert len(writer.records) == group
    encoded = (each for i in indices for each in encode_episode(reader, i, writer.metadata))
    return writer.add_group(indices, encoded)


def finish_store(root, groups):
    """Finish a store whose groups are written."""
    return StoreWriter(root).finish(groups)


def made_store(root, **options):
    """Write a store of made-up episodes and open it."""
    reader = MadeUp(**options)
    folder = root / reader.name
    begin_store(folder, reader.metadata())
    write_group(folder, 0, reader, range(len(reader)))
    finish_store(folder, 1)
    return FrameStore(folder)
