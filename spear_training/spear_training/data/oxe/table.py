"""The mixture table: by what rules each dataset of Open X-Embodiment is read, and with what weight.

A row holds rules, a dataclass each: where the end effector's pose, the gripper, the sentences and
the pictures are, and which episodes are taken. Where a feature can be written in several ways there
is one dataclass for each, named in the table by its `encoding`. `load_table` reads the table that
comes with SPEAR, oxe_table.yaml, with what a user confirmed or changed in a file of his own.

A `key` is always a feature of a step as RLDS names it, such as "observation/state". A field made by
`needed` may be left unconfirmed in the table; until it is confirmed the row cannot be used. The
`timing` of a pose is "same", or "next" where the numbers of a step say where the arm is at the
next one.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from spear_policy.shared.config import ConfigError, read_dataclass
from spear_training.data.reader import DataFileError

# Words that stand in the place of a rule.
REACHED, FROM_COMMAND, FROM_MEASURED = "reached", "from_command", "from_measured"
# In the place of an order: it is found from the data.
DETECT = "detect"
EXTERNAL = "external"


def needed() -> Any:
    """A field without which the row cannot be used, and which may be unconfirmed."""
    return field(default=None, metadata={"needed": True})


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where some numbers are: `key`, from `first_column` on."""

    key: str
    first_column: int = 0


# The pose of the end effector ----------------------------------------------------------------

Timing = Literal["same", "next"]


@dataclass(frozen=True, kw_only=True)
class QuaternionPose(Columns):
    """Position and quaternion, 7 columns.

    Attributes:
        order: of the quaternion's numbers; "detect": by the joint angles in `joints`.
        joints: of a Franka, where the dataset has them.
    """

    encoding: ClassVar[str] = "quaternion"
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

    encoding: ClassVar[str] = "matrix4x4"
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
        joints: of a Franka, where the dataset has them.
    """

    encoding: ClassVar[str] = "euler"
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
class AxisAnglePose(Columns):
    """Position and rotation vector (axis times angle [rad]), 6 columns, as LIBERO has it."""

    encoding: ClassVar[str] = "axis_angle"
    position_unit: Literal["m", "mm"] = "m"
    timing: Timing = "same"


@dataclass(frozen=True, kw_only=True)
class Rotation6DPose(Columns):
    """Position and two vectors of the rotation matrix, 9 columns (Zhou et al. 2019).

    Attributes:
        vectors: which two of the matrix: its first columns, as in the paper, or rows.
    """

    encoding: ClassVar[str] = "rotation_6d"
    vectors: Literal["columns", "rows"] | None = needed()
    position_unit: Literal["m", "mm"] = "m"
    timing: Timing = "same"


@dataclass(frozen=True, kw_only=True)
class JointPose(Columns):
    """Joint angles of a Franka [rad], 7 columns; see poses.end_effector_poses."""

    encoding: ClassVar[str] = "franka_joints"
    end_effector: Literal["flange", "hand"] = "hand"
    timing: Timing = "same"


@dataclass(frozen=True, kw_only=True)
class PlanarPose(Columns):
    """x and y [m], 2 columns; height and orientation are constants."""

    encoding: ClassVar[str] = "planar"
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

    encoding: ClassVar[str] = "summed_deltas"
    translation_key: str
    rotation_key: str
    rotation: Literal["vector", "xyz", "XYZ", "zyx", "ZYX"] | None = needed()
    frame: Literal["base", "end_effector"] | None = needed()
    timing: Timing = "same"


PoseRule = (
    QuaternionPose
    | MatrixPose
    | EulerPose
    | AxisAnglePose
    | Rotation6DPose
    | JointPose
    | PlanarPose
    | SummedDeltas
)


def _require_joints(order: str | None, joints: Columns | None) -> None:
    if order == DETECT and joints is None:
        raise ConfigError(f"{DETECT!r} needs `joints`: the joint angles tell the order")


# The gripper ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LinearGripper(Columns):
    """One number between two that mean closed and open.

    Attributes:
        closed_at, open_at: the two numbers.
        margin: how far beyond them a number may be, as a share of their distance; it is clipped.
        saturate: any number beyond them is clipped.
    """

    encoding: ClassVar[str] = "linear"
    closed_at: float | None = needed()
    open_at: float | None = needed()
    margin: float = 0.1
    saturate: bool = False

    def __post_init__(self):
        if self.closed_at is not None and self.closed_at == self.open_at:
            raise ConfigError("closed_at and open_at are the same number")


@dataclass(frozen=True, kw_only=True)
class GripperEvents(Columns):
    """One number: above `threshold` the gripper is to close, below -threshold to open."""

    encoding: ClassVar[str] = "events"
    threshold: float = 0.1


@dataclass(frozen=True, kw_only=True)
class ConstantGripper:
    """A hand that does not open or close."""

    encoding: ClassVar[str] = "constant"
    opening: float


# Sentences, episodes and pictures ------------------------------------------------------------


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
        _check_pattern(self.matches)


@dataclass(frozen=True, kw_only=True)
class Subset:
    """A part of the dataset.

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
        _check_pattern(self.matches)


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
class DatasetSource:
    """Where the dataset is from.

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


def _check_pattern(pattern: str | None) -> None:
    """Raise ConfigError for what is no regular expression."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ConfigError(f"{pattern!r} is no regular expression ({error})") from None


# Rows ----------------------------------------------------------------------------------------

# What says nothing about what an episode becomes.
_NOT_HASHED = ("weight", "source", "notes", "unconfirmed", "subsets")


@dataclass(frozen=True)
class Unconfirmed:
    """A fact that nobody has confirmed: the dotted key, and what to check and how."""

    key: str
    check: str


