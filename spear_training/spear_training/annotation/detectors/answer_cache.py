"""Answers of a service that costs money, kept in a folder as they came.

One file an answer, named by a hash of all that the answer depends on. Any number of processes
and machines may share the folder.
"""

import hashlib
import json
import os
import threading
from contextlib import suppress
from pathlib import Path

from spear_training.annotation.frame import JobError


def answer_key(image: bytes, asked: dict) -> str:
    """Name of the answer about an image.

    Args:
        image: the bytes that are sent.
        asked: model, prompt, temperature and whatever else changes the answer; plain JSON values.
    """
    about = {"image": hashlib.sha256(image).hexdigest(), "asked": asked}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """The folder. It is made when the first answer is put in."""

    def __init__(self, folder: Path):
        """Take the folder."""
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
        """Keep an answer; written beside and renamed, so that nobody reads half of it.

        Raises:
            JobError: it cannot be written. Going on would pay for answers that are lost.
        """
        path = self._path(key)
        beside = path.with_name(f"{key}.{os.getpid()}.{threading.get_ident()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps({"sha256": _hash(text), "answer": text}))
            beside.replace(path)
        except OSError as error:
            with suppress(OSError):
                beside.unlink()
            raise JobError(
                f"the answers cannot be kept in {self.folder} ({error.strerror}): make room or "
                "name another folder"
            ) from None

    def _path(self, key: str) -> Path:
        # 256 folders, for a folder of a million files is slow on many file systems.
        return self.folder / key[:2] / f"{key}.json"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
