"""Small LeRobotDataset folders in the layouts that lerobot writes, made by the tests.

After lerobot v0.3.3 (v2.1: src/lerobot/datasets/utils.py) and 7427f31 (v3.0: dataset_writer.py,
dataset_metadata.py, scripts/convert_dataset_v21_to_v30.py).
"""

import json
import os
from dataclasses import dataclass, field
from fractions import Fraction

import av
import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from spear_policy.shared.config import read_dataclass
from spear_training.data.lerobot.reader import LeRobotKeys, LeRobotReader

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder says errors only

FPS = 10
EXTERNAL, WRIST = "observation.images.front", "observation.images.hand"
# In the words of a user's YAML file, for `recording`.
KEYS = {
    "cameras": {"external": EXTERNAL, "wrist": WRIST},
    "pose": {"encoding": "quaternion", "key": "observation.state", "order": "xyzw"},
    "command": {"encoding": "euler", "key": "action", "axes": "xyz"},
    "gripper_opening": {
        "encoding": "linear",
        "key": "observation.state",
        "first_column": 7,
        "closed_at": 0.0,
        "open_at": 1.0,
    },
    "gripper_command": {
        "encoding": "linear",
        "key": "action",
        "first_column": 6,
        "closed_at": 1.0,
        "open_at": 0.0,
    },
}


@dataclass
class Recording:
    """One episode: a task, columns (T, ...), and pictures (T, H, W, 3) by feature."""

    task: str | None
    columns: dict
    pictures: dict = field(default_factory=dict)

    def __len__(self):
        return len(next(iter(self.columns.values())))


def recording(number=0, steps=6, size=(48, 64)):
    """Return an episode; y tells its number, pictures the number and the step."""
    state = np.zeros((steps, 8), np.float32)
    state[:, 0], state[:, 1], state[:, 6] = 0.3 + 0.01 * np.arange(steps), 0.1 * number, 1
    state[:, 7] = np.linspace(1, 0, steps)
    action = np.zeros((steps, 7), np.float32)
    action[:, :3] = state[:, :3] + [0.01, 0, 0]
    action[:, 5] = 0.1
    action[:, 6] = np.arange(steps) >= steps // 2  # 1 is closed
    pictures = np.zeros((steps, *size, 3), np.uint8)
    pictures[:] = shades(number, steps)[:, None, None, None]
    pictures[..., 0] += 40  # red
    columns = {"observation.state": state, "action": action}
    return Recording(f"do task {number % 2}", columns, {EXTERNAL: pictures, WRIST: pictures[::-1]})


def open_folder(root, **changes):
    """Return a reader of a folder of such episodes."""
    return LeRobotReader(root, read_dataclass(LeRobotKeys, KEYS | changes, "keys"))


def shades(number, steps):
    """Return the grey level (T,) of the pictures of an episode."""
    return (20 * np.arange(steps) + 35 * number) % 200


def write_v2(root, recordings, version="v2.1", codec=None):
    """Write one file an episode; pictures as PNG in Parquet, or as mp4 by `codec`."""
    tasks = _tasks(recordings)
    meta = root / "meta"
    meta.mkdir(parents=True)
    lines, first = [], 0
    for number, one in enumerate(recordings):
        path = root / f"data/chunk-000/episode_{number:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(_table(one, number, first, tasks, embedded=codec is None), path)
        lines.append({"episode_index": number, "tasks": [one.task], "length": len(one)})
        first += len(one)
        for key, pictures in one.pictures.items() if codec else ():
            write_mp4(root / f"videos/chunk-000/{key}/episode_{number:06d}.mp4", pictures, codec)
    write_lines(meta / "episodes.jsonl", lines)
    tasks_lines = [{"task_index": number, "task": task} for task, number in tasks.items()]
    write_lines(meta / "tasks.jsonl", tasks_lines)
    chunk, episode = "chunk-{episode_chunk:03d}", "episode_{episode_index:06d}"
    places = {
        "data_path": f"data/{chunk}/{episode}.parquet",
        "video_path": f"videos/{chunk}/{{video_key}}/{episode}.mp4",
    }
    return _info(root, recordings, version, codec, places)


