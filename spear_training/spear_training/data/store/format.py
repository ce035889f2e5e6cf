"""Layout of a store: names of its files, meta/spear.json, its columns, the records of its groups.

A store is a LeRobotDataset v3.0 folder with additions. The names and places of LeRobot's files are
from the public sources of lerobot: v0.3.3 (datasets v2.1), v0.4.4 and 7427f31 (datasets v3.0),
src/lerobot/datasets/utils.py.

meta/spear.json says what holds for every episode. The columns of the data files are states and
actions (8 numbers: x y z [m], qx qy qz qw in the base frame, gripper 0 closed .. 1 open), the true
stamps, encoded pictures, and LeRobot's numbers. A group is one data file; its record says which
episodes lie in it and which were rejected, and why.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spear_policy.inference.episode import Episode, EpisodeError
from spear_policy.inference.image_geometry import Fit, FitMode, check_aspect
from spear_policy.shared.config import ConfigError, read_dataclass
from spear_policy.shared.files import write_atomically
from spear_training.data.reader import DataFileError, unreadable

# Names and places in a LeRobotDataset folder ---------------------------------------------------


INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"

V3 = "v3.0"
V3_CHUNK_FILES = 1000
V3_DATA_FILE_MB, V3_VIDEO_FILE_MB = 100, 200
V3_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
V3_DATA = "data/" + V3_FILE + ".parquet"
V3_VIDEO = "videos/{video_key}/" + V3_FILE + ".mp4"
V3_EPISODES_FOLDER = "meta/episodes"
V3_EPISODES = V3_EPISODES_FOLDER + "/" + V3_FILE + ".parquet"
V3_TASKS = "meta/tasks.parquet"

V2 = ("v2.0", "v2.1")
V2_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V2_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
V2_EPISODES = "meta/episodes.jsonl"
V2_TASKS = "meta/tasks.jsonl"

# Columns that every dataset has; a feature of shape (1,) is a plain number in Parquet.
INDEX_FEATURES = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}


def v3_place(number: int) -> dict[str, int]:
    """Chunk and file index of the `number`-th file, 0-based."""
    return {"chunk_index": number // V3_CHUNK_FILES, "file_index": number % V3_CHUNK_FILES}


def v3_data_path(root: Path, number: int) -> Path:
    """Where the `number`-th data file of a v3.0 folder lies."""
    return root / V3_DATA.format(**v3_place(number))


# What a store says about itself: meta/spear.json -----------------------------------------------


METADATA_PATH = "meta/spear.json"
FORMAT, FORMAT_VERSION = "spear-store", 1
EXTERNAL, WRIST = "external", "wrist"
# Width and height of each camera's pictures [px] (arXiv 2511.17411).
PICTURE_SIZES = {EXTERNAL: (280, 210), WRIST: (112, 112)}


@dataclass(frozen=True)
class CameraMetadata:
    """One camera of the store.

    Attributes:
        name: "external" or "wrist".
        native_aspect: width over height of the scene before its pictures were squashed to the
            size they came in; None where their pixels are square.
        mode: see image_geometry.plan_fit.
        fits: what was done, one plan for each size of picture that came; filled in by the writer.
    """

    name: str
    native_aspect: float | None = None
    mode: FitMode = "auto"
    fits: tuple[Fit, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the stored pictures [px]."""
        return PICTURE_SIZES[self.name]


@dataclass(frozen=True, kw_only=True)
class StoreMetadata:
    """meta/spear.json. What it says holds for every episode of the store.

    Attributes:
        name: of the dataset, a word for folders and reports.
        robot: which robot moved.
        control_hz: native rate of the recordings [1/s]; LeRobot's `fps`. The true stamps are in
            the column observation.stamp_s.
        cameras: "external", and "wrist" where the dataset has one.
        action_from: "commanded": `action` is where the end effector was commanded to be. "reached":
            the data do not say, and it is the measured pose of the same row.
        gripper_from: the same for the gripper's number in `action`: "commanded" or "measured".
        state_known: False where poses are sums of deltas: only their differences are true.
        reader: what read the source, in words.
        row, row_hash: of the mixture table; empty for a lab's own data.
        source: where the recordings are from, in words.
        episodes, frames: how many were stored.
        rejected, not_selected: how many episodes cannot be used, and how many can but were not
            asked for; meta/rejects.jsonl names each with its reason.
        black_wrist: how many episodes lack the wrist camera; theirs is black.
        left_out: recorded steps of these episodes that are in none of them; see `Episode`.
        format, version: of the store.

    Raises:
        ConfigError: a field that no store has; the text names it.
    """

    name: str
    robot: str
    control_hz: float
    cameras: tuple[CameraMetadata, ...]
    action_from: Literal["commanded", "reached"]
    gripper_from: Literal["commanded", "measured"]
    state_known: bool = True
    reader: str = ""
    row: str = ""
    row_hash: str = ""
    source: dict = field(default_factory=dict)
    episodes: int = 0
    frames: int = 0
    rejected: int = 0
    not_selected: int = 0
    black_wrist: int = 0
    left_out: int = 0
    format: str = FORMAT
    version: int = FORMAT_VERSION

    def __post_init__(self):
        object.__setattr__(self, "control_hz", float(self.control_hz))
        if self.format != FORMAT or self.version != FORMAT_VERSION:
            raise ConfigError(
                f"metadata is of {self.format} {self.version}; this SPEAR reads {FORMAT} "
                f"{FORMAT_VERSION}: import the data again"
            )
        if not self.name.strip() or "/" in self.name:
            raise ConfigError(f"name is {self.name!r}: it must be a word for a folder")
        if not 0 < self.control_hz < 1e4:
            raise ConfigError(f"control_hz is {self.control_hz}: it must be positive")
        names = [camera.name for camera in self.cameras]
        if names not in ([EXTERNAL], [EXTERNAL, WRIST]):
            raise ConfigError(
                f"cameras are {names}: they must be {EXTERNAL!r}, or it and {WRIST!r}"
            )
        for camera in self.cameras:
            if camera.native_aspect is not None:
                try:
                    check_aspect(camera.native_aspect, f"native_aspect of {camera.name}")
                except ValueError as error:
                    raise ConfigError(str(error)) from None

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Names of the cameras."""
        return tuple(camera.name for camera in self.cameras)

    def to_json(self) -> str:
        """Text of meta/spear.json."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


