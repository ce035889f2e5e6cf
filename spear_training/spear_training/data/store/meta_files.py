"""The small files that make a folder of data files a LeRobotDataset v3.0."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spear_training.data.lerobot.layout import (
    INFO_PATH,
    STATS_PATH,
    V3,
    V3_CHUNK_FILES,
    V3_DATA,
    V3_DATA_FILE_MB,
    V3_TASKS,
    V3_VIDEO_FILE_MB,
)
from spear_training.data.store.columns import ACTION, STATE, lerobot_features, picture_column
from spear_training.data.store.facts import StoreFacts
from spear_training.data.store.lerobot_statistics import picture_statistics, vector_statistics
from spear_training.data.whole_file import whole_file, write_whole


def write_info(root: Path, facts: StoreFacts, tasks: int) -> None:
    """Write meta/info.json: from then on the store is finished. Raises OSError."""
    hz = facts.control_hz
    info = {
        "codebase_version": V3,
        "robot_type": facts.robot,
        "total_episodes": facts.episodes,
        "total_frames": facts.frames,
        "total_tasks": tasks,
        "chunks_size": V3_CHUNK_FILES,
        "data_files_size_in_mb": V3_DATA_FILE_MB,
        "video_files_size_in_mb": V3_VIDEO_FILE_MB,
        "fps": int(hz) if hz.is_integer() else hz,
        "splits": {"train": f"0:{facts.episodes}"},
        "data_path": V3_DATA,
        "video_path": None,
        "features": lerobot_features(facts),
    }
    write_whole(root / INFO_PATH, (json.dumps(info, indent=4) + "\n").encode())


def write_tasks(root: Path, tasks: dict[str, int]) -> None:
    """Write meta/tasks.parquet, the sentences in the order of their numbers. Raises OSError.

    LeRobot reads it with pandas and takes the index for the sentence; the schema says which
    column that is.
    """
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    described = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_kind}
        for name, (kind, numpy_kind) in kinds.items()
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": described}
    schema = pa.schema(
        [("task_index", pa.int64()), ("task", pa.string())], {"pandas": json.dumps(pandas)}
    )
    table = pa.table({"task_index": list(tasks.values()), "task": list(tasks)}, schema=schema)
    with whole_file(root / V3_TASKS) as beside:
        pq.write_table(table, beside)


def write_statistics(
    root: Path,
    states: NDArray[np.float32],
    actions: NDArray[np.float32],
    pictures: dict[str, tuple[NDArray[np.int64], int]],
) -> None:
    """Write meta/stats.json.

    Args:
        root: the store's folder.
        states, actions: (F, 8).
        pictures: camera -> histogram (3, 256), and of how many pictures.

    Raises:
        OSError: it cannot be written.
    """
    found = {STATE: vector_statistics(states), ACTION: vector_statistics(actions)}
    for camera, (histogram, counted) in pictures.items():
        found[picture_column(camera)] = picture_statistics(histogram, counted)
    plain = {
        feature: {name: value.tolist() for name, value in statistics.items()}
        for feature, statistics in found.items()
    }
    write_whole(root / STATS_PATH, (json.dumps(plain, indent=4) + "\n").encode())
