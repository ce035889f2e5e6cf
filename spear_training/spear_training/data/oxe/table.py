"""The mixture table: the one that comes with SPEAR, and what a user confirms or changes in it."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from spear_policy.shared.config import ConfigError, read_dataclass
from spear_training.data.reader import DataFileError

# The vocabulary of the mixture table: what a row can say about a data set.


REACHED, FROM_COMMAND, FROM_MEASURED = "reached", "from_command", "from_measured"


def needed() -> Any:
    """A field without which the row cannot be used, and which may be unconfirmed."""
    return field(default=None, metadata={"needed": True})


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where some numbers are: `key`, from `first_column` on."""

    key: str
    first_column: int = 0


@dataclass(frozen=True, kw_only=True)
class LinearGripper(Columns):
    """One number between two that mean closed and open.

    Attributes:
        closed_at, open_at: the two numbers.
        margin: how far beyond them a number may be, as a share of their distance; it is clipped.
        saturate: any number beyond them is clipped.
    """

    closed_at: float | None = needed()
    open_at: float | None = needed()
    margin: float = 0.1
    saturate: bool = False

    def __post_init__(self):
        if self.closed_at is not None and self.closed_at == self.open_at:
            raise ConfigError("closed_at and open_at are the same number")


@dataclass(frozen=True, kw_only=True)
class GripperEvents(Columns):
    """One number: above `threshold` the gripper is told to close, below -threshold to open."""

    threshold: float = 0.1


@dataclass(frozen=True, kw_only=True)
class ConstantGripper:
    """A hand that does not open or close."""

    opening: float


@dataclass(frozen=True, kw_only=True)
class Language:
    """Where the sentences are.

    Attributes:
        keys: the first is the instruction, the others are further sentences.
        encoding: "text", or "code_units": UTF-8 bytes as integers, filled up with zeros.
    """

    keys: tuple[str, ...]
    encoding: Literal["text", "code_units"] = "text"


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What an episode must be to be taken: one of `equals`, `contains` and `matches`.

    Attributes:
        key: a feature of the episode, such as "episode_metadata/file_path".
        equals: for a truth value.
        contains: a part of a text.
        matches: a regular expression to be found in a text.
    """

    key: str
    equals: bool | None = None
    contains: str | None = None
    matches: str | None = None

    def __post_init__(self):
        if [self.equals, self.contains, self.matches].count(None) != 2:
            raise ConfigError(f"the condition on {self.key} needs one of equals, contains, matches")
        check_pattern(self.matches)


@dataclass(frozen=True, kw_only=True)
class Subset:
    """A part of the data set.

    Attributes:
        name: of it; it goes into the reader's name.
        key, matches: see Condition.
        expected_share: of the episodes, where somebody says it.
        doubt: what is not known about it; it is passed on with the store's metadata.
    """

    name: str
    key: str
    matches: str | None = needed()
    expected_share: float | None = None
    doubt: str = ""

    def __post_init__(self):
        check_pattern(self.matches)


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera.

    Attributes:
        key: of its pictures.
        channels: their order as stored.
        native_aspect: [width, height] of the scene before its pictures were squashed to the stored
            size; None where the stored pixels are square as far as is known.
    """

    key: str
    channels: Literal["rgb", "bgr"] | None = needed()
    native_aspect: tuple[int, ...] | None = None

    def __post_init__(self):
        if self.native_aspect is not None and len(self.native_aspect) != 2:
            raise ConfigError("native_aspect must be [width, height]")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the data set is from.

    Attributes:
        name: what it is called, in the bucket and as a rule in its dataset_info.json.
        versions: that this row describes.
        also_called: what the dataset_info.json of some version says instead.
        place: where to get it; None: Open X-Embodiment's bucket.
        size_gib, episodes: where they are known.
    """

    name: str
    versions: tuple[str, ...]
    also_called: tuple[str, ...] = ()
    place: str | None = None
    size_gib: float | None = None
    episodes: int | None = None


def check_pattern(pattern: str | None) -> None:
    """Raise ConfigError for what is no regular expression."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ConfigError(f"{pattern!r} is no regular expression ({error})") from None