def read_store_metadata(path: Path) -> StoreMetadata:
    """Read what `write_store_metadata` wrote.

    Raises:
        DataFileError: missing, damaged, foreign or newer file.
    """
    try:
        return _from_json(path.read_text())
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # ConfigError and damaged JSON too
        raise DataFileError(f"{path}: {error}") from None


def as_written(metadata: StoreMetadata) -> StoreMetadata:
    """The metadata as it comes back from their file: tuples within `source` are lists there."""
    return _from_json(metadata.to_json())


def write_store_metadata(metadata: StoreMetadata, path: Path) -> None:
    """Write it, whole or not at all. Raises OSError."""
    write_atomically(path, metadata.to_json().encode())


def _from_json(text: str) -> StoreMetadata:
    return read_dataclass(StoreMetadata, json.loads(text), "metadata")


# The columns of a store's data files -----------------------------------------------------------


STATE, ACTION, STAMP = "observation.state", "action", "observation.stamp_s"
PICTURE_PREFIX = "observation.images."
# They count over the whole store.
NUMBERS = ("episode_index", "index", "task_index")
STATE_NAMES = ("x", "y", "z", "qx", "qy", "qz", "qw", "gripper")
WIDTH = len(STATE_NAMES)

_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_VECTOR = pa.list_(pa.float32(), WIDTH)


def picture_column(camera: str) -> str:
    """The column of a camera's pictures."""
    return PICTURE_PREFIX + camera


def file_schema(metadata: StoreMetadata) -> pa.Schema:
    """The Arrow schema of every data file."""
    pictures = [(picture_column(camera), _PICTURE) for camera in metadata.camera_names]
    return pa.schema(
        [
            *pictures,
            (STATE, _VECTOR),
            (ACTION, _VECTOR),
            (STAMP, pa.float64()),
            ("timestamp", pa.float32()),
            ("frame_index", pa.int64()),
            *((name, pa.int64()) for name in NUMBERS),
        ]
    )


def lerobot_features(metadata: StoreMetadata) -> dict[str, dict]:
    """The features of meta/info.json; a column that is not named there LeRobot refuses."""
    vector = {"dtype": "float32", "shape": [WIDTH], "names": list(STATE_NAMES)}
    pictures = {
        picture_column(camera.name): {
            "dtype": "image",
            "shape": [camera.size[1], camera.size[0], 3],
            "names": ["height", "width", "channels"],
        }
        for camera in metadata.cameras
    }
    stamp = {"dtype": "float64", "shape": [1], "names": None}
    return pictures | {STATE: vector, ACTION: dict(vector), STAMP: stamp} | INDEX_FEATURES


def episode_columns(episode: Episode, metadata: StoreMetadata) -> dict[str, NDArray]:
    """An episode's numbers: states and actions (T, 8) float32, stamps (T,) float64 from 0 [s].

    Raises:
        EpisodeError: it does not hold what the store says of all its episodes.
    """
    _check(episode, metadata)
    openings = episode.gripper_openings
    commands = episode.gripper_commands if metadata.gripper_from == "commanded" else openings
    targets = episode.command_poses if metadata.action_from == "commanded" else episode.poses
    return {
        STATE: np.column_stack([episode.poses, openings]).astype(np.float32),
        ACTION: np.column_stack([targets, commands]).astype(np.float32),
        STAMP: episode.stamps_s - episode.stamps_s[0],
    }


