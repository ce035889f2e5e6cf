"""The detector `gemini`: Google's service finds the objects and names them.

After the settings and the stage follow the connection to the service, the reading of its answers,
and the folder that keeps them.
"""

import hashlib
import io
import json
import os
import re
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spear_policy.shared.files import write_atomically
from spear_training.annotation.detections import Detection, excerpt, reported_label, sort_out
from spear_training.annotation.frame import Frame
from spear_training.annotation.networks import load_library
from spear_training.annotation.records import PICTURE_HEIGHT_PX, PICTURE_WIDTH_PX, Dropped
from spear_training.annotation.stages import JobError, ObjectError, StageError

GRID = 1000  # numbers along a side of the picture
KEY_VARIABLE = "GEMINI_API_KEY"
INSTALL = "pip install google-genai"


@dataclass(frozen=True)
class GeminiOptions:
    """Settings of the detector `gemini`.

    Attributes:
        model: name of the model at the service.
        prompt: in words; None: `gemini.default_prompt` of `max_objects`.
        max_objects: asked for in the default prompt.
        temperature: of the sampling; Google's own examples for boxes take 0.5.
        thinking_budget: tokens of thinking; 0 switches it off, None leaves it to the model (some
            models refuse 0).
        max_output_tokens: an answer that gets longer is cut off and refused.
        jpeg_quality: of the picture that is sent.
        timeout_s: that the service may be silent.
        attempts: at one picture, the first one included.
        retry_delay_s: before the second attempt; doubled before each further one, 60 s at most.
        requests_at_once: pictures that are asked about at the same time.
        base_url: of the service; None: Google's.
    """

    model: str = "gemini-2.5-flash"
    prompt: str | None = None
    max_objects: int = 25
    temperature: float = 0.5
    thinking_budget: int | None = 0
    max_output_tokens: int = 8192
    jpeg_quality: int = 90
    timeout_s: float = 60.0
    attempts: int = 5
    retry_delay_s: float = 1.0
    requests_at_once: int = 8
    base_url: str | None = None

    def __post_init__(self):
        positive = ("max_objects", "max_output_tokens", "attempts", "requests_at_once")
        for name in (*positive, "timeout_s"):
            if getattr(self, name) <= 0:
                raise JobError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not 1 <= self.jpeg_quality <= 95:
            raise JobError(f"jpeg_quality is {self.jpeg_quality}; it must be 1..95")
        if self.base_url and not self.base_url.startswith(("http://", "https://")):
            raise JobError(f"base_url is {self.base_url!r}; it must begin with http:// or https://")


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

    def __init__(self, options: GeminiOptions | None = None, answers: Path | None = None):
        """Take what to ask, and where answers are kept (None: nowhere)."""
        self._options = options or GeminiOptions()
        self._prompt = self._options.prompt or default_prompt(self._options.max_objects)
        self._cache = None if answers is None else AnswerCache(answers)
        self._client = GeminiClient(self._options)

    @property
    def settings(self) -> dict:
        """What the answer depends on; the key is not among it."""
        options = asdict(self._options)
        return {"prompt": self._prompt} | {name: options[name] for name in _ASKED}

    @property
    def parallel(self) -> int:
        return self._options.requests_at_once

    def __call__(self, frame: Frame) -> Frame:
        """Find objects."""
        found, lost = self._answer(_as_jpeg(frame.image, self._options.jpeg_quality))
        kept, refused = sort_out(found, frame.visible)
        return frame.keep(kept, [*lost, *refused])

    def _answer(self, image_jpeg: bytes) -> tuple[list[Detection], list[Dropped]]:
        key = answer_key(image_jpeg, self.settings)
        stored = self._cache.get(key) if self._cache else None
        if stored is not None:
            try:
                return parse_answer(stored)
            except StageError:
                pass  # kept by an older version that was content with less: ask again
        text = self._client.ask(image_jpeg, self._prompt)
        answer = parse_answer(text)
        if self._cache:
            self._cache.put(key, text)
        return answer


