"""Strict reading of dataclasses from plain values: nothing unknown, missing or of another type."""

import dataclasses
import types
import typing


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
