"""Parameters from one YAML a node: value, unit, bound and one line of why for each.

An entry of `config/<executable>.yaml`:
    robot_timeout_s: {default: 0.1, unit: s, bounds: [0.02, 2.0], safety: true, why: "..."}
`choices: [..]` replaces `bounds` for words. `live: true` lets a parameter change while the node
runs; all others are fixed from configure to cleanup. A value out of bounds fails `configure`.
"""

import difflib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult

from spear_policy.nodes.lifecycle import Refused

_KEYS = {"default", "unit", "bounds", "choices", "why", "safety", "live", "length"}
_KINDS = {bool: "true or false", float: "a number", int: "a whole number", str: "text"}


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter: its default, unit, inclusive bounds or choices, and why it exists."""

    name: str
    default: Any
    unit: str
    why: str
    bounds: tuple[float, float] | None = None
    choices: tuple | None = None
    length: int | None = None
    safety: bool = False
    live: bool = False

    @property
    def description(self) -> str:
        """One line with unit and bound, as `ros2 param describe` shows it."""
        bound = f", {list(self.bounds)}" if self.bounds else ""
        bound += f", one of {list(self.choices)}" if self.choices else ""
        return f"{self.why} [{self.unit}{bound}]"

    def complaint(self, value: Any) -> str | None:
        """What is wrong with `value`, in a sentence; None when nothing is."""
        kind = "safety parameter" if self.safety else "parameter"
        if wanted := self._wanted_type(value):
            return f"{kind} {self.name} is {value!r}; it must be {wanted}"
        if self.choices is not None and value not in self.choices:
            return f"{kind} {self.name} is {value!r}; it must be one of {list(self.choices)}"
        if self.length is not None and len(value) != self.length:
            return f"{kind} {self.name} has {len(value)} numbers; it needs {self.length}"
        for number in value if _is_list(value) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                return f"{kind} {self.name} is {value!r}; it must be finite"
            if self.bounds is None or isinstance(number, str | bool):
                continue
            low, high = self.bounds
            if not low <= number <= high:
                bound = f"{low} to {high} {self.unit}"
                return f"{kind} {self.name} is {value!r} {self.unit}; it must be {bound}"
        return None

    def _wanted_type(self, value: Any) -> str:
        """Which type it must have instead, in words; empty when it has it."""
        if _is_list(self.default):
            kind, values = type(self.default[0]), list(value) if _is_list(value) else [None]
        else:
            kind, values = type(self.default), [value]
        if all(_is_of(kind, each) for each in values):
            return ""
        return f"a list, each {_KINDS[kind]}" if _is_list(self.default) else _KINDS[kind]

    def typed(self, value: Any) -> Any:
        """The value in the type of the default: 1 becomes 1.0, an array becomes a list."""
        if _is_list(self.default):
            return [float(v) if isinstance(self.default[0], float) else v for v in value]
        return float(value) if isinstance(self.default, float) else value


def read_specs(path: Path) -> dict[str, ParameterSpec]:
    """The parameters of a YAML file in its order.

    Raises:
        ValueError: an entry lacks default, unit or why, has an unknown key, or a default out of
            its own bounds.
    """
    specs = {}
    for name, entry in yaml.safe_load(Path(path).read_text()).items():
        missing = {"default", "unit", "why"} - set(entry)
        unknown = set(entry) - _KEYS
        if missing or unknown:
            raise ValueError(f"{path}: {name} lacks {sorted(missing)} or has {sorted(unknown)}")
        fields = {key: tuple(v) if key in ("bounds", "choices") else v for key, v in entry.items()}
        spec = ParameterSpec(name=name, **fields)
        if problem := spec.complaint(spec.default):
            raise ValueError(f"{path}: the default is out of bounds: {problem}")
        specs[name] = spec
    return specs


def parameter_table(package: str, name: str) -> str:
    """The parameters of a node for its `--help`: name, default, unit, bound and reason."""
    specs = read_specs(_config(package, name)).values()
    return "\n".join(
        f"  {spec.name} = {spec.default!r}\n      {spec.description}" for spec in specs
    )


def _config(package: str, name: str) -> Path:
    return Path(get_package_share_directory(package)) / "config" / f"{name}.yaml"


class Parameters:
    """The parameters of one node: declared at once, checked on configure, read by name.

    Args:
        node: a SpearNode.
        package, name: the YAML is `share/<package>/config/<name>.yaml`.
    """

    def __init__(self, node, package: str, name: str):
        self.specs = read_specs(_config(package, name))
        self._node = node
        self.fixed = False
        for spec in self.specs.values():
            # rclpy would end the node with a traceback when somebody writes 1 for 1.0; the type is
            # judged in configure, with a sentence.
            descriptor = ParameterDescriptor(description=spec.description, dynamic_typing=True)
            node.declare_parameter(spec.name, spec.default, descriptor)
        node.add_on_set_parameters_callback(self._judge)

    def __getitem__(self, name: str) -> Any:
        return self.specs[name].typed(self._raw(name))

    def _raw(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def check(self) -> None:
        """Raise Refused naming every parameter that is wrong; then hold the fixed ones fixed.

        A given parameter that the node does not know is warned of: it may be a misspelt limit.
        """
        for name in self._unknown():
            meant = difflib.get_close_matches(name, self.specs, 1)
            hint = f"; did you mean {meant[0]}?" if meant else ""
            self._node.get_logger().warning(f"parameter {name} is unknown here and ignored{hint}")
        complaints = [spec.complaint(self._raw(name)) for name, spec in self.specs.items()]
        if problems := [complaint for complaint in complaints if complaint]:
            raise Refused("; ".join(problems))
        self.fixed = True

    def _unknown(self) -> list[str]:
        given = self._node._parameter_overrides
        return [name for name in given if not self._node.has_parameter(name)]

    def release(self) -> None:
        """Let fixed parameters change again; call it in cleanup()."""
        self.fixed = False

    def _judge(self, changes) -> SetParametersResult:
        for change in changes:
            spec = self.specs.get(change.name)
            if spec is None:
                continue
            if self.fixed and not spec.live:
                reason = f"{change.name} is fixed while the node is configured; clean it up first"
                return SetParametersResult(successful=False, reason=reason)
            if problem := spec.complaint(change.value):
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) or hasattr(value, "tolist")


def _is_of(kind: type, value: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
