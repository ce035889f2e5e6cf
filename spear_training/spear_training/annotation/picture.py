"""From a stored picture to the one that is annotated: 840x630, and back.

MoGe-1's scale depends on the size it sees, so every picture gets this one size
(facts/data.md 3). It is three times the model's 280x210 by the same rule.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from spear_policy.inference.image_geometry import Fit, pixel_in_source, plan_fit
from spear_training.annotation.frame import Frame, StageError
from spear_training.annotation.items import Intrinsics, Item
from spear_training.annotation.records import PICTURE_HEIGHT_PX, PICTURE_WIDTH_PX


def read_frame(item: Item, root: Path) -> Frame:
    """Read an item's picture and fit it to 840x630.

    Args:
        root: the folder that the item's paths are relative to.

    Raises:
        StageError: the file is missing, is no whole picture, or has a size that none has.
    """
    image = read_picture(root / item.image)
    try:
        fit = plan_fit(
            image.shape[1],
            image.shape[0],
            PICTURE_WIDTH_PX,
            PICTURE_HEIGHT_PX,
            native_aspect=item.native_aspect,
        )
    except ValueError as error:
        raise StageError(f"{item.image}: {error}") from None
    rows, columns = _sources(fit)
    visible = (rows >= 0)[:, None] & (columns >= 0)[None, :]
    return Frame(item, fit.apply(image), fit, visible)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture, turned upright as its EXIF says.

    Returns:
        (H, W, 3) RGB.

    Raises:
        StageError: names the file and what is wrong with it.
    """
    try:
        with Image.open(path) as stored:
            if stored.mode[0] in "IF":
                raise StageError(f"{path.name} has no colour ({stored.mode}): is it a depth map?")
            return np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    except UnidentifiedImageError:
        raise StageError(f"{path.name} is no picture, or it is empty") from None
    except Image.DecompressionBombError as error:
        raise StageError(f"{path.name}: {error}") from None
    except (OSError, SyntaxError, ValueError) as error:  # as Pillow's decoders raise them
        said = getattr(error, "strerror", None) or error
        raise StageError(f"{path.name} cannot be read: {said}") from None


def in_picture(fit: Fit, stored: NDArray, outside: object) -> NDArray:
    """Bring a map of the stored picture (mask, depth) to 840x630 by nearest neighbour.

    Args:
        stored: (H, W) or (H, W, C) of the stored picture's size.
        outside: value where the picture is padding.

    Raises:
        ValueError: the map has another size than the stored picture.
    """
    if stored.shape[:2] != (fit.source_height, fit.source_width):
        raise ValueError(
            f"it is {stored.shape[1]}x{stored.shape[0]}, the picture "
            f"{fit.source_width}x{fit.source_height}"
        )
    rows, columns = _sources(fit)
    found = stored[np.maximum(rows, 0)][:, np.maximum(columns, 0)].copy()
    found[rows < 0] = outside
    found[:, columns < 0] = outside
    return found


def box_in_picture(fit: Fit, box_xyxy_px: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Bring a box of the stored picture to 840x630; it may end up outside."""
    across, down = fit.scale
    left, top, right, bottom = box_xyxy_px
    return (
        (left - fit.crop_left) * across + fit.pad_left,
        (top - fit.crop_top) * down + fit.pad_top,
        (right - fit.crop_left) * across + fit.pad_left,
        (bottom - fit.crop_top) * down + fit.pad_top,
    )


def intrinsics_in_picture(fit: Fit, stored: Intrinsics) -> Intrinsics:
    """Bring a camera of the stored picture to 840x630."""
    across, down = fit.scale
    return Intrinsics(
        fx=stored.fx * across,
        fy=stored.fy * down,
        cx=(stored.cx + 0.5 - fit.crop_left) * across - 0.5 + fit.pad_left,
        cy=(stored.cy + 0.5 - fit.crop_top) * down - 0.5 + fit.pad_top,
    )


def _sources(fit: Fit) -> tuple[NDArray, NDArray]:
    """Rows and columns of the stored picture under each of the 840x630 one's; -1 in padding."""
    columns, rows = np.arange(fit.width), np.arange(fit.height)
    padded_x = (columns < fit.pad_left) | (columns >= fit.pad_left + fit.resized_width)
    padded_y = (rows < fit.pad_top) | (rows >= fit.pad_top + fit.resized_height)
    across, down = pixel_in_source(fit, columns, rows)
    across = np.clip(np.rint(across), fit.crop_left, fit.crop_left + fit.crop_width - 1)
    down = np.clip(np.rint(down), fit.crop_top, fit.crop_top + fit.crop_height - 1)
    return (
        np.where(padded_y, -1, down.astype(int)),
        np.where(padded_x, -1, across.astype(int)),
    )
