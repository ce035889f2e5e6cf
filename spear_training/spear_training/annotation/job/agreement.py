"""A file that the first run writes and every later one must agree with."""

import json
import os
import time
import uuid
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path

from spear_training.annotation.frame import JobError

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
    there = read_agreed(path)
    now = json.loads(json.dumps(values))
    found = differences(
        {key: there.get(key) for key in binding}, {key: now.get(key) for key in binding}
    )
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise JobError(f"{path} says {'; '.join(found[:3])}{more}: {mend}")
    return there


def read_agreed(path: Path) -> dict:
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