def missing(rule: Any, where: str) -> list[str]:
    """Names of the needed fields of a rule, and of the rules in it, that have no value."""
    found = []
    for each in dataclasses.fields(rule):
        value = getattr(rule, each.name)
        if value is None and each.metadata.get("needed"):
            found.append(f"{where}.{each.name}")
        if dataclasses.is_dataclass(value):
            found += missing(value, f"{where}.{each.name}")
    return found


# How a data set writes the pose of its end effector: what a row of the table can say.


DETECT = "detect"
Timing = Literal["same", "next"]


@dataclass(frozen=True, kw_only=True)
class QuaternionPose(Columns):
    """Position and quaternion, 7 columns.

    Attributes:
        order: of the quaternion's numbers; "detect": by the joint angles in `joints`.
        joints: of a Franka, where the data set has them.
    """

    order: Literal["xyzw", "wxyz", "detect"] | None = needed()
    joints: Columns | None = None
    timing: Timing = "same"

    def __post_init__(self):
        _require_joints(self.order, self.joints)


@dataclass(frozen=True, kw_only=True)
class MatrixPose(Columns):
    """A 4x4 homogeneous matrix, 16 columns.

    Attributes:
        order: of the 16 numbers; "detect": by where 0 0 0 1 stands.
    """

    order: Literal["row_major", "column_major", "detect"] | None = needed()
    timing: Timing = "same"


@dataclass(frozen=True, kw_only=True)
class EulerPose(Columns):
    """Position and three angles, 6 columns.

    Attributes:
        axes: in the order of the columns, as scipy writes them: xyz turns about fixed axes, XYZ
            about turning ones; "detect": by the joint angles in `joints`.
        angle_unit, position_unit: of the numbers.
        default_rotation: D, 9 numbers row by row: the angles are those of R D^T.
        joints: of a Franka, where the data set has them.
    """

    axes: str | None = needed()
    angle_unit: Literal["rad", "deg"] = "rad"
    position_unit: Literal["m", "mm"] = "m"
    default_rotation: tuple[float, ...] | None = None
    joints: Columns | None = None
    timing: Timing = "same"

    def __post_init__(self):
        _require_joints(self.axes, self.joints)
        axes = self.axes
        if axes not in (None, DETECT) and sorted(axes) not in (list("XYZ"), list("xyz")):
            raise ConfigError(f"axes are {axes!r}: three different ones such as xyz or ZYX")
        if self.default_rotation is not None and len(self.default_rotation) != 9:
            raise ConfigError("default_rotation must be 9 numbers, row by row")


@dataclass(frozen=True, kw_only=True)
class JointPose(Columns):
    """Joint angles of a Franka [rad], 7 columns; see franka_kinematics for `end_effector`."""

    end_effector: Literal["flange", "hand"] = "hand"
    timing: Timing = "same"


@dataclass(frozen=True, kw_only=True)
class PlanarPose(Columns):
    """x and y [m], 2 columns; height and orientation are constants."""

    z_m: float
    orientation_xyzw: tuple[float, ...]
    timing: Timing = "same"


@dataclass(frozen=True, kw_only=True)
class SummedDeltas:
    """No pose at all: those of the steps before are summed up, from the identity.

    Attributes:
        translation_key, rotation_key: features with 3 numbers a step [m], [rad].
        rotation: what the three angles are: "vector" (axis times angle) or Euler axes like "xyz".
        frame: in whose axes they are.
    """

    translation_key: str
    rotation_key: str
    rotation: Literal["vector", "xyz", "XYZ", "zyx", "ZYX"] | None = needed()
    frame: Literal["base", "end_effector"] | None = needed()
    timing: Timing = "same"


