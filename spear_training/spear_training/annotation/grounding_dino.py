"""The detector `grounding_dino`: a local network that looks for the phrases it is given.

The network reads one text, "mug. cutting board.", and gives each box a confidence for each token of
it. First the text of the phrases and from its tokens back to phrases, then the stage.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.detections import Detection, box_iou_2d, normal_label, sort_out
from spear_training.annotation.frame import Frame
from spear_training.annotation.networks import (
    OneAtATime,
    check_dtype,
    from_transformers,
    load_pretrained,
    loading,
    settings_of,
)
from spear_training.annotation.records import Dropped
from spear_training.annotation.stages import JobError, ObjectError


class PhraseText:
    """The text of some phrases, and which of its tokens were cut from which phrase.

    Attributes:
        phrases: as given.
        inputs: of the network, tensors (1, T).
        tokens_of: for each phrase, where its tokens are among the T.
    """

    def __init__(self, phrases: tuple[str, ...], tokenizer: Any, most_tokens: int):
        """Cut the text into tokens.

        Args:
            phrases: in small letters, without full stops.
            tokenizer: of transformers, a quick one (it says where in the text a token was).
            most_tokens: that the network reads.

        Raises:
            JobError: the phrases are more than the network reads.
        """
        self.phrases = phrases
        text = "".join(f"{phrase}. " for phrase in phrases).rstrip()
        cut = tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
        places = cut.pop("offset_mapping")[0].tolist()
        if len(places) > most_tokens:
            raise JobError(
                f"{len(phrases)} phrases are {len(places)} tokens, and the network reads "
                f"{most_tokens}: leave some out, or annotate twice"
            )
        self.inputs = dict(cut)
        self.tokens_of: list[list[int]] = []
        begin = 0
        for phrase in phrases:
            end = begin + len(phrase)
            self.tokens_of.append([i for i, (a, b) in enumerate(places) if begin <= a < b <= end])
            # transformers makes an empty tokenizer where the files of one are missing, and says
            # nothing; to it every word is unknown.
            read = {int(cut["input_ids"][0, token]) for token in self.tokens_of[-1]}
            if not read or tokenizer.unk_token_id in read:
                raise JobError(
                    f"the network's tokenizer does not know all words of {phrase!r}: find another "
                    "phrase, or if all are unknown, get the model's tokenizer files"
                )
            begin = end + len(". ")


@dataclass(frozen=True)
class Match:
    """A phrase that a box was found for.

    Attributes:
        query: number of the box.
        phrase: of those that are there as a whole, or else of all, the one with the token that
            the network is most sure of.
        score: of its best token.
        whole: whether every token of the phrase is above the text threshold.
    """

    query: int
    phrase: str
    score: float
    whole: bool


def match_phrases(
    text: PhraseText, sureness: NDArray, box_threshold: float, text_threshold: float
) -> list[Match]:
    """Find the phrase of each box.

    Args:
        sureness: (Q, T or more), 0..1, of each box and token.
        box_threshold: a phrase is there if its best token is above it.
        text_threshold: a token that is not above it does not belong to the object.
    """
    matches = []
    for phrase, tokens in zip(text.phrases, text.tokens_of, strict=True):
        of_phrase = sureness[:, tokens]
        for query in np.flatnonzero(of_phrase.max(axis=1) > box_threshold).tolist():
            sure = of_phrase[query] > text_threshold
            score = float(of_phrase[query].max())
            matches.append(Match(query, phrase, score, bool(sure.all())))
    best: dict[int, Match] = {}
    for match in sorted(matches, key=lambda match: (match.whole, match.score)):
        best[match.query] = match
    return [best[query] for query in sorted(best)]


# The stage ------------------------------------------------------------------------------------

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
        """Bring the phrases into the form of labels, each once, and refuse what cannot work."""
        if isinstance(self.phrases, str):
            raise JobError(f"phrases is {self.phrases!r}; it must be a list of phrases")
        try:
            phrases = tuple(dict.fromkeys(normal_label(phrase) for phrase in self.phrases))
        except ObjectError as error:
            raise JobError(f"a phrase cannot be used: {error}") from None
        if not phrases:
            raise JobError("grounding_dino needs phrases: name the objects to look for")
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
        self._options = options
        self._parts = OneAtATime(self._load)

    @property
    def settings(self) -> dict:
        return settings_of(self._options)

    def __call__(self, frame: Frame) -> Frame:
        """Find the phrases."""
        with self._parts.held() as (model, pictures, text):
            boxes, sureness = run_network(model, pictures, text, frame.image)
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
                partly.append(Dropped(match.phrase, "only a part of the phrase fits"))
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


def run_network(
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
