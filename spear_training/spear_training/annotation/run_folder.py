"""OUT/run.json: what the records of a folder were made from and how, and that it stays so."""

import hashlib
import json
import logging
import os
import platform
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import metadata
from itertools import zip_longest
from pathlib import Path

from spear_training.annotation.frame import JobError
from spear_training.annotation.job import Shard
from spear_training.annotation.records import Annotation, Item, RecordError

# A file that the first run writes and every later one must agree with.


_WAIT_S = 2.0  # for another process that is writing it just now


def agree(path: Path, values: dict, binding: tuple[str, ...], mend: str) -> dict:
    """Write `values` as JSON, or compare with what is there.

    Processes that begin at once write it once: the file appears whole, and only where none was.

    Args:
        binding: the keys that must agree; the others are for information.
        mend: what to do when they do not; ends the sentence.

    Returns:
        What the file holds.

    Raises:
        JobError: it holds something else; names the first differences.
        OSError: the folder cannot be written.
    """
    if not path.exists() and _write_new(path, values):
        return values
    there = read_json_object(path)
    now = json.loads(json.dumps(values))
    found = differences(
        {key: there.get(key) for key in binding}, {key: now.get(key) for key in binding}
    )
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise JobError(f"{path} says {'; '.join(found[:3])}{more}: {mend}")
    return there


def read_json_object(path: Path) -> dict:
    """Read such a file.

    Raises:
        JobError: it is not there, or is damaged.
    """
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(values, dict):
                return values
            reason = "no JSON object"
        except OSError as error:
            raise JobError(f"{path} cannot be read ({error.strerror})") from None
        except ValueError as error:
            reason = str(error)
        if time.monotonic() > deadline:
            raise JobError(f"{path} is damaged ({reason}); put it back, or choose another folder")
        time.sleep(0.05)


def differences(there, now, name: str = "") -> list[str]:
    """Say where two JSON values differ: "detector.model = 'a', but it is now 'b'"."""
    if isinstance(there, dict) and isinstance(now, dict):
        keys = [*there, *(key for key in now if key not in there)]
        return [
            words
            for key in keys
            for words in differences(
                there.get(key), now.get(key), f"{name}.{key}" if name else str(key)
            )
        ]
    if _staged(there) and _staged(now):
        pairs = enumerate(zip_longest(there, now), 1)
        return [words for number, pair in pairs for words in _stage_differences(number, *pair)]
    return [] if there == now else [f"{name} = {_short(there)}, but it is now {_short(now)}"]


def _stage_differences(number: int, there: dict | None, now: dict | None) -> list[str]:
    names = [stage and stage["stage"] for stage in (there, now)]
    if names[0] != names[1]:
        return differences(*names, f"stage {number}")
    return differences(there, now, names[0])


def _staged(value) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(part, dict) and "stage" in part for part in value)
    )


def _short(value) -> str:
    words = "nothing" if value is None else repr(value)
    return words if len(words) <= 80 else words[:77] + "..."


def _write_new(path: Path, values: dict) -> bool:
    """Write a file that was not there; False: another process was first."""
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.writing")
    try:
        with beside.open("x", encoding="utf-8") as file:
            json.dump(values, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        return _link(beside, path)
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()


def _link(beside: Path, path: Path) -> bool:
    try:
        os.link(beside, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(beside.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
    return True


# OUT/run.json: what the records of a folder were made from and how, and that it stays so.


NAME = "run.json"
_BINDING = ("format", "settings", "items", "num_shards")
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


def agree_on_run(
    out: Path,
    settings: list[dict],
    items: Sequence[Item],
    root: Path,
    num_shards: int,
    where: str,
) -> dict:
    """Write run.json, or check that it says the same.

    Args:
        settings: of all stages, in order.
        items: the whole list, not a shard's.
        root: the folder that the items' paths are relative to.
        where: the list's path or folder, for people.

    Raises:
        JobError: the folder holds another run; names the difference.
        OSError: the folder cannot be written.
    """
    values = {
        "format": _FORMAT,
        "settings": settings,
        "items": {"count": len(items), "sha256": hash_items(items)},
        "num_shards": num_shards,
        "list": where,
        # Relative, so that a folder of pictures and of records can move together.
        "images": os.path.relpath(root.resolve(), out.resolve()),
        "versions": versions(),
    }
    mend = "use the same options and pictures again, or choose another --out"
    there = agree(out / NAME, values, _BINDING, mend)
    for words in differences(there.get("versions"), values["versions"]):
        log.warning("%s: version of %s", out / NAME, words)
    return there


def read_run(out: Path) -> dict:
    """Read run.json.

    Raises:
        JobError: there is none, or it is damaged.
    """
    path = out / NAME
    if not path.is_file():
        raise JobError(f"{path} is not there: {out} must be a folder that `annotate run` wrote")
    run = read_json_object(path)
    if missing := {*_BINDING, "images"} - set(run):
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
            f'place into "images" of {out / NAME}'
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


# Reading back what a run has written so far.


def shards_of(out: Path) -> tuple[list[Shard], list[Shard]]:
    """Return the finished shards of a run, and those that are missing, both in order.

    Raises:
        JobError: the folder is no run's.
    """
    count = read_run(out)["num_shards"]
    shards = [Shard(index, count) for index in range(count)]
    finished = [shard for shard in shards if shard.file(out).is_file()]
    return finished, [shard for shard in shards if shard not in finished]


def read_annotations(out: Path) -> Iterator[Annotation]:
    """Read the records of all finished shards, in the order of the list.

    `shards_of` tells which are missing.

    Raises:
        JobError: the folder is no run's, or a line is damaged.
        OSError: a file cannot be read.
    """
    for shard in shards_of(out)[0]:
        yield from read_shard(shard.file(out))


def read_shard(path: Path) -> Iterator[Annotation]:
    """Read the records of one file.

    Raises:
        JobError: a line is damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield Annotation.from_json(line.decode("utf-8", "replace"))
            except RecordError as error:
                raise JobError(
                    f"{path}, line {number}: {error}; remove the file and run its shard again"
                ) from None
