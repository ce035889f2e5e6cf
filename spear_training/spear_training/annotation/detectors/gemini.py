"""The detector `gemini`: Google's service finds the objects and names them."""

import io
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spear_training.annotation.detectors.answer_cache import AnswerCache, answer_key
from spear_training.annotation.detectors.box_rules import Detection, sort_out
from spear_training.annotation.detectors.gemini_answers import AnswerError, parse_answer
from spear_training.annotation.detectors.gemini_client import GeminiClient
from spear_training.annotation.detectors.gemini_options import GeminiOptions
from spear_training.annotation.frame import Frame, StageError
from spear_training.annotation.records import Dropped

# The result depends on these; how patiently it was asked for does not matter.
_ASKED = (
    "model",
    "temperature",
    "thinking_budget",
    "max_output_tokens",
    "jpeg_quality",
)


def default_prompt(max_objects: int) -> str:
    """The question; how boxes are written is in the schema that goes with it."""
    return (
        f"Find the clearly visible separate objects in this picture, {max_objects} at most: things "
        "that could be picked up, used or pointed at, and furniture. Leave out walls, floors, "
        "people and parts of other objects. Give each object its 2D box as box_2d = "
        "[ymin, xmin, ymax, xmax], whole numbers from 0 to 1000, and as its label a short, plain "
        "English name of one to four words. Give every single object an entry of its own, even if "
        "there are several of a kind. If objects of a kind differ visibly, tell them apart in the "
        "label by colour, material or size, as in 'red mug' and 'blue mug'; never by numbers or by "
        "where they are."
    )


class GeminiDetector:
    """Asks the service about each picture, once: raw answers are kept in a folder.

    The picture goes as it is annotated, 840x630, padding included; that is below the 1024 px to
    which Google's own examples shrink pictures.
    """

    name = "gemini"

    def __init__(self, options: GeminiOptions | None = None, cache_folder: Path | None = None):
        """Take what to ask, and where answers are kept (None: nowhere)."""
        self._options = options or GeminiOptions()
        self._prompt = self._options.prompt or default_prompt(self._options.max_objects)
        self._cache = None if cache_folder is None else AnswerCache(cache_folder)
        self._client = GeminiClient(self._options)

    @property
    def settings(self) -> dict:
        """What the answer depends on; the key is not among it."""
        options = asdict(self._options)
        return {"prompt": self._prompt} | {name: options[name] for name in _ASKED}

    @property
    def parallel(self) -> int:
        """Requests at once."""
        return self._options.requests_at_once

    def __call__(self, frame: Frame) -> Frame:
        """Find objects.

        Raises:
            StageError: the service gave no usable answer about this picture.
            JobError: it cannot be used at all, or answers cannot be kept.
        """
        found, lost = self._answer(_as_jpeg(frame.image, self._options.jpeg_quality))
        kept, refused = sort_out(found, frame.visible)
        return frame.keep(kept, [*lost, *refused])

    def _answer(self, image_jpeg: bytes) -> tuple[list[Detection], list[Dropped]]:
        key = answer_key(image_jpeg, self.settings)
        stored = self._cache.get(key) if self._cache else None
        if stored is not None:
            try:
                return parse_answer(stored)
            except AnswerError:
                pass  # kept by an older version that was content with less: ask again
        text = self._client.ask(image_jpeg, self._prompt)
        try:
            answer = parse_answer(text)
        except AnswerError as error:
            raise StageError(str(error)) from None
        if self._cache:
            self._cache.put(key, text)
        return answer


def _as_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """The same bytes for the same picture, as the cache's key needs."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()