def _as_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """The same bytes for the same picture, as the cache's key needs."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


# Requests: repeated while the service is busy, its failures classified ----------------------------

RETRIED_CODES = (408, 429, 500, 502, 503, 504)
# The library repeats a question after silence and after a refused connection, not after one that
# broke while it was in use. That is asked once more here.
_BROKEN = ("ReadError", "WriteError", "RemoteProtocolError")

_ANSWER_SCHEMA = {
    "type": "ARRAY",
    "items": {
        "type": "OBJECT",
        "properties": {
            "box_2d": {
                "type": "ARRAY",
                "items": {"type": "INTEGER", "minimum": 0, "maximum": GRID},
                "minItems": 4,
                "maxItems": 4,
            },
            "label": {"type": "STRING"},
        },
        "required": ["box_2d", "label"],
    },
}


class GeminiClient:
    """The connection to the service; made at the first question. Safe to share by threads."""

    def __init__(self, options: GeminiOptions):
        self._options = options
        self._lock = threading.Lock()
        self._client: Any = None

    def ask(self, image_jpeg: bytes, prompt: str) -> str:
        """The text of the answer about one picture.

        Raises:
            StageError: no usable answer to this picture.
            JobError: no key, or a key or model that the service refuses.
        """
        genai = load_library("google.genai", INSTALL, "the detector gemini")
        return _text_of(self._send(genai, self._connected(genai), image_jpeg, prompt))

    def _send(self, genai: Any, client: Any, image_jpeg: bytes, prompt: str) -> Any:
        options = self._options
        types = genai.types
        thinking = options.thinking_budget
        config = types.GenerateContentConfig(
            temperature=options.temperature,
            max_output_tokens=options.max_output_tokens,
            response_mime_type="application/json",
            response_schema=_ANSWER_SCHEMA,
            thinking_config=(
                None if thinking is None else types.ThinkingConfig(thinking_budget=thinking)
            ),
        )
        parts = [types.Part.from_bytes(data=image_jpeg, mime_type="image/jpeg"), prompt]

        def request() -> Any:
            return client.models.generate_content(
                model=options.model, contents=parts, config=config
            )

        try:
            try:
                return request()
            except _transport_errors() as error:
                if type(error).__name__ not in _BROKEN:
                    raise
                return request()
        except genai.errors.APIError as error:
            raise self._refusal(error) from None
        except _transport_errors() as error:
            said = f"{type(error).__name__}: {error}".rstrip(": ")
            raise StageError(f"gave no answer ({said})") from None
        except ValueError as error:  # a page of a proxy instead of JSON
            raise StageError(f"gave an answer that is no JSON ({error})") from None

    def _refusal(self, error: Any) -> Exception:
        """What an answer with an error's code means."""
        options = self._options
        said = " ".join(str(error.message or error.status or "no reason given").split())[:200]
        key = os.environ.get(KEY_VARIABLE)
        said = said.replace(key, "***") if key else said
        answered = f"answered {error.code} {said}"
        if error.code in (401, 403) or "API_KEY" in str(error.details):
            return JobError(f"Gemini {answered}: check {KEY_VARIABLE} and what it may use")
        if error.code == 404:
            return JobError(
                f"Gemini {answered}: choose a model that the service has, instead of "
                f"{options.model!r}"
            )
        if error.code == 400 and options.thinking_budget is not None and "thinking" in said.lower():
            return JobError(
                f"Gemini {answered}: {options.model} needs another thinking budget than "
                f"{options.thinking_budget}, or none"
            )
        if error.code == 400 and error.status == "FAILED_PRECONDITION":
            return JobError(f"Gemini {answered}: the account cannot use the service from here")
        return StageError(answered)

    def _connected(self, genai: Any) -> Any:
        with self._lock:
            if self._client is None:
                key = os.environ.get(KEY_VARIABLE, "").strip()
                if not key:
                    raise JobError(
                        f"Gemini needs a key: put it in the environment as {KEY_VARIABLE}"
                    )
                options, types = self._options, genai.types
                self._client = genai.Client(
                    api_key=key,
                    vertexai=False,
                    http_options=types.HttpOptions(
                        base_url=options.base_url,
                        timeout=int(1000 * options.timeout_s),
                        retry_options=types.HttpRetryOptions(
                            attempts=options.attempts,
                            initial_delay=options.retry_delay_s,
                            max_delay=60.0,
                            jitter=options.retry_delay_s,
                            http_status_codes=list(RETRIED_CODES),
                        ),
                    ),
                )
            return self._client


def _transport_errors() -> tuple[type[Exception], ...]:
    """What the library lets through of the HTTP client it uses, which is one of two."""
    loaded = (sys.modules.get(name) for name in ("httpx", "httpx2"))
    return tuple(module.HTTPError for module in loaded if module is not None)


