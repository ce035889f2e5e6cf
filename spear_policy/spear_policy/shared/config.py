"""Strict reading of configurations, with sentences for the people who wrote them.

First dataclasses from plain values: nothing unknown, missing or of another type. Then the check of
ROS parameter files.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml


class ConfigError(ValueError):
    """A configuration that nothing can have; says which field and what it may be."""


def read_dataclass(kind: type, values: Any, where: str, **given: Any):
    """Turn a dict (from JSON or YAML) into the dataclass `kind`.

    A field may be a number, a text, a truth value, a Literal, a dataclass, a `tuple[X, ...]` or a
    `Mapping[str, X]` of these, or a union: of one of these with None or with words (a Literal), or
    of several dataclasses. Those have a ClassVar in common whose name is the key that tells them
    apart: {"encoding": "euler", ...} is the dataclass with `encoding: ClassVar[str] = "euler"`.

    Args:
        kind: the dataclass.
        values: the dict.
        where: its name in messages.
        given: fields that do not come from the dict.

    Raises:
        ConfigError: an unknown, missing, wrongly typed or impossible field; it is named.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} is {values!r}: it must be an object with named fields")
    fields = {e.name: e for e in dataclasses.fields(kind) if e.name not in given}
    unknown = sorted(map(str, set(values) - set(fields)))
    if unknown:
        known = ", ".join(fields)
        raise ConfigError(f"{where} has the unknown field {unknown[0]!r}; it may have {known}")
    for each in fields.values():
        no_default = each.default is each.default_factory is dataclasses.MISSING
        if no_default and each.name not in values:
            raise ConfigError(f"{where} lacks the field {each.name!r}")
    hints = typing.get_type_hints(kind)
    read = {name: _read(hints[name], v, f"{where}.{name}") for name, v in values.items()}
    try:
        return kind(**read, **given)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _read(kind, value, where):
    """Turn plain values into `kind`, which is what a field of a dataclass is annotated with."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return read_dataclass(kind, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{where} is {value!r}: it may be one of {', '.join(arguments)}")
        return value
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} is {value!r}: it must be a list")
        return tuple(_read(arguments[0], each, f"{where}[{i}]") for i, each in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {value!r}: it must have named entries")
        return {str(key): _read(arguments[1], v, f"{where}.{key}") for key, v in value.items()}
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{where} is {value!r}: it must be {kind.__name__}")
    return kind(value)


def _read_union(kinds, value, where):
    """One of several dataclasses by their tag, or the only kind besides None and words."""
    words = [word for kind in kinds for word in _words(kind)]
    if (value is None and type(None) in kinds) or value in words:
        return value
    others = tuple(kind for kind in kinds if kind is not type(None) and not _words(kind))
    if len(others) == 1:
        return _read(others[0], value, where)
    if not others:
        raise ConfigError(f"{where} is {value!r}: it may be one of {', '.join(words)}")
    tag = _tag(others)
    members = {getattr(member, tag): member for member in others}
    named = value.get(tag) if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping) or named not in list(members):
        also = f", or the word {' or '.join(words)}" if words else ""
        raise ConfigError(f"{where} has {tag} {named!r}; it may be {', '.join(members)}{also}")
    return read_dataclass(members[named], {k: v for k, v in value.items() if k != tag}, where)


def _words(kind) -> tuple:
    return typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()


@cache
def _tag(members: tuple[type, ...]) -> str:
    """The name of the ClassVar that all members of a union have."""
    tags = [
        {n for n, h in typing.get_type_hints(m).items() if typing.get_origin(h) is typing.ClassVar}
        for m in members
    ]
    return set.intersection(*tags).pop()


# Parameter files of ROS ---------------------------------------------------------------------------


class _ParameterLoader(yaml.SafeLoader):
    """Takes a tuple too: launch_ros writes every list as one, and rcl does not look at tags."""


_ParameterLoader.add_constructor(
    "tag:yaml.org,2002:python/tuple", yaml.SafeLoader.construct_sequence
)


def params_file_problem(path: str | Path) -> str:
    """Why ROS could not read a parameter file, in a sentence with the fix; empty when it can.

    rclpy answers with a traceback that names a line of the file and no fix.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _ParameterLoader)
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
