"""One question to Gemini: sent, repeated while the service is busy, its failures told apart."""

import os
import sys
import threading
from typing import Any

from spear_training.annotation.detectors.gemini_answers import GRID
from spear_training.annotation.detectors.gemini_options import GeminiOptions
from spear_training.annotation.frame import JobError, StageError
from spear_training.annotation.optional_library import load_library

KEY_VARIABLE = "GEMINI_API_KEY"
RETRIED_CODES = (408, 429, 500, 502, 503, 504)
INSTALL = "pip install google-genai"
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
        """Take the options; the key is read from the environment when it is needed."""
        self._options = options
        self._lock = threading.Lock()
        self._client: Any = None
        self._failures_in_a_row = 0

    def ask(self, image_jpeg: bytes, prompt: str) -> str:
        """The text of the answer about one picture.

        Raises:
            StageError: no usable answer to this picture.
            JobError: no key, a key or model that the service refuses, or nothing but failures.
        """
        genai = load_library("google.genai", INSTALL, "the detector gemini")
        client = self._connected(genai)
        try:
            answer = self._send(genai, client, image_jpeg, prompt)
        except StageError as error:
            self._count_failure(error)
            raise
        self._failures_in_a_row = 0
        return _text_of(answer)

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

    def _count_failure(self, error: StageError) -> None:
        with self._lock:
            self._failures_in_a_row += 1
            count = self._failures_in_a_row
        if count >= self._options.most_failures_in_a_row:
            raise JobError(
                f"Gemini has failed for {count} pictures in a row, at last it {error}: wait until "
                "it works again or the quota is renewed; answers so far are kept"
            )

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