def _text_of(answer: Any) -> str:
    """The words of an answer.

    Raises:
        StageError: the service refused to answer, or stopped before the end.
    """
    blocked = answer.prompt_feedback and answer.prompt_feedback.block_reason
    if blocked:
        raise StageError(f"refused the picture ({_name(blocked)})")
    if not answer.candidates:
        raise StageError("answered without any candidate")
    candidate = answer.candidates[0]
    finished = _name(candidate.finish_reason)
    if finished == "MAX_TOKENS":
        raise StageError("gave an answer that was cut off (MAX_TOKENS)")
    if finished not in ("STOP", "FINISH_REASON_UNSPECIFIED", ""):
        raise StageError(f"refused to answer ({finished})")
    parts = (candidate.content and candidate.content.parts) or []
    text = "".join(part.text for part in parts if part.text and not part.thought)
    if not text.strip():
        raise StageError("gave an empty answer")
    return text


def _name(reason: Any) -> str:
    return "" if reason is None else str(getattr(reason, "value", reason))


# From answers to detections -----------------------------------------------------------------------

_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*(?:```|\Z)", re.DOTALL | re.IGNORECASE)


def parse_answer(text: str) -> tuple[list[Detection], list[Dropped]]:
    """Read an answer: a list of {"box_2d": [ymin, xmin, ymax, xmax], "label": "..."}.

    The numbers run from 0 to 1000 from the upper left corner of the picture. What comes may be
    wrapped in a fence of Markdown, cut off, or no JSON at all. An entry that is none is dropped
    with its reason; the others stay. An answer that was cut off is refused as a whole: what was cut
    may be the second bowl, without which the first one would pass for the only one.

    Returns:
        Detections in pixels of the picture of 840x630, and what was dropped.

    Raises:
        StageError: it is no list in JSON; says so with its beginning.
    """
    fenced = _FENCE.search(text)
    body = (fenced[1] if fenced else text).strip()
    try:
        entries = json.loads(body)
    except (ValueError, RecursionError):
        raise StageError(f"the answer is no JSON, or was cut off: {excerpt(text)!r}") from None
    if not isinstance(entries, list):
        raise StageError(f"the answer is no list of objects: {excerpt(text)!r}")
    found, lost = [], []
    for entry in entries:
        try:
            found.append(_detection(entry))
        except ObjectError as error:
            lost.append(Dropped(_name_of(entry), str(error)))
    return found, lost


def _detection(entry) -> Detection:
    if not isinstance(entry, dict):
        raise ObjectError(f"the entry is no object: {excerpt(entry)!r}")
    if not isinstance(entry.get("label"), str):
        raise ObjectError("the entry has no label")
    box = entry.get("box_2d")
    if not isinstance(box, list) or len(box) != 4:
        raise ObjectError(f"its box_2d is {excerpt(box)!r}, not four numbers")
    for number in box:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ObjectError(f"its box_2d is {excerpt(box)!r}, not four numbers")
        # Beyond the grid the scale is not the one that was asked for; a clamp would hide that.
        if not 0 <= number <= GRID:
            raise ObjectError(f"its box_2d has {excerpt(number)}, outside 0..{GRID}")
    top, left, bottom, right = box
    across, down = PICTURE_WIDTH_PX / GRID, PICTURE_HEIGHT_PX / GRID
    sides = (left * across, top * down, right * across, bottom * down)
    return Detection(entry["label"], sides)


def _name_of(entry) -> str:
    label = entry.get("label") if isinstance(entry, dict) else None
    return reported_label(label) if isinstance(label, str) else "?"


# The cache of answers, stored as they came: asking again costs money ------------------------------


def answer_key(image: bytes, asked: dict) -> str:
    """Name of the answer about an image.

    Args:
        image: the bytes that are sent.
        asked: model, prompt, temperature and whatever else changes the answer; plain JSON values.
    """
    about = {"image": hashlib.sha256(image).hexdigest(), "asked": asked}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """The folder, made when the first answer is put in.

    One file an answer, named by a hash of all that the answer depends on. Any number of processes
    and machines may share it.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def get(self, key: str) -> str | None:
        """The answer of that name; None if there is none, or if its file is damaged."""
        try:
            stored = json.loads(self._path(key).read_bytes())
            text = stored["answer"]
            return text if stored["sha256"] == _hash(text) else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def put(self, key: str, text: str) -> None:
        """Keep an answer; nobody reads half of it.

        Raises:
            JobError: it cannot be written. Going on would pay for answers that are lost.
        """
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps({"sha256": _hash(text), "answer": text}))
        except OSError as error:
            raise JobError(
                f"the answers cannot be kept in {self.folder} ({error.strerror}): make room or "
                "name another folder"
            ) from None

    def _path(self, key: str) -> Path:
        # 256 folders, for a folder of a million files is slow on many file systems.
        return self.folder / key[:2] / f"{key}.json"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
