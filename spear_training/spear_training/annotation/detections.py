"""The rules that all detections are held to: clean boxes and labels, each label once."""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spear_policy.model.answers import CONCLUSION, AnswerError, check_words
from spear_training.annotation.frame import Candidate, Frame
from spear_training.annotation.records import Dropped
from spear_training.annotation.stages import ObjectError

MIN_SIDE_PX = 2.0
MAX_LABEL_LETTERS = 60
OUTSIDE = "outside the picture"
TINY = f"under {MIN_SIDE_PX:g} px a side in the picture"
# Reasons of objects that nobody sees in the picture.
UNSEEN = frozenset({OUTSIDE, TINY})

_ARTICLES = ("a", "an", "the")
_AT_THE_ENDS = " .,;:!?\"'`*-"
_EXCERPT_LETTERS = 40


@dataclass(frozen=True)
class Detection:
    """What a detector found, before the rules.

    Attributes:
        label: as the detector wrote it.
        box_xyxy_px: in the picture of 840x630; sides may be swapped or outside.
        score: 0..1, if it gives one.
    """

    label: str
    box_xyxy_px: Sequence[float]
    score: float | None = None


def sort_out(
    found: Iterable[Detection], visible: NDArray[np.bool_]
) -> tuple[list[Candidate], list[Dropped]]:
    """Apply both rules to detections: those that are objects, and the others with reasons."""
    kept, lost = [], []
    for detection in found:
        try:
            label = normal_label(detection.label)
            box = clean_box(detection.box_xyxy_px, visible)
        except ObjectError as error:
            lost.append(Dropped(reported_label(detection.label), str(error)))
        else:
            kept.append(Candidate(label, box, detection.score))
    return kept, lost


def clean_box(
    box_xyxy_px: Sequence[float], visible: NDArray[np.bool_]
) -> tuple[float, float, float, float]:
    """The part of a box that can be seen; swapped sides are exchanged.

    Args:
        box_xyxy_px: two corners in the picture, edge to edge.
        visible: (630, 840), a rectangle of True; see `Frame`.

    Returns:
        Left, top, right, bottom, at least 2 px apart.

    Raises:
        ObjectError: it has no four finite numbers, lies outside, or is too small.
    """
    if len(box_xyxy_px) != 4:
        raise ObjectError(f"its box has {len(box_xyxy_px)} numbers, not 4")
    corners = [float(side) for side in box_xyxy_px]
    if not all(math.isfinite(side) for side in corners):
        raise ObjectError("its box has a number that is not finite")
    columns, rows = np.flatnonzero(visible.any(axis=0)), np.flatnonzero(visible.any(axis=1))
    left, right = sorted(corners[0::2])
    top, bottom = sorted(corners[1::2])
    if len(columns) == 0 or left >= columns[-1] + 1 or right <= columns[0]:
        raise ObjectError(OUTSIDE)
    if top >= rows[-1] + 1 or bottom <= rows[0]:
        raise ObjectError(OUTSIDE)
    left, right = max(left, float(columns[0])), min(right, columns[-1] + 1.0)
    top, bottom = max(top, float(rows[0])), min(bottom, rows[-1] + 1.0)
    if min(right - left, bottom - top) < MIN_SIDE_PX:
        raise ObjectError(TINY)
    return left, top, right, bottom


def box_iou_2d(a_xyxy: Sequence[float], b_xyxy: Sequence[float]) -> float:
    """Shared part of two boxes: intersection over union, 0..1; a box without area shares none."""
    sides = np.array([a_xyxy, b_xyxy], float)
    shared = np.maximum(sides[:, 2:].min(axis=0) - sides[:, :2].max(axis=0), 0).prod()
    union = np.maximum(sides[:, 2:] - sides[:, :2], 0).prod(axis=1).sum() - shared
    return float(shared / union) if union > 0 else 0.0


def normal_label(text: str) -> str:
    """A label as questions use it: small letters, single blanks, no article, no stops around it.

    Raises:
        ObjectError: nothing is left, it is too long, or it could not be told from a token or from
            the end of a thought in an answer.
    """
    label = text
    while (tidied := _tidied(label)) != label:
        label = tidied
    if not any(letter.isalnum() for letter in label):
        raise ObjectError("it has no name")
    if len(label) > MAX_LABEL_LETTERS:
        raise ObjectError(f"its name is longer than {MAX_LABEL_LETTERS} letters")
    if not label.isprintable() or set(label) & set("<>") or CONCLUSION in label:
        raise ObjectError("its name has signs that no name has")
    try:
        check_words(label, "its name")
    except AnswerError as error:
        raise ObjectError(str(error)) from None
    return label


def reported_label(text: str) -> str:
    """A label for the list of dropped objects: the normal one if there is one."""
    try:
        return normal_label(text)
    except ObjectError:
        return excerpt(text) or "?"


def excerpt(text: object) -> str:
    """The beginning of anything, on one line and printable, for reports."""
    words = " ".join(str(text)[: 2 * _EXCERPT_LETTERS].split())
    words = "".join(letter if letter.isprintable() else "?" for letter in words)
    return words if len(words) <= _EXCERPT_LETTERS else words[:_EXCERPT_LETTERS] + "..."


def _tidied(label: str) -> str:
    label = unicodedata.normalize("NFC", label.replace("_", " ").lower())
    words = " ".join(label.split()).strip(_AT_THE_ENDS).split()
    return " ".join(words[1:] if words and words[0] in _ARTICLES else words)


class KeepUnique:
    """Drops all objects of a label that was found more than once, as the paper does.

    So a name says which object is meant. An object that an earlier stage dropped counts too (a
    second bowl stays a second bowl if its mask is damaged), unless nobody sees it in the picture.
    """

    name = "unique"
    parallel = 1

    @property
    def settings(self) -> dict:
        """There is nothing to set."""
        return {}

    def __call__(self, frame: Frame) -> Frame:
        """Keep the single ones."""
        labels = Counter(found.label for found in frame.candidates)
        labels.update(lost.label for lost in frame.dropped if lost.reason not in UNSEEN)
        kept = [found for found in frame.candidates if labels[found.label] == 1]
        lost = [
            Dropped(found.label, f"{labels[found.label]} of its kind")
            for found in frame.candidates
            if labels[found.label] > 1
        ]
        return frame.keep(kept, lost)
