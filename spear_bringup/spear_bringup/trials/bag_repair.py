"""Finish a bag whose writer died: copy its whole messages into a new file with index and metadata.

What is there stays as it is: a file NAME.mcap or NAME.db3 that is torn gets NAME_repaired beside
it, and metadata.yaml names that one. An earlier metadata.yaml that does not fit gets another name.
The copy needs as much room as the torn file, which may be removed when the bag has been looked at.
By hand: ros2 run spear_bringup bag_repair BAG...
"""

import argparse
import errno
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from spear_bringup.trials import db3_salvage, mcap_salvage
from spear_bringup.trials.bag_metadata import (
    NAME,
    FileContents,
    RepairError,
    information,
    read_information,
)
from spear_policy.shared.files import atomic_write, write_atomically

_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_STORAGES = {".mcap": "mcap", ".db3": "sqlite3"}
_READERS = {".mcap": mcap_salvage, ".db3": db3_salvage}
_PACKED = (".zstd", ".zst", ".gz", ".lz4")
_MADE_HERE = re.compile(r"_repaired\d*$")


@dataclass(frozen=True)
class RepairReport:
    """What a bag holds now.

    Attributes:
        files: of the bag, in order.
        torn: files that were torn and stay beside their copies.
        was_whole: nothing had to be done.
    """

    files: Sequence[FileContents]
    torn: Sequence[Path] = ()
    was_whole: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """Messages by topic."""
        topics = information(self.files, "", {})["topics_with_message_count"]
        return {topic["topic_metadata"]["name"]: topic["message_count"] for topic in topics}

    @property
    def duration_s(self) -> float:
        """From the first message to the last."""
        return information(self.files, "", {})["duration"]["nanoseconds"] * 1e-9

    @property
    def messages(self) -> int:
        """Messages in the bag."""
        return sum(file.messages for file in self.files)

    def __str__(self) -> str:
        if self.was_whole:
            return f"{self.messages} messages, was whole"
        words = f"{self.messages} messages in {', '.join(file.name for file in self.files)}"
        if left_out := sum(file.left_out for file in self.files):
            words += f"; {left_out} more have no known topic or a wrong checksum and were not taken"
        if self.torn:
            names = ", ".join(path.name for path in self.torn)
            words += f"; {names} stays as it was: remove it when you have looked at the bag"
        return words


def repair(folder: Path, custom_data: Mapping[str, str] | None = None) -> RepairReport:
    """Make a bag readable again; one that is whole is left as it is.

    Args:
        folder: the bag, with .mcap or .db3 files inside.
        custom_data: words for metadata.yaml.

    Raises:
        RepairError: there is no such file, its beginning is broken, or no whole message is there.
        OSError: the copy cannot be written; all is as it was.
    """
    folder = Path(folder).resolve()
    earlier = read_information(folder)
    paths = _storage_files(folder, earlier)
    storage = _STORAGES[paths[0].suffix]
    whole = [_READERS[path.suffix].contents_of_whole(path) for path in paths]
    if all(whole) and earlier.get("message_count") == sum(file.messages for file in whole):
        if not earlier["message_count"]:
            raise RepairError(f"{folder} is whole and holds no message")
        return RepairReport(whole, was_whole=True)
    known = {**earlier, **({"custom_data": dict(custom_data)} if custom_data else {})}
    files, torn, reasons = [], [], []
    for path, contents in zip(paths, whole, strict=True):
        if contents is None:
            try:
                contents = _salvaged(path, known)
                torn.append(path)
            except RepairError as error:
                reasons.append(str(error))
                continue
        if contents.messages:
            files.append(contents)
    if not files:
        raise RepairError("; ".join(reasons) or f"{folder} is whole and holds no message")
    text = yaml.safe_dump({"rosbag2_bagfile_information": information(files, storage, known)})
    if (folder / NAME).exists():
        (folder / NAME).rename(_free(folder / "metadata.before_repair.yaml"))
    write_atomically(folder / NAME, text)
    return RepairReport(files, torn)


def _storage_files(folder: Path, earlier: Mapping[str, object]) -> list[Path]:
    """The files of a bag, in order."""
    named = [folder / Path(str(name)).name for name in earlier.get("relative_file_paths") or ()]
    named = [path for path in named if path.suffix in _STORAGES and path.is_file()]
    found = [path for path in folder.glob("*") if path.suffix in _STORAGES and path.is_file()]
    found = [path for path in found if not path.name.startswith(".")]
    original = [path for path in found if not _MADE_HERE.search(path.stem)]
    paths = named or sorted(original or found, key=_number)
    packed = sorted(
        path.name
        for path in folder.glob("*")
        if path.suffix in _PACKED
        and Path(path.stem).suffix in _STORAGES
        and not path.with_suffix("").exists()
    )
    if packed:
        raise RepairError(f"{folder} holds {', '.join(packed)}: unpack it first, as with `zstd -d`")
    if not paths:
        raise RepairError(f"{folder} has no .mcap or .db3 file; nothing was recorded")
    if len({path.suffix for path in paths}) > 1:
        raise RepairError(f"{folder} has .mcap and .db3 files: put those of one bag into a folder")
    return paths


def _number(path: Path) -> tuple:
    """Files of a split bag are NAME_0, NAME_1, ..., NAME_10."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.stem))


def _salvaged(path: Path, earlier: Mapping[str, object]) -> FileContents:
    target = _free(path.with_stem(f"{path.stem}_repaired"))
    if path.suffix == ".db3":
        with atomic_write(target) as temporary:
            return db3_salvage.salvage(path, temporary, target.name)
    try:
        with atomic_write(target) as temporary:
            return mcap_salvage.salvage(path, temporary, target.name, earlier)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
    # A copy without the torn chunk is smaller.
    with atomic_write(target) as temporary:
        return mcap_salvage.salvage(path, temporary, target.name, earlier, torn_chunk=False)


def _free(path: Path) -> Path:
    """The path, or it with a number, so that nothing has that name yet."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_stem(f"{path.stem}{number}")
    return found


def main() -> int:
    """Repair the bags named on the command line."""
    parser = argparse.ArgumentParser(
        description="Finish bags whose recorder died; nothing that is there is changed. Example: "
        "ros2 run spear_bringup bag_repair out/trials/bags/2026-01-31T09-30-00"
    )
    parser.add_argument("bag", nargs="+", type=Path, help="folder of a bag")
    status = 0
    for folder in parser.parse_args().bag:
        try:
            print(f"{folder}: {repair(folder)}")
        except (RepairError, OSError) as error:
            print(f"{folder}: {error}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
