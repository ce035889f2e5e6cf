"""lookup/: the numbers of the whole store as plain arrays, and where each JPEG lies.

With it reading at random needs no Parquet library: numbers are mapped into memory, where all
worker processes share them, and a picture is one read of its bytes. It repeats what is in the
data files, and is made again from them by

    python3 -m spear_training.data.store.lookup FOLDER
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from spear_policy.model.config_reading import read_dataclass
from spear_training.data.lerobot.layout import INFO_PATH, v3_data_path
from spear_training.data.reader import DataFileError
from spear_training.data.store.columns import WIDTH
from spear_training.data.store.episodes import read_episodes
from spear_training.data.store.facts import FACTS_PATH, read_facts
from spear_training.data.store.places import LOOKUP
from spear_training.data.store.scan import FileRows, scan_file
from spear_training.data.whole_file import whole_file, write_whole

FILES_PATH = LOOKUP + "/files.json"
MAKE_AGAIN = "make it with `python3 -m spear_training.data.store.lookup {}`"


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
    write_whole(root / FILES_PATH, content.encode())


def open_lookup(root: Path, cameras: tuple[str, ...], frames: int) -> Lookup:
    """Map it.

    Raises:
        DataFileError: it is missing, incomplete, damaged or of another store.
    """
    mend = MAKE_AGAIN.format(root)
    try:
        held = read_dataclass(FileList, json.loads((root / FILES_PATH).read_text()), "files")
    except (OSError, ValueError) as error:
        raise DataFileError(f"{root / FILES_PATH}: {error}; {mend}") from None
    arrays = {}
    for name, (dtype, tail) in kinds(cameras).items():
        path = _array_path(root, name)
        try:
            array = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise DataFileError(f"{path}: cannot be read ({error}); {mend}") from None
        if array.shape != (frames, *tail) or array.dtype != dtype or held.frames != frames:
            raise DataFileError(
                f"{path}: is {array.dtype} {array.shape}, the store has {frames} frames; {mend}"
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
    with whole_file(path) as beside, open(beside, "wb") as file:
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
        prog="python3 -m spear_training.data.store.lookup",
        description="Make lookup/ of a finished store again from its data files.",
        epilog="example: python3 -m spear_training.data.store.lookup data/bridge",
    )
    parser.add_argument("folder", type=Path)
    root = parser.parse_args(arguments).folder
    try:
        if not (root / INFO_PATH).exists():
            raise DataFileError(f"{root}: is no finished store (it has no {INFO_PATH})")
        cameras = read_facts(root / FACTS_PATH).camera_names
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


if __name__ == "__main__":
    sys.exit(main())
