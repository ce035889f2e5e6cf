"""`Frame`, the data that the annotation stages pass on, and `Stage`, their interface.

Below them: how a stored picture becomes the picture of 840x630 that the stages work on, with its
boxes and intrinsics.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from spear_policy.inference.image_geometry import Fit, pixel_in_source, plan_fit
from spear_training.annotation.records import (
    PICTURE_HEIGHT_PX,
    PICTURE_WIDTH_PX,
    AnnotatedObject,
    Dropped,
    Intrinsics,
    Item,
)
from spear_training.annotation.stages import StageError


@dataclass(frozen=True)
class PointMap:
    """Where the pixels of a picture lie.

    Attributes:
        points_m: (630, 840, 3) float32, camera frame (x right, y down, z forward); NaN where
            nothing is known. Never infinite.
        intrinsics: of the picture.
        metric: whether the unit is a metre.
    """

    points_m: NDArray[np.float32]
    intrinsics: Intrinsics
    metric: bool = True


@dataclass(frozen=True)
class Candidate:
    """An object on its way through the stages; what a stage adds is None before it.

    Attributes:
        label: what it is, in words.
        box_xyxy_px: left, top, right, bottom in the picture of 840x630, edge to edge.
        score: of the detector, 0..1, if it gives one.
        mask: (630, 840) bool.
        cloud_m: (P, 3) points, finite.
        annotated: what will be stored.
    """

    label: str
    box_xyxy_px: tuple[float, float, float, float]
    score: float | None = None
    mask: NDArray[np.bool_] | None = None
    cloud_m: NDArray[np.float64] | None = None
    annotated: AnnotatedObject | None = None


@dataclass(frozen=True)
class Frame:
    """One picture on its way through the stages.

    Attributes:
        item: what it was made from; `item.image` is relative to the folder of the list.
        image: (630, 840, 3) uint8 RGB.
        fit: how the stored picture became `image`; maps pixels both ways.
        visible: (630, 840) bool, False where `image` is padding.
        candidates: objects so far.
        dropped: objects that were found and not used.
        points: set by the geometry stage.
    """

    item: Item
    image: NDArray[np.uint8]
    fit: Fit
    visible: NDArray[np.bool_]
    candidates: tuple[Candidate, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    points: PointMap | None = None

    def keep(self, kept: list[Candidate], lost: list[Dropped]) -> Frame:
        """The frame with these candidates and further dropped ones."""
        return replace(self, candidates=tuple(kept), dropped=(*self.dropped, *lost))


class Stage(Protocol):
    """One step of the pipeline. Called from several threads at once if `parallel` is above 1."""

    @property
    def name(self) -> str:
        """A short word for reports: "gemini", "sam2", "boxes"."""

    @property
    def settings(self) -> dict:
        """All that the result depends on (model, prompt, thresholds), as plain JSON values."""

    @property
    def parallel(self) -> int:
        """How many pictures it gains from working on at once: 1, or a service's requests."""

    def __call__(self, frame: Frame) -> Frame:
        """Add this stage's part.

        Raises:
            StageError: this picture cannot be used; the job records it and goes on.
            JobError: no picture can be used (no key, no model); the job stops.
        """


# From a stored picture to the one that is annotated: 840x630, and back ---------------------------


def read_frame(item: Item, root: Path) -> Frame:
    """Read an item's picture and fit it to 840x630.

    MoGe-1's scale depends on the size it sees, so every picture gets this one size (facts/data.md
    3). It is three times the model's 280x210 by the same rule.

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
