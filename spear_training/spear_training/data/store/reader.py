"""Reading a store at random: any frame of any episode, in the time that its JPEGs take.

`FrameStore` reads by the folder lookup/, which needs no Parquet library: numbers are mapped into
memory, where all worker processes share them, and a picture is one read of its bytes at a known
place in an open data file. The lookup repeats what is in the data files, and is made again from
them by

    ros2 run spear_training make_lookup FOLDER

In order: poses out of stored numbers; the lookup, written and opened; data files kept open; the
store; the motion of one episode.
"""

import argparse
import json
import os
import sys
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from spear_policy.geometry.tracking import TimedPoses
from spear_policy.shared.config import read_dataclass
from spear_policy.shared.files import atomic_write, write_atomically
from spear_training.data.reader import DataFileError, unreadable
from spear_training.data.store.format import (
    BUILDING,
    INFO_PATH,
    LOOKUP,
    METADATA_PATH,
    WIDTH,
    StoreMetadata,
    read_store_metadata,
    v3_data_path,
)
from spear_training.data.store.parquet import EpisodeTable, FileRows, read_episodes, scan_file

# Poses out of a store's numbers ----------------------------------------------------------------


def stored_poses(stamps_s: NDArray, rows: NDArray) -> TimedPoses:
    """Poses over time from rows (T, 8) of states or actions.

    Raises:
        ValueError: what no recorded motion can be.
    """
    poses = np.array(rows[:, :7], float)
    # Stored in single precision: what is missing of unit length is rounding.
    poses[:, 3:] /= np.linalg.norm(poses[:, 3:], axis=1, keepdims=True)
    return TimedPoses(stamps_s, poses)


# lookup/: the numbers of all frames, and where their JPEGs lie ---------------------------------


FILES_PATH = LOOKUP + "/files.json"
MAKE_AGAIN = "make it with `ros2 run spear_training make_lookup {}`"


@dataclass(frozen=True)
class DataFile:
    """One data file: its path below the store's folder, its size, and its first frame."""

    path: str
    file_bytes: int
    first_frame: int


@dataclass(frozen=True)
class FileList:
    """lookup/files.json; it is written last, so the lookup is whole if it is there."""

    frames: int
    files: tuple[DataFile, ...]


@dataclass(frozen=True, eq=False)
class Lookup:
    """The lookup of a store, opened.

    Attributes:
        files: the data files, by first frame.
        arrays: "states", "actions" (F, 8), "stamps_s", "episode_of" (F,), and for each camera
            "offset_<camera>" and "length_<camera>" (F,) [bytes]; mapped, read only.
    """

    files: tuple[DataFile, ...]
    arrays: dict[str, NDArray]


def write_lookup(
    root: Path,
    cameras: tuple[str, ...],
    lengths: NDArray[np.int64],
    parts: Iterable[tuple[Path, FileRows]],
) -> None:
    """Write it.

    Args:
        root: the store's folder.
        cameras: of the store.
        lengths: (E,) frames of each episode.
        parts: path and rows of each data file, in order; one is held at a time.

    Raises:
        OSError: it cannot be written.
    """
    (root / LOOKUP).mkdir(exist_ok=True)
    (root / FILES_PATH).unlink(missing_ok=True)
    frames, files, first = int(lengths.sum()), [], 0
    with ExitStack() as stack:
        # Written, not mapped: where the disk is full that is an error, not the process's death.
        outputs = {
            name: stack.enter_context(_whole_output(_array_path(root, name)))
            for name in kinds(cameras)
        }
        for name, (dtype, tail) in kinds(cameras).items():
            descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
            header = {"descr": descr, "fortran_order": False, "shape": (frames, *tail)}
            write_array_header_1_0(outputs[name], header)
        episodes = np.arange(len(lengths), dtype=np.int32)
        outputs["episode_of"].write(np.repeat(episodes, lengths).data)
        for path, rows in parts:
            for name in outputs.keys() - {"episode_of"}:
                outputs[name].write(np.ascontiguousarray(_of_rows(rows, name)).data)
            files.append(DataFile(str(path.relative_to(root)), rows.file_bytes, first))
            first += len(rows)
    content = json.dumps(asdict(FileList(frames, tuple(files))), indent=1)
    write_atomically(root / FILES_PATH, content.encode())


def open_lookup(root: Path, cameras: tuple[str, ...], frames: int) -> Lookup:
    """Map it.

    Raises:
        DataFileError: it is missing, incomplete, damaged or of another store.
    """
    fix = MAKE_AGAIN.format(root)
    try:
        held = read_dataclass(FileList, json.loads((root / FILES_PATH).read_text()), "files")
    except (OSError, ValueError) as error:
        raise DataFileError(unreadable(root / FILES_PATH, error, fix)) from None
    arrays = {}
    for name, (dtype, tail) in kinds(cameras).items():
        path = _array_path(root, name)
        try:
            array = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise DataFileError(unreadable(path, error, fix)) from None
        if array.shape != (frames, *tail) or array.dtype != dtype or held.frames != frames:
            raise DataFileError(
                f"{path}: is {array.dtype} {array.shape}, the store has {frames} frames; {fix}"
            )
        # np.memmap's own indexing is slow; the plain array keeps the map alive.
        arrays[name] = array.view(np.ndarray)
    return Lookup(held.files, arrays)


