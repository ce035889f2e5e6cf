"""The steps from nothing to an inspected world, each done once; how long they took is kept."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from spear_training.annotation.frame import JobError
from spear_training.annotation.job.agreement import agree, read_agreed

NAME = "world.json"
_BINDING = ("format", "scenes", "seed", "split")
_FORMAT = "spear world 1"


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: a word for `--only` and the table.
        makes: what it leaves behind, for the table.
        do: does it, or goes on with it; returns the exit status: 0, 1 where pictures failed, 2
            where it could not go on.
    """

    name: str
    makes: str
    do: Callable[[], int]


class WorldSteps:
    """The book of a world's folder: which steps are done, and their times."""

    def __init__(self, out: Path, scenes: int, seed: int, split: str, shards: int):
        """Open the book, or begin one.

        Args:
            shards: parts of the annotation; an old book's number stays.

        Raises:
            JobError: the folder is another world's.
            OSError: it cannot be written.
        """
        out.mkdir(parents=True, exist_ok=True)
        self._path = out / NAME
        values = {
            "format": _FORMAT,
            "scenes": scenes,
            "seed": seed,
            "split": split,
            "shards": shards,
            "cores": os.cpu_count(),
            "steps": {},
        }
        mend = "use the same numbers again, or choose another --out"
        self._values = agree(self._path, values, _BINDING, mend)
        if not isinstance(self._values.get("steps"), dict) or "shards" not in self._values:
            raise JobError(f"{self._path} is damaged: remove it, and what is done is kept")

    @property
    def shards(self) -> int:
        """Parts of the annotation."""
        return self._values["shards"]

    def is_done(self, step: Step) -> bool:
        """Whether the step has been brought to its end."""
        return bool(self._values["steps"].get(step.name, {}).get("done"))

    def do(self, step: Step) -> int:
        """Do a step; its time counts even if it is interrupted."""
        before = self._values["steps"].get(step.name, {})
        # A step that is done again begins anew; one that was interrupted goes on.
        earlier_s = 0.0 if before.get("done") else before.get("seconds", 0.0)
        started, status = time.monotonic(), 2
        try:
            status = step.do()
        finally:
            seconds = earlier_s + time.monotonic() - started
            self._write(step, {"seconds": round(seconds, 1), "done": status in (0, 1)})
        return status

    def table(self, steps: list[Step]) -> Table:
        """What each step took and made."""
        scenes = self._values["scenes"]
        table = Table(title=f"{scenes} scenes, {self.shards} processes", title_justify="left")
        for column, justify in (("step", "left"), ("time", "right"), ("a scene", "right")):
            table.add_column(column, justify=justify)
        table.add_column("made")
        total = 0.0
        for step in steps:
            there = self._values["steps"].get(step.name, {})
            seconds = there.get("seconds")
            if seconds is None:
                table.add_row(step.name, "-", "-", "not begun")
                continue
            total += seconds
            made = step.makes if there.get("done") else "not finished"
            table.add_row(step.name, _clock(seconds), f"{seconds / scenes:.2f} s", made)
        table.add_section()
        table.add_row("all", _clock(total), f"{total / scenes:.2f} s")
        return table

    def _write(self, step: Step, entry: dict) -> None:
        self._values = read_agreed(self._path)
        self._values["steps"][step.name] = entry
        beside = self._path.with_name(self._path.name + ".partial")
        beside.write_text(json.dumps(self._values, indent=1))
        beside.replace(self._path)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
