"""Episodes of a LeRobotDataset folder (v2.0, v2.1, v3.0), whoever recorded it.

`LeRobotFolder` is what the meta files say; `LeRobotKeys` says which columns hold what, for no two
labs name or write them alike; `EpisodeRows` and `Mp4Video` give the rows and the pictures of one
episode out of files that may hold many; `LeRobotReader` makes Episodes of it all.

v2 has one Parquet file, and one mp4 for each camera, an episode; v3.0 puts many episodes into one
file and says where each begins. Names and places are from the public sources of lerobot: v0.3.3
(datasets v2.1), v0.4.4 and 7427f31 (datasets v3.0), src/lerobot/datasets/utils.py; they are spelled
out in store/format.py.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spear_policy.inference.episode import Episode, EpisodeError, Video
from spear_policy.shared.config import ConfigError, read_dataclass
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
from spear_training.data.store import format as layout
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

# The meta files, the same for every version ---------------------------------------------------


@dataclass(frozen=True)
class VideoPlace:
    """The pictures of one camera in an episode: a file, and when in it they begin [s]."""

    path: Path
    from_s: float


@dataclass(frozen=True)
class EpisodeEntry:
    """What the meta files say of one episode.

    Attributes:
        index: its number in the data, column episode_index.
        length: its frames.
        sentences: every sentence of it, in no certain order.
        data_path: the Parquet file that holds its rows, and perhaps those of others.
        videos: feature -> place, for cameras that are mp4.
        more: what else the row of meta/episodes holds, v3.0 only.
    """

    index: int
    length: int
    sentences: tuple[str, ...]
    data_path: Path
    videos: Mapping[str, VideoPlace]
    more: Mapping[str, Any] = field(default_factory=dict)


class LeRobotFolder:
    """The meta files of a folder.

    Attributes:
        root, version: the folder, and its "v2.0", "v2.1" or "v3.0".
        fps: frames a second [1/s].
        robot: what info.json calls it, or "".
        features: name -> {"dtype", "shape", ...}.
        tasks: number -> sentence.
        episodes: an entry each, in order.

    Raises:
        DataFileError: a meta file is missing, damaged or of a version that is not read here.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        info = _json(self.root / layout.INFO_PATH)
        try:
            self.version = str(info["codebase_version"])
            self.fps = float(info["fps"])
            self.features = {name: dict(value) for name, value in info["features"].items()}
            self.robot = str(info.get("robot_type") or "")
            kinds = {name: value["dtype"] for name, value in self.features.items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataFileError(
                f"{self.root / layout.INFO_PATH}: damaged or not LeRobot's info.json ({error!r})"
            ) from None
        if self.version not in (*layout.V2, layout.V3):
            raise DataFileError(
                f"{root}: is a LeRobotDataset {self.version}; {', '.join(layout.V2)}, {layout.V3} "
                "are read: convert it with a lerobot that writes one of these"
            )
        if not self.fps > 0:
            raise DataFileError(f"{self.root / layout.INFO_PATH}: fps is {self.fps}")
        self.video_keys = tuple(name for name, kind in kinds.items() if kind == "video")
        self.image_keys = tuple(name for name, kind in kinds.items() if kind == "image")
        try:
            load = _load_v3 if self.version == layout.V3 else _load_v2
            self.tasks, episodes = load(self.root, info, self.video_keys)
        except (KeyError, TypeError, IndexError) as error:
            raise DataFileError(
                f"{self.root}: a meta file lacks a part ({error!r}); copy the folder again"
            ) from None
        self.episodes = sorted(episodes, key=lambda entry: entry.index)


def _load_v2(root: Path, info: dict, video_keys: tuple[str, ...]):
    tasks_path = root / layout.V2_TASKS
    lines = _json_lines(tasks_path) if tasks_path.exists() else []
    tasks = {int(line["task_index"]): str(line["task"]) for line in lines}
    data = info.get("data_path") or layout.V2_DATA
    video = info.get("video_path") or layout.V2_VIDEO
    episodes = []
    for line in _json_lines(root / layout.V2_EPISODES):
        index = int(line["episode_index"])
        chunk = index // int(info.get("chunks_size", 1000))
        place = {"episode_chunk": chunk, "episode_index": index}
        videos = {
            key: VideoPlace(root / _filled(video, place, video_key=key), 0.0) for key in video_keys
        }
        sentences = tuple(str(task) for task in line.get("tasks", ()))
        path = root / _filled(data, place)
        episodes.append(EpisodeEntry(index, int(line["length"]), sentences, path, videos))
    return tasks, episodes


def _load_v3(root: Path, info: dict, video_keys: tuple[str, ...]):
    tasks_path = root / layout.V3_TASKS
    tasks = {}
    if tasks_path.exists():
        table = _parquet(tasks_path)
        # pandas wrote the sentences as its index, under whatever name that has.
        (name, *_) = [name for name in table.column_names if name != "task_index"]
        numbers, sentences = table["task_index"].to_pylist(), table[name].to_pylist()
        tasks = dict(zip(numbers, map(str, sentences), strict=True))
    data = info.get("data_path") or layout.V3_DATA
    video = info.get("video_path") or layout.V3_VIDEO
    paths = sorted((root / layout.V3_EPISODES_FOLDER).glob("*/*.parquet"))
    if not paths:
        raise DataFileError(
            f"{root / layout.V3_EPISODES_FOLDER}: holds no episode list; copy the folder again"
        )
    episodes = []
    for row in (row for path in paths for row in _parquet(path, without="stats/").to_pylist()):
        videos = {
            key: VideoPlace(
                root / _filled(video, _place(row, f"videos/{key}"), video_key=key),
                float(row[f"videos/{key}/from_timestamp"]),
            )
            for key in video_keys
        }
        index, length = int(row["episode_index"]), int(row["length"])
        sentences = tuple(str(task) for task in row.get("tasks") or ())
        path = root / _filled(data, _place(row, "data"))
        episodes.append(EpisodeEntry(index, length, sentences, path, videos, row))
    return tasks, episodes


def _place(row: Mapping[str, Any], what: str) -> dict[str, int]:
    return {name: int(row[f"{what}/{name}"]) for name in ("chunk_index", "file_index")}


def _filled(template: str, place: Mapping[str, int], **more: str) -> str:
    try:
        return template.format(**place, **more)
    except (KeyError, ValueError, IndexError) as error:
        raise DataFileError(f"info.json: no path can be made of {template!r} ({error!r})") from None


def _text(path: Path, hint: str = "copy it again") -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read ({error.strerror}); {hint}") from None


def _json(path: Path) -> dict:
    text = _text(path, "give the folder that holds meta/ and data/")
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataFileError(f"{path}: damaged ({error}); copy it again") from None


def _json_lines(path: Path) -> list[dict]:
    lines = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        try:
            lines += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise DataFileError(f"{path}: line {number} is damaged ({error})") from None
    return lines


def _parquet(path: Path, without: str | None = None) -> pa.Table:
    """A whole file, but for the columns that begin with `without`."""
    try:
        names = pq.read_schema(path).names
        kept = [name for name in names if without is None or not name.startswith(without)]
        return pq.read_table(path, columns=kept)
    except (OSError, pa.ArrowException) as error:
        raise DataFileError(f"{path}: cannot be read ({error}); copy it again") from None


# Which columns hold what ----------------------------------------------------------------------

# Datasets that many people use, by the name to give instead of a file.
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
        sentences: text columns with sentences besides the dataset's task.
        stamps: column of true stamps [s]; "" for LeRobot's `timestamp`.
        conditions: all must hold in an episode's first row, or the episode is left out.
        robot: which robot moved; "" for what info.json says.
        native_aspects: camera -> (width, height) of the scene, for pictures that were squashed to
            another shape.
    """

    cameras: Mapping[str, str]
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


# The rows of one episode ----------------------------------------------------------------------


class EpisodeRows:
    """Reads episodes out of data files, one process, one after the other.

    The last file stays open: neighbouring episodes mostly share it.
    """

    def __init__(self):
        self._path: Path | None = None

    def read(self, path: Path, episode: int, columns: list[str]) -> pa.Table:
        """Columns of the rows whose episode_index is `episode`, in the order of the file.

        Raises:
            DataFileError: the file is missing or damaged, or lacks a column or the episode.
        """
        try:
            if path != self._path:
                self._open(path)
            missing = [name for name in columns if name not in self._file.schema_arrow.names]
            if missing:
                held = ", ".join(self._file.schema_arrow.names)
                raise DataFileError(f"{path}: has no column {missing[0]}; it has {held}")
            rows = np.flatnonzero(self._episode_of == episode)
            if not len(rows):
                raise DataFileError(f"{path}: has no row of episode {episode}; copy it again")
            first, last = int(rows[0]), int(rows[-1])
            if last - first + 1 != len(rows):
                raise DataFileError(f"{path}: the rows of episode {episode} are not together")
            groups = np.searchsorted(self._group_ends, [first, last], side="right")
            begin = int(self._group_ends[groups[0] - 1]) if groups[0] else 0
            table = self._file.read_row_groups(range(groups[0], groups[1] + 1), columns=columns)
            return table.slice(first - begin, len(rows))
        except (OSError, pa.ArrowException) as error:
            self._path = None
            raise DataFileError(f"{path}: cannot be read ({error}); copy it again") from None

    def _open(self, path: Path) -> None:
        self._path = None
        self._file = pq.ParquetFile(path)
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._group_ends = np.cumsum(sizes)
        if "episode_index" not in self._file.schema_arrow.names:
            raise DataFileError(f"{path}: has no column episode_index; it is no LeRobot data file")
        self._episode_of = self._file.read(columns=["episode_index"]).column(0).to_numpy()
        self._path = path


def column_values(table: pa.Table, name: str, where: str) -> NDArray:
    """A column as (T,) or (T, N) numbers, or (T,) texts.

    Raises:
        DataFileError: rows of different lengths, or values that are neither; `where` names them.
    """
    column = table[name].combine_chunks()
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        flat = column.flatten()
        if pa.types.is_list(flat.type) or len(flat) % max(len(column), 1):
            raise DataFileError(f"{where}: column {name} has rows of different lengths")
        if not pa.types.is_fixed_size_list(kind) and len(set(column.value_lengths())) > 1:
            raise DataFileError(f"{where}: column {name} has rows of different lengths")
        return _plain(flat, name, where).reshape(len(column), -1)
    return _plain(column, name, where)


def picture_bytes(table: pa.Table, name: str, where: str) -> list[bytes]:
    """The encoded pictures of an image column.

    Raises:
        DataFileError: it is no column of encoded pictures, or one is missing.
    """
    column = table[name].combine_chunks()
    if not pa.types.is_struct(column.type) or column.type.get_field_index("bytes") < 0:
        raise DataFileError(f"{where}: column {name} is {column.type}, no encoded pictures")
    encoded = column.field("bytes").to_pylist()
    if None in encoded:
        raise DataFileError(
            f"{where}: picture {encoded.index(None)} of {name} is not in the file; embed the "
            "pictures (LeRobot's embed_images) before copying the folder"
        )
    return encoded


def _plain(values: pa.Array, name: str, where: str) -> NDArray:
    kind = values.type
    if values.null_count:
        raise DataFileError(f"{where}: column {name} has empty places")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(values.to_pylist(), dtype=str)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return values.to_numpy(zero_copy_only=False)
    raise DataFileError(f"{where}: column {name} is {kind}, neither numbers nor text")


# The pictures of one episode out of an mp4 ----------------------------------------------------


class Mp4Video:
    """A Video (see inference.episode) that decodes an mp4 as pictures are asked for.

    One after the other they are decoded in one pass; anywhere else the file is searched from the
    key frame before.

    Attributes:
        shape: (T, H, W, 3).
        dtype: uint8.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, times_s: NDArray, fps: float):
        """Open a file.

        Args:
            path: of the mp4.
            times_s: (T,) when in the file each picture is shown [s].
            fps: pictures a second; a picture may be shown a quarter of 1 / fps before its time,
                or half of it after.

        Raises:
            DataFileError: the file is missing or no video.
        """
        self._path, self._times_s = path, np.asarray(times_s, float)
        self._early_s, self._late_s = 0.25 / fps, 0.5 / fps
        try:
            self._container = av.open(str(path))
            if not self._container.streams.video:
                raise DataFileError(f"{path}: has no video in it; copy it again")
            self._stream = self._container.streams.video[0]
            # One reader is one process: more threads would only compete with other readers.
            self._stream.codec_context.thread_count = 1
            height, width = self._stream.codec_context.height, self._stream.codec_context.width
        except (av.FFmpegError, OSError) as error:
            raise DataFileError(f"{path}: cannot be opened ({error}); copy it again") from None
        self.shape = (len(self._times_s), height, width, 3)
        self._frames = None
        self._next_step = -1

    def __len__(self) -> int:
        return len(self._times_s)

    def __getitem__(self, step: int) -> NDArray[np.uint8]:
        """Decode the picture (H, W, 3) of a step.

        Raises:
            DataFileError: the file is cut short, damaged, or has no picture at that time.
            IndexError: no such step.
        """
        if not -len(self) <= step < len(self):
            raise IndexError(f"{self._path}: no step {step}, there are {len(self)}")
        step %= len(self)
        wanted_s = float(self._times_s[step])
        try:
            if self._frames is None or step != self._next_step:
                self._seek(wanted_s)
            self._next_step = -1  # in case of an error
            for frame in self._frames:
                if frame.time is None or frame.time < wanted_s - self._early_s:
                    continue
                if frame.time > wanted_s + self._late_s:
                    break
                self._next_step = step + 1
                return frame.to_ndarray(format="rgb24")
            else:
                raise DataFileError(
                    f"{self._path}: ends before step {step} at {wanted_s:.3f} s; it is cut short: "
                    "copy it again"
                )
        except (av.FFmpegError, OSError) as error:
            raise DataFileError(
                f"{self._path}: step {step} at {wanted_s:.3f} s cannot be decoded ({error}); copy "
                "it again"
            ) from None
        raise DataFileError(
            f"{self._path}: has no picture at {wanted_s:.3f} s (step {step}), the next is at "
            f"{frame.time:.3f} s; its frame rate is not the dataset's fps"
        )

    def _seek(self, wanted_s: float) -> None:
        early_s = max(0.0, wanted_s - self._early_s)
        self._container.seek(int(early_s / self._stream.time_base), stream=self._stream)
        self._frames = self._container.decode(self._stream)


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
        poses, command_poses, openings, gripper_commands = read_motion(keys, steps)
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
            source=json.loads(entry.more.get("source", "{}")) if self._metadata else source,
            notes=str(entry.more.get("notes", "")) if self._metadata else "",
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
    stamps = [keys.stamps] if keys.stamps else []
    always = ("timestamp", "frame_index", "task_index")
    named = [*motion_keys(keys), *keys.sentences, *stamps, *selector_keys(keys.conditions)]
    return tuple(dict.fromkeys([*named, *always]))


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
