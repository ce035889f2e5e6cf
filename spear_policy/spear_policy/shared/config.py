"""Strict reading of configurations, with sentences for the people who wrote them.

First dataclasses from plain values: nothing unknown, missing or of another type. Then the check of
ROS parameter files.
"""

import dataclasses
import types
import typing
from pathlib import Path

import yaml


class ConfigError(ValueError):
    """A configuration that nothing can have; says which field and what it may be."""


def read_dataclass(kind: type, values: dict, where: str):
    """Turn a dict (from JSON) into the dataclass `kind`; `where` names it in messages.

    Raises:
        ConfigError: an unknown, missing or wrongly typed field; it is named.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where} is {values!r}: it must be an object with named fields")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        known = ", ".join(hints)
        raise ConfigError(f"{where} has the unknown field {unknown[0]!r}; it may have {known}")
    for each in dataclasses.fields(kind):
        no_default = each.default is each.default_factory is dataclasses.MISSING
        if no_default and each.name not in values:
            raise ConfigError(f"{where} lacks the field {each.name!r}")
    return kind(**{name: _read(hints[name], v, f"{where}.{name}") for name, v in values.items()})


def _read(kind, value, where):
    """Turn plain values into `kind`, which is what a field of a dataclass is annotated with."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return read_dataclass(kind, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{where} is {value!r}: it may be one of {', '.join(arguments)}")
        return value
    if origin in (typing.Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _read(inner, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} is {value!r}: it must be a list")
        return tuple(_read(arguments[0], each, f"{where}[{i}]") for i, each in enumerate(value))
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{where} is {value!r}: it must be {kind.__name__}")
    return kind(value)


# Parameter files of ROS ---------------------------------------------------------------------------


def params_file_problem(path: str | Path) -> str:
    """Why ROS could not read a parameter file, in a sentence with the fix; empty when it can.

    rclpy answers with a traceback that names a line of the file and no fix.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        return f"params_file {path} does not exist or cannot be read ({error.strerror})"
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return f"params_file {path} is not YAML: {' '.join(str(error).split())}"
    if not isinstance(content, dict):
        return (
            f"params_file {path} has no parameters; write `/**:`, `  ros__parameters:` and values"
        )
    if without := [str(key) for key, value in content.items() if not _sets_parameters(value)]:
        defines = "default_value" in str(content[without[0]])
        what = "defines parameters" if defines else "has no ros__parameters"
        return (
            f"params_file {path} {what} under {without[0]!r}, so it sets none: write the name of "
            "the node (or /**), below it `ros__parameters:` and below that `NAME: VALUE` lines"
        )
    return ""


def _sets_parameters(value) -> bool:
    """Whether a node's or a namespace's entry leads to ros__parameters everywhere."""
    if not isinstance(value, dict) or not value:
        return False
    return "ros__parameters" in value or all(map(_sets_parameters, value.values()))
