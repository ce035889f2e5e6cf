"""One trial being recorded: its bag, and the row that it will leave on the score sheet.

Every trial leaves a row. While it runs, `<trial_id>.open.json` stands for the row; when a process
dies, the next recorder in the same folder finds it, repairs the bag and writes the row.
"""

import fcntl
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from spear_bringup.trials.bag_repair import RepairError, repair
from spear_bringup.trials.bag_writer import BagWriter
from spear_policy.shared.files import atomic_write

# The score sheet: JSON lines, one row a trial, safe against a crash at any byte -----------------

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


# Which code made a trial -----------------------------------------------------------------------

_DISTRIBUTIONS = (
    "spear_bringup",
    "spear_policy",
    "ros-jazzy-rclpy",
    "rosbags",
    "franky-control",
    "franky-sim",
    "mujoco",
    "torch",
    "numpy",
)


@cache
def git_revision() -> str | None:
    """Revision of this source tree, with "-dirty" when it has changes; None outside of git."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10.0)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


@cache
def software_versions() -> dict[str, str]:
    """Versions by distribution name; what is not installed is left out."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


# The trial -------------------------------------------------------------------------------------

SHEET_NAME = "scores.jsonl"
BAGS_NAME = "bags"
_OPEN_SUFFIX = ".open.json"
_TRIAL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class TrialRequest:
    """What a trial is asked to be. An empty `trial_id` is made from the time.

    Raises:
        ValueError: the trial_id is no plain file name.
    """

    instruction: str
    seed: int | None = None
    operator: str = ""
    trial_id: str = ""

    def __post_init__(self):
        if not self.trial_id:
            made = datetime.now().strftime("%Y-%m-%dT%H-%M-%S.%f")[:-3]
            object.__setattr__(self, "trial_id", made)
        if not _TRIAL_ID.fullmatch(self.trial_id):
            raise ValueError(
                f"trial_id {self.trial_id!r} is no file name; use letters, digits, '.', '_', '-'"
            )


@dataclass(frozen=True)
class TrialEnd:
    """What is known when a trial ends; outcome is one of OUTCOMES, `fault` is a TrialRow's."""

    outcome: str
    score: float | None = None
    notes: str = ""
    engine: str = ""
    checkpoint_id: str = ""
    statistics_hash: str = ""
    fault: str = ""
    expected: tuple[str, ...] = ()
    lost: Mapping[str, int] = field(default_factory=dict)


class Recording:
    """A trial from its start to its row.

    Args:
        directory: holds scores.jsonl and bags/.
        now_s: node clock [s].

    Raises:
        BagWriteError: a bag of this name exists.
        OSError: the folder cannot be written.
    """

    def __init__(self, directory: Path, request: TrialRequest, now_s: float, **writer_options):
        self.directory = Path(directory)
        self.request = request
        self.bag = self.directory / BAGS_NAME / request.trial_id
        self.bag.parent.mkdir(parents=True, exist_ok=True)
        self.writer = BagWriter(self.bag, **writer_options)
        self._start_s, self._start_steady_s = now_s, time.monotonic()
        self._started = _wall_time()
        try:
            self._open = _write_open_row(self.directory, request, self._started)
        except OSError:
            self.writer.close()
            raise

    def duration_s(self, now_s: float) -> float:
        """Node clock since the start [s]; 0 when the clock went back."""
        return max(0.0, now_s - self._start_s)

    def end(self, end: TrialEnd, now_s: float) -> TrialRow:
        """Close the bag and append the row.

        Raises:
            OSError: the row could not be written; it is made by the next `recover`.
        """
        wall_duration_s = time.monotonic() - self._start_steady_s
        words = {
            **{key: str(value) for key, value in asdict(self.request).items()},
            "started": self._started,
            "outcome": end.outcome,
            "engine": end.engine,
        }
        self.writer.close(words)
        counts = self.writer.counts
        row = TrialRow(
            trial_id=self.request.trial_id,
            instruction=self.request.instruction,
            seed=self.request.seed,
            outcome=end.outcome,
            score=end.score,
            notes=end.notes,
            operator=self.request.operator,
            started=self._started,
            ended=_wall_time(),
            duration_s=round(self.duration_s(now_s), 6),
            wall_duration_s=round(wall_duration_s, 6),
            bag=f"{BAGS_NAME}/{self.request.trial_id}",
            messages=dict(sorted(counts.items())),
            dropped=dict(sorted(self.writer.dropped.items())),
            lost=dict(sorted(end.lost.items())),
            missing=[name for name in end.expected if not counts.get(name)],
            engine=end.engine,
            checkpoint_id=end.checkpoint_id,
            statistics_hash=end.statistics_hash,
            git_revision=git_revision(),
            software=software_versions(),
            fault=self.writer.fault or end.fault,
        )
        try:
            append_row(self.directory / SHEET_NAME, row)
            os.unlink(_open_path(self.directory, self.request.trial_id))
        finally:
            self._open.close()
        return row