def kinds(cameras: tuple[str, ...]) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Type of each array, and its shape after the frame."""
    result = {
        "states": (np.float32, (WIDTH,)),
        "actions": (np.float32, (WIDTH,)),
        "stamps_s": (np.float64, ()),
        "episode_of": (np.int32, ()),
    }
    for camera in cameras:
        result |= {f"offset_{camera}": (np.int64, ()), f"length_{camera}": (np.int32, ())}
    return result


@contextmanager
def _whole_output(path: Path) -> Iterator[BinaryIO]:
    with atomic_write(path) as beside, open(beside, "wb") as file:
        yield file


def _of_rows(rows: FileRows, name: str) -> NDArray:
    kind, _, camera = name.partition("_")
    spans = {"offset": rows.offsets, "length": rows.lengths}
    return spans[kind][camera] if kind in spans else getattr(rows, name)


def _array_path(root: Path, name: str) -> Path:
    return root / LOOKUP / f"{name}.npy"


def main(arguments: list[str] | None = None) -> int:
    """Make the lookup of a store again; every data file is read and checked."""
    parser = argparse.ArgumentParser(
        description="Make lookup/ of a finished store again from its data files.",
        epilog="example: ros2 run spear_training make_lookup data/bridge",
    )
    parser.add_argument("folder", type=Path)
    root = parser.parse_args(arguments).folder
    try:
        if not (root / INFO_PATH).exists():
            raise DataFileError(f"{root}: is no finished store (it has no {INFO_PATH})")
        cameras = read_store_metadata(root / METADATA_PATH).camera_names
        episodes = read_episodes(root)
        numbers = list(dict.fromkeys(episodes.file_number.tolist()))
        write_lookup(root, cameras, episodes.length, _scanned(root, cameras, numbers))
    except (DataFileError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{root}: {len(numbers)} data files, {episodes.length.sum()} frames")
    return 0


def _scanned(root: Path, cameras: tuple[str, ...], numbers: list[int]) -> Iterator:
    for number in numbers:
        path = v3_data_path(root, number)
        yield path, scan_file(path, cameras)


# Data files kept open --------------------------------------------------------------------------


# Of all stores of a process together; a shell's usual limit is 1024.
MOST_OPEN_FILES = 256


class OpenFiles:
    """Reads bytes of files at an offset, from any thread, keeping the last files open.

    After a fork the child opens its own.
    """

    def __init__(self, most: int = MOST_OPEN_FILES):
        self._most = most
        self._forget()

    def read(self, path: Path, offset: int, length: int, file_bytes: int) -> bytes:
        """`length` bytes at `offset` of a file that must have `file_bytes`.

        Raises:
            DataFileError: the file is missing, cannot be read, or has another size.
        """
        if os.getpid() != self._process:
            self._forget()
        with self._lock:
            handle = self._handles.get(path)
            if handle is None:
                handle = self._handles[path] = _Handle(path, file_bytes)
                if len(self._handles) > self._most:
                    self._handles.popitem(last=False)
            else:
                self._handles.move_to_end(path)
        # Without the lock: a file that is closed meanwhile stays open while `handle` lives.
        try:
            content = os.pread(handle.descriptor, length, offset)
        except OSError as error:
            raise DataFileError(f"{path}: cannot be read ({error.strerror})") from None
        if len(content) < length:
            raise DataFileError(f"{path}: became shorter while it was read; copy it again")
        return content

    def _forget(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._handles: OrderedDict[Path, _Handle] = OrderedDict()


class _Handle:
    """An open file, closed when nobody holds it any more."""

    def __init__(self, path: Path, file_bytes: int):
        self.descriptor = -1
        try:
            self.descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataFileError(f"{path}: cannot be read ({error.strerror})") from None
        size = os.fstat(self.descriptor).st_size
        if size != file_bytes:
            raise DataFileError(
                f"{path}: has {size} bytes, the store says {file_bytes}; it is cut short or was "
                "changed: copy it again"
            )

    # Bound here: when Python ends, `os` may be gone first.
    def __del__(self, close=os.close):
        if self.descriptor >= 0:
            close(self.descriptor)


SHARED = OpenFiles()


# The store -------------------------------------------------------------------------------------


# OpenCV from 4.11 on can decode to RGB at once.
_RGB = getattr(cv2, "IMREAD_COLOR_RGB", None)
_FLAGS = (cv2.IMREAD_COLOR if _RGB is None else _RGB) | cv2.IMREAD_IGNORE_ORIENTATION


class FrameStore:
    """A finished store. It may be pickled, and used from several threads and after a fork.

    Numbers are mapped: they cost memory once for all processes of a machine. Frames are numbered
    0 to F - 1, episode after episode.

    Attributes:
        root: its folder.
        metadata: what it is.
        episodes: its episodes: first_frame, length, sentences(episode), ...
        states: (F, 8) float32 measured x y z [m], qx qy qz qw in the base frame, sign-continuous
            within an episode, and gripper opening 0..1.
        actions: (F, 8) float32 the same, as commanded; see StoreMetadata.action_from.
        stamps_s: (F,) float64 from the beginning of the episode [s].
        episode_of: (F,) int32 the episode of each frame.

    Raises:
        DataFileError: the folder holds no finished store, or a part of it is damaged. A damaged
            data file is no reason: it raises when a picture of it is read.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        if not (self.root / INFO_PATH).exists():
            begun = (self.root / BUILDING).exists()
            what = "is a begun import" if begun else f"is no store (it has no {INFO_PATH})"
            fix = "run it again to finish it" if begun else "make one with import_episodes"
            raise DataFileError(f"{self.root}: {what}; {fix}")
        self.metadata: StoreMetadata = read_store_metadata(self.root / METADATA_PATH)
        self.episodes: EpisodeTable = read_episodes(self.root)
        frames = int(self.episodes.length.sum())
        lookup = open_lookup(self.root, self.metadata.camera_names, frames)
        self.states: NDArray[np.float32] = lookup.arrays["states"]
        self.actions: NDArray[np.float32] = lookup.arrays["actions"]
        self.stamps_s: NDArray[np.float64] = lookup.arrays["stamps_s"]
        self.episode_of: NDArray[np.int32] = lookup.arrays["episode_of"]
        self._spans = {
            name: (lookup.arrays[f"offset_{name}"], lookup.arrays[f"length_{name}"])
            for name in self.metadata.camera_names
        }
        self._first_frames = [file.first_frame for file in lookup.files]
        self._files = [(self.root / file.path, file.file_bytes) for file in lookup.files]

    def __len__(self) -> int:
        """F."""
        return len(self.stamps_s)

    def __reduce__(self):
        return type(self), (self.root,)

    def jpeg(self, frame: int, camera: str) -> bytes:
        """The encoded picture of a frame.

        Raises:
            DataFileError: its data file is missing, cut short or changed; others can be read.
            IndexError: no such frame.
            KeyError: no such camera.
        """
        frame = self._checked(frame)
        offsets, lengths = self._spans[camera]
        path, file_bytes = self._files[bisect_right(self._first_frames, frame) - 1]
        return SHARED.read(path, int(offsets[frame]), int(lengths[frame]), file_bytes)

    def image(self, frame: int, camera: str) -> NDArray[np.uint8]:
        """The picture (H, W, 3) RGB of a frame.

        Raises:
            DataFileError: the picture is damaged, or see `jpeg`.
            IndexError, KeyError: see `jpeg`.
        """
        encoded = np.frombuffer(self.jpeg(frame, camera), np.uint8)
        picture = cv2.imdecode(encoded, _FLAGS)
        if picture is None:
            path, _ = self._files[bisect_right(self._first_frames, frame) - 1]
            raise DataFileError(
                f"{path}: the {camera} picture of frame {frame} is damaged; copy the file again"
            )
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) if _RGB is None else picture

    def _checked(self, frame: int) -> int:
        if not 0 <= frame < len(self):
            raise IndexError(f"{self.root}: no frame {frame}, it has {len(self)}")
        return int(frame)


