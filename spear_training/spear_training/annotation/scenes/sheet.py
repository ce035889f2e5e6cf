"""A sheet of the first scenes of a folder, to see at a glance what was made."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

SHEET = "sheet.jpg"
COLUMNS, ROWS = 4, 3
_CELL_PX = (400, 300)


def write_sheet(path: Path, pictures: Sequence[Path]) -> None:
    """Write the first twelve pictures side by side, black where they have another shape.

    Raises:
        OSError: a picture cannot be read, or the sheet not be written.
    """
    wide, high = _CELL_PX
    pictures = pictures[: COLUMNS * ROWS]
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * wide, rows * high))
    for number, picture in enumerate(pictures):
        row, column = divmod(number, COLUMNS)
        with Image.open(picture) as stored:
            sheet.paste(ImageOps.pad(stored.convert("RGB"), _CELL_PX), (column * wide, row * high))
    beside = path.with_name(path.name + ".partial")
    sheet.save(beside, "JPEG", quality=88)
    beside.replace(path)
