"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; what is there at the end becomes `path`.

    It is flushed to the disk first. After an error nothing is left, and `path` is as it was.

    Raises:
        OSError: the folder is missing or the disk is full; it names `path`.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with naming_errors(path):
            yield beside
            with open(beside, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def naming_errors(path: str | Path) -> Iterator[None]:
    """Make an OSError that does not say which file, as a library's or a plain write's, name it."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


def write_whole(path: str | Path, content: bytes) -> None:
    """Write `content` to `path`. Raises OSError."""
    with whole_file(path) as beside:
        beside.write_bytes(content)
