"""Reading a store at random: any frame of any episode, in the time that its JPEGs take."""

from bisect import bisect_right
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spear_training.data.lerobot.layout import INFO_PATH
from spear_training.data.reader import DataFileError
from spear_training.data.store import open_files
from spear_training.data.store.episodes import EpisodeTable, read_episodes
from spear_training.data.store.facts import FACTS_PATH, StoreFacts, read_facts
from spear_training.data.store.lookup import open_lookup
from spear_training.data.store.places import BUILDING

# OpenCV from 4.11 on can decode to RGB at once.
_RGB = getattr(cv2, "IMREAD_COLOR_RGB", None)
_FLAGS = (cv2.IMREAD_COLOR if _RGB is None else _RGB) | cv2.IMREAD_IGNORE_ORIENTATION


class FrameStore:
    """A finished store. It may be pickled, and used from several threads and after a fork.

    Numbers are mapped: they cost memory once for all processes of a machine. Frames are numbered
    0 to F - 1, episode after episode.

    Attributes:
        root: its folder.
        facts: what it is.
        episodes: its episodes: first_frame, length, sentences(episode), ...
        states: (F, 8) float32 measured x y z [m], qx qy qz qw in the base frame, sign-continuous
            within an episode, and gripper opening 0..1.
        actions: (F, 8) float32 the same, as it was told; see StoreFacts.action_from.
        stamps_s: (F,) float64 from the beginning of the episode [s].
        episode_of: (F,) int32 the episode of each frame.

    Raises:
        DataFileError: the folder holds no finished store, or a part of it is damaged. A damaged
            data file is no reason: it raises when a picture of it is read.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        if not (self.root / INFO_PATH).exists():
            begun = (self.root / BUILDING).exists()
            what = "is a begun import" if begun else f"is no store (it has no {INFO_PATH})"
            mend = "run it again to finish it" if begun else "make one with import_episodes"
            raise DataFileError(f"{self.root}: {what}; {mend}")
        self.facts: StoreFacts = read_facts(self.root / FACTS_PATH)
        self.episodes: EpisodeTable = read_episodes(self.root)
        frames = int(self.episodes.length.sum())
        lookup = open_lookup(self.root, self.facts.camera_names, frames)
        self.states: NDArray[np.float32] = lookup.arrays["states"]
        self.actions: NDArray[np.float32] = lookup.arrays["actions"]
        self.stamps_s: NDArray[np.float64] = lookup.arrays["stamps_s"]
        self.episode_of: NDArray[np.int32] = lookup.arrays["episode_of"]
        self._spans = {
            name: (lookup.arrays[f"offset_{name}"], lookup.arrays[f"length_{name}"])
            for name in self.facts.camera_names
        }
        self._first_frames = [file.first_frame for file in lookup.files]
        self._files = [(self.root / file.path, file.file_bytes) for file in lookup.files]

    def __len__(self) -> int:
        """F."""
        return len(self.stamps_s)

    def __reduce__(self):
        return type(self), (self.root,)

    def jpeg(self, frame: int, camera: str) -> bytes:
        """The encoded picture of a frame.

        Raises:
            DataFileError: its data file is missing, cut short or changed; others can be read.
            IndexError: no such frame.
            KeyError: no such camera.
        """
        frame = self._checked(frame)
        offsets, lengths = self._spans[camera]
        path, file_bytes = self._files[bisect_right(self._first_frames, frame) - 1]
        return open_files.SHARED.read(path, int(offsets[frame]), int(lengths[frame]), file_bytes)

    def image(self, frame: int, camera: str) -> NDArray[np.uint8]:
        """The picture (H, W, 3) RGB of a frame.

        Raises:
            DataFileError: the picture is damaged, or see `jpeg`.
            IndexError, KeyError: see `jpeg`.
        """
        encoded = np.frombuffer(self.jpeg(frame, camera), np.uint8)
        picture = cv2.imdecode(encoded, _FLAGS)
        if picture is None:
            path, _ = self._files[bisect_right(self._first_frames, frame) - 1]
            raise DataFileError(
                f"{path}: the {camera} picture of frame {frame} is damaged; copy the file again"
            )
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) if _RGB is None else picture

    def _checked(self, frame: int) -> int:
        if not 0 <= frame < len(self):
            raise IndexError(f"{self.root}: no frame {frame}, it has {len(self)}")
        return int(frame)
