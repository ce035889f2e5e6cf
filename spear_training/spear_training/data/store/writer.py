"""A store's life: begun, filled group by group, finished.

    begin_store(root, metadata)                           # once, or again to go on
    writer = StoreWriter(root)
    writer.add_group(indices, encoded)                 # in order, of what `encode_episode` gives
    writer.finish(groups)

Episodes may be encoded by many processes; one writes them, in order, so every row has its number
when it is written. A group (a data file) is there whole or not at all. The store appears as a
whole: meta/info.json is written last, and without it no reader takes the folder for a dataset.
Which episodes lie in which group decides every byte, so an import that was killed and one that was
not end with the same files.

In order: the pictures of an episode; meta/stats.json, which is for other readers of the folder, as
SPEAR trains with statistics over a whole mixture (data/statistics); the other small files of a
LeRobotDataset; one episode, encoded; the writer.
"""

import dataclasses
import io
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spear_policy.inference.episode import Episode, EpisodeError, Video, split_episode
from spear_policy.inference.image_geometry import Fit, plan_fit
from spear_policy.shared.files import atomic_write, remove_temporary_files, write_atomically
from spear_training.data.reader import (
    DataFileError,
    EpisodeReader,
    NotSelectedError,
    unreadable,
)
from spear_training.data.store.format import (
    ACTION,
    BUILDING,
    INFO_PATH,
    METADATA_PATH,
    PLAN_PATH,
    REJECTS_PATH,
    STATE,
    STATS_PATH,
    V3,
    V3_CHUNK_FILES,
    V3_DATA,
    V3_DATA_FILE_MB,
    V3_TASKS,
    V3_VIDEO_FILE_MB,
    WRIST,
    CameraFit,
    CameraMetadata,
    EpisodeRecord,
    GroupRecord,
    Reject,
    StoreMetadata,
    as_written,
    episode_columns,
    episode_table,
    file_schema,
    group_arrays_path,
    group_record_path,
    lerobot_features,
    picture_column,
    read_group,
    read_store_metadata,
    v3_data_path,
    write_record,
    write_store_metadata,
)
from spear_training.data.store.parquet import (
    ROW_GROUP_ROWS,
    FileRows,
    group_table,
    open_writer,
    scan_file,
    write_episodes,
)
from spear_training.data.store.reader import open_lookup, write_lookup

# Pictures of an episode, fitted and encoded ----------------------------------------------------


JPEG_QUALITY = 92
# Statistics look at this many pictures of an episode, spread evenly.
COUNTED_PICTURES = 8
_JPEG_SETTINGS = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
# OpenCV before 4.7 has no name for it and always writes 4:2:0.
if hasattr(cv2, "IMWRITE_JPEG_SAMPLING_FACTOR"):
    _JPEG_SETTINGS += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]


@dataclass(frozen=True, eq=False)
class StoredPictures:
    """One camera's pictures of an episode.

    Attributes:
        jpegs: T encoded pictures.
        fit: how they were brought to their size; None for black ones in place of a camera.
        histogram: (3, 256) how often each value of red, green and blue was seen.
        counted: how many pictures the histogram is of.
    """

    jpegs: list[bytes]
    fit: Fit | None
    histogram: NDArray[np.int64]
    counted: int


def store_pictures(video: Video, camera: CameraMetadata) -> StoredPictures:
    """Fit and encode every picture of `video`.

    Raises:
        EpisodeError: a picture cannot be decoded or fitted; the text names camera and step.
        DataFileError: the file that a lazy `video` reads is damaged.
    """
    width, height = camera.size
    try:
        plan = plan_fit(
            video.shape[2], video.shape[1], width, height, camera.mode, camera.native_aspect
        )
    except ValueError as error:
        raise EpisodeError(f"camera {camera.name!r}: {error}") from None
    steps = len(video)
    counted = np.unique(np.linspace(0, steps - 1, min(steps, COUNTED_PICTURES)).round())
    histogram = np.zeros((3, 256), np.int64)
    jpegs = []
    for step in range(steps):
        try:
            picture = plan.apply(np.asarray(video[step]))
        except EpisodeError as error:
            raise EpisodeError(f"camera {camera.name!r}: {error}") from None
        if step in counted:
            histogram += picture_histogram(picture)
        jpegs.append(encode_jpeg(picture))
    return StoredPictures(jpegs, plan, histogram, len(counted))


