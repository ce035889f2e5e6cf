"""Names and places in a LeRobotDataset folder.

From the public sources of lerobot: v0.3.3 (datasets v2.1), v0.4.4 and 7427f31 (datasets v3.0),
src/lerobot/datasets/utils.py.
"""

from pathlib import Path

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

# Columns that every data set has; a feature of shape (1,) is a plain number in Parquet.
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
