"""One rosbag2 folder, MCAP or sqlite3: its messages by relative topic name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from rosbags.highlevel import AnyReader, AnyReaderError

from spear_training.data.reader import DataFileError

METADATA = "metadata.yaml"
STORAGE_SUFFIXES = (".mcap", ".db3")


def find_bags(root: Path) -> list[Path]:
    """Folders that are bags, at `root` or below it, sorted; unclosed ones are found as well.

    Raises:
        DataFileError: there is none.
    """
    root = Path(root)
    files = [root, *root.rglob("*")] if root.is_dir() else []
    found = sorted({f.parent for f in files if f.suffix in STORAGE_SUFFIXES and f.is_file()})
    if not found:
        raise DataFileError(f"{root}: no bag there; give the folder that holds bags/ or one bag")
    return found


class BagFolder:
    """An open bag; made by `open_bag`."""

    def __init__(self, folder: Path, reader: AnyReader, namespace: str | None):
        self.folder, self._reader = folder, reader
        self._namespace = None if namespace is None else namespace.strip("/")

    def has(self, name: str) -> bool:
        """Whether there are messages under a relative topic name such as "ee_state"."""
        return any(connection.msgcount for connection in self._connections(name))

    def messages(self, name: str) -> Iterator[object]:
        """Messages of a relative topic name, in the order of their reception.

        Raises:
            DataFileError: a message is damaged, or two robots have that topic.
        """
        connections = self._connections(name)
        if not connections:
            return
        try:
            for connection, _, raw in self._reader.messages(connections):
                yield self._reader.deserialize(raw, connection.msgtype)
        except Exception as error:  # rosbags lets struct's, lz4's and sqlite's errors through
            raise DataFileError(
                f"{self.folder}: {name} is damaged ({type(error).__name__}: {error}); "
                "copy the bag again"
            ) from None

    def _connections(self, name: str) -> list:
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
def open_bag(folder: Path, namespace: str | None = None) -> Iterator[BagFolder]:
    """Open a bag.

    Args:
        namespace: of the robot, "" for none; None: the only one in the bag.

    Raises:
        DataFileError: it was never closed, or cannot be read.
    """
    folder = Path(folder)
    if not (folder / METADATA).exists():
        raise DataFileError(
            f"{folder} was never closed; mend it with: "
            f"python3 -m spear_bringup.trials.bag_repair {folder}"
        )
    try:
        with AnyReader([folder]) as reader:
            yield BagFolder(folder, reader, namespace)
    except (AnyReaderError, AssertionError) as error:
        raise DataFileError(f"{folder}: {error}; copy the bag again") from None


def custom_data(folder: Path) -> dict[str, str]:
    """Words that the recorder left in the bag's metadata: instruction, outcome, seed, ...

    Raises:
        DataFileError: the metadata is damaged.
    """
    try:
        values = yaml.safe_load((folder / METADATA).read_text())
        found = values["rosbag2_bagfile_information"].get("custom_data") or {}
        return {str(key): str(value) for key, value in found.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise DataFileError(
            f"{folder / METADATA}: damaged ({type(error).__name__}: {error})"
        ) from None
