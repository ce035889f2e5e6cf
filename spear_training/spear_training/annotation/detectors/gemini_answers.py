"""What Gemini wrote, to detections. Nothing here asks anybody.

It is asked for JSON: a list of {"box_2d": [ymin, xmin, ymax, xmax], "label": "..."}, the numbers
0..1000 from the upper left corner of the picture. What comes may be wrapped in a fence of
Markdown, cut off, or no JSON at all.
"""

import json
import re

from spear_training.annotation.detectors.box_rules import Detection, excerpt, reported_label
from spear_training.annotation.records import PICTURE_HEIGHT_PX, PICTURE_WIDTH_PX, Dropped

GRID = 1000  # numbers along a side of the picture

_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*(?:```|\Z)", re.DOTALL | re.IGNORECASE)


class AnswerError(ValueError):
    """An answer that cannot be used; says why, with its beginning."""


def parse_answer(text: str) -> tuple[list[Detection], list[Dropped]]:
    """Read an answer.

    An entry that is none is dropped with its reason; the others stay. An answer that was cut off
    is refused as a whole: what was cut may be the second bowl, without which the first one would
    pass for the only one.

    Returns:
        Detections in pixels of the picture of 840x630, and what was dropped.

    Raises:
        AnswerError: it is no list in JSON.
    """
    fenced = _FENCE.search(text)
    body = (fenced[1] if fenced else text).strip()
    try:
        entries = json.loads(body)
    except (ValueError, RecursionError):
        if not body:
            raise AnswerError("the answer is empty") from None
        if _is_cut_off(body):
            raise AnswerError(f"the answer was cut off: it ends with {body[-30:]!r}") from None
        raise AnswerError(f"the answer is no JSON: {excerpt(text)!r}") from None
    if not isinstance(entries, list):
        raise AnswerError(f"the answer is no list of objects: {excerpt(text)!r}")
    found, lost = [], []
    for entry in entries:
        try:
            found.append(_detection(entry))
        except AnswerError as error:
            lost.append(Dropped(_name_of(entry), str(error)))
    return found, lost


def _detection(entry) -> Detection:
    if not isinstance(entry, dict):
        raise AnswerError(f"the entry is no object: {excerpt(entry)!r}")
    if not isinstance(entry.get("label"), str):
        raise AnswerError("the entry has no label")
    box = entry.get("box_2d")
    if not isinstance(box, list) or len(box) != 4:
        raise AnswerError(f"its box_2d is {excerpt(box)!r}, not four numbers")
    for number in box:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise AnswerError(f"its box_2d is {excerpt(box)!r}, not four numbers")
        # Beyond the grid the scale is not the one that was asked for; a clamp would hide that.
        if not 0 <= number <= GRID:
            raise AnswerError(f"its box_2d has {excerpt(number)}, outside 0..{GRID}")
    top, left, bottom, right = box
    across, down = PICTURE_WIDTH_PX / GRID, PICTURE_HEIGHT_PX / GRID
    sides = (left * across, top * down, right * across, bottom * down)
    return Detection(entry["label"], sides)


def _name_of(entry) -> str:
    label = entry.get("label") if isinstance(entry, dict) else None
    return reported_label(label) if isinstance(label, str) else "?"


def _is_cut_off(body: str) -> bool:
    """Whether a text that begins as JSON ends inside a string or a bracket."""
    if body[0] not in "[{":
        return False
    depth, in_string, escaped = 0, False, False
    for letter in body:
        if in_string:
            in_string = escaped or letter != '"'
            escaped = letter == "\\" and not escaped
        elif letter == '"':
            in_string = True
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
    return in_string or depth > 0
