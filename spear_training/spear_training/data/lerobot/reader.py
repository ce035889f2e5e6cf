"""Episodes of a LeRobotDataset folder, by keys that say which columns hold what.

No two labs name or write their columns alike: `LeRobotKeys` says what is what, and `LeRobotReader`
makes Episodes. `store_metadata` is what a folder makes a store say about itself.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spear_policy.inference.episode import Episode, EpisodeError, Video
from spear_policy.shared.config import ConfigError, read_dataclass
from spear_training.data.lerobot.files import (
    EpisodeRows,
    Mp4Video,
    column_values,
    picture_bytes,
)
from spear_training.data.lerobot.folder import EpisodeEntry, LeRobotFolder
from spear_training.data.oxe.reader import motion_keys, read_motion, select, selector_keys
from spear_training.data.oxe.table import (
    DETECT,
    EXTERNAL,
    FROM_MEASURED,
    REACHED,
    LinearGripper,
    MatrixPose,
    MotionRules,
    QuaternionPose,
    plain,
    read_yaml,
)
from spear_training.data.reader import DataFileError, EncodedVideo
from spear_training.data.store.format import (
    ACTION,
    METADATA_PATH,
    PICTURE_SIZES,
    STAMP,
    STATE,
    WRIST,
    CameraMetadata,
    StoreMetadata,
    picture_column,
    read_store_metadata,
)

# Which columns hold what ----------------------------------------------------------------------

# Datasets that many people use, by the name to give instead of a file.
TASK_INDEX = "task_index"
PRESETS = {"droid": Path(__file__).with_name("droid_keys.yaml")}


@dataclass(frozen=True, kw_only=True)
class LeRobotKeys(MotionRules):
    """Which columns hold what; the rules are those of the mixture table, see oxe/table.py.

    As a user writes them, with the dataset's own columns as keys:

        cameras: {external: observation.images.front, wrist: observation.images.hand}
        pose: {encoding: quaternion, key: observation.state, order: xyzw}
        command: {encoding: euler, key: action, axes: xyz}               # or: reached
        gripper_opening:                                                 # or: from_command
          {encoding: linear, key: observation.state, first_column: 7, closed_at: 0, open_at: 1}
        gripper_command:                                                 # or: from_measured
          {encoding: linear, key: action, first_column: 6, closed_at: 1, open_at: 0}

    Attributes:
        cameras: our name -> the feature of its pictures; "external" must be there.
        joined: a name of your own -> columns one after the other, for a pose that is spread over
            several: {pose: [observation.position, "observation.state[3:7]"]}; the rules may name
            it like a column.
        instruction: the column whose text, or number of a task, is the instruction. Where it
            changes within an episode, another episode begins.
        sentences: further columns with texts, or numbers of tasks, for the same motion.
        stamps: column of true stamps [s]; "" for LeRobot's `timestamp`.
        conditions: all must hold in an episode's first row, or the episode is left out.
        robot: which robot moved; "" for what info.json says.
        native_aspects: camera -> (width, height) of the scene, for pictures that were squashed to
            another shape.
    """

    cameras: Mapping[str, str]
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    instruction: str = TASK_INDEX
    sentences: tuple[str, ...] = ()
    stamps: str = ""
    robot: str = ""
    native_aspects: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self):
        if EXTERNAL not in self.cameras:
            raise ConfigError(f"cameras must name the feature of {EXTERNAL!r}")
        for name in self.missing():
            raise ConfigError(f"it lacks the field {name!r}")
        for where in ("pose", "command", "gripper_opening", "gripper_command"):
            rule = getattr(self, where)
            for name in ("order", "axes"):
                if getattr(rule, name, None) == DETECT and not isinstance(rule, MatrixPose):
                    raise ConfigError(f"{where}.{name} is {DETECT!r}: state it")
            if getattr(rule, "timing", "same") != "same":
                raise ConfigError(f"{where}.timing is {rule.timing!r}: only 'same' is read here")
        for name, sides in self.native_aspects.items():
            if name not in self.cameras:
                raise ConfigError(f"native_aspects has {name!r}, which is no camera")
            if len(sides) != 2 or min(sides) <= 0:
                raise ConfigError(f"native_aspects.{name} must be width and height, like [4, 3]")

    def native_aspect(self, camera: str) -> float | None:
        """Width over height of the scene; None where the stored pixels are square."""
        width, height = self.native_aspects.get(camera, (None, 1.0))
        return width and width / height


def store_keys(metadata: StoreMetadata) -> LeRobotKeys:
    """The keys of a store of our own."""
    commanded = metadata.action_from == "commanded"
    gripper_commanded = metadata.gripper_from == "commanded"
    linear = {"first_column": 7, "closed_at": 0.0, "open_at": 1.0}
    return LeRobotKeys(
        cameras={name: picture_column(name) for name in metadata.camera_names},
        pose=QuaternionPose(key=STATE, order="xyzw"),
        command=QuaternionPose(key=ACTION, order="xyzw") if commanded else REACHED,
        gripper_opening=LinearGripper(key=STATE, **linear),
        gripper_command=LinearGripper(key=ACTION, **linear) if gripper_commanded else FROM_MEASURED,
        stamps=STAMP,
        robot=metadata.robot,
    )


def load_keys(name: str | Path) -> LeRobotKeys:
    """The keys of a preset, or of a user's YAML file.

    Raises:
        DataFileError: the file is missing or no YAML, or a field is unknown, missing or
            impossible; it is named.
    """
    path = PRESETS.get(str(name), Path(name))
    values = read_yaml(path, f"; give a YAML file, or a preset: {', '.join(PRESETS)}")
    try:
        return read_dataclass(LeRobotKeys, values, "keys")
    except ConfigError as error:
        raise DataFileError(f"{path}: {error}") from None


# Episodes -------------------------------------------------------------------------------------

# LeRobot's own stamps are frame_index / fps in float32; nearer than this they are taken for that.
STAMP_ROUNDING_S = 1e-3


class LeRobotReader:
    """The episodes of a LeRobotDataset v2.0, v2.1 or v3.0; see EpisodeReader.

    Pictures are decoded when they are asked for, from Parquet or from mp4.

    Attributes:
        folder: its meta files.
        keys: which columns hold what.

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
        self._metadata: StoreMetadata | None = None
        if keys is None:
            metadata_path = self.folder.root / METADATA_PATH
            if not metadata_path.exists():
                raise DataFileError(
                    f"{root}: say which columns hold what (a YAML file of keys, or a preset such "
                    f"as droid); it has {', '.join(self.folder.features)}"
                )
            self._metadata = read_store_metadata(metadata_path)
            keys = store_keys(self._metadata)
        self.keys = keys
        self._rows = EpisodeRows(self.folder.data_folder)
        self._numbers = tuple(
            name
            for name in _number_columns(keys)
            if name != TASK_INDEX or name in self.folder.features
        )
        for key in (*self._numbers, *keys.cameras.values()):
            if key not in self.folder.features:
                held = ", ".join(self.folder.features)
                raise DataFileError(f"{root}: has no feature {key}; it has {held}")
        for name, key in keys.cameras.items():
            if key not in (*self.folder.video_keys, *self.folder.image_keys):
                raise DataFileError(f"{root}: {key}, camera {name!r}, is no picture")
            if self.folder.is_depth(key):
                raise DataFileError(f"{root}: {key}, camera {name!r}, is depth, no colour picture")

    @property
    def name(self) -> str:
        """The store's name, or the folder's."""
        return self._metadata.name if self._metadata else self.folder.root.resolve().name

    @property
    def state_known(self) -> bool:
        """False where poses are sums of deltas."""
        return (self._metadata or self.keys).state_known

    def __len__(self) -> int:
        return len(self.folder.episodes)

    def read(self, index: int) -> Episode:
        """Episode `index`, 0-based.

        Raises:
            NotSelectedError: a condition does not hold.
            DataFileError, EpisodeError, IndexError: see EpisodeReader.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.folder.root}: no episode {index}, it has {len(self)}")
        entry = self.folder.episodes[index]
        pictures = [key for key in self.keys.cameras.values() if key in self.folder.image_keys]
        names = list(dict.fromkeys([*self._numbers, *pictures]))
        table = self._rows.read(entry.data_path, entry.index, names, entry.length)
        where = f"{entry.data_path}: episode {entry.index}"
        try:
            return self._episode(entry, table, where)
        except EpisodeError as error:
            # An Episode names itself by folder and number, which the path says already.
            said = str(error).removeprefix(f"{self.name} episode {entry.index}: ")
            said = said if said.startswith(str(self.folder.root)) else f"{where}: {said}"
            raise type(error)(said) from None

    def _episode(self, entry: EpisodeEntry, table: pa.Table, where: str) -> Episode:
        keys = self.keys
        steps = {name: column_values(table, name, where) for name in self._numbers}
        for name, columns in keys.joined.items():
            steps[name] = np.column_stack([_part(steps, column) for column in columns])
        select(keys.conditions, {key: steps[key][0] for key in selector_keys(keys.conditions)})
        poses, command_poses, openings, gripper_commands = read_motion(keys, steps)
        (_, instruction), *later = self._instructions(entry, steps)
        stamps_s = self._stamps_s(steps)
        source = {"dataset": self.name, "index": str(entry.index)}
        return Episode(
            stamps_s=stamps_s,
            poses=poses,
            command_poses=command_poses,
            gripper_openings=openings,
            gripper_commands=gripper_commands,
            instruction=instruction,
            other_instructions=self._other_sentences(entry, steps, instruction),
            later_instructions=tuple(later),
            images=self._videos(entry, table, steps["timestamp"], where),
            state_known=self.state_known,
            robot=keys.robot or self.folder.robot,
            source=json.loads(entry.more.get("source", "{}")) if self._metadata else source,
            notes=str(entry.more.get("notes", "")) if self._metadata else "",
        )

    def _instructions(
        self, entry: EpisodeEntry, steps: dict[str, NDArray]
    ) -> list[tuple[int, str]]:
        """From which step on which sentence is the instruction."""
        key = self.keys.instruction
        # Some sets have no task_index, but a sentence in the list of episodes.
        values = steps[key] if key in steps else np.array([-1])
        begins = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
        found: list[tuple[int, str]] = []
        for step in begins.tolist():
            sentence = self._sentence(values[step])
            if not sentence and len(begins) == 1:
                # Where the list of tasks is lost, or the column is empty.
                named = [*entry.sentences, *self._other_sentences(entry, steps, "")]
                named = list(dict.fromkeys(text.strip() for text in named if text.strip()))
                sentence = named[0] if len(named) == 1 or self.keys.sentences and named else ""
                if not sentence and named and key not in steps:
                    some = ", ".join(map(repr, named[:3]))
                    raise EpisodeError(
                        f"{len(named)} sentences are listed ({some}) and "
                        f"there is no column {key}: name the one that says which of them is the "
                        "instruction, as `instruction: NAME` in the keys"
                    )
            if not sentence:
                raise EpisodeError(
                    f"{key} is {values[step]} in step {step}, which is no task in the list, or an "
                    "empty one; a policy needs a sentence"
                )
            if not found or found[-1][1] != sentence:
                found.append((step, sentence))
        return found

    def _sentence(self, value: np.generic) -> str:
        """A text, or what the list of tasks says to a number."""
        text = str(value) if value.dtype.kind == "U" else self.folder.tasks.get(int(value), "")
        return text.strip()

    def _other_sentences(
        self, entry: EpisodeEntry, steps: dict[str, NDArray], instruction: str
    ) -> tuple[str, ...]:
        # In our own stores the list of episodes names sentences; elsewhere it names labels too.
        listed = entry.sentences if self._metadata else ()
        columns = [self._sentence(v) for key in self.keys.sentences for v in np.unique(steps[key])]
        found = dict.fromkeys(text.strip() for text in (*listed, *columns))
        return tuple(text for text in found if text and text != instruction)

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
                path = self.folder.find_video(key, place.path)
                videos[name] = Mp4Video(path, times_s, self.folder.fps)
                # See EpisodeRows.read: that converter did the same to videos.
                beyond = videos[name].ends_s < times_s[0] + 0.5 / self.folder.fps
                if beyond and (path := self.folder.next_video(entry, key)):
                    videos[name] = Mp4Video(path, timestamps_s, self.folder.fps)
                continue
            try:
                videos[name] = EncodedVideo(picture_bytes(table, key, where))
            except EpisodeError as error:
                raise EpisodeError(f"{key}: {error}") from None
        return videos


def _number_columns(keys: LeRobotKeys) -> tuple[str, ...]:
    """The columns that an episode is read from, besides its pictures."""
    stamps = [keys.stamps] if keys.stamps else []
    always = ("timestamp", "frame_index", keys.instruction)
    parts = [_column_of(part) for columns in keys.joined.values() for part in columns]
    plain_keys = [key for key in motion_keys(keys) if key not in keys.joined]
    named = [*plain_keys, *parts, *keys.sentences, *stamps, *selector_keys(keys.conditions)]
    return tuple(dict.fromkeys([*named, *always]))


_PART = re.compile(r"(?P<column>[^\[\]]+)(?:\[(?P<first>\d+)(?P<to>:(?P<end>\d+))?\])?")


def _column_of(part: str) -> str:
    """The column of an entry of `joined` such as "observation.state[3:7]"."""
    match = _PART.fullmatch(part)
    if not match:
        raise DataFileError(f"joined has {part!r}: write a column, column[3] or column[3:7]")
    return match["column"]


def _part(steps: Mapping[str, NDArray], part: str) -> NDArray:
    """The numbers (T, N) of such an entry. Raises EpisodeError where there are fewer."""
    match = _PART.fullmatch(part)
    values = np.asarray(steps[match["column"]], float)
    values = values.reshape(len(values), -1)
    if match["first"] is None:
        return values
    first = int(match["first"])
    end = int(match["end"]) if match["to"] else first + 1
    if not first < end <= values.shape[1]:
        raise EpisodeError(f"joined has {part}: {match['column']} has {values.shape[1]} numbers")
    return values[:, first:end]


# What a store says about itself ---------------------------------------------------------------


def store_metadata(reader: LeRobotReader) -> StoreMetadata:
    """The metadata of the store that `reader` is imported to, before anything is counted."""
    keys = reader.keys
    return StoreMetadata(
        name=reader.name,
        robot=keys.robot or reader.folder.robot or "unknown",
        control_hz=reader.folder.fps,
        cameras=tuple(
            CameraMetadata(name, keys.native_aspect(name))
            for name in PICTURE_SIZES
            if name in keys.cameras
        ),
        action_from=keys.action_from,
        gripper_from=keys.gripper_from,
        state_known=reader.state_known,
        reader=f"LeRobotDataset {reader.folder.version}",
        source={
            "cameras": dict(keys.cameras),
            "pose": plain(keys.pose),
            "command": plain(keys.command),
            "gripper_opening": plain(keys.gripper_opening),
            "gripper_command": plain(keys.gripper_command),
            "conditions": plain(keys.conditions),
        },
    )
