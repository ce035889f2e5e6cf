"""The score sheet: JSON lines, one row a trial, safe against a crash at any byte."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

SCHEMA_VERSION = 1
OUTCOMES = ("UNKNOWN", "SUCCESS", "FAILURE", "ABORTED")  # in the order of TrialInfo's constants


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        seed: of the scene; None when there is none.
        outcome: one of OUTCOMES.
        score: rubric score 0 .. 1; None when not scored.
        started, ended: ISO 8601 with offset, wall clock.
        duration_s, wall_duration_s: by the node clock and by the steady clock [s].
        bag: folder of the bag, relative to the sheet.
        messages, dropped, lost: by topic: written, dropped by the recorder, lost on the wire.
        missing: expected topics without a message.
        engine, checkpoint_id, statistics_hash: as seen on policy_status; empty when not seen.
        fault: why the recording is not whole; empty when it is.
    """

    trial_id: str
    instruction: str
    seed: int | None
    outcome: str
    started: str
    ended: str
    duration_s: float
    wall_duration_s: float
    bag: str
    score: float | None = None
    notes: str = ""
    operator: str = ""
    messages: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    engine: str = ""
    checkpoint_id: str = ""
    statistics_hash: str = ""
    git_revision: str | None = None
    software: dict[str, str] = field(default_factory=dict)
    fault: str = ""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self):
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome is {self.outcome!r}; it must be one of {OUTCOMES}")

    def problems(self) -> list[str]:
        """What is wrong with the recording, a sentence each; empty when nothing is."""
        found = [self.fault] if self.fault else []
        if self.missing:
            found.append(f"no message came on {', '.join(self.missing)}")
        if self.dropped:
            found.append(f"messages dropped: {self.dropped}")
        return found


def append_row(path: Path, row: TrialRow) -> None:
    """Add a row and see it on the disk before returning.

    Raises:
        OSError: it could not be written; the sheet is then as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(row), allow_nan=False, ensure_ascii=False).encode() + b"\n"
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
            line = b"\n" + line  # a torn row must not swallow this one
        try:
            if file.write(line) != len(line):
                raise OSError(f"no room for the row of trial {row.trial_id} in {path}")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def read_rows(path: Path) -> tuple[list[TrialRow], list[str]]:
    """All readable rows in order, and one sentence for every line that had to be skipped."""
    path = Path(path)
    if not path.exists():
        return [], []
    known = {f.name for f in fields(TrialRow)}
    rows, warnings = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            version = entry.get("schema_version")
            if version != SCHEMA_VERSION:
                raise ValueError(f"schema_version {version}; this program reads {SCHEMA_VERSION}")
            rows.append(TrialRow(**{key: entry[key] for key in entry.keys() & known}))
        except (ValueError, TypeError, AttributeError) as error:
            warnings.append(f"{path} line {number} is skipped, it is torn or unknown: {error}")
    return rows, warnings