def episode_table(
    columns: dict[str, NDArray],
    jpegs: dict[str, list[bytes]],
    numbers: dict[str, NDArray],
    metadata: StoreMetadata,
) -> pa.Table:
    """Rows of a data file.

    Args:
        columns: see `episode_columns`.
        jpegs: T encoded pictures by camera.
        numbers: the NUMBERS, each (T,).
        metadata: of the store.
    """
    steps = len(columns[STAMP])
    frames = np.arange(steps)
    arrays: list[pa.Array] = []
    for camera in metadata.camera_names:
        paths = pa.nulls(steps, pa.string())
        encoded = pa.array(jpegs[camera], pa.binary())
        arrays.append(pa.StructArray.from_arrays([encoded, paths], _PICTURE.names))
    for name in (STATE, ACTION):
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(columns[name].ravel()), WIDTH))
    arrays += [
        pa.array(columns[STAMP]),
        pa.array((frames / metadata.control_hz).astype(np.float32)),
        pa.array(frames),
        *(pa.array(np.asarray(numbers[name], np.int64)) for name in NUMBERS),
    ]
    return pa.Table.from_arrays(arrays, schema=file_schema(metadata))


def _check(episode: Episode, metadata: StoreMetadata) -> None:
    wanting = []
    if metadata.action_from == "commanded" and episode.command_poses is None:
        wanting.append("it has no commanded poses, but the store's actions are commanded")
    if metadata.gripper_from == "commanded" and episode.gripper_commands is None:
        wanting.append("it has no gripper commands, but the store's are commanded")
    if metadata.state_known != episode.state_known:
        wanting.append(f"its state_known is {episode.state_known}, the store's is not")
    if metadata.camera_names[0] not in episode.images:
        held = ", ".join(episode.images) or "none"
        wanting.append(f"it has no camera {metadata.camera_names[0]!r} (it has {held})")
    if wanting:
        raise EpisodeError(f"{episode.name}: {'; '.join(wanting)}")


# Further files of a store, while it is written and after ---------------------------------------


REJECTS_PATH = "meta/rejects.jsonl"
# What is there while a store is being written; gone when it is whole.
BUILDING = "building"
PLAN_PATH = BUILDING + "/plan.json"
# Columns as plain arrays, and where each JPEG lies: for reading at random.
LOOKUP = "lookup"


def group_record_path(root: Path, group: int) -> Path:
    """What a written group holds; it is written last, so the group is whole if it is there."""
    return root / BUILDING / f"group-{group:06d}.json"


def group_arrays_path(root: Path, group: int) -> Path:
    """Columns and statistics of a written group."""
    return root / BUILDING / f"group-{group:06d}.npz"


# The record of a written group of episodes -----------------------------------------------------


@dataclass(frozen=True)
class EpisodeRecord:
    """One stored episode: the reader's number of it, rows, sentences, and where it is from.

    A recording of several pieces (see `split_episode`) becomes several with one number.
    """

    source_index: int
    length: int
    sentences: tuple[str, ...]
    black_wrist: bool
    continues: bool
    source: dict
    notes: str
    left_out: int = 0


@dataclass(frozen=True)
class Reject:
    """An episode that was not stored.

    Attributes:
        source_index: the reader's number of it.
        selected: False where it is sound, but not of the part of the dataset that was asked for.
        reason: why, in a sentence.
    """

    source_index: int
    selected: bool
    reason: str


@dataclass(frozen=True)
class CameraFit:
    """One way in which pictures of a camera were fitted."""

    camera: str
    fit: Fit


@dataclass(frozen=True)
class GroupRecord:
    """What a written group holds.

    Attributes:
        source_indices: the reader's numbers of the episodes that were looked at.
        episodes, rejects: what became of them.
        fits: how pictures were fitted, each way once.
        file_bytes: size of the data file; 0 where no episode was usable and there is none.
    """

    source_indices: tuple[int, ...]
    episodes: tuple[EpisodeRecord, ...]
    rejects: tuple[Reject, ...]
    fits: tuple[CameraFit, ...]
    file_bytes: int

    @property
    def frames(self) -> int:
        """Rows of the data file."""
        return sum(episode.length for episode in self.episodes)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Each sentence of its episodes once, in order of appearance."""
        return tuple(dict.fromkeys(s for episode in self.episodes for s in episode.sentences))


def read_group(root: Path, group: int) -> GroupRecord:
    """The record of a written group.

    Raises:
        DataFileError: the group is missing or its record damaged.
    """
    path = group_record_path(Path(root), group)
    try:
        return read_dataclass(GroupRecord, json.loads(path.read_text()), "group")
    except (OSError, ValueError) as error:
        raise DataFileError(unreadable(path, error, "run the import again")) from None


def write_record(record: GroupRecord, root: Path, group: int) -> None:
    """Write it, whole or not at all: from then on the group is there. Raises OSError."""
    content = json.dumps(dataclasses.asdict(record), ensure_ascii=False)
    write_atomically(group_record_path(root, group), content.encode())


# meta/rejects.jsonl: episodes that a store does not hold ---------------------------------------


def read_rejects(root: str | Path) -> list[Reject]:
    """The episodes that a finished store does not hold.

    Raises:
        DataFileError: the file is missing or damaged.
    """
    path = Path(root) / REJECTS_PATH
    try:
        # Not splitlines: a sentence may hold what Unicode calls an end of a line.
        lines = path.read_text(encoding="utf-8").split("\n")
        return [read_dataclass(Reject, json.loads(line), "reject") for line in lines if line]
    except (OSError, ValueError) as error:
        raise DataFileError(unreadable(path, error, "copy the store again")) from None
