"""Recordings of ROS 2 (MCAP or sqlite3) and ROS 1, found and opened, whoever wrote or moved them.

A recording is a folder with metadata.yaml, or a data file that no metadata.yaml names. Files that
were compressed by hand, renamed, or whose metadata.yaml is wrong are read by themselves.
"""

import gzip
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lz4.frame
import yaml
import zstandard
from rosbags.highlevel import AnyReader

from spear_training.data.reader import DataFileError, is_lfs_pointer, unreadable

METADATA = "metadata.yaml"
STORAGE_SUFFIXES = (".mcap", ".db3", ".bag")
# What a user may have compressed a data file with, and what opens that.
COMPRESSIONS: dict[str, Callable[..., Any]] = {
    ".zstd": zstandard.open,
    ".zst": zstandard.open,
    ".gz": gzip.open,
    ".lz4": lz4.frame.open,
}
# What may hold recordings too, but is not read.
_OTHERS = (".active", ".tar", ".tgz", ".zip", ".7z", ".xz", ".bz2", ".hdf5", ".h5", ".svo")

# Finding recordings ---------------------------------------------------------------------------


def find_bags(root: Path) -> list[Path]:
    """Recordings at `root` or below it, sorted: folders, and data files of no metadata.yaml.

    Raises:
        DataFileError: there is none.
    """
    root = Path(root)
    files = [path for path in _files(root) if storage_suffix(path)]
    found = [] if root.is_dir() else files
    for folder in {path.parent for path in files} if root.is_dir() else ():
        together = _files_of(folder)
        beside = [path for path in files if path.parent == folder and path not in together]
        alone = [path for path in beside if not _is_repaired(path, together)]
        found += [folder, *alone] if together else alone
    if not found:
        others = left_out(root)
        there = f" (there are {', '.join(others[:3])}, which are not read)" if others else ""
        raise DataFileError(
            f"{root}: no bag there{there}; give the folder that holds bags/, one bag or its file"
        )
    return sorted(found)


def left_out(root: Path) -> list[str]:
    """Names of files at `root` or below it that may be recordings, but are not read."""
    top = root if root.is_dir() else root.parent
    return sorted(str(path.relative_to(top)) for path in _files(root) if path.suffix in _OTHERS)


def _is_repaired(path: Path, together: Sequence[Path]) -> bool:
    """Whether a file is a torn one that bag_repair left beside its copy."""
    copy = re.compile(re.escape(path.stem) + r"_repaired\d*")
    return any(copy.fullmatch(other.stem) for other in together)


def storage_suffix(path: Path) -> str:
    """One of STORAGE_SUFFIXES for a data file, compressed or not; "" for other files."""
    suffix = Path(_plain_name(path)).suffix
    return suffix if suffix in STORAGE_SUFFIXES else ""


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    found = root.rglob("*") if root.is_dir() else ()
    return [path for path in found if path.is_file() and not path.name.startswith(".")]


def _plain_name(path: Path) -> str:
    """The name of a data file before it was compressed."""
    return path.stem if path.suffix in COMPRESSIONS else path.name


def _files_of(folder: Path) -> list[Path]:
    """The data files of the recording that a folder is; none where it only holds recordings."""
    files = sorted(path for path in folder.iterdir() if storage_suffix(path) and path.is_file())
    if not (folder / METADATA).exists():
        return files if len(files) == 1 else []
    try:
        listed = _information(folder)["relative_file_paths"]
        named = {_plain_name(Path(str(name))) for name in listed}
    except (DataFileError, KeyError, TypeError):
        named = set()
    # All of them where metadata.yaml names none that is there: they were renamed.
    return [path for path in files if _plain_name(path) in named] or files


# Opening them ---------------------------------------------------------------------------------