def black_pictures(steps: int, camera: CameraMetadata) -> StoredPictures:
    """What stands for a camera that the episode lacks; no part of the statistics."""
    width, height = camera.size
    black = encode_jpeg(np.zeros((height, width, 3), np.uint8))
    return StoredPictures([black] * steps, None, np.zeros((3, 256), np.int64), 0)


def encode_jpeg(picture: NDArray[np.uint8]) -> bytes:
    """A picture (H, W, 3) RGB as JPEG 4:2:0 of the store's quality."""
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), _JPEG_SETTINGS)
    if not done:
        raise EpisodeError(f"a picture of shape {picture.shape} cannot be encoded")
    return encoded.tobytes()


def picture_histogram(picture: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(3, 256): how often each value occurs in red, green and blue of (H, W, 3)."""
    counts = [cv2.calcHist([picture], [channel], None, [256], [0, 256]) for channel in range(3)]
    return np.stack([np.ravel(count) for count in counts]).astype(np.int64)


# meta/stats.json: LeRobot's statistics ---------------------------------------------------------


QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def vector_statistics(values: NDArray) -> dict[str, NDArray]:
    """Of vectors (N, D), N >= 1: each statistic (D,) float64, and count (1,).

    Quantiles over all frames are exact: those of episodes cannot be merged.
    """
    columns = [np.asarray(column, float) for column in np.asarray(values).T]
    levels = list(QUANTILES.values())
    quantiles = np.array([np.quantile(column, levels) for column in columns])
    result = {
        "min": np.array([column.min() for column in columns]),
        "max": np.array([column.max() for column in columns]),
        "mean": np.array([column.mean() for column in columns]),
        "std": np.array([column.std() for column in columns]),
        "count": np.array([len(values)]),
    }
    return result | {name: quantiles[:, i] for i, name in enumerate(QUANTILES)}


def picture_statistics(histogram: NDArray[np.int64], counted: int) -> dict[str, NDArray]:
    """Of pictures, from how often each value occurs (3, 256): each (3, 1, 1) in 0..1.

    `counted` is how many pictures the histogram is of; of none, all statistics are 0.
    """
    values = np.arange(256) / 255
    total = histogram.sum(axis=1)
    seen = histogram > 0
    share = histogram / np.maximum(total, 1)[:, None]
    mean = share @ values
    result = {
        "min": values[seen.argmax(axis=1)] * (total > 0),
        "max": values[255 - seen[:, ::-1].argmax(axis=1)] * (total > 0),
        "mean": mean,
        "std": np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1)),
    }
    below = np.cumsum(histogram, axis=1)
    for name, level in QUANTILES.items():
        # The smallest value that at least this share of the pixels does not exceed.
        reached = below >= np.maximum(level * total, 1)[:, None]
        result[name] = values[reached.argmax(axis=1)]
    shaped = {name: value.reshape(3, 1, 1) for name, value in result.items()}
    return shaped | {"count": np.array([counted])}


# Small files of a LeRobotDataset v3.0 ----------------------------------------------------------


def write_info(root: Path, metadata: StoreMetadata, tasks: int) -> None:
    """Write meta/info.json: from then on the store is finished. Raises OSError."""
    hz = metadata.control_hz
    info = {
        "codebase_version": V3,
        "robot_type": metadata.robot,
        "total_episodes": metadata.episodes,
        "total_frames": metadata.frames,
        "total_tasks": tasks,
        "chunks_size": V3_CHUNK_FILES,
        "data_files_size_in_mb": V3_DATA_FILE_MB,
        "video_files_size_in_mb": V3_VIDEO_FILE_MB,
        "fps": int(hz) if hz.is_integer() else hz,
        "splits": {"train": f"0:{metadata.episodes}"},
        "data_path": V3_DATA,
        "video_path": None,
        "features": lerobot_features(metadata),
    }
    write_atomically(root / INFO_PATH, (json.dumps(info, indent=4) + "\n").encode())


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
    with atomic_write(root / V3_TASKS) as beside:
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
    write_atomically(root / STATS_PATH, (json.dumps(plain, indent=4) + "\n").encode())


# Encoding one episode --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class EncodedEpisode:
    """An episode as it goes into a store, but for the numbers that depend on those before it.

    Attributes:
        record: what the store says about it.
        columns: states and actions (T, 8), stamps (T,); see `episode_columns`.
        pictures: by camera.
        statistics: "stats/<feature>/<name>" -> this episode's.
    """

    record: EpisodeRecord
    columns: dict[str, NDArray]
    pictures: dict[str, StoredPictures]
    statistics: dict[str, NDArray]


def encode_episode(
    reader: EpisodeReader, index: int, metadata: StoreMetadata
) -> list[EncodedEpisode | Reject]:
    """Read and encode the pieces of an episode (see `split_episode`), or why it cannot be used.

    Raises:
        OSError: a file cannot be read now; perhaps it can later.
    """
    try:
        return [_encoded(each, index, metadata) for each in split_episode(reader.read(index))]
    except (DataFileError, EpisodeError) as error:
        return [Reject(index, not isinstance(error, NotSelectedError), str(error))]


def _encoded(episode: Episode, index: int, metadata: StoreMetadata) -> EncodedEpisode:
    columns = episode_columns(episode, metadata)
    pictures = {camera.name: _pictures_of(episode, camera) for camera in metadata.cameras}
    sentences = tuple(dict.fromkeys([episode.instruction, *episode.other_instructions]))
    black = WRIST in pictures and pictures[WRIST].fit is None
    features = {name: vector_statistics(columns[name]) for name in (STATE, ACTION)} | {
        picture_column(name): picture_statistics(stored.histogram, stored.counted)
        for name, stored in pictures.items()
    }
    return EncodedEpisode(
        EpisodeRecord(
            index,
            len(episode),
            sentences,
            black,
            episode.continues,
            dict(episode.source),
            episode.notes,
            episode.left_out,
        ),
        columns,
        pictures,
        {
            f"stats/{feature}/{name}": value
            for feature, statistics in features.items()
            for name, value in statistics.items()
        },
    )


def _pictures_of(episode: Episode, camera: CameraMetadata) -> StoredPictures:
    if camera.name not in episode.images:
        return black_pictures(len(episode), camera)
    return store_pictures(episode.images[camera.name], camera)


# Writing a store, group by group ---------------------------------------------------------------


def is_finished(root: str | Path) -> bool:
    """Whether the folder holds a finished store, or another finished dataset."""
    return (Path(root) / INFO_PATH).exists()


def begin_store(root: str | Path, metadata: StoreMetadata) -> None:
    """Make the folder, or find that an import with the same metadata was begun there.

    Raises:
        DataFileError: the folder holds a finished store, an import with other metadata, or
            something else.
        OSError: it cannot be written.
    """
    root = Path(root)
    plan = root / PLAN_PATH
    if is_finished(root):
        if plan.exists():  # of a finish that was killed at its very end
            shutil.rmtree(root / BUILDING)
        raise DataFileError(f"{root}: holds a finished dataset; delete it or choose a new folder")
    if plan.exists():
        held, wanted = read_store_metadata(plan), as_written(metadata)
        for each in dataclasses.fields(StoreMetadata):
            old, new = getattr(held, each.name), getattr(wanted, each.name)
            if old != new:
                raise DataFileError(
                    f"{root}: holds a begun import whose {each.name} is {old!r}, not {new!r}; go "
                    "on with the same settings, or delete the folder"
                )
        return
    if root.exists() and any(root.iterdir()) and not (root / BUILDING).is_dir():
        raise DataFileError(f"{root}: is not empty and holds no begun import; choose a new folder")
    plan.parent.mkdir(parents=True, exist_ok=True)
    write_store_metadata(metadata, plan)


class StoreWriter:
    """The one writer of a begun store; it goes on after the groups that are there.

    Attributes:
        metadata: of the store, without what is counted at the end.
        records: of the groups that are there.

    Raises:
        DataFileError: nothing was begun there, or the record of a group is damaged.
    """

    def __init__(self, root: str | Path):
        self._root = Path(root)
        remove_temporary_files(self._root)  # of an import that was killed
        self.metadata = read_store_metadata(self._root / PLAN_PATH)
        self.records: list[GroupRecord] = []
        self._episodes = self._frames = 0
        self._tasks: dict[str, int] = {}  # sentence -> number, in order of first appearance
        while group_record_path(self._root, len(self.records)).exists():
            self._count(read_group(self._root, len(self.records)))

    def _count(self, record: GroupRecord) -> None:
        self.records.append(record)
        self._episodes += len(record.episodes)
        self._frames += record.frames
        for sentence in record.sentences:
            self._tasks.setdefault(sentence, len(self._tasks))

    def add_group(
        self, source_indices: Sequence[int], encoded: Iterable[EncodedEpisode | Reject]
    ) -> GroupRecord:
        """Write the next group, whole or not at all.

        Args:
            source_indices: the reader's numbers of the episodes.
            encoded: what became of them, in the same order, the pieces of each one after the other;
                one is held at a time.

        Raises:
            OSError: it cannot be written (disk full); nothing of it is left.
        """
        group, tasks = len(self.records), dict(self._tasks)
        path = v3_data_path(self._root, group)
        path.parent.mkdir(parents=True, exist_ok=True)
        held, rejects = _GroupArrays(self.metadata), []
        frames = self._frames
        with atomic_write(path) as temporary:
            with open_writer(temporary, file_schema(self.metadata)) as file:
                for each in encoded:
                    if isinstance(each, Reject):
                        rejects.append(each)
                        continue
                    for sentence in each.record.sentences:
                        tasks.setdefault(sentence, len(tasks))
                    numbers = self._episodes + len(held.episodes), frames
                    table = _numbered(
                        each, *numbers, tasks[each.record.sentences[0]], self.metadata
                    )
                    file.write_table(table, row_group_size=ROW_GROUP_ROWS)
                    frames += each.record.length
                    held.add(each)
            rows = scan_file(temporary, self.metadata.camera_names)
            # In memory first: a zip file that meets a full disk complains again when dropped.
            archive = io.BytesIO()
            np.savez(archive, **held.arrays(rows))
            write_atomically(group_arrays_path(self._root, group), archive.getvalue())
        if not held.episodes:
            path.unlink()
        record = GroupRecord(
            tuple(int(index) for index in source_indices),
            tuple(held.episodes),
            tuple(rejects),
            tuple(held.fits),
            rows.file_bytes if held.episodes else 0,
        )
        write_record(record, self._root, group)
        self._count(record)
        return record

    def finish(self, groups: int) -> StoreMetadata:
        """Make a store of the first `groups` groups; what meta/spear.json says.

        Raises:
            DataFileError: a group is missing or damaged, or there is not one usable episode.
            OSError: it cannot be written (disk full); call again when it can.
        """
        root, records = self._root, self.records
        if len(records) < groups:
            raise DataFileError(
                f"{root}: group {len(records)} of {groups} is not written; run the import again"
            )
        _check_files(root, records)
        metadata = _found(self.metadata, records)
        if not metadata.episodes:
            reasons = [reject.reason for record in records for reject in record.rejects]
            first = next(iter(reasons), "none")
            raise DataFileError(f"{root}: no episode was usable; the first reason is: {first}")
        (root / "meta").mkdir(exist_ok=True)
        write_episodes(root, _episode_tables(root, records))
        lengths = np.array([e.length for record in records for e in record.episodes])
        write_lookup(root, metadata.camera_names, lengths, _rows(root, records, metadata))
        arrays = open_lookup(root, metadata.camera_names, metadata.frames).arrays
        pictures = _counted_pictures(root, records, metadata)
        write_statistics(root, arrays["states"], arrays["actions"], pictures)
        write_tasks(root, self._tasks)
        rejects = [dataclasses.asdict(reject) for record in records for reject in record.rejects]
        lines = [json.dumps(reject, ensure_ascii=False) + "\n" for reject in rejects]
        write_atomically(root / REJECTS_PATH, "".join(lines))
        write_store_metadata(metadata, root / METADATA_PATH)
        write_info(root, metadata, len(self._tasks))
        shutil.rmtree(root / BUILDING)
        return metadata


def _check_files(root: Path, records: list[GroupRecord]) -> None:
    for group, record in enumerate(records):
        path = v3_data_path(root, group)
        if record.episodes and not (path.exists() and path.stat().st_size == record.file_bytes):
            raise DataFileError(
                f"{path}: is missing or was changed after it was written; delete {root} and "
                "import again"
            )


def _numbered(
    episode: EncodedEpisode, number: int, first_frame: int, task: int, metadata: StoreMetadata
) -> pa.Table:
    steps = episode.record.length
    numbers = {
        "episode_index": np.full(steps, number),
        "index": first_frame + np.arange(steps),
        "task_index": np.full(steps, task),
    }
    jpegs = {name: stored.jpegs for name, stored in episode.pictures.items()}
    return episode_table(episode.columns, jpegs, numbers, metadata)


class _GroupArrays:
    """What of a group's episodes is kept until the store is finished."""

    def __init__(self, metadata: StoreMetadata):
        self._cameras = metadata.camera_names
        self.episodes: list[EpisodeRecord] = []
        self.fits: dict[CameraFit, None] = {}
        self._statistics: dict[str, list[NDArray]] = {}
        self._histograms = {name: np.zeros((3, 256), np.int64) for name in self._cameras}
        self._counted = dict.fromkeys(self._cameras, 0)

    def add(self, episode: EncodedEpisode) -> None:
        self.episodes.append(episode.record)
        for name, stored in episode.pictures.items():
            if stored.fit is not None:
                self.fits[CameraFit(name, stored.fit)] = None
            self._histograms[name] += stored.histogram
            self._counted[name] += stored.counted
        for key, value in episode.statistics.items():
            self._statistics.setdefault(key, []).append(value)

    def arrays(self, rows: FileRows) -> dict[str, NDArray]:
        """What `group_arrays_path` holds."""
        result = {"states": rows.states, "actions": rows.actions, "stamps_s": rows.stamps_s}
        for name in self._cameras:
            result[f"offsets/{name}"] = rows.offsets[name]
            result[f"lengths/{name}"] = rows.lengths[name]
            result[f"histogram/{name}"] = self._histograms[name]
            result[f"counted/{name}"] = np.array(self._counted[name])
        return result | {key: np.stack(values) for key, values in self._statistics.items()}


def _found(plan: StoreMetadata, records: list[GroupRecord]) -> StoreMetadata:
    """The metadata with what the groups hold."""
    fits: dict[str, dict[Fit, None]] = {name: {} for name in plan.camera_names}
    for record in records:
        for each in record.fits:
            fits[each.camera][each.fit] = None
    episodes = [episode for record in records for episode in record.episodes]
    rejects = [reject for record in records for reject in record.rejects]
    return dataclasses.replace(
        plan,
        cameras=tuple(
            dataclasses.replace(camera, fits=tuple(fits[camera.name])) for camera in plan.cameras
        ),
        episodes=len(episodes),
        frames=sum(episode.length for episode in episodes),
        rejected=sum(reject.selected for reject in rejects),
        not_selected=sum(not reject.selected for reject in rejects),
        black_wrist=sum(episode.black_wrist for episode in episodes),
        left_out=sum(episode.left_out for episode in episodes),
    )


def _arrays(root: Path, group: int) -> dict[str, NDArray]:
    path = group_arrays_path(root, group)
    try:
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        fix = "delete the store and import the data again"
        raise DataFileError(unreadable(path, error, fix)) from None


def _episode_tables(root: Path, records: list[GroupRecord]) -> Iterator[pa.Table]:
    episodes = frames = 0
    for group, record in enumerate(records):
        if record.episodes:
            arrays = _arrays(root, group)
            statistics = {key: value for key, value in arrays.items() if key.startswith("stats/")}
            yield group_table(record, group, episodes, frames, statistics)
        episodes += len(record.episodes)
        frames += record.frames


def _rows(root: Path, records: list[GroupRecord], metadata: StoreMetadata) -> Iterator:
    for group, record in enumerate(records):
        if record.episodes:
            arrays = _arrays(root, group)
            yield (
                v3_data_path(root, group),
                FileRows(
                    arrays["states"],
                    arrays["actions"],
                    arrays["stamps_s"],
                    {name: arrays[f"offsets/{name}"] for name in metadata.camera_names},
                    {name: arrays[f"lengths/{name}"] for name in metadata.camera_names},
                    record.file_bytes,
                ),
            )


def _counted_pictures(root: Path, records: list[GroupRecord], metadata: StoreMetadata) -> dict:
    """Camera -> histogram of all groups' pictures, and of how many."""
    result = {name: (np.zeros((3, 256), np.int64), 0) for name in metadata.camera_names}
    for group, record in enumerate(records):
        arrays = _arrays(root, group) if record.episodes else {}
        for name, (histogram, counted) in result.items() if arrays else ():
            more = arrays[f"histogram/{name}"], int(arrays[f"counted/{name}"])
            result[name] = histogram + more[0], counted + more[1]
    return result
