"""OUT, the folder of a run: what its records were made from and how, and the records, in shards.

run.json                               written by the first run; later ones must agree with it
annotations-00003-of-00064.jsonl       records of a shard, written whole when all are made
annotations-00003-of-00064.jsonl.lock  there while a process makes them
answers/                               what Gemini answered, whatever becomes of the records
"""

import fcntl
import hashlib
import logging
import math
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from spear_policy.shared.files import differences, read_json_object, write_or_verify
from spear_training.annotation.records import Annotation, Item, RecordError
from spear_training.annotation.stages import JobError

RUN_FILE = "run.json"
SHARD_PICTURES = 256
MOST_SHARDS = 99_999  # what five digits can name
_BINDING = ("format", "settings", "items")
_FORMAT = "spear annotations 1"
_LIBRARIES = (
    "spear_training",
    "numpy",
    "pillow",
    "pycocotools",
    "torch",
    "transformers",
    "google-genai",
    "moge",
    "ray",
)
log = logging.getLogger(__name__)
T = TypeVar("T")


def agree_on_run(
    out: Path,
    settings: list[dict],
    items: Sequence[Item],
    root: Path,
    num_shards: int,
    listed: str,
) -> dict:
    """Write run.json, or check that it says the same.

    Args:
        settings: of all stages, in order.
        items: the whole list.
        root: the folder that the items' paths are relative to.
        num_shards: into how many the list is cut, if no run before has cut it.
        listed: the list's path or folder, for people.

    Returns:
        What run.json says.

    Raises:
        MismatchError: the folder holds another run; names the difference.
        OSError: the folder cannot be written.
    """
    values = {
        "format": _FORMAT,
        "settings": settings,
        "items": {"count": len(items), "sha256": hash_items(items)},
        "num_shards": num_shards,
        "list": listed,
        # Relative, so that a folder of pictures and of records can move together.
        "images": os.path.relpath(root.resolve(), out.resolve()),
        "versions": versions(),
    }
    fix = "use the same options and pictures again, or choose another --out"
    there = write_or_verify(out / RUN_FILE, values, _BINDING, fix)
    for words in differences(there.get("versions"), values["versions"]):
        log.warning("%s: version of %s", out / RUN_FILE, words)
    return there


def read_run(out: Path) -> dict:
    """Read run.json.

    Raises:
        JobError: there is none, or it has not all it must have.
        MismatchError: it is damaged.
    """
    path = out / RUN_FILE
    if not path.is_file():
        raise JobError(f"{path} is not there: {out} must be a folder that `annotate run` wrote")
    run = read_json_object(path)
    if missing := {*_BINDING, "num_shards", "images"} - set(run):
        raise JobError(f"{path} is damaged: it has no {', '.join(sorted(missing))}")
    return run


def images_root(out: Path, run: dict) -> Path:
    """The folder that the records' pictures are relative to.

    Raises:
        JobError: it is not there any more.
    """
    root = Path(os.path.normpath(out.resolve() / run["images"]))
    if not root.is_dir():
        raise JobError(
            f"{root}, the folder of the pictures, is not there: put it back, or write its new "
            f'place into "images" of {out / RUN_FILE}'
        )
    return root


def hash_items(items: Sequence[Item]) -> str:
    """A hash over all that is known about the pictures, in their order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(item.to_json().encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that are installed of those the stages use."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


# Shards ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shard:
    """One of the equal parts of a list.

    Attributes:
        index: 0 to count - 1.
        count: parts in all.

    Raises:
        JobError: there is no such part.
    """

    index: int
    count: int

    def __post_init__(self):
        if not 1 <= self.count <= MOST_SHARDS:
            raise JobError(f"--num-shards is {self.count}; it must be 1 to {MOST_SHARDS}")
        if not 0 <= self.index < self.count:
            raise JobError(
                f"--shard is {self.index}; with --num-shards {self.count} it must be 0 to "
                f"{self.count - 1}"
            )

    def part_of(self, listed: Sequence[T]) -> Sequence[T]:
        """What of a list is in this shard; the sizes of two shards differ by one at most."""
        first = self.index * len(listed) // self.count
        end = (self.index + 1) * len(listed) // self.count
        return listed[first:end]

    def file(self, out: Path) -> Path:
        """Where its records are when all are made."""
        return out / f"annotations-{self.index:05d}-of-{self.count:05d}.jsonl"


def shards_for(pictures: int, parts: int) -> int:
    """Into how many shards a new list is cut: of `SHARD_PICTURES` at most, as many in each part.

    Args:
        parts: that processes work on, each by itself: --num-shards.
    """
    return min(parts * max(1, math.ceil(pictures / (parts * SHARD_PICTURES))), MOST_SHARDS)


def shards_of(out: Path) -> tuple[list[Shard], list[Shard]]:
    """Return the finished shards of a run, and those that are missing, both in order.

    Raises:
        JobError: the folder is no run's.
        MismatchError: its run.json is damaged.
    """
    count = read_run(out)["num_shards"]
    shards = [Shard(index, count) for index in range(count)]
    finished = [shard for shard in shards if shard.file(out).is_file()]
    return finished, [shard for shard in shards if shard not in finished]


def read_annotations(out: Path) -> Iterator[Annotation]:
    """Read the records of all finished shards, in the order of the list.

    `shards_of` says which are missing.

    Raises:
        JobError: the folder is no run's, or a line is damaged.
        MismatchError: its run.json is damaged.
        OSError: a file cannot be read.
    """
    for shard in shards_of(out)[0]:
        yield from read_shard(shard.file(out))


def read_shard(path: Path, damaged: list[str] | None = None) -> Iterator[Annotation]:
    """Read the records of one file; damaged lines are added to `damaged`, with their reasons.

    Raises:
        JobError: a line is damaged, and there is no `damaged`.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield Annotation.from_json(line.decode("utf-8", "replace"))
            except RecordError as error:
                if damaged is None:
                    raise JobError(
                        f"{path}, line {number}: {error}; remove the file and run its shard again"
                    ) from None
                damaged.append(f"{path.name}, line {number}: {error}")


def claim(shard_file: Path) -> ExitStack | None:
    """Keep other processes from making a shard meanwhile; closing what comes back ends that.

    A file system without locks is done without: two processes may do the same work then, and what
    they write is whole.

    Returns:
        None: another process is at work on it.
    """
    path = lock_file(shard_file)
    with ExitStack() as held:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        held.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        except OSError:
            pass
        held.callback(path.unlink, missing_ok=True)
        return held.pop_all()


def lock_file(shard_file: Path) -> Path:
    """The file that is there while a process is at work on a shard."""
    return shard_file.with_name(shard_file.name + ".lock")
