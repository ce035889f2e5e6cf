"""The sentences of an episode, from however a data set writes them."""

import numpy as np
from numpy.typing import NDArray

from spear_policy.inference.episode import EpisodeError
from spear_training.data.oxe.poses import Steps
from spear_training.data.oxe.rules import Language


def read_sentences(rule: Language, steps: Steps) -> tuple[str, ...]:
    """The instruction, then further sentences for the same motion, each once; never empty ones.

    Raises:
        EpisodeError: there is no sentence, or a feature holds several: one episode is one task.
    """
    found: list[str] = []
    for key in rule.keys:
        values = steps[key]
        if rule.encoding == "code_units":
            values = [text_from_code_units(units, key) for units in np.unique(values, axis=0)]
        sentences = sorted({tidy(str(value)) for value in values} - {""})
        if len(sentences) > 1:
            raise EpisodeError(f"{key}: {len(sentences)} different instructions, not one")
        found += [sentence for sentence in sentences if sentence not in found]
    if not found:
        raise EpisodeError("the instruction is empty; a policy needs a sentence")
    return tuple(found)


def tidy(sentence: str) -> str:
    """Words apart by one space each, where underscores or line ends stood too."""
    return " ".join(sentence.replace("_", " ").split())


def text_from_code_units(units: NDArray, key: str = "text") -> str:
    """The text of UTF-8 bytes that are stored as integers and end with the first zero.

    Raises:
        EpisodeError: they are no UTF-8.
    """
    units = np.asarray(units).ravel()
    zeros = np.flatnonzero(units == 0)
    units = units[: zeros[0]] if len(zeros) else units
    try:
        return bytes(units.tolist()).decode()
    except ValueError:  # a number that is no byte, or bytes that are no text
        raise EpisodeError(f"{key}: its numbers are no UTF-8 text") from None
