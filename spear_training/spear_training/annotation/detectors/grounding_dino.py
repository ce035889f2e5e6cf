"""The detector `grounding_dino`: a local network that looks for the phrases it is given."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.detectors.box_rules import (
    Detection,
    LabelError,
    normal_label,
    sort_out,
)
from spear_training.annotation.detectors.phrases import PhraseText, match_phrases
from spear_training.annotation.frame import Frame, JobError
from spear_training.annotation.pretrained import (
    OneAtATime,
    check_dtype,
    from_transformers,
    load_pretrained,
    loading,
)
from spear_training.annotation.records import Dropped

KINDS = ("grounding-dino",)


@dataclass(frozen=True)
class GroundingDinoOptions:
    """Settings of the detector.

    Attributes:
        phrases: what to look for, as in ("mug", "cutting board"); labels are these and no others.
        model: a folder, or a name on the model hub.
        box_threshold: how sure the best word of a phrase must be, 0..1.
        text_threshold: how sure every word of the phrase must be, so that no blue bowl passes for
            a "red bowl"; at most `box_threshold`.
        same_object_iou: of two boxes that share more than this, the less sure one is the same
            object once more, whatever it is called. Without it the stage `unique` would take it
            for a second one.
        device: of torch; auto: the GPU where there is one.
        dtype: of the weights and of the arithmetic: float32, bfloat16 or float16.
    """

    phrases: tuple[str, ...]
    model: str = "IDEA-Research/grounding-dino-base"
    box_threshold: float = 0.35
    text_threshold: float = 0.25
    same_object_iou: float = 0.7
    device: str = "auto"
    dtype: str = "float32"

    def __post_init__(self):
        """Bring the phrases into the form of labels, each once, and refuse what cannot work.

        Raises:
            JobError: names the setting.
        """
        if isinstance(self.phrases, str):
            raise JobError(f"phrases is {self.phrases!r}; it must be a list of phrases")
        try:
            phrases = tuple(dict.fromkeys(normal_label(phrase) for phrase in self.phrases))
        except LabelError as error:
            raise JobError(f"a phrase cannot be used: {error}") from None
        if not phrases:
            raise JobError("grounding_dino needs phrases: name the things to look for")
        for phrase in phrases:
            # Both end a phrase for the network.
            if set(phrase) & set(".?"):
                raise JobError(f"the phrase {phrase!r} has a full stop or a question mark in it")
        object.__setattr__(self, "phrases", phrases)
        if not 0 <= self.text_threshold <= self.box_threshold < 1:
            raise JobError(
                f"text_threshold {self.text_threshold} and box_threshold {self.box_threshold} must "
                "be in this order, between 0 and 1"
            )
        if not 0 < self.same_object_iou <= 1:
            raise JobError(f"same_object_iou is {self.same_object_iou}; it must be in 0..1")
        check_dtype(self.dtype)


class GroundingDinoDetector:
    """Finds the phrases in each picture."""

    name = "grounding_dino"
    parallel = 1

    def __init__(self, options: GroundingDinoOptions):
        """Take the options; the model is loaded at the first picture."""
        self._options = options
        self._parts = OneAtATime(self._load)

    @property
    def settings(self) -> dict:
        """What the boxes depend on."""
        settings = asdict(self._options) | {"phrases": list(self._options.phrases)}
        del settings["device"]
        return settings

    def __call__(self, frame: Frame) -> Frame:
        """Find the phrases.

        Raises:
            JobError: the model cannot be loaded, or the device has failed.
        """
        with self._parts.held() as (model, pictures, text):
            boxes, sureness = look(model, pictures, text, frame.image)
        found, partly = self._chosen(boxes, sureness, text)
        kept, lost = sort_out(found, frame.visible)
        return frame.keep(kept, [*partly, *lost])

    def _chosen(
        self, boxes: NDArray, sureness: NDArray, text: PhraseText
    ) -> tuple[list[Detection], list[Dropped]]:
        options = self._options
        found = match_phrases(text, sureness, options.box_threshold, options.text_threshold)
        # Whole phrases first: a part of "red bowl" does not displace a "bowl".
        found.sort(key=lambda match: (not match.whole, -match.score))
        taken: list[NDArray] = []
        kept, partly = [], []
        for match in found:
            box = boxes[match.query]
            if any(box_iou_2d(box, other) > options.same_object_iou for other in taken):
                continue
            taken.append(box)
            if match.whole:
                kept.append(Detection(match.phrase, box.tolist(), match.score))
            else:
                partly.append(Dropped(match.words, f"only a part of {match.phrase!r}"))
        return kept, partly

    def _load(self) -> tuple[Any, Any, PhraseText]:
        options = self._options
        name = options.model
        model = load_pretrained(
            "GroundingDinoForObjectDetection", KINDS, name, options.device, options.dtype
        )
        # The one for Pillow gives the same picture with torchvision and without.
        preparing = from_transformers("GroundingDinoImageProcessorPil")
        pictures = loading(name, lambda: preparing.from_pretrained(name))
        tokenizers = from_transformers("AutoTokenizer")
        tokenizer = loading(name, lambda: tokenizers.from_pretrained(name))
        return model, pictures, PhraseText(options.phrases, tokenizer, model.config.max_text_len)


def look(
    model: Any, pictures: Any, text: PhraseText, image: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Run the network on a picture (H, W, 3).

    Returns:
        Boxes (Q, 4) left, top, right, bottom in the picture's pixels, and how sure the network is
        of each token of the text in each of them (Q, T), 0..1.
    """
    import torch

    weight = next(model.parameters())
    prepared = pictures(images=image, return_tensors="pt")
    with torch.inference_mode():
        answer = model(
            pixel_values=prepared["pixel_values"].to(weight),
            pixel_mask=prepared["pixel_mask"].to(weight.device),
            **{name: values.to(weight.device) for name, values in text.inputs.items()},
        )
        sureness = answer.logits[0].float().sigmoid().cpu().numpy().astype(float)
        middle = answer.pred_boxes[0].float().cpu().numpy().astype(float)
    height, width = image.shape[:2]
    centre, half = middle[:, :2], middle[:, 2:] / 2
    size = np.array([width, height, width, height])
    return np.hstack([centre - half, centre + half]) * size, sureness


def box_iou_2d(a_xyxy: NDArray, b_xyxy: NDArray) -> float:
    """Shared part of two boxes: intersection over union, 0..1."""
    sides = np.minimum(a_xyxy[2:], b_xyxy[2:]) - np.maximum(a_xyxy[:2], b_xyxy[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    union = float(np.prod(a_xyxy[2:] - a_xyxy[:2]) + np.prod(b_xyxy[2:] - b_xyxy[:2])) - shared
    return shared / union if union > 0 else 0.0