@dataclass(frozen=True, kw_only=True)
class MotionRules:
    """How the motion of an episode is written, whatever the format of its files.

    Attributes:
        pose: measured pose of the end effector.
        command: commanded pose, or REACHED: not recorded, targets are reached poses.
        gripper_opening: measured, or FROM_COMMAND where nothing measures it.
        gripper_command: or FROM_MEASURED where none is recorded.
        conditions: all must hold, or the episode is left out.
    """

    pose: PoseRule | None = needed()
    command: PoseRule | Literal["reached"] | None = needed()
    gripper_opening: LinearGripper | ConstantGripper | Literal["from_command"] | None = needed()
    gripper_command: (
        LinearGripper | ConstantGripper | GripperEvents | Literal["from_measured"] | None
    ) = needed()
    conditions: tuple[Condition, ...] = ()

    @property
    def state_known(self) -> bool:
        """False where poses are sums of deltas."""
        return not isinstance(self.pose, SummedDeltas)

    @property
    def action_from(self) -> Literal["commanded", "reached"]:
        """Whether episodes have commanded poses."""
        return "reached" if self.command == REACHED else "commanded"

    @property
    def gripper_from(self) -> Literal["commanded", "measured"]:
        """Whether episodes have gripper commands."""
        return "measured" if self.gripper_command == FROM_MEASURED else "commanded"

    def missing(self) -> list[str]:
        """Dotted names of the needed fields, of this and of the rules in it, without a value."""
        return list(_missing(self, ""))


def _missing(rule: Any, prefix: str) -> Iterator[str]:
    for each in dataclasses.fields(rule):
        value, name = getattr(rule, each.name), prefix + each.name
        if value is None and each.metadata.get("needed"):
            yield name
        parts = value.items() if isinstance(value, Mapping) else [("", value)]
        for key, part in parts:
            if dataclasses.is_dataclass(part):
                yield from _missing(part, f"{name}.{key}." if key else f"{name}.")


@dataclass(frozen=True, kw_only=True)
class Row(MotionRules):
    """A row of the table; None stands for what is unconfirmed.

    Attributes:
        name, weight: in the mixture; the weights of all rows sum to 100.
        source: the dataset's name, versions and place.
        robot: which robot moved.
        control_hz: steps a second. RLDS holds no stamps: they are counted.
        cameras: by our name: "external", "wrist", and further ones with a number.
        language: the sentences.
        subset: the part of the dataset that this row is, where it is only a part.
        subsets: further parts that can be asked for by name.
        notes: where each fact is from, and what was decided.
        unconfirmed: facts that must be confirmed before the row can be used.
    """

    name: str
    weight: float
    source: DatasetSource
    robot: str
    control_hz: float
    cameras: Mapping[str, Camera]
    language: Language
    subset: Subset | None = None
    subsets: tuple[Subset, ...] = ()
    notes: tuple[str, ...] = ()
    unconfirmed: tuple[Unconfirmed, ...] = ()

    def __post_init__(self):
        for name in ("weight", "control_hz"):
            if not 0 < getattr(self, name) < 1e4:
                raise ConfigError(f"{name} is {getattr(self, name):g}: it must be positive")
        if not self.robot.strip():
            raise ConfigError(f"robot is {self.robot!r}: it must be a name")
        if EXTERNAL not in self.cameras:
            raise ConfigError(f"cameras must name the camera `{EXTERNAL}`")
        doubted = {each.key for each in self.unconfirmed}
        for name in self.missing():
            if name not in doubted:
                raise ConfigError(f"it lacks the field {name!r}")

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
            f"`ros2 run spear_training inspect_row {self.name} FOLDER`, then write what "
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


# Reading the table ---------------------------------------------------------------------------

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
        for name, changes in _read_rows(Path(mine)).items():
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


def read_row(name: str, values: Any, where: str) -> Row:
    """A row from its part of the table; `where` names the file in messages.

    Raises:
        DataFileError: an unknown, missing or impossible field; it is named.
    """
    unconfirmed: list[Unconfirmed] = []
    try:
        values = _without_unconfirmed(values, "", unconfirmed)
        return read_dataclass(Row, values, f"row {name}", name=name, unconfirmed=tuple(unconfirmed))
    except ConfigError as error:
        raise DataFileError(f"{where}: {error}") from None


def _without_unconfirmed(values: Any, key: str, found: list[Unconfirmed]) -> Any:
    """`values` without the places where `{unconfirmed: ...}` stands; those go to `found`."""
    if not isinstance(values, Mapping):
        return values
    kept = {}
    for name, value in values.items():
        path = f"{key}.{name}" if key else str(name)
        if isinstance(value, Mapping) and "unconfirmed" in value:
            if set(value) != {"unconfirmed"} or not isinstance(value["unconfirmed"], str):
                raise ConfigError(f"{path}: `unconfirmed` stands alone, with a text")
            found.append(Unconfirmed(path, value["unconfirmed"].strip()))
        else:
            kept[name] = _without_unconfirmed(value, path, found)
    return kept


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
        elif (
            both
            and "unconfirmed" not in old
            and change.get("encoding", old.get("encoding")) == old.get("encoding")
        ):
            result[key] = merged(old, change)
        else:
            result[key] = change
    return result


@cache
def _shipped() -> dict[str, Any]:
    return _read_rows(SHIPPED)


def _read_rows(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise DataFileError(f"{path}: must hold rows by name")
    return values


def read_yaml(path: Path, hint: str = "") -> Any:
    """What a YAML file says; `hint` follows the reason why it cannot be read.

    Raises:
        DataFileError: the file is missing or no YAML.
    """
    try:
        return yaml.load(path.read_text(), _LOADER)
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read ({error.strerror}){hint}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataFileError(f"{path}: not a YAML file ({error})") from None