def recover(directory: Path) -> list[TrialRow]:
    """Repair the bags of trials whose recorder died and give them their rows.

    A trial that another living recorder holds is left alone. A bag that has its row already and
    could not be repaired then, because the disk was full, is tried once more.
    """
    rows = []
    for path in sorted(Path(directory).glob(f"*{_OPEN_SUFFIX}")):
        with path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            rows.append(_recovered_row(Path(directory), json.load(file)))
            append_row(Path(directory) / SHEET_NAME, rows[-1])
            path.unlink()
    for bag in sorted((Path(directory) / BAGS_NAME).glob("*")):
        if not _open_path(Path(directory), bag.name).exists():
            with suppress(RepairError, OSError):
                repair(bag)
    return rows


def _recovered_row(directory: Path, known: dict) -> TrialRow:
    started = known.pop("started")
    bag = directory / BAGS_NAME / known["trial_id"]
    counts: Mapping[str, int] = {}
    duration_s = 0.0
    fault = "the recorder died before it wrote this row"
    try:
        report = repair(bag, {key: str(value) for key, value in known.items()})
        counts, duration_s = report.counts, report.duration_s
        fault += f"; the {report.messages} messages in the bag are readable"
    except (RepairError, OSError) as error:
        fault += f"; its bag could not be repaired: {error}"
    return TrialRow(
        **known,
        outcome="ABORTED",
        started=started,
        ended="",
        duration_s=duration_s,
        wall_duration_s=0.0,
        bag=f"{BAGS_NAME}/{known['trial_id']}",
        messages=dict(sorted(counts.items())),
        fault=fault,
    )


RESERVE_SHARE = 0.2  # of least_free_space_mb: what a running trial leaves for its own end


def shortfall(directory: Path, least_free_mb: float, running: bool = False) -> str | None:
    """A sentence when the disk of `directory` has too little room, else None.

    Args:
        least_free_mb: what a trial wants before it starts [MB].
        running: ask for what a running one must leave instead.
    """
    least_mb = RESERVE_SHARE * least_free_mb if running else least_free_mb
    place = Path(directory)
    while not place.exists():
        place = place.parent
    status = os.statvfs(place)
    free_mb = status.f_bavail * status.f_frsize / 1e6
    if free_mb >= least_mb:
        return None
    wants = f"a {'running ' if running else ''}trial wants {least_mb:.0f} MB"
    return (
        f"only {free_mb:.0f} MB are free in {place} and {wants}; "
        "make room, or lower least_free_space_mb"
    )


def _wall_time() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def _open_path(directory: Path, trial_id: str) -> Path:
    return directory / f"{trial_id}{_OPEN_SUFFIX}"


def _write_open_row(directory: Path, request: TrialRequest, started: str):
    """The open file that stands for the row; its lock dies with this process."""
    path = _open_path(directory, request.trial_id)
    with atomic_write(path) as temporary:
        file = temporary.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            json.dump({**asdict(request), "started": started}, file)
            file.flush()
        except OSError:
            file.close()
            raise
    return file
