"""Files that are there whole or not at all, files that later runs must agree with, disk space."""

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path

_WAIT_S = 2.0  # for another process that is writing the file just now


class MismatchError(Exception):
    """A file does not hold what this run would have written; names the first differences."""


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; what is there at the end becomes `path`.

    It is flushed to the disk first. After an error nothing is left, and `path` is as it was.

    Raises:
        OSError: the folder is missing or the disk is full; it names `path`.
    """
    path = Path(path)
    # The end stays: some libraries choose the format by it.
    temporary = path.with_name(f".{os.getpid()}.{threading.get_ident()}.part.{path.name}")
    try:
        with naming_errors(path):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Write `content` (text as UTF-8) to `path`, whole or not at all. Raises OSError."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_lines(path: str | Path, lines: Iterable[bytes]) -> None:
    """Write lines, given without their ends, whole or not at all. Raises OSError."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.writelines(line + b"\n" for line in lines)


def remove_temporary_files(folder: str | Path) -> None:
    """Remove what killed processes were writing below `folder`; no living one may be at it."""
    for path in Path(folder).rglob(".*.part.*"):
        path.unlink(missing_ok=True)


@contextmanager
def naming_errors(path: str | Path) -> Iterator[None]:
    """Make an OSError that does not say which file, as a library's or a plain write's, name it."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


def disk_space_warning(folder: str | Path, needed_bytes: float, what: str) -> str | None:
    """Say so when the disk of `folder` has not enough space for `what`, else None."""
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes <= free_bytes:
        return None
    return (
        f"{folder} may become too small: {what} need about {size_words(needed_bytes)}, "
        f"{size_words(free_bytes)} are free"
    )


def size_words(count_bytes: float) -> str:
    """A number of bytes for a person: "3.2 MB", "1.7 GB"."""
    return f"{count_bytes / 1e6:.1f} MB" if count_bytes < 1e9 else f"{count_bytes / 1e9:.1f} GB"


# A file that the first run writes and every later one must agree with --------------------------


def write_or_verify(path: Path, values: dict, binding: Sequence[str], fix: str) -> dict:
    """Write `values` as JSON, or compare with what is there.

    Processes that begin at once write it once: the file appears whole, and only where none was.

    Args:
        path: of the file.
        values: what this run would write.
        binding: the keys that must agree; the others are for information.
        fix: what to do when they do not; ends the sentence.

    Returns:
        What the file holds.

    Raises:
        MismatchError: it holds something else; names the first differences.
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
        raise MismatchError(f"{path} says {'; '.join(found[:3])}{more}: {fix}")
    return there


def read_json_object(path: Path) -> dict:
    """Read a JSON object that another process may be writing just now.

    Raises:
        MismatchError: it is not there, or is damaged.
    """
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(values, dict):
                return values
            reason = "no JSON object"
        except OSError as error:
            raise MismatchError(f"{path} cannot be read ({error.strerror})") from None
        except ValueError as error:
            reason = str(error)
        if time.monotonic() > deadline:
            raise MismatchError(
                f"{path} is damaged ({reason}); put it back, or choose another folder"
            )
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
    if _is_stage_list(there) and _is_stage_list(now):
        pairs = enumerate(zip_longest(there, now), 1)
        return [words for number, pair in pairs for words in _stage_differences(number, *pair)]
    return [] if there == now else [f"{name} = {_short(there)}, but it is now {_short(now)}"]


def _stage_differences(number: int, there: dict | None, now: dict | None) -> list[str]:
    names = [stage and stage["stage"] for stage in (there, now)]
    if names[0] != names[1]:
        return differences(*names, f"stage {number}")
    return differences(there, now, names[0])


def _is_stage_list(value) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) and "stage" in each for each in value)
    )


def _short(value) -> str:
    words = "nothing" if value is None else repr(value)
    return words if len(words) <= 80 else words[:77] + "..."


def _write_new(path: Path, values: dict) -> bool:
    """Write a file that was not there; False: another process was first."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.part.{path.name}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            json.dump(values, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        return _link(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(temporary.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
    return True