class BagFolder:
    """An open bag; made by `open_bag`."""

    def __init__(self, folder: Path, reader: AnyReader, namespace: str | None):
        self.folder, self._reader = folder, reader
        self._namespace = None if namespace is None else namespace.strip("/")

    @property
    def topics(self) -> dict[str, str]:
        """Every topic with messages, and its type."""
        return {c.topic: c.msgtype for c in self._reader.connections if c.msgcount}

    def has(self, name: str) -> bool:
        """Whether there are messages under a topic name; see `messages`."""
        return any(connection.msgcount for connection in self._connections(name))

    def messages(self, name: str) -> Iterator[Any]:
        """Messages of a topic, in the order of their reception; see `received`."""
        return (message for _, message in self.received(name))

    def received(self, name: str) -> Iterator[tuple[float, Any]]:
        """Time of reception [s] and message of a topic.

        Args:
            name: as it stands in the bag with its "/", or relative such as "ee_state", within the
                robot's namespace.

        Raises:
            DataFileError: a message is damaged, or two robots have that topic.
        """
        connections = self._connections(name)
        if not connections:
            return
        try:
            for connection, stamp_ns, raw in self._reader.messages(connections):
                yield stamp_ns * 1e-9, self._reader.deserialize(raw, connection.msgtype)
        except Exception as error:  # rosbags lets struct's, lz4's and sqlite's errors through
            raise DataFileError(
                f"{self.folder}: {name} is damaged ({type(error).__name__}: {error}); copy the bag "
                "again if its original is whole, or save what is whole of an MCAP or SQLite bag: "
                "ros2 run spear_bringup bag_repair"
            ) from None

    def _connections(self, name: str) -> list:
        if name.startswith("/"):
            return [each for each in self._reader.connections if each.topic == name]
        wanted = f"/{name}" if self._namespace is None else f"/{self._namespace}/{name}"
        wanted = wanted.replace("//", "/")
        found = [
            connection
            for connection in self._reader.connections
            if connection.topic == wanted
            or (self._namespace is None and connection.topic.endswith(wanted))
        ]
        topics = sorted({connection.topic for connection in found})
        if len(topics) > 1:
            raise DataFileError(
                f"{self.folder} has {' and '.join(topics)}: say which robot by its namespace"
            )
        return found


@contextmanager
def open_bag(path: Path, namespace: str | None = None) -> Iterator[BagFolder]:
    """Open a recording.

    Args:
        path: one of `find_bags`.
        namespace: of the robot, "" for none; None: the only one in the bag.

    Raises:
        DataFileError: it was never closed, or cannot be read.
    """
    path = Path(path)
    with ExitStack() as stack:
        yield BagFolder(path, _reader(path, stack), namespace)


def _reader(path: Path, stack: ExitStack) -> AnyReader:
    files = [path] if path.is_file() else _files_of(path)
    as_listed = None
    if (path / METADATA).exists():
        try:
            return stack.enter_context(AnyReader([path]))
        except Exception as error:  # rosbags lets struct's, lz4's and sqlite's errors through
            as_listed = error
    try:
        # Not as metadata.yaml has it: files that were renamed or compressed, an empty storage
        # identifier. What it says of them stands in the files too.
        plain = [_decompressed(file, stack) for file in files]
        return stack.enter_context(AnyReader(plain))
    except Exception as error:
        for file in filter(is_lfs_pointer, files):
            raise DataFileError(unreadable(file)) from None
        if as_listed is None and files[0].suffix in (".mcap", ".db3"):
            folder = path if path.is_dir() else path.parent
            raise DataFileError(
                f"{path} was never closed; fix it with: ros2 run spear_bringup bag_repair {folder}"
            ) from None
        # Files that were compressed or renamed are not where metadata.yaml says they are.
        packed = any(file.suffix in COMPRESSIONS for file in files)
        said = str(error if packed or not as_listed else as_listed).replace(str(path), "it")
        fix = "copy the bag again"
        if storage_suffix(files[0]) != ".bag":
            folder = path if path.is_dir() else path.parent
            unpack = "unpack it and " if packed else ""
            fix += f", or {unpack}save what is whole: ros2 run spear_bringup bag_repair {folder}"
        raise DataFileError(f"{path}: {said.rstrip('.')}; {fix}") from None


def _decompressed(file: Path, stack: ExitStack) -> Path:
    if file.suffix not in COMPRESSIONS:
        return file
    folder = stack.enter_context(TemporaryDirectory(prefix="spear_bag_"))
    plain = Path(folder, _plain_name(file))
    with COMPRESSIONS[file.suffix](file, "rb") as source, open(plain, "wb") as target:
        shutil.copyfileobj(source, target)
    return plain


def custom_data(path: Path) -> dict[str, str]:
    """Words that the recorder left in the bag's metadata: instruction, outcome, seed, ...

    Raises:
        DataFileError: the metadata is damaged.
    """
    if path.is_file() or not (path / METADATA).exists():
        return {}
    found = _information(path).get("custom_data") or {}
    return {str(key): str(value) for key, value in found.items()}


def _information(folder: Path) -> dict[str, Any]:
    path = folder / METADATA
    try:
        return dict(yaml.safe_load(path.read_text())["rosbag2_bagfile_information"])
    except OSError as error:
        raise DataFileError(unreadable(path, error)) from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        fix = f"damaged ({type(error).__name__}: {error}); bag_repair makes another"
        raise DataFileError(unreadable(path, fix=fix)) from None