# One stored episode without its pictures -------------------------------------------------------


@dataclass(frozen=True, eq=False)
class EpisodeMotion:
    """One episode without its pictures.

    Attributes:
        episode: its number in the store.
        measured, commanded: poses over time; `commanded` is `measured` where nobody recorded
            commands.
        openings, commands: (T,) of the gripper.
        continues: whether the motion went on after the last frame, see Episode.
    """

    episode: int
    measured: TimedPoses
    commanded: TimedPoses
    openings: NDArray
    commands: NDArray
    continues: bool


def episode_motion(store: FrameStore, episode: int) -> EpisodeMotion:
    """The motion of an episode.

    Raises:
        DataFileError: it has numbers that no episode can have.
        IndexError: no such episode.
    """
    if not 0 <= episode < len(store.episodes):
        raise IndexError(f"{store.root}: no episode {episode}, it has {len(store.episodes)}")
    first = int(store.episodes.first_frame[episode])
    rows = slice(first, first + int(store.episodes.length[episode]))
    try:
        measured = stored_poses(store.stamps_s[rows], store.states[rows])
        commanded = measured
        if store.metadata.action_from == "commanded":
            commanded = stored_poses(measured.stamps_s, store.actions[rows])
    except ValueError as error:
        name = f"{store.metadata.name} episode {episode}"
        raise DataFileError(f"{store.root}: {name}: {error}; import it again") from None
    return EpisodeMotion(
        episode,
        measured,
        commanded,
        np.array(store.states[rows, 7], float),
        np.array(store.actions[rows, 7], float),
        bool(store.episodes.continues[episode]),
    )


if __name__ == "__main__":
    sys.exit(main())
