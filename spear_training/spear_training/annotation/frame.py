"""`Frame`, the data that the annotation stages pass on, and `Stage`, their interface.

Below them: how a stored picture is turned upright and becomes the picture of 840x630 that the
stages work on, with its boxes, maps and intrinsics.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
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
from spear_training.data.reader import LFS_WORDS, is_lfs_pointer

_ORIENTATION = 0x0112  # the tag of EXIF


@dataclass(frozen=True)
class Turn:
    """What brings stored pixels upright: rows and columns are exchanged, then sides are mirrored.

    Attributes:
        exchange: whether rows become columns.
        mirror_across, mirror_down: whether left and right, top and bottom are exchanged then.
    """

    exchange: bool = False
    mirror_across: bool = False
    mirror_down: bool = False

    @classmethod
    def of(cls, orientation: object) -> Turn:
        """The turn that an EXIF orientation asks for; a value that means nothing asks for none."""
        if orientation not in range(1, 9):
            return cls()
        return cls(orientation >= 5, orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8))

    def map(self, stored: NDArray) -> NDArray:
        """Turn a map (H, W) or (H, W, C)."""
        turned = stored.swapaxes(0, 1) if self.exchange else stored
        return turned[:: -1 if self.mirror_down else 1, :: -1 if self.mirror_across else 1]

    def box(
        self, box_xyxy_px: tuple[float, ...], width: int, height: int
    ) -> tuple[float, float, float, float]:
        """Turn a box, edge to edge.

        Args:
            width, height: of the upright picture.
        """
        left, top, right, bottom = box_xyxy_px
        if self.exchange:
            left, top, right, bottom = top, left, bottom, right
        if self.mirror_across:
            left, right = width - right, width - left
        if self.mirror_down:
            top, bottom = height - bottom, height - top
        return left, top, right, bottom

    def camera(self, stored: Intrinsics, width: int, height: int) -> Intrinsics:
        """Turn a camera; see `box`."""
        fx, fy, cx, cy = stored.fx, stored.fy, stored.cx, stored.cy
        if self.exchange:
            fx, fy, cx, cy = fy, fx, cy, cx
        return Intrinsics(
            fx,
            fy,
            width - 1 - cx if self.mirror_across else cx,
            height - 1 - cy if self.mirror_down else cy,
        )


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
        fit: how the upright picture became `image`; maps pixels both ways.
        visible: (630, 840) bool, False where `image` is padding.
        candidates: objects so far.
        dropped: objects that were found and not used.
        points: set by the geometry stage.
        turn: from the pixels of what the item gives to those of the upright picture.
    """

    item: Item
    image: NDArray[np.uint8]
    fit: Fit
    visible: NDArray[np.bool_]
    candidates: tuple[Candidate, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    points: PointMap | None = None
    turn: Turn = Turn()

    def keep(self, kept: list[Candidate], lost: list[Dropped]) -> Frame:
        """The frame with these candidates and further dropped ones."""
        return replace(self, candidates=tuple(kept), dropped=(*self.dropped, *lost))

    @property
    def given_size(self) -> tuple[int, int]:
        """Width and height (px) of the picture that the item's boxes, masks and depth belong to."""
        width, height = self.fit.source_width, self.fit.source_height
        return (height, width) if self.turn.exchange else (width, height)

    def check_given_size(self, width: int, height: int) -> None:
        """Refuse the size of what the item gives if it is not that of the picture.

        Raises:
            ValueError: says both, and whether it is that of the picture turned.
        """
        if (width, height) == self.given_size:
            return
        words = f"it is {width}x{height}, the picture {self.given_size[0]}x{self.given_size[1]}"
        if self.turn.exchange and (height, width) == self.given_size:
            words += " as stored: if the whole list was made upright, add --upright"
        raise ValueError(words)

    def given_map(self, given: NDArray, outside: object) -> NDArray:
        """Bring a map that the item gives (mask, depth) to 840x630; see `in_picture`.

        Raises:
            ValueError: the map has another size.
        """
        self.check_given_size(given.shape[1], given.shape[0])
        return in_picture(self.fit, self.turn.map(given), outside)

    def turned_box(self, box_xyxy_px: tuple[float, ...]) -> tuple[float, float, float, float]:
        """Turn a box that the item gives upright."""
        return self.turn.box(box_xyxy_px, self.fit.source_width, self.fit.source_height)

    def given_box(self, box_xyxy_px: tuple[float, ...]) -> tuple[float, float, float, float]:
        """Bring a box that the item gives to 840x630; it may end up outside."""
        return box_in_picture(self.fit, self.turned_box(box_xyxy_px))

    def given_camera(self, camera: Intrinsics) -> Intrinsics:
        """Bring a camera that the item gives to 840x630."""
        size = self.fit.source_width, self.fit.source_height
        return intrinsics_in_picture(self.fit, self.turn.camera(camera, *size))


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


# From a stored picture to the upright one ---------------------------------------------------------


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture, turned upright as its EXIF says; transparent parts are white.

    Returns:
        (H, W, 3) RGB.

    Raises:
        StageError: names the file and what is wrong with it.
    """
    _register_heif()
    try:
        with Image.open(path) as stored:
            if stored.mode[0] in "IF":
                raise StageError(f"{path.name} has no colour ({stored.mode}): is it a depth map?")
            upright = ImageOps.exif_transpose(stored)
            if upright.has_transparency_data:
                white = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(white, upright.convert("RGBA"))
            return np.asarray(upright.convert("RGB"))
    except UnidentifiedImageError:
        if is_lfs_pointer(path):
            raise StageError(f"{path.name}: {LFS_WORDS}") from None
        suffix = path.suffix.lower()
        if suffix in _READ_BY and suffix not in Image.registered_extensions():
            raise StageError(f"{path.name} needs {_READ_BY[suffix]}, which reads it") from None
        raise StageError(f"{path.name} is no picture, or it is empty") from None
    except Image.DecompressionBombError as error:
        raise StageError(f"{path.name}: {error}") from None
    except (OSError, SyntaxError, ValueError) as error:  # as Pillow's decoders raise them
        said = getattr(error, "strerror", None) or error
        raise StageError(f"{path.name} cannot be read: {said}") from None


def read_turn(path: Path) -> Turn:
    """How `read_picture` turns a picture that it can read.

    Raises:
        StageError: a picture in HEIF that its file turns: its library gives upright pixels alone,
            so where something lies in the stored ones is not known.
    """
    with Image.open(path) as stored:  # not loaded: some decoders turn it then, and the tag is gone
        if stored.info.get("original_orientation") not in (None, 1):
            raise StageError(
                f"{path.name} is turned by its file and can be read upright alone: if what the "
                "list gives was marked in the upright picture, add --upright; otherwise store the "
                "picture as JPEG or PNG"
            )
        return Turn.of(stored.getexif().get(_ORIENTATION, 1))


_READ_BY = {".heic": "pi-heif", ".heif": "pi-heif", ".avif": "Pillow 11.3 or newer"}


@cache
def _register_heif() -> None:
    """Let Pillow read HEIF, if a library for it is installed."""
    for name in ("pi_heif", "pillow_heif"):
        with suppress(ImportError):
            import_module(name).register_heif_opener()
            return


# From an upright picture to the one that is annotated: 840x630, and back --------------------------


def read_frame(item: Item, root: Path) -> Frame:
    """Read an item's picture and fit it to 840x630.

    MoGe-1's scale depends on the size it sees, so every picture gets this one size. It
    is three times the model's 280x210 by the same rule.

    Args:
        root: the folder that the item's paths are relative to.

    Raises:
        StageError: the file is missing, is no whole picture, or has a size that none has or that
            is not the list's.
    """
    image = read_picture(root / item.image)
    given = item.objects, item.depth, item.intrinsics, item.native_aspect, item.size_px
    as_stored = not item.upright and any(each is not None for each in given)
    turn = read_turn(root / item.image) if as_stored else Turn()
    if turn.exchange and item.native_aspect:
        item = replace(item, native_aspect=1 / item.native_aspect)
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
    frame = Frame(item, fit.apply(image), fit, visible, turn=turn)
    if item.size_px:
        try:
            frame.check_given_size(*item.size_px)
        except ValueError as error:
            raise StageError(f"the list has another picture's size: {error}") from None
    return frame


def in_picture(fit: Fit, upright: NDArray, outside: object) -> NDArray:
    """Bring a map of the upright picture to 840x630 by nearest neighbour.

    Args:
        upright: (H, W) or (H, W, C) of the upright picture's size.
        outside: value where the picture is padding.

    Raises:
        ValueError: the map has another size than the picture.
    """
    if upright.shape[:2] != (fit.source_height, fit.source_width):
        raise ValueError(
            f"it is {upright.shape[1]}x{upright.shape[0]}, the picture "
            f"{fit.source_width}x{fit.source_height}"
        )
    rows, columns = _sources(fit)
    found = upright[np.maximum(rows, 0)][:, np.maximum(columns, 0)].copy()
    found[rows < 0] = outside
    found[:, columns < 0] = outside
    return found


def box_in_picture(fit: Fit, box_xyxy_px: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Bring a box of the upright picture to 840x630; it may end up outside."""
    across, down = fit.scale
    left, top, right, bottom = box_xyxy_px
    return (
        (left - fit.crop_left) * across + fit.pad_left,
        (top - fit.crop_top) * down + fit.pad_top,
        (right - fit.crop_left) * across + fit.pad_left,
        (bottom - fit.crop_top) * down + fit.pad_top,
    )


def intrinsics_in_picture(fit: Fit, upright: Intrinsics) -> Intrinsics:
    """Bring a camera of the upright picture to 840x630."""
    across, down = fit.scale
    return Intrinsics(
        fx=upright.fx * across,
        fy=upright.fy * down,
        cx=(upright.cx + 0.5 - fit.crop_left) * across - 0.5 + fit.pad_left,
        cy=(upright.cy + 0.5 - fit.crop_top) * down - 0.5 + fit.pad_top,
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
