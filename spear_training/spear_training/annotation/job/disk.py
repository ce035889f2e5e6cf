"""Whether the records that are still to be made will fit on the disk."""

import shutil
from collections.abc import Collection
from pathlib import Path

# Before there are records to measure: 3 kB for the picture and 2 kB for each of ten objects, as in
# the records that test_annotate_command.py makes (6.8 kB with two objects).
GUESSED_RECORD_BYTES = 25_000
ENOUGH_RECORDS = 20


def room_warning(out: Path, left: int, sizes: Collection[int]) -> str | None:
    """Say so if the disk of a folder may be too small.

    Args:
        left: pictures that are still to be annotated.
        sizes: of records that are there (bytes).
    """
    mean = sum(sizes) / len(sizes) if len(sizes) >= ENOUGH_RECORDS else GUESSED_RECORD_BYTES
    needed, free = left * mean, shutil.disk_usage(out).free
    if needed <= free:
        return None
    return (
        f"{out} may become too small: {left} pictures need about {_size(needed)}, "
        f"{_size(free)} are free"
    )


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
