"""Which episodes a store does not hold, and why: meta/rejects.jsonl."""

import json
from pathlib import Path

from spear_policy.model.config_reading import read_dataclass
from spear_training.data.reader import DataFileError
from spear_training.data.store.places import REJECTS_PATH
from spear_training.data.store.records import Reject


def read_rejects(root: str | Path) -> list[Reject]:
    """The episodes that a finished store does not hold.

    Raises:
        DataFileError: the file is missing or damaged.
    """
    path = Path(root) / REJECTS_PATH
    try:
        # Not splitlines: a sentence may hold what Unicode calls an end of a line.
        lines = path.read_text(encoding="utf-8").split("\n")
        return [read_dataclass(Reject, json.loads(line), "reject") for line in lines if line]
    except (OSError, ValueError) as error:
        raise DataFileError(f"{path}: cannot be read ({error}); copy the store again") from None
