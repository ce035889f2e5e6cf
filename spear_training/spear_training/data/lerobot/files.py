"""The rows and the pictures of one episode, out of data files and mp4 files that may hold many."""

from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spear_policy.inference.episode import EpisodeError
from spear_training.data.reader import DataFileError, unreadable

# The rows of one episode ----------------------------------------------------------------------


class EpisodeRows:
    """Reads episodes out of data files, one process, one after the other.

    The last file stays open: neighbouring episodes mostly share it.
    """

    def __init__(self, folder: Path):
        """Take the folder below which all data files are."""
        self._folder = folder
        self._path: Path | None = None
        self._holders: dict[int, list[Path]] | None = None
        self._unread = ""  # a data file that cannot be read, in words

    def read(self, path: Path, episode: int, columns: list[str], length: int) -> pa.Table:
        """Columns of the rows whose episode_index is `episode`, by their frame_index.

        Where `path` does not hold all of them, the other data files are searched: the list of
        episodes may be wrong (lerobot's converter to v3.0 names the file before, where one is
        full: its issue 2401).

        Args:
            path: the data file that the list of episodes names.
            episode: the number of it.
            columns: wanted ones; frame_index must be one of them.
            length: how many rows the list of episodes says.

        Raises:
            DataFileError: a file is missing or damaged or lacks a column, or there are other rows
                than `length`.
        """
        table = self._of_file(path, episode, columns) if path.exists() else None
        if table is None or len(table) != length:
            found = [self._of_file(holder, episode, columns) for holder in self._having(episode)]
            if not found:
                if not path.exists():
                    fix = f"no other data file has rows of episode {episode}{self._unread}"
                    raise DataFileError(unreadable(path, fix=fix))
                raise DataFileError(
                    f"{path}: has no row of episode {episode}, nor has another file of "
                    f"{self._folder}{self._unread}"
                )
            table = pa.concat_tables(found)
        if len(table) != length:
            reason = "one of them is not whole" if len(table) < length else "is one there twice?"
            raise DataFileError(
                f"{path}: episode {episode} has {len(table)} rows in all data files, the list of "
                f"episodes says {length}; {reason}{self._unread}"
            )
        frames = column_values(table, "frame_index", str(path))
        in_order = (np.diff(frames) > 0).all()
        return table if in_order else table.take(np.argsort(frames, kind="stable"))

    def _of_file(self, path: Path, episode: int, columns: list[str]) -> pa.Table:
        """Those rows of one file, perhaps none."""
        try:
            if path != self._path:
                self._open(path)
            missing = [name for name in columns if name not in self._file.schema_arrow.names]
            if missing:
                held = ", ".join(self._file.schema_arrow.names)
                raise DataFileError(f"{path}: has no column {missing[0]}; it has {held}")
            rows = np.flatnonzero(self._episode_of == episode)
            if not len(rows):
                return self._file.schema_arrow.empty_table().select(columns)
            first, last = int(rows[0]), int(rows[-1])
            groups = np.searchsorted(self._group_ends, [first, last], side="right")
            begin = int(self._group_ends[groups[0] - 1]) if groups[0] else 0
            table = self._file.read_row_groups(range(groups[0], groups[1] + 1), columns=columns)
            if last - first + 1 == len(rows):
                return table.slice(first - begin, len(rows))
            return table.take(rows - begin)
        except (OSError, pa.ArrowException) as error:
            self._path = None
            raise DataFileError(unreadable(path, error)) from None

    def _having(self, episode: int) -> list[Path]:
        """The data files with rows of an episode; all of them are looked through once."""
        if self._holders is None:
            self._holders = {}
            for path in sorted(self._folder.rglob("*.parquet")):
                try:
                    self._open(path)
                except (OSError, pa.ArrowException, DataFileError) as error:
                    self._unread = f"; besides, {unreadable(path, error)}"
                    continue
                for number in np.unique(self._episode_of).tolist():
                    self._holders.setdefault(number, []).append(path)
        return self._holders.get(episode, [])

    def _open(self, path: Path) -> None:
        self._path = None
        self._file = pq.ParquetFile(path)
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._group_ends = np.cumsum(sizes)
        if "episode_index" not in self._file.schema_arrow.names:
            raise DataFileError(f"{path}: has no column episode_index; it is no LeRobot data file")
        numbers = self._file.read(columns=["episode_index"])
        self._episode_of = column_values(numbers, "episode_index", str(path))
        self._path = path


def column_values(table: pa.Table, name: str, where: str) -> NDArray:
    """A column as (T,) or (T, N) numbers, or (T,) texts; lists of one number are numbers.

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
        values = _plain(flat, name, where).reshape(len(column), -1)
        return values[:, 0] if values.shape[1] == 1 else values
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
        ends_s: when the file ends, as far as it says [s].
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
                raise DataFileError(f"{path}: has no video in it")
            self._stream = self._container.streams.video[0]
            # One reader is one process: more threads would only compete with other readers.
            self._stream.codec_context.thread_count = 1
            pixels = self._stream.codec_context.format
            if pixels and pixels.name.startswith("gray") and pixels.components[0].bits > 8:
                raise EpisodeError(
                    f"{path}: holds grey pictures of {pixels.components[0].bits} bits, which is "
                    "depth; name the camera's 8-bit colour pictures"
                )
            height, width = self._stream.codec_context.height, self._stream.codec_context.width
        except (av.FFmpegError, OSError) as error:
            raise DataFileError(unreadable(path, error)) from None
        self.shape = (len(self._times_s), height, width, 3)
        length = self._container.duration
        self.ends_s = float("inf") if length is None else length / av.time_base
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
                    f"{self._path}: ends before step {step} at {wanted_s:.3f} s: it is cut short, "
                    "or the list of episodes is wrong"
                )
        except (av.FFmpegError, OSError) as error:
            raise DataFileError(
                f"{self._path}: step {step} at {wanted_s:.3f} s cannot be decoded "
                f"({error.strerror}); copy it again"
            ) from None
        raise DataFileError(
            f"{self._path}: has no picture at {wanted_s:.3f} s (step {step}), the next is at "
            f"{frame.time:.3f} s; its frame rate is not the dataset's fps"
        )

    def _seek(self, wanted_s: float) -> None:
        early_s = max(0.0, wanted_s - self._early_s)
        self._container.seek(int(early_s / self._stream.time_base), stream=self._stream)
        self._frames = self._container.decode(self._stream)
