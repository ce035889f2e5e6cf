"""Which columns of a LeRobotDataset hold what: no two labs name or write them alike.

A user writes it as YAML, in the words of the mixture table (oxe/rules.py), with the data set's
own column names as keys:

    cameras: {external: observation.images.front, wrist: observation.images.hand}
    pose: {encoding: quaternion, key: observation.state, order: xyzw}
    command: {encoding: euler, key: action, axes: xyz}               # or: reached
    gripper_opening:                                                 # or: from_command
      {encoding: linear, key: observation.state, first_column: 7, closed_at: 0, open_at: 1}
    gripper_command:                                                 # or: from_measured
      {encoding: linear, key: action, first_column: 6, closed_at: 1, open_at: 0}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from spear_policy.model.config_reading import ConfigError, read_dataclass
from spear_training.data.oxe import pose_rules, rules
from spear_training.data.oxe.pose_rules import DETECT
from spear_training.data.oxe.row_reading import COMMANDS, OPENINGS, POSES, tagged
from spear_training.data.oxe.rules import FROM_COMMAND, FROM_MEASURED, REACHED
from spear_training.data.reader import DataFileError
from spear_training.data.store.columns import ACTION, STAMP, STATE, picture_column
from spear_training.data.store.facts import EXTERNAL, StoreFacts

# Data sets that many people use, by the name to give instead of a file.
PRESETS = {"droid": Path(__file__).with_name("droid_keys.yaml")}


@dataclass(frozen=True, kw_only=True)
class LeRobotKeys:
    """Where things are. The rules are those of the mixture table; see oxe/rules.py.

    Attributes:
        cameras: our name -> the feature of its pictures; "external" must be there.
        pose: measured pose of the end effector.
        command: where it was told to be, or REACHED.
        gripper_opening: measured, or FROM_COMMAND where nothing measures it.
        gripper_command: what it was told, or FROM_MEASURED.
        sentences: text columns with sentences besides the data set's task.
        stamps: column of true stamps [s]; "" for LeRobot's `timestamp`.
        conditions: all must hold in an episode's first row, or the episode is left out.
        robot: which robot moved; "" for what info.json says.
        native_aspects: camera -> width over height of the scene, for pictures that were squashed
            to another shape; [4, 3] in YAML.
    """

    cameras: Mapping[str, str]
    pose: pose_rules.PoseRule
    command: pose_rules.PoseRule | str
    gripper_opening: rules.LinearGripper | rules.ConstantGripper | str
    gripper_command: rules.LinearGripper | rules.ConstantGripper | rules.GripperEvents | str
    sentences: tuple[str, ...] = ()
    stamps: str = ""
    conditions: tuple[rules.Condition, ...] = ()
    robot: str = ""
    native_aspects: Mapping[str, float] = field(default_factory=dict)


def store_keys(facts: StoreFacts) -> LeRobotKeys:
    """The keys of a store of our own."""
    commanded = facts.action_from == "commanded"
    told = facts.gripper_from == "commanded"
    linear = {"first_column": 7, "closed_at": 0.0, "open_at": 1.0}
    return LeRobotKeys(
        cameras={name: picture_column(name) for name in facts.camera_names},
        pose=pose_rules.QuaternionPose(key=STATE, order="xyzw"),
        command=pose_rules.QuaternionPose(key=ACTION, order="xyzw") if commanded else REACHED,
        gripper_opening=rules.LinearGripper(key=STATE, **linear),
        gripper_command=rules.LinearGripper(key=ACTION, **linear) if told else FROM_MEASURED,
        stamps=STAMP,
        robot=facts.robot,
    )


def load_keys(name: str | Path) -> LeRobotKeys:
    """The keys of a preset, or of a user's YAML file.

    Raises:
        DataFileError: the file is missing or no YAML, or an entry is unknown, missing or
            impossible; it is named.
    """
    path = PRESETS.get(str(name), Path(name))
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise DataFileError(
            f"{path}: cannot be read ({error.strerror}); give a YAML file, or a preset: "
            f"{', '.join(PRESETS)}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataFileError(f"{path}: not a YAML file ({error})") from None
    try:
        return read_keys(values)
    except ConfigError as error:
        raise DataFileError(f"{path}: {error}") from None


def read_keys(values: Any) -> LeRobotKeys:
    """The keys from plain values, as YAML gives them.

    Raises:
        ConfigError: an unknown, missing or impossible entry; it is named.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"the keys are {values!r}: they must be named entries")
    of_rules = {
        "pose": tagged(POSES),
        "command": tagged(POSES, REACHED),
        "gripper_opening": tagged(OPENINGS, FROM_COMMAND),
        "gripper_command": tagged(COMMANDS, FROM_MEASURED),
    }
    wanting = sorted({"cameras", *of_rules} - set(values))
    if wanting:
        raise ConfigError(f"the entry {wanting[0]!r} is missing")
    cameras = values["cameras"]
    if not isinstance(cameras, Mapping) or EXTERNAL not in cameras:
        raise ConfigError(f"cameras are {cameras!r}: name the feature of {EXTERNAL!r} at least")
    parts = {name: _checked(read(values[name], name), name) for name, read in of_rules.items()}
    parts["cameras"] = {str(name): str(key) for name, key in cameras.items()}
    parts["native_aspects"] = _aspects(values.get("native_aspects", {}), cameras)
    plain = {key: value for key, value in values.items() if key not in parts}
    return LeRobotKeys(**parts, **vars(read_dataclass(_Plain, plain, "keys")))


@dataclass(frozen=True)
class _Plain:
    """The entries that are no rules."""

    sentences: tuple[str, ...] = ()
    stamps: str = ""
    conditions: tuple[rules.Condition, ...] = ()
    robot: str = ""


def _checked(rule: Any, where: str) -> Any:
    """The rule, or the word in its place, if it is one that is read here."""
    if isinstance(rule, str):
        return rule
    for path in rules.missing(rule, where):
        raise ConfigError(f"the entry {path!r} is missing")
    for name in ("order", "axes"):
        if getattr(rule, name, None) == DETECT and not isinstance(rule, pose_rules.MatrixPose):
            raise ConfigError(f"{where}.{name} is {DETECT!r}: state it")
    if getattr(rule, "timing", "same") != "same":
        raise ConfigError(f"{where}.timing is {rule.timing!r}: only 'same' is read here")
    return rule


def _aspects(values: Any, cameras: Mapping[str, str]) -> dict[str, float]:
    if not isinstance(values, Mapping) or not set(values) <= set(cameras):
        raise ConfigError(f"native_aspects are {values!r}: give one by camera, like [4, 3]")
    aspects = {}
    for name, value in values.items():
        try:
            width, height = (float(side) for side in value)
            aspects[str(name)] = width / height
        except (TypeError, ValueError, ZeroDivisionError):
            raise ConfigError(
                f"native_aspects.{name} is {value!r}: it must be width and height, like [4, 3]"
            ) from None
    return aspects
