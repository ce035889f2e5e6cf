"""From a camera's picture to the model's, without distortion.

A `Fit` is the plan for one size of picture: crop, resize, pad. It is computed once and cached, and
maps pixels both ways. The resize is torch's bilinear one with antialiasing and half-pixel centres,
on the bytes themselves: within one grey level of the exact triangle filter; Pillow gives the same.
OpenCV has no such filter: INTER_LINEAR skips pixels when it shrinks, INTER_AREA is a box.

Pixels are counted as in camera intrinsics: (0, 0) is the centre of the top left one.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

FitMode = Literal["auto", "crop", "pad"]
FIT_MODES = ("auto", "crop", "pad")
# A crop up to here keeps three quarters of the picture; beyond, `auto` pads.
MAX_CROPPED_ASPECT = Fraction(4, 3) + Fraction(1, 10**6)
MIN_SIDE_PX, MAX_SIDE_PX = 8, 16384
MAX_ASPECT = 10  # wider or higher than this is no picture of a scene


@dataclass(frozen=True)
class Fit:
    """How pictures of one size become the model's; all sizes in pixels.

    Attributes:
        source_width, source_height: of the picture as stored.
        width, height: of the model's picture.
        mode: what is done, never "auto"; a picture with the model's aspect is cropped by nothing.
        crop_left, crop_top, crop_width, crop_height: the part of the source that is kept.
        resized_width, resized_height: what that part becomes.
        pad_left, pad_top: black before it; the remainder is right and below.
    """

    source_width: int
    source_height: int
    width: int
    height: int
    mode: Literal["crop", "pad"]
    crop_left: int
    crop_top: int
    crop_width: int
    crop_height: int
    resized_width: int
    resized_height: int
    pad_left: int = 0
    pad_top: int = 0

    @property
    def scale(self) -> tuple[float, float]:
        """Model pixels per source pixel, across and down; they differ for squashed pictures."""
        return self.resized_width / self.crop_width, self.resized_height / self.crop_height

    def apply(self, image: NDArray) -> NDArray:
        """Carry the plan out: (source_height, source_width, 3) to (height, width, 3) uint8.

        Raises:
            ValueError: the image is not what the plan was made for.
        """
        check_image(image)
        if image.shape[:2] != (self.source_height, self.source_width):
            raise ValueError(
                f"the image is {image.shape[1]}x{image.shape[0]}, but the fit is for "
                f"{self.source_width}x{self.source_height}; plan a fit for every size"
            )
        bottom, right = self.crop_top + self.crop_height, self.crop_left + self.crop_width
        part = image[self.crop_top : bottom, self.crop_left : right]
        resized = _resize(part, self.resized_width, self.resized_height)
        if resized.shape[:2] == (self.height, self.width):
            return resized
        canvas = np.zeros((self.height, self.width, 3), np.uint8)
        rows = slice(self.pad_top, self.pad_top + self.resized_height)
        canvas[rows, self.pad_left : self.pad_left + self.resized_width] = resized
        return canvas


def fit(
    image: NDArray,
    width: int,
    height: int,
    mode: FitMode = "auto",
    native_aspect: float | None = None,
) -> NDArray:
    """The model's view (height, width, 3) of an image (H, W, 3), both uint8 RGB; always a copy.

    Arguments and errors are those of `plan_fit`; also:

    Raises:
        ValueError: the image has another type or shape.
    """
    check_image(image)
    return plan_fit(image.shape[1], image.shape[0], width, height, mode, native_aspect).apply(image)


@lru_cache(maxsize=256)
def plan_fit(
    source_width: int,
    source_height: int,
    width: int,
    height: int,
    mode: FitMode = "auto",
    native_aspect: float | None = None,
) -> Fit:
    """How a source of this size becomes width x height.

    Args:
        mode: crop keeps the centre; pad keeps everything and adds black; auto crops where that
            keeps three quarters of the picture and pads otherwise.
        native_aspect: width over height that the scene had before the picture was squashed to its
            stored size (4/3 for Bridge's 256x256); None where pixels are square. One resize does
            both, so nothing is blurred twice.

    Raises:
        ValueError: an unknown mode, or a size or an aspect that no picture of a scene has.
    """
    for name, side in (("width", source_width), ("height", source_height)):
        if not MIN_SIDE_PX <= side <= MAX_SIDE_PX:
            raise ValueError(
                f"the image is {source_width}x{source_height}: its {name} must be "
                f"{MIN_SIDE_PX}..{MAX_SIDE_PX} pixels; check the camera's settings"
            )
    if not (1 <= width <= MAX_SIDE_PX and 1 <= height <= MAX_SIDE_PX):
        raise ValueError(
            f"the model's picture is {width}x{height}: sides must be 1..{MAX_SIDE_PX} pixels; "
            "correct the camera's size in the model's config"
        )
    if mode not in FIT_MODES:
        raise ValueError(f"the fit is {mode!r}; it may be one of {', '.join(FIT_MODES)}")
    # Exact fractions: in floats, 640 / (640 / 280) may fall short of 280 and lose a column.
    if native_aspect is None:
        source_aspect = Fraction(source_width, source_height)
        check_aspect(source_aspect, f"the image is {source_width}x{source_height}: its aspect")
    else:
        check_aspect(native_aspect, "native_aspect")
        # 4/3 as a float, or 1.3333 in a file, means 4/3.
        source_aspect = Fraction(native_aspect).limit_denominator(1000)
    target_aspect = Fraction(width, height)
    if mode == "auto":
        ratio = source_aspect / target_aspect
        mode = "crop" if max(ratio, 1 / ratio) <= MAX_CROPPED_ASPECT else "pad"
    sizes = (source_width, source_height, width, height)
    if mode == "crop":
        wider = target_aspect / source_aspect
        crop_width = min(source_width, max(1, round(source_width * wider)))
        crop_height = min(source_height, max(1, round(source_height / wider)))
        left, top = (source_width - crop_width) // 2, (source_height - crop_height) // 2
        return Fit(*sizes, mode, left, top, crop_width, crop_height, width, height)
    inner_width = max(1, int(min(Fraction(width), height * source_aspect)))
    inner_height = max(1, int(min(Fraction(height), width / source_aspect)))
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    whole = (0, 0, source_width, source_height)
    return Fit(*sizes, mode, *whole, inner_width, inner_height, left, top)


def pixel_in_model(plan: Fit, u_px: ArrayLike, v_px: ArrayLike) -> tuple[NDArray, NDArray]:
    """Where source pixels (u across, v down) lie in the model's picture; outside it if cropped."""
    across, down = plan.scale
    u = (np.asarray(u_px, float) + 0.5 - plan.crop_left) * across - 0.5 + plan.pad_left
    v = (np.asarray(v_px, float) + 0.5 - plan.crop_top) * down - 0.5 + plan.pad_top
    return u, v


def pixel_in_source(plan: Fit, u_px: ArrayLike, v_px: ArrayLike) -> tuple[NDArray, NDArray]:
    """The inverse of `pixel_in_model`; outside the source where the model's pixel is padding."""
    across, down = plan.scale
    u = (np.asarray(u_px, float) + 0.5 - plan.pad_left) / across - 0.5 + plan.crop_left
    v = (np.asarray(v_px, float) + 0.5 - plan.pad_top) / down - 0.5 + plan.crop_top
    return u, v


def check_image(image: NDArray) -> None:
    """Refuse what is not a picture (H, W, 3) uint8.

    Raises:
        ValueError: the text says what it is and what it must be.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"an image must be a numpy array, not {type(image).__name__}")
    if image.dtype != np.uint8:
        raise ValueError(
            f"the image holds {image.dtype} numbers; it must hold uint8, 0..255: convert it where "
            "it is made"
        )
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"the image has shape {image.shape}; it must be (height, width, 3) in RGB order: "
            "convert grey, four-channel or stacked images where they are made"
        )
    if image.size == 0:
        raise ValueError(f"the image is empty (shape {image.shape}); check its camera")


def check_aspect(aspect: float | Fraction, name: str) -> None:
    """Refuse a width over height that no picture of a scene has.

    Raises:
        ValueError: the text begins with `name`.
    """
    if not 1 / MAX_ASPECT <= aspect <= MAX_ASPECT:
        raise ValueError(
            f"{name} is {float(aspect):g}, but width over height must be {1 / MAX_ASPECT:g}.."
            f"{MAX_ASPECT}; check the settings of the camera or the card"
        )


def _resize(image: NDArray, width: int, height: int) -> NDArray:
    """Bilinear, antialiased, half-pixel; always a copy."""
    if image.shape[:2] == (height, width):
        return np.array(image)
    # Imported only here: engines that resize nothing do without torch's seconds and memory.
    import torch

    # torch takes neither negative strides nor, without a warning, memory that is read only.
    if min(image.strides) < 0 or not image.flags.writeable:
        image = np.array(image)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        pixels, (height, width), mode="bilinear", antialias=True, align_corners=False
    )
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())
