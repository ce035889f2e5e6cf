"""Rows of the mixture table from plain values: nothing unknown, missing or impossible."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from spear_policy.model.config_reading import ConfigError, read_dataclass
from spear_training.data.oxe import pose_rules, rules
from spear_training.data.oxe.row import Row, Unconfirmed
from spear_training.data.oxe.rules import FROM_COMMAND, FROM_MEASURED, REACHED
from spear_training.data.reader import DataFileError

POSES = {
    "quaternion": pose_rules.QuaternionPose,
    "matrix4x4": pose_rules.MatrixPose,
    "euler": pose_rules.EulerPose,
    "franka_joints": pose_rules.JointPose,
    "planar": pose_rules.PlanarPose,
    "summed_deltas": pose_rules.SummedDeltas,
}
OPENINGS = {"linear": rules.LinearGripper, "constant": rules.ConstantGripper}
COMMANDS = OPENINGS | {"events": rules.GripperEvents}


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
    for path in rules.missing(rule, key):
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


def _cameras(value: Any, where: str) -> dict[str, rules.Camera]:
    if not isinstance(value, Mapping) or "external" not in value:
        raise ConfigError(f"{where} must name the camera `external`")
    return {name: read_dataclass(rules.Camera, v, f"{where}.{name}") for name, v in value.items()}


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
    "source": _one(rules.Source),
    "robot": _text,
    "control_hz": _number,
    "cameras": _cameras,
    "pose": tagged(POSES),
    "command": tagged(POSES, REACHED),
    "gripper_opening": tagged(OPENINGS, FROM_COMMAND),
    "gripper_command": tagged(COMMANDS, FROM_MEASURED),
    "language": _one(rules.Language),
    "conditions": _many(rules.Condition),
    "subset": _one(rules.Subset),
    "subsets": _many(rules.Subset),
    "notes": _texts,
}
_OPTIONAL = ("conditions", "subset", "subsets", "notes")
