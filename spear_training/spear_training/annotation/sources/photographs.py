"""A folder of pictures as a list of items: what is in it and below it, in a fixed order."""

import os
from collections.abc import Iterator
from pathlib import Path

from spear_training.annotation.items import Item, ItemError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


def photograph_items(folder: Path, but_not: Path | None = None) -> list[Item]:
    """List the pictures of a folder and its folders.

    The id of a picture is its path below the folder, with "/". Hidden files and folders (their
    name begins with a point) do not count; links count as what they lead to. The order is that
    of the ids' characters, the same on every machine.

    Args:
        but_not: a folder that is left out: where the results go.

    Raises:
        ItemError: there is no such folder, no picture in it, or a name that is no text.
    """
    if not folder.is_dir():
        raise ItemError(f"{folder} is no folder; name one with pictures")
    left_out = but_not and but_not.resolve()
    names = sorted(
        path.relative_to(folder).as_posix() for path in _pictures(folder, left_out, frozenset())
    )
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ItemError(f"{folder}: the name {name!r} is not in UTF-8; rename it") from None
    if not names:
        raise ItemError(f"{folder} has no pictures ({', '.join(sorted(SUFFIXES))})")
    return [Item(name, name) for name in names]


def _pictures(folder: Path, left_out: Path | None, above: frozenset[Path]) -> Iterator[Path]:
    here = folder.resolve()
    if here == left_out or here in above:  # a link to a folder above would never end
        return
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise ItemError(f"{folder} cannot be read ({error.strerror})") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _pictures(Path(entry.path), left_out, above | {here})
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            yield Path(entry.path)