def write_v3(root, recordings, per_file=2, codec=None):
    """Write `per_file` episodes a file, pictures as in `write_v2`."""
    tasks = _tasks(recordings)
    rows, first = [], 0
    for number in range(0, len(recordings), per_file):
        place, tables = number // per_file, []
        part = recordings[number : number + per_file]
        begin_s = 0.0
        for offset, one in enumerate(part):
            tables.append(_table(one, number + offset, first, tasks, embedded=codec is None))
            row = {
                "episode_index": number + offset,
                "tasks": [one.task],
                "length": len(one),
                "data/chunk_index": 0,
                "data/file_index": place,
                "dataset_from_index": first,
                "dataset_to_index": first + len(one),
                "stats/action/min": [0.0],
            }
            for key in one.pictures if codec else ():
                row |= {f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": place}
                row[f"videos/{key}/from_timestamp"] = begin_s
                row[f"videos/{key}/to_timestamp"] = begin_s + len(one) / FPS
            rows.append(row)
            first += len(one)
            begin_s += len(one) / FPS
        path = root / f"data/chunk-000/file-{place:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(tables), path)
        for key in part[0].pictures if codec else ():
            pictures = np.concatenate([one.pictures[key] for one in part])
            write_mp4(root / f"videos/{key}/chunk-000/file-{place:03d}.mp4", pictures, codec)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    frame = pd.DataFrame({"task_index": list(tasks.values())}, index=list(tasks))
    frame.to_parquet(root / "meta/tasks.parquet")
    places = {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    return _info(root, recordings, "v3.0", codec, places)


def write_mp4(path, pictures, codec):
    """Write (T, H, W, 3) RGB at FPS, a key frame every other picture as LeRobot does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"g": "2", "crf": "18"} | ({"preset": "12"} if codec == "libsvtav1" else {})
    # Like LeRobot's: the index comes first, so a file that is cut short can still be opened.
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, FPS, options=options)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, FPS)
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_lines(path, lines):
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def change_info(root, **changes):
    """Change entries of meta/info.json."""
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _tasks(recordings):
    sentences = dict.fromkeys(one.task for one in recordings if one.task is not None)
    return {task: number for number, task in enumerate(sentences)}


def _table(one, episode, first, tasks, embedded):
    steps = len(one)
    arrays = {name: _array(values) for name, values in one.columns.items()}
    if embedded:
        for key, pictures in one.pictures.items():
            rows = [{"bytes": _png(picture), "path": None} for picture in pictures]
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            arrays[key] = pa.array(rows, kind)
    arrays.setdefault("timestamp", pa.array((np.arange(steps) / FPS).astype(np.float32)))
    arrays["frame_index"] = pa.array(np.arange(steps))
    arrays["episode_index"] = pa.array(np.full(steps, episode))
    arrays["index"] = pa.array(first + np.arange(steps))
    arrays["task_index"] = pa.array(np.full(steps, tasks.get(one.task, 99)))
    return pa.table(arrays)


def _array(values):
    values = np.asarray(values)
    if values.ndim == 1:
        return pa.array(values.tolist() if values.dtype.kind == "U" else values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _png(picture):
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()


def _info(root, recordings, version, codec, places):
    features = {}
    for name, values in recordings[0].columns.items():
        values = np.asarray(values)
        kind = "string" if values.dtype.kind == "U" else str(values.dtype)
        features[name] = {"dtype": kind, "shape": list(values.shape[1:]) or [1], "names": None}
    for key, pictures in recordings[0].pictures.items():
        names = ["height", "width", "channels"]
        kind = "video" if codec else "image"
        features[key] = {"dtype": kind, "shape": list(pictures.shape[1:]), "names": names}
    for name, kind in (("timestamp", "float32"), ("frame_index", "int64"), ("task_index", "int64")):
        features.setdefault(name, {"dtype": kind, "shape": [1], "names": None})
    for name in ("episode_index", "index"):
        features[name] = {"dtype": "int64", "shape": [1], "names": None}
    info = {
        "codebase_version": version,
        "robot_type": "so100",
        "total_episodes": len(recordings),
        "total_frames": sum(map(len, recordings)),
        "chunks_size": 1000,
        "fps": FPS,
        "features": features,
        **places,
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    return root
