"""The questions of a run, as `annotate questions` has written them."""

import json
import re
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spear_policy.model.text.coordinate_bins import CoordinateBins

_COORDINATE = re.compile(r"<coord([0-9]{4,6})>")


@dataclass
class Asked:
    """Questions of a run.

    Attributes:
        pictures: lines of the file.
        categories: questions by category.
        bin_uses: how often answers have each 3D token; None: the bins are not known.
        of_picture: stored pairs of the pictures that were asked for, by id.
        damaged: lines that hold no questions.
    """

    pictures: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    bin_uses: NDArray[np.int64] | None = None
    of_picture: dict[str, list[dict]] = field(default_factory=dict)
    damaged: int = 0


def read_asked(path: Path, ids: Container[str], bins: CoordinateBins | None) -> Asked | None:
    """Read a file of questions, keeping those of some pictures.

    Args:
        path: of the file.
        ids: of the pictures whose questions are kept.
        bins: that the answers are written with, if they are known.

    Returns:
        None where there is no such file.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_file():
        return None
    asked = Asked(bin_uses=np.zeros(bins.count, np.int64) if bins else None)
    with path.open("rb") as file:
        for line in file:
            try:
                _add(asked, json.loads(line), ids)
            except (ValueError, TypeError, KeyError, AttributeError):
                asked.damaged += 1
    return asked


def _add(asked: Asked, values: dict, ids: Container[str]) -> None:
    pairs = [
        {**pair, "answer": str(pair["answer"]), "question": str(pair["question"])}
        for pair in values["pairs"]
    ]
    categories = Counter(str(pair["category"]) for pair in pairs)
    name = values["id"]
    asked.pictures += 1
    asked.categories += categories
    if asked.bin_uses is not None:
        told = [int(found) for pair in pairs for found in _COORDINATE.findall(pair["answer"])]
        known = [number for number in told if number < len(asked.bin_uses)]
        asked.bin_uses += np.bincount(known, minlength=len(asked.bin_uses))
    if name in ids:
        asked.of_picture[name] = pairs
