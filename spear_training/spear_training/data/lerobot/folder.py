"""The meta files of a LeRobotDataset folder (v2.0, v2.1, v3.0): which episodes it has, and where.

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

import pyarrow as pa
import pyarrow.parquet as pq

from spear_training.data.reader import LFS_BEGIN, DataFileError, unreadable
from spear_training.data.store import format as layout


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
        sentences: what the list of episodes says; which of them the motion answers is said by the
            task_index of the rows, for others are labels such as GR00T's "valid".
        data_path: the Parquet file that is to hold its rows, and perhaps those of others.
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
        said: how many episodes and frames info.json says there are, where it does.
        data_folder: below which all data files are.

    Raises:
        DataFileError: a meta file is missing, damaged or of a version that is not read here.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        info = _json(self.root / layout.INFO_PATH)
        try:
            version = str(info["codebase_version"])
            self.version = f"v{version}" if version[:1].isdigit() else version
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
            raise DataFileError(f"{self.root}: a meta file lacks a part ({error!r})") from None
        template = str(info.get("data_path") or layout.V3_DATA)
        self.data_folder = self.root / Path(template).parts[0]
        self.said = {
            name: int(info[f"total_{name}"])
            for name in ("episodes", "frames")
            if str(info.get(f"total_{name}", "")).isdigit()
        }
        self.episodes = sorted(episodes, key=lambda entry: entry.index)

    def is_depth(self, feature: str) -> bool:
        """Whether info.json says that the pictures of a feature are depth."""
        details = self.features[feature]
        places = (details, details.get("info") or {}, details.get("video_info") or {})
        names = ("is_depth_map", "video.is_depth_map")
        return any(place.get(name) is True for place in places for name in names)

    def find_video(self, feature: str, path: Path) -> Path:
        """Where an mp4 lies: by its name, where it is not where info.json says and only once."""
        if path.exists():
            return path
        found = [p for p in self.root.rglob(path.name) if feature in p.parts]
        return found[0] if len(found) == 1 else path

    def next_video(self, entry: EpisodeEntry, feature: str) -> Path | None:
        """The mp4 that an episode begins, where the list of episodes says the one before.

        None unless the next episode lies in another file and begins where this one would end, if
        it were the first there; after the last episode, unless there is one file of no episode.
        """
        after = next((each for each in self.episodes if each.index > entry.index), None)
        if after is None:
            listed = {each.videos[feature].path for each in self.episodes}
            found = [p for p in self.root.rglob("*.mp4") if feature in p.parts and p not in listed]
            return found[0] if len(found) == 1 else None
        if after.videos[feature].path == entry.videos[feature].path:
            return None
        off_s = after.videos[feature].from_s - entry.length / self.fps
        return after.videos[feature].path if abs(off_s) < 0.5 / self.fps else None


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
        sentences = _sentences(line.get("tasks"))
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
        sentences = _sentences(row.get("tasks"))
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


def _sentences(tasks: Any) -> tuple[str, ...]:
    """Of a row of the list of episodes; some writers put a text in place of a list of one."""
    return (tasks,) if isinstance(tasks, str) else tuple(str(task) for task in tasks or ())


def _text(path: Path, fix: str = "copy it again") -> str:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(unreadable(path, error, fix)) from None
    if text.startswith(LFS_BEGIN.decode()):
        raise DataFileError(unreadable(path))
    return text


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
        raise DataFileError(unreadable(path, error)) from None
