"""What a store says about itself: meta/spear.json."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from spear_policy.inference.image_geometry import Fit, FitMode, check_aspect
from spear_policy.model.config_reading import ConfigError, read_dataclass
from spear_training.data.reader import DataFileError
from spear_training.data.whole_file import write_whole

FACTS_PATH = "meta/spear.json"
FORMAT, FORMAT_VERSION = "spear-store", 1
EXTERNAL, WRIST = "external", "wrist"
# Width and height of each camera's pictures [px] (facts/model.md 1.2).
PICTURE_SIZES = {EXTERNAL: (280, 210), WRIST: (112, 112)}


@dataclass(frozen=True)
class CameraFacts:
    """One camera of the store.

    Attributes:
        name: "external" or "wrist".
        native_aspect: width over height of the scene before its pictures were squashed to the
            size they came in; None where their pixels are square.
        mode: see image_geometry.plan_fit.
        fits: what was done, one plan for each size of picture that came; filled in by the writer.
    """

    name: str
    native_aspect: float | None = None
    mode: FitMode = "auto"
    fits: tuple[Fit, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the stored pictures [px]."""
        return PICTURE_SIZES[self.name]


@dataclass(frozen=True, kw_only=True)
class StoreFacts:
    """meta/spear.json. What it says holds for every episode of the store.

    Attributes:
        name: of the data set, a word for folders and reports.
        robot: which robot moved.
        control_hz: native rate of the recordings [1/s]; LeRobot's `fps`. The true stamps are in
            the column observation.stamp_s.
        cameras: "external", and "wrist" where the data set has one.
        action_from: "commanded": `action` is where the end effector was told to be. "reached":
            the data do not say, and it is the measured pose of the same row.
        gripper_from: the same for the gripper's number in `action`: "commanded" or "measured".
        state_known: False where poses are sums of deltas: only their differences are true.
        reader: what read the source, in words.
        row, row_hash: of the mixture table; empty for a lab's own data.
        source: further facts in words.
        episodes, frames: how many were stored.
        rejected, not_selected: how many episodes cannot be used, and how many can but were not
            asked for; meta/rejects.jsonl names each with its reason.
        black_wrist: how many episodes lack the wrist camera; theirs is black.
        format, version: of the store.

    Raises:
        ConfigError: a field that no store has; the text names it.
    """

    name: str
    robot: str
    control_hz: float
    cameras: tuple[CameraFacts, ...]
    action_from: Literal["commanded", "reached"]
    gripper_from: Literal["commanded", "measured"]
    state_known: bool = True
    reader: str = ""
    row: str = ""
    row_hash: str = ""
    source: dict = field(default_factory=dict)
    episodes: int = 0
    frames: int = 0
    rejected: int = 0
    not_selected: int = 0
    black_wrist: int = 0
    format: str = FORMAT
    version: int = FORMAT_VERSION

    def __post_init__(self):
        object.__setattr__(self, "control_hz", float(self.control_hz))
        if self.format != FORMAT or self.version != FORMAT_VERSION:
            raise ConfigError(
                f"facts are of {self.format} {self.version}; this SPEAR reads {FORMAT} "
                f"{FORMAT_VERSION}: import the data again"
            )
        if not self.name.strip() or "/" in self.name:
            raise ConfigError(f"name is {self.name!r}: it must be a word for a folder")
        if not 0 < self.control_hz < 1e4:
            raise ConfigError(f"control_hz is {self.control_hz}: it must be positive")
        names = [camera.name for camera in self.cameras]
        if names not in ([EXTERNAL], [EXTERNAL, WRIST]):
            raise ConfigError(
                f"cameras are {names}: they must be {EXTERNAL!r}, or it and {WRIST!r}"
            )
        for camera in self.cameras:
            if camera.native_aspect is not None:
                try:
                    check_aspect(camera.native_aspect, f"native_aspect of {camera.name}")
                except ValueError as error:
                    raise ConfigError(str(error)) from None

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Names of the cameras."""
        return tuple(camera.name for camera in self.cameras)

    def to_json(self) -> str:
        """Text of meta/spear.json."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


def read_facts(path: Path) -> StoreFacts:
    """Read what `write_facts` wrote.

    Raises:
        DataFileError: missing, damaged, foreign or newer file.
    """
    try:
        return _from_json(path.read_text())
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # ConfigError and damaged JSON too
        raise DataFileError(f"{path}: {error}") from None


def as_written(facts: StoreFacts) -> StoreFacts:
    """The facts as they come back from their file: tuples within `source` are lists there."""
    return _from_json(facts.to_json())


def write_facts(facts: StoreFacts, path: Path) -> None:
    """Write it, whole or not at all. Raises OSError."""
    write_whole(path, facts.to_json().encode())


def _from_json(text: str) -> StoreFacts:
    return read_dataclass(StoreFacts, json.loads(text), "facts")
