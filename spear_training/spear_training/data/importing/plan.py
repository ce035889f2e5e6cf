"""Which episodes lie in which group of a store, fixed when an import begins."""

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spear_policy.model.config_reading import read_dataclass
from spear_training.data.importing.selection import parse_selection, selection_words
from spear_training.data.reader import DataFileError
from spear_training.data.store.places import BUILDING
from spear_training.data.whole_file import write_whole

PLAN_PATH = BUILDING + "/import.json"
LOCK_PATH = BUILDING + "/lock"


@dataclass(frozen=True)
class ImportPlan:
    """building/import.json.

    Attributes:
        source: what the episodes' numbers mean; see Source.identity.
        episodes: their numbers in words, see selection.
        group_episodes: how many are looked at for each group.
    """

    source: str
    episodes: str
    group_episodes: int

    def groups(self) -> list[list[int]]:
        """The reader's numbers of each group."""
        last = max(int(word.rpartition("-")[2]) for word in self.episodes.split(","))
        chosen = parse_selection(self.episodes, last + 1)
        size = self.group_episodes
        return [chosen[begin : begin + size] for begin in range(0, len(chosen), size)]


def agree_on_plan(
    root: Path, source: str, chosen: Sequence[int], group_episodes: int
) -> ImportPlan:
    """The plan of the import that was begun in `root`, or a new one, which is kept there.

    Args:
        root: a folder for which `begin_store` was called.
        source, chosen: what is to be imported now.
        group_episodes: size of the groups, if none is decided yet.

    Raises:
        DataFileError: what was begun is another import, or its plan is damaged.
        OSError: it cannot be written.
    """
    path, words = root / PLAN_PATH, selection_words(chosen)
    if not path.exists():
        plan = ImportPlan(source, words, group_episodes)
        write_whole(path, (json.dumps(dataclasses.asdict(plan), indent=1) + "\n").encode())
        return plan
    try:
        held = read_dataclass(ImportPlan, json.loads(path.read_text()), "plan")
    except (OSError, ValueError) as error:
        raise DataFileError(f"{path}: {error}; delete {root} and import again") from None
    for name, new in (("source", source), ("episodes", words)):
        old = getattr(held, name)
        if old != new:
            raise DataFileError(
                f"{root}: holds a begun import of other {name} ({_short(old)}, not {_short(new)}); "
                "go on with the same, or delete the folder"
            )
    return held


@contextmanager
def only_process(root: Path) -> Iterator[None]:
    """Keep other imports out of `root` meanwhile; a killed one keeps nobody out.

    Raises:
        DataFileError: another import is at work there.
        OSError: it cannot be written.
    """
    descriptor = os.open(root / LOCK_PATH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataFileError(
                f"{root}: another import is at work there; wait for it, or stop it"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _short(words: str, most: int = 60) -> str:
    return words if len(words) <= most else words[: most - 3] + "..."
