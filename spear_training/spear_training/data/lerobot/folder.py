"""What the meta files of a LeRobotDataset folder say, the same for v2.0, v2.1 and v3.0.

v2 has one Parquet file, and one mp4 for each camera, an episode; v3.0 puts many episodes into one
file and says where each begins. Places are from the public sources of lerobot; see layout.py.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spear_training.data.lerobot import layout
from spear_training.data.reader import DataFileError


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
            _judge_version(self.root, self.version)
            self.fps = float(info["fps"])
            self.features = {name: dict(value) for name, value in info["features"].items()}
            self.robot = str(info.get("robot_type") or "")
            kinds = {name: value["dtype"] for name, value in self.features.items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, DataFileError):
                raise
            raise DataFileError(
                f"{self.root / layout.INFO_PATH}: damaged or not LeRobot's info.json ({error!r})"
            ) from None
        if not self.fps > 0:
            raise DataFileError(f"{self.root / layout.INFO_PATH}: fps is {self.fps}")
        self.video_keys = tuple(name for name, kind in kinds.items() if kind == "video")
        self.image_keys = tuple(name for name, kind in kinds.items() if kind == "image")
        try:
            load = _load_v3 if self.version == layout.V3 else _load_v2
            self.tasks, self.episodes = load(self.root, info, self.video_keys)
        except (KeyError, TypeError, IndexError) as error:
            raise DataFileError(
                f"{self.root}: a meta file lacks a part ({error!r}); copy the folder again"
            ) from None


def _judge_version(root: Path, version: str) -> None:
    if version == layout.V3 or version in layout.V2:
        return
    known = ", ".join((*layout.V2, layout.V3))
    raise DataFileError(
        f"{root}: is a LeRobotDataset {version}; {known} are read: convert it with a lerobot that "
        "writes one of these"
    )


def _load_v2(root: Path, info: dict, video_keys: tuple[str, ...]):
    tasks_path = root / layout.V2_TASKS
    lines = _json_lines(tasks_path) if tasks_path.exists() else []
    tasks = {int(line["task_index"]): str(line["task"]) for line in lines}
    data, video = info.get("data_path") or layout.V2_DATA, info.get("video_path")
    episodes = []
    for line in sorted(_json_lines(root / layout.V2_EPISODES), key=lambda e: e["episode_index"]):
        index = int(line["episode_index"])
        place = {"episode_chunk": index // int(info.get("chunks_size", 1000))}
        place["episode_index"] = index
        videos = {
            key: VideoPlace(root / _filled(video or layout.V2_VIDEO, place, video_key=key), 0.0)
            for key in video_keys
        }
        sentences = tuple(str(task) for task in line.get("tasks", ()))
        path = root / _filled(data, place)
        episodes.append(EpisodeEntry(index, int(line["length"]), sentences, path, videos))
    return tasks, episodes


def _load_v3(root: Path, info: dict, video_keys: tuple[str, ...]):
    tasks_path = root / layout.V3_TASKS
    tasks = {}
    if tasks_path.exists():
        table = _table(tasks_path, None)
        # pandas wrote the sentences as its index, under whatever name that has.
        names = [name for name in table.column_names if name != "task_index"]
        sentences = table[names[0]].to_pylist()
        tasks = dict(zip(table["task_index"].to_pylist(), map(str, sentences), strict=True))
    data = info.get("data_path") or layout.V3_DATA
    video = info.get("video_path") or layout.V3_VIDEO
    folder = root / layout.V3_EPISODES_FOLDER
    paths = sorted(folder.glob("*/*.parquet"))
    if not paths:
        raise DataFileError(f"{folder}: holds no episode list; copy the folder again")
    episodes = []
    for path in paths:
        names = [name for name in _schema(path).names if not name.startswith("stats/")]
        for row in _table(path, names).to_pylist():
            videos = {
                key: VideoPlace(
                    root / _filled(video, _place(row, f"videos/{key}"), video_key=key),
                    float(row[f"videos/{key}/from_timestamp"]),
                )
                for key in video_keys
            }
            episodes.append(
                EpisodeEntry(
                    int(row["episode_index"]),
                    int(row["length"]),
                    tuple(str(task) for task in row.get("tasks") or ()),
                    root / _filled(data, _place(row, "data")),
                    videos,
                    row,
                )
            )
    return tasks, sorted(episodes, key=lambda entry: entry.index)


def _place(row: Mapping[str, Any], what: str) -> dict[str, int]:
    return {name: int(row[f"{what}/{name}"]) for name in ("chunk_index", "file_index")}


def _filled(template: str, place: Mapping[str, int], **more: str) -> str:
    try:
        return template.format(**place, **more)
    except (KeyError, ValueError, IndexError) as error:
        raise DataFileError(f"info.json: no path can be made of {template!r} ({error!r})") from None


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise DataFileError(
            f"{path}: cannot be read ({error.strerror}); give the folder that holds meta/ and data/"
        ) from None
    except ValueError as error:
        raise DataFileError(f"{path}: damaged ({error}); copy it again") from None


def _json_lines(path: Path) -> list[dict]:
    try:
        text = path.read_text()
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read ({error.strerror}); copy it again") from None
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            lines += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise DataFileError(f"{path}: line {number} is damaged ({error})") from None
    return lines


def _schema(path: Path) -> pa.Schema:
    return _parquet(path, lambda: pq.read_schema(path))


def _table(path: Path, columns: list[str] | None) -> pa.Table:
    return _parquet(path, lambda: pq.read_table(path, columns=columns))


def _parquet(path: Path, read):
    try:
        return read()
    except (OSError, pa.ArrowException) as error:
        raise DataFileError(f"{path}: cannot be read ({error}); copy it again") from None