PoseRule = QuaternionPose | MatrixPose | EulerPose | JointPose | PlanarPose | SummedDeltas


def _require_joints(order: str | None, joints: Columns | None) -> None:
    if order == DETECT and joints is None:
        raise ConfigError(f"{DETECT!r} needs `joints`: the joint angles tell the order")


# One row of the mixture table: a data set, its weight, and the rules to read it by.


# What says nothing about what an episode becomes.
_NOT_HASHED = ("weight", "source", "notes", "unconfirmed", "subsets")


@dataclass(frozen=True)
class Unconfirmed:
    """A fact that nobody has confirmed: the dotted key, and what to check and how."""

    key: str
    check: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table; see py for its parts.

    Attributes:
        name, weight: in the mixture; the weights of all rows sum to 100.
        source: the data set's name, versions and place.
        robot: which robot moved.
        control_hz: steps a second. RLDS holds no stamps: they are counted.
        cameras: by our name: "external", "wrist", and further ones with a number.
        pose: measured pose of the end effector; None while that is unconfirmed.
        command: where it was told to be, or REACHED: not recorded, targets are reached poses.
        gripper_opening: measured, or FROM_COMMAND where nothing measures it.
        gripper_command: or FROM_MEASURED where none is recorded.
        language: the sentences.
        conditions: all must hold, or the episode is left out.
        subset: the part of the data set that this row is, where it is only a part.
        subsets: further parts that can be asked for by name.
        notes: where each fact is from, and what was decided.
        unconfirmed: facts that must be confirmed before the row can be used.
    """

    name: str
    weight: float
    source: Source
    robot: str
    control_hz: float
    cameras: Mapping[str, Camera]
    pose: PoseRule | None
    command: PoseRule | str | None
    gripper_opening: LinearGripper | ConstantGripper | str | None
    gripper_command: LinearGripper | ConstantGripper | GripperEvents | str | None
    language: Language
    conditions: tuple[Condition, ...] = ()
    subset: Subset | None = None
    subsets: tuple[Subset, ...] = ()
    notes: tuple[str, ...] = ()
    unconfirmed: tuple[Unconfirmed, ...] = ()

    @property
    def hash(self) -> str:
        """SHA-256 of all that decides what an episode becomes; notes and weights do not."""
        values = {k: v for k, v in plain(self).items() if k not in _NOT_HASHED}
        text = json.dumps(values, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def require_confirmed(self) -> None:
        """Refuse the row while a fact is unconfirmed.

        Raises:
            DataFileError: the text names the row, each key, what to check, and what to write.
        """
        if not self.unconfirmed:
            return
        checks = "; ".join(f"{each.key} ({each.check})" for each in self.unconfirmed)
        first = self.unconfirmed[0].key.split(".")
        example = ": {".join([self.name, *first]) + ": VALUE" + "}" * len(first)
        raise DataFileError(
            f"row {self.name} cannot be read until these facts are confirmed: {checks}; run "
            f"`python3 -m spear_training.data.oxe.inspect_row {self.name} FOLDER`, then write what "
            f"is true into a table of your own, like `{example}`, and give it with --table"
        )

    def require_subset(self, name: str) -> Subset:
        """The subset of this name. Raises DataFileError when there is none."""
        for each in self.subsets:
            if each.name == name:
                return each
        known = ", ".join(each.name for each in self.subsets) or "none"
        raise DataFileError(f"row {self.name} has no subset {name!r}; it has {known}")


def plain(value: Any) -> Any:
    """A rule, or anything that holds rules, as values that JSON knows; rules name their kind."""
    if dataclasses.is_dataclass(value):
        fields = {e.name: plain(getattr(value, e.name)) for e in dataclasses.fields(value)}
        return {"kind": type(value).__name__} | fields
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return value


# Rows of the mixture table from plain values: nothing unknown, missing or impossible.


POSES = {
    "quaternion": QuaternionPose,
    "matrix4x4": MatrixPose,
    "euler": EulerPose,
    "franka_joints": JointPose,
    "planar": PlanarPose,
    "summed_deltas": SummedDeltas,
}
OPENINGS = {"linear": LinearGripper, "constant": ConstantGripper}
COMMANDS = OPENINGS | {"events": GripperEvents}


def read_row(name: str, values: Mapping[str, Any], where: str) -> Row:
    """A row from its part of the table; `where` names the file in messages.

    Raises:
        DataFileError: an unknown, missing or impossible entry; it is named.
    """
    try:
        return _read_row(name, values)
    except ConfigError as error:
        raise DataFileError(f"{where}: {error}") from None


def _read_row(name: str, values: Mapping[str, Any]) -> Row:
    if not isinstance(values, Mapping):
        raise ConfigError(f"row {name} is {values!r}: it must have named entries")
    unconfirmed: list[Unconfirmed] = []
    values = _without_unconfirmed(values, "", unconfirmed)
    known = {each.name for each in dataclasses.fields(Row)} - {"name", "unconfirmed"}
    unknown = sorted(set(values) - known)
    if unknown:
        entries = ", ".join(sorted(known))
        raise ConfigError(f"row {name} has the unknown entry {unknown[0]!r}; it may have {entries}")
    doubted = {each.key for each in unconfirmed}
    parts: dict[str, Any] = {"name": name, "unconfirmed": tuple(unconfirmed)}
    for key, read in _PARTS.items():
        if key in values:
            parts[key] = read(values[key], f"{name}.{key}")
        elif key in doubted:
            parts[key] = None
        elif key not in _OPTIONAL:
            raise ConfigError(f"row {name} lacks the entry {key!r}")
    for key, part in parts.items():
        for rule in [part] if dataclasses.is_dataclass(part) else []:
            _require(rule, key, name, doubted)
    for key, camera in parts["cameras"].items():
        _require(camera, f"cameras.{key}", name, doubted)
    return Row(**parts)


def _require(rule: Any, key: str, row: str, doubted: set[str]) -> None:
    for path in missing(rule, key):
        if path not in doubted:
            raise ConfigError(f"row {row} lacks the entry {path!r}")


def _without_unconfirmed(values: Mapping[str, Any], key: str, found: list[Unconfirmed]) -> dict:
    kept = {}
    for name, value in values.items():
        path = f"{key}.{name}" if key else str(name)
        if isinstance(value, Mapping) and "unconfirmed" in value:
            if set(value) != {"unconfirmed"} or not isinstance(value["unconfirmed"], str):
                raise ConfigError(f"{path}: `unconfirmed` stands alone, with a text")
            found.append(Unconfirmed(path, value["unconfirmed"].strip()))
        elif isinstance(value, Mapping):
            kept[name] = _without_unconfirmed(value, path, found)
        else:
            kept[name] = value
    return kept


def tagged(kinds: Mapping[str, type], word: str | None = None) -> Callable[[Any, str], Any]:
    """A function of (value, where) that reads a rule of one of `kinds`, or the word.

    It raises a ConfigError that begins with `where`.
    """

    def read(value: Any, where: str) -> Any:
        if word is not None and value == word:
            return value
        encodings = ", ".join(kinds)
        if not isinstance(value, Mapping) or value.get("encoding") not in kinds:
            given = value.get("encoding") if isinstance(value, Mapping) else value
            also = f", or the word {word}" if word else ""
            raise ConfigError(f"{where} has encoding {given!r}; it may be {encodings}{also}")
        rest = {k: v for k, v in value.items() if k != "encoding"}
        return read_dataclass(kinds[value["encoding"]], rest, where)

    return read


def _one(kind: type) -> Callable[[Any, str], Any]:
    return lambda value, where: read_dataclass(kind, value, where)


def _many(kind: type) -> Callable[[Any, str], Any]:
    def read(value: Any, where: str) -> Any:
        if not isinstance(value, list):
            raise ConfigError(f"{where} is {value!r}: it must be a list")
        return tuple(read_dataclass(kind, v, f"{where}[{i}]") for i, v in enumerate(value))

    return read


def _cameras(value: Any, where: str) -> dict[str, Camera]:
    if not isinstance(value, Mapping) or "external" not in value:
        raise ConfigError(f"{where} must name the camera `external`")
    return {name: read_dataclass(Camera, v, f"{where}.{name}") for name, v in value.items()}


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e4:
        raise ConfigError(f"{where} is {value!r}: it must be a positive number")
    return float(value)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{where} is {value!r}: it must be a text")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{where} is {value!r}: it must be a list of texts")
    return tuple(_text(each, where) for each in value)


_PARTS: dict[str, Callable[[Any, str], Any]] = {
    "weight": _number,
    "source": _one(Source),
    "robot": _text,
    "control_hz": _number,
    "cameras": _cameras,
    "pose": tagged(POSES),
    "command": tagged(POSES, REACHED),
    "gripper_opening": tagged(OPENINGS, FROM_COMMAND),
    "gripper_command": tagged(COMMANDS, FROM_MEASURED),
    "language": _one(Language),
    "conditions": _many(Condition),
    "subset": _one(Subset),
    "subsets": _many(Subset),
    "notes": _texts,
}
_OPTIONAL = ("conditions", "subset", "subsets", "notes")


# The mixture table: the one that comes with SPEAR, and what a user confirms or changes in.


SHIPPED = Path(__file__).with_name("oxe_table.yaml")
TOTAL_WEIGHT = 100.0
# The one in C is ten times as fast; both are safe.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_table(mine: str | Path | None = None) -> dict[str, Row]:
    """All rows by name, in the order of the table.

    Args:
        mine: a user's file: the rows, and of each the entries, that differ. An entry with an
            encoding other than before replaces the whole entry, any other is changed key by key,
            and an empty one (null) takes it away.

    Raises:
        DataFileError: a file is missing or no table, a row or an entry is unknown or impossible,
            or the weights do not sum to 100; the text names it.
    """
    values = dict(_shipped())
    where = str(SHIPPED)
    if mine is not None:
        where = str(mine)
        for name, changes in _read(Path(mine)).items():
            if name not in values:
                known = ", ".join(values)
                raise DataFileError(f"{mine}: unknown row {name!r}; the table has {known}")
            if not isinstance(changes, Mapping):
                raise DataFileError(f"{mine}: row {name} is {changes!r}: it must have entries")
            values[name] = merged(values[name], changes)
    rows = {name: read_row(name, entries, where) for name, entries in values.items()}
    total = sum(row.weight for row in rows.values())
    if abs(total - TOTAL_WEIGHT) > 1e-6:
        raise DataFileError(f"{where}: the weights sum to {total:g}, not to {TOTAL_WEIGHT:g}")
    return rows


def find_row(rows: Mapping[str, Row], name: str) -> Row:
    """The row of this name. Raises DataFileError when there is none."""
    if name not in rows:
        raise DataFileError(f"no row {name!r} in the mixture table; it has {', '.join(rows)}")
    return rows[name]


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes` in it; see load_table."""
    result = dict(values)
    for key, change in changes.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(change, Mapping)
        if change is None:
            result.pop(key, None)
        elif both and "unconfirmed" not in old and _same_encoding(old, change):
            result[key] = merged(old, change)
        else:
            result[key] = change
    return result


def _same_encoding(old: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
    return change.get("encoding", old.get("encoding")) == old.get("encoding")


@cache
def _shipped() -> dict[str, Any]:
    return _read(SHIPPED)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(), _LOADER)
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataFileError(f"{path}: not a YAML file ({error})") from None
    if not isinstance(values, dict):
        raise DataFileError(f"{path}: must hold rows by name")
    return values
