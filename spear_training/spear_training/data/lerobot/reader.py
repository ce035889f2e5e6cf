"""Episodes of a LeRobotDataset folder, whoever recorded it."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spear_policy.inference.episode import Episode, EpisodeError, Video
from spear_training.data.encoded_video import EncodedVideo
from spear_training.data.lerobot.folder import EpisodeEntry, LeRobotFolder
from spear_training.data.lerobot.keys import LeRobotKeys, store_keys
from spear_training.data.lerobot.rows import EpisodeRows, column_values, picture_bytes
from spear_training.data.lerobot.video import Mp4Video
from spear_training.data.oxe.grippers import gripper_keys, read_gripper
from spear_training.data.oxe.pose_rules import SummedDeltas
from spear_training.data.oxe.poses import pose_keys, read_poses
from spear_training.data.oxe.rules import FROM_MEASURED, REACHED
from spear_training.data.oxe.selectors import select, selector_keys
from spear_training.data.reader import DataFileError
from spear_training.data.store.facts import FACTS_PATH, WRIST, StoreFacts, read_facts

# LeRobot's own stamps are frame_index / fps in float32; nearer than this they are taken for that.
STAMP_ROUNDING_S = 1e-3


class LeRobotReader:
    """The episodes of a LeRobotDataset v2.0, v2.1 or v3.0; see EpisodeReader.

    Pictures are decoded when they are asked for, from Parquet or from mp4.

    Attributes:
        folder: its meta files.
        keys: which columns hold what.
        state_known, action_from, gripper_from, control_hz: what holds for every episode, in the
            words of a store's facts.

    Raises:
        DataFileError: the folder cannot be used, or lacks a column that the keys name.
    """

    def __init__(self, root: str | Path, keys: LeRobotKeys | None = None):
        """Open a folder.

        Args:
            root: the folder with meta/ and data/.
            keys: may be left out for a store of our own.
        """
        self.folder = LeRobotFolder(root)
        self._facts: StoreFacts | None = None
        if keys is None:
            facts_path = self.folder.root / FACTS_PATH
            if not facts_path.exists():
                raise DataFileError(
                    f"{root}: say which columns hold what (a YAML file of keys, or a preset such "
                    f"as droid); it has {', '.join(self.folder.features)}"
                )
            self._facts = read_facts(facts_path)
            keys = store_keys(self._facts)
        self.keys = keys
        self._rows = EpisodeRows()
        self._numbers = _number_columns(keys)
        for key in (*self._numbers, *keys.cameras.values()):
            if key not in self.folder.features:
                held = ", ".join(self.folder.features)
                raise DataFileError(f"{root}: has no feature {key}; it has {held}")
        for name, key in keys.cameras.items():
            if key not in (*self.folder.video_keys, *self.folder.image_keys):
                raise DataFileError(f"{root}: {key}, camera {name!r}, is no picture")

    @property
    def name(self) -> str:
        """The store's name, or the folder's."""
        return self._facts.name if self._facts else self.folder.root.resolve().name

    @property
    def control_hz(self) -> float:
        """Frames a second."""
        return self.folder.fps

    @property
    def state_known(self) -> bool:
        """False where poses are sums of deltas."""
        if self._facts:
            return self._facts.state_known
        return not isinstance(self.keys.pose, SummedDeltas)

    @property
    def action_from(self) -> str:
        """Whether episodes have commanded poses: "commanded", or else "reached"."""
        return "reached" if self.keys.command == REACHED else "commanded"

    @property
    def gripper_from(self) -> str:
        """Whether episodes have gripper commands: "commanded", or else "measured"."""
        return "measured" if self.keys.gripper_command == FROM_MEASURED else "commanded"

    def __len__(self) -> int:
        return len(self.folder.episodes)

    def read(self, index: int) -> Episode:
        """Episode `index`, 0-based.

        Raises:
            NotSelected: a condition does not hold.
            DataFileError, EpisodeError, IndexError: see EpisodeReader.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.folder.root}: no episode {index}, it has {len(self)}")
        entry = self.folder.episodes[index]
        pictures = [key for key in self.keys.cameras.values() if key in self.folder.image_keys]
        names = list(dict.fromkeys([*self._numbers, *pictures]))
        table = self._rows.read(entry.data_path, entry.index, names)
        where = f"{entry.data_path}: episode {entry.index}"
        if len(table) != entry.length:
            raise DataFileError(
                f"{where} has {len(table)} rows, the meta files say {entry.length}; copy both again"
            )
        try:
            return self._episode(entry, table, where)
        except EpisodeError as error:
            raise type(error)(f"{where}: {error}") from None

    def _episode(self, entry: EpisodeEntry, table: pa.Table, where: str) -> Episode:
        keys = self.keys
        steps = {name: column_values(table, name, where) for name in self._numbers}
        select(keys.conditions, {key: steps[key][0] for key in selector_keys(keys.conditions)})
        poses = read_poses(keys.pose, steps)
        command_poses = None if keys.command == REACHED else read_poses(keys.command, steps)
        openings, gripper_commands = read_gripper(keys, steps, len(poses))
        instruction, *others = self._sentences(entry, steps)
        stamps_s = self._stamps_s(steps)
        source = {"dataset": self.name, "index": str(entry.index)}
        return Episode(
            stamps_s=stamps_s,
            poses=poses,
            command_poses=command_poses,
            gripper_openings=openings,
            gripper_commands=gripper_commands,
            instruction=instruction,
            other_instructions=tuple(others),
            images=self._videos(entry, table, steps["timestamp"], where),
            state_known=self.state_known,
            robot=keys.robot or self.folder.robot,
            source=json.loads(entry.more.get("source", "{}")) if self._facts else source,
            notes=str(entry.more.get("notes", "")) if self._facts else "",
        )

    def _sentences(self, entry: EpisodeEntry, steps: dict[str, NDArray]) -> list[str]:
        """The task of the rows first, then the entry's others, then those of text columns."""
        numbers = np.unique(steps["task_index"]).tolist()
        if len(numbers) > 1:
            raise EpisodeError(f"its rows have {len(numbers)} different tasks; an episode has one")
        named = [self.folder.tasks[number] for number in numbers if number in self.folder.tasks]
        columns = [str(text) for key in self.keys.sentences for text in np.unique(steps[key])]
        found = [text.strip() for text in (*named, *entry.sentences, *columns)]
        found = list(dict.fromkeys(text for text in found if text))
        if not found:
            raise EpisodeError(
                f"task {numbers[0]} is missing in the list of tasks, or empty; a policy needs a "
                "sentence"
            )
        return found

    def _stamps_s(self, steps: dict[str, NDArray]) -> NDArray:
        if self.keys.stamps:
            return np.asarray(steps[self.keys.stamps], float)
        stamps = np.asarray(steps["timestamp"], float)
        exact = np.asarray(steps["frame_index"], float) / self.folder.fps
        return exact if np.allclose(stamps, exact, rtol=0, atol=STAMP_ROUNDING_S) else stamps

    def _videos(
        self, entry: EpisodeEntry, table: pa.Table, timestamps_s: NDArray, where: str
    ) -> dict[str, Video]:
        videos: dict[str, Video] = {}
        for name, key in self.keys.cameras.items():
            if name == WRIST and entry.more.get("black_wrist") is True:
                continue
            if key in entry.videos:
                place = entry.videos[key]
                times_s = place.from_s + np.asarray(timestamps_s, float)
                videos[name] = Mp4Video(place.path, times_s, self.folder.fps)
                continue
            try:
                videos[name] = EncodedVideo(picture_bytes(table, key, where))
            except EpisodeError as error:
                raise EpisodeError(f"{key}: {error}") from None
        return videos


def _number_columns(keys: LeRobotKeys) -> tuple[str, ...]:
    """The columns that an episode is read from, besides its pictures."""
    command = () if keys.command == REACHED else pose_keys(keys.command)
    stamps = [keys.stamps] if keys.stamps else []
    always = ("timestamp", "frame_index", "task_index")
    found = [*pose_keys(keys.pose), *command, *gripper_keys(keys), *keys.sentences, *stamps]
    return tuple(dict.fromkeys([*found, *selector_keys(keys.conditions), *always]))
