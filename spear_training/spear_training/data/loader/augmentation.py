"""Pictures varied on the device, each by its own dice (facts/model.md 5.2, openpi's values).

External camera: a crop of 95 % of either side, a turn of at most 5 degrees, brightness, contrast
and saturation. Wrist camera: colours only. A turn breaks the cues of gravity and of the camera's
intrinsics, so `rotate_deg` 0 is a choice worth trying.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

LUMA = (0.299, 0.587, 0.114)  # of grey, ITU-R BT.601
# Which of a sample's chances is used for what; 0 is for the choice of words.
_SHIFT_X, _SHIFT_Y, _TURN = 1, 2, 3
_COLOURS = {"external": (4, 5, 6), "wrist": (7, 8, 9)}


@dataclass(frozen=True)
class Augmentation:
    """How much pictures vary.

    Attributes:
        crop: share of either side that is kept of an external picture, 0..1.
        rotate_deg: largest turn of an external picture, either way.
        brightness, contrast, saturation: largest change of the factor 1, either way.
    """

    crop: float = 0.95
    rotate_deg: float = 5.0
    brightness: float = 0.3
    contrast: float = 0.4
    saturation: float = 0.5

    def __post_init__(self):
        """Refuse what is no variation of a picture.

        Raises:
            ValueError: names the value and its bounds.
        """
        bounds = {"crop": (0.1, 1.0), "rotate_deg": (0.0, 180.0)}
        for name in ("brightness", "contrast", "saturation"):
            bounds[name] = (0.0, 1.0)
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"augmentation.{name} is {value}: it must be {low}..{high}")


def augment(images: Tensor, chances: Tensor, camera: str, how: Augmentation) -> Tensor:
    """Vary a batch of one camera's pictures; black ones stay black.

    Args:
        images: (B, 3, H, W) float in [0, 1].
        chances: (B, CHANCES) of the samples, on the same device.
        camera: "external" or "wrist".
        how: how much.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    if camera == "external" and (how.crop < 1 or how.rotate_deg):
        images = _moved(images, chances, how)
    return _coloured(images, chances[:, list(_COLOURS[camera])], how)


def _moved(images: Tensor, chances: Tensor, how: Augmentation) -> Tensor:
    """Crop and turn in one sampling, so that nothing is blurred twice; corners are mirrored."""
    height, width = images.shape[-2:]
    angle = torch.deg2rad((2 * chances[:, _TURN] - 1) * how.rotate_deg)
    cos, sin = torch.cos(angle) * how.crop, torch.sin(angle) * how.crop
    room = 1 - how.crop
    shift_x = (2 * chances[:, _SHIFT_X] - 1) * room
    shift_y = (2 * chances[:, _SHIFT_Y] - 1) * room
    # Coordinates run from -1 to 1 along either side, so a turn has to know their lengths.
    rows = [
        torch.stack([cos, -sin * height / width, shift_x], dim=-1),
        torch.stack([sin * width / height, cos, shift_y], dim=-1),
    ]
    theta = torch.stack(rows, dim=1).to(images.dtype)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def _coloured(images: Tensor, chances: Tensor, how: Augmentation) -> Tensor:
    changes = chances.new_tensor([how.brightness, how.contrast, how.saturation])
    factors = (1 + (2 * chances - 1) * changes).to(images.dtype)
    brightness, contrast, saturation = factors.T[..., None, None, None]
    luma = images.new_tensor(LUMA)[:, None, None]
    images = (images * brightness).clamp(0, 1)
    mean = (images * luma).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    images = (mean + (images - mean) * contrast).clamp(0, 1)
    grey = (images * luma).sum(dim=1, keepdim=True)
    return (grey + (images - grey) * saturation).clamp(0, 1)
