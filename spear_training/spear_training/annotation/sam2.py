"""The segmenter `sam2`: SAM 2 of transformers, asked with the boxes.

transformers' own preparation of pictures for SAM 2 needs torchvision; the model does not. So the
picture is prepared here: squeezed to the model's square without regard to its aspect, as SAM 2
was trained, and normalised with ImageNet's mean and deviation.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.frame import Candidate, Frame
from spear_training.annotation.networks import OneAtATime, check_dtype, load_pretrained, settings_of
from spear_training.annotation.records import Dropped
from spear_training.annotation.stages import JobError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
KINDS = ("sam2", "sam2_video")  # a video's model holds that of a picture


@dataclass(frozen=True)
class Sam2Options:
    """Settings of the segmenter.

    Attributes:
        model: a folder, or a name on the model hub.
        device: of torch; auto: the GPU where there is one.
        dtype: of the weights and of the arithmetic: float32, bfloat16 or float16.
        box_margin: a mask ends where its box, grown by this share of its size to each side, ends.
            Detectors' boxes are a little too tight now and then, so the mask may reach beyond;
            but where SAM 2 takes the table for a part of the cup, its points must not get into
            the cup's cloud: so many are no outliers any more.
    """

    model: str = "facebook/sam2.1-hiera-large"
    device: str = "auto"
    dtype: str = "float32"
    box_margin: float = 0.1

    def __post_init__(self):
        check_dtype(self.dtype)
        if not (math.isfinite(self.box_margin) and self.box_margin >= 0):
            raise JobError(f"box_margin is {self.box_margin}; it must be 0 or more")


class Sam2Segmenter:
    """One mask a box; the network sees each picture once, with all its boxes."""

    name = "sam2"
    parallel = 1

    def __init__(self, options: Sam2Options | None = None):
        self._options = options or Sam2Options()
        self._model = OneAtATime(self._load)

    @property
    def settings(self) -> dict:
        return settings_of(self._options)

    def __call__(self, frame: Frame) -> Frame:
        """Add a mask to each candidate; one without a pixel drops it."""
        if not frame.candidates:
            return frame
        boxes = np.array([found.box_xyxy_px for found in frame.candidates])
        with self._model.held() as model:
            masks = segment(model, frame.image, boxes)
        kept: list[Candidate] = []
        lost: list[Dropped] = []
        for candidate, mask in zip(frame.candidates, masks, strict=True):
            mask &= frame.visible
            mask &= _grown_box(candidate.box_xyxy_px, self._options.box_margin, mask.shape)
            if mask.any():
                kept.append(replace(candidate, mask=mask))
            else:
                lost.append(Dropped(candidate.label, "its mask is empty"))
        return frame.keep(kept, lost)

    def _load(self) -> Any:
        options = self._options
        return load_pretrained("Sam2Model", KINDS, options.model, options.device, options.dtype)


def segment(model: Any, image: NDArray[np.uint8], boxes_xyxy_px: NDArray) -> NDArray[np.bool_]:
    """Masks of boxes.

    Args:
        model: transformers' Sam2Model.
        image: (H, W, 3) RGB.
        boxes_xyxy_px: (N, 4), edge to edge.

    Returns:
        (N, H, W); a pixel belongs to the mask if its logit is positive.
    """
    import torch
    from torch.nn.functional import interpolate

    side = model.config.prompt_encoder_config.image_size
    height, width = image.shape[:2]
    weight = next(model.parameters())
    with torch.inference_mode():
        pixels = torch.from_numpy(image).to(weight.device).permute(2, 0, 1)[None].float() / 255.0
        pixels = interpolate(pixels, (side, side), mode="bilinear", antialias=True)
        mean, deviation = (
            torch.tensor(values, device=weight.device)[:, None, None]
            for values in (IMAGENET_MEAN, IMAGENET_DEVIATION)
        )
        scale = np.array([side / width, side / height] * 2)
        # Not in the weights' type: bfloat16 counts by fours beyond 512.
        boxes = torch.from_numpy(boxes_xyxy_px * scale).to(weight.device, torch.float32)
        logits = model(
            pixel_values=((pixels - mean) / deviation).to(weight.dtype),
            input_boxes=boxes[None],
            multimask_output=False,
        ).pred_masks[0]
        logits = interpolate(logits.float(), (height, width), mode="bilinear", align_corners=False)
        return (logits[:, 0] > 0).cpu().numpy()


def _grown_box(
    box_xyxy_px: tuple[float, float, float, float], margin: float, shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    left, top, right, bottom = box_xyxy_px
    across, down = margin * (right - left), margin * (bottom - top)
    inside = np.zeros(shape, bool)
    rows = slice(max(0, math.floor(top - down)), math.ceil(bottom + down))
    inside[rows, max(0, math.floor(left - across)) : math.ceil(right + across)] = True
    return inside
